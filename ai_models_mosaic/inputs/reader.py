"""From the names of a source and some initial times to where every member starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from ..errors import InputError
from ..options.lagging import Lagging
from ..state import InitialState
from ..variants import Variant
from .fields import AvailableFields, Wanted, list_available
from .histories import choose_histories
from .initial_times import time_of, utc_now
from .lagged import lagged_states
from .requests import is_reanalysis
from .retrieve import SOURCE_OF_INPUT, FileSource, Source, scratch
from .services import Service, check_reachable, check_times, find_account, kept_days
from .states import initial_states_of
from .zarr import is_zarr, zarr_fields


@dataclass
class InputReader:
    """Reads the states of a file, a store or a service, for one initial time after the other.

    Parameters
    ----------
    source : str
        ``file``, or one of `services.SOURCES`.
    file : str or None
        A GRIB file or a Zarr store.
    variant : Variant
        Whose grid and history are needed.
    members : sequence of int
        Of the forecast.
    grid_deg : float
        Grid to ask a service for.
    patience_s : float
        How long a service may be out of reach, s.
    other : Source or None
        Where fields come from if neither from a file nor from one of these services.
    starts : int
        Of a crossed ensemble, how many; else 0.
    lagging : Lagging or None
        How long before the run members start, where that is at several times.
    """

    source: str
    file: str | None
    variant: Variant
    members: Sequence[int]
    grid_deg: float
    patience_s: float
    other: Source | None = None
    starts: int = 0
    lagging: Lagging | None = None
    _service: Service | None = field(default=None, init=False)
    _stock: AvailableFields | None = field(default=None, init=False)

    def check(self, wanted: Sequence[Wanted]) -> None:
        """Raise if a service could not be asked; a file was looked at before.

        Parameters
        ----------
        wanted : sequence of Wanted
            The initial times. One of several that is out of reach fails alone, when it is its turn.

        Raises
        ------
        InputError
            If there is no account, the service does not answer, or does not have the only initial time.
        OptionError
            If there is no analysis at its hour.
        """
        if self.source not in SOURCE_OF_INPUT:
            return
        service = find_account(self.source)
        for hours in (0,) if self.lagging is None else self.lagging.hours:
            if len(wanted) == 1:
                self._check_time(service, time_of(wanted[0]) + timedelta(hours=hours))
        check_reachable(service)
        self._service = service

    def read(self, wanted: Wanted) -> dict[int, InitialState]:
        """Where every member of the forecast starts.

        Parameters
        ----------
        wanted : Wanted
            The initial time.

        Raises
        ------
        InputError
            As `inputs.initial_states_of`, and whatever a service cannot do.
        """
        if self.lagging is None:
            return self._read(wanted, self.members)
        return lagged_states(self._read, self._time_of(wanted), self.lagging, self.members)

    def _read(self, wanted: Wanted, members: Sequence[int]) -> dict[int, InitialState]:
        if self.file is not None:
            return self._states(self._held(self.file, wanted), wanted, members)
        times = [time_of(wanted) + timedelta(hours=lag) for lag in self.variant.lags_hours]
        source = self.other or self._asked_service(times[-1])
        with scratch() as folder:
            return self._states(list_available(source.fields(times, folder)), wanted, members)

    def _time_of(self, wanted: Wanted) -> datetime:
        """The initial time; of a file where not all of it was asked for, the newest."""
        if self.file is None or wanted.time is not None:
            return time_of(wanted)
        histories = choose_histories(self._held(self.file, wanted), self.variant.lags_hours, wanted)
        return next(iter(histories.values())).times[-1]

    def _held(self, file: str, wanted: Wanted) -> AvailableFields:
        """What a file holds: of GRIB looked at once, of a store for every initial time."""
        if is_zarr(file):
            return zarr_fields(file, self.variant.lags_hours, wanted)
        if self._stock is None:
            self._stock = list_available(FileSource(file).fields((), Path()))
        return self._stock

    def _asked_service(self, initial_time: datetime) -> Source:
        if self._service is None:
            raise InputError(f"expected a file, or one of {', '.join(SOURCE_OF_INPUT)}, got {self.source}")
        self._check_time(self._service, initial_time)
        return SOURCE_OF_INPUT[self.source](self._service, self.variant, self.grid_deg, self.patience_s)

    def _states(self, available: AvailableFields, wanted: Wanted, members: Sequence[int]) -> dict[int, InitialState]:
        grid, lags = self.variant.architecture.grid, self.variant.lags_hours
        return initial_states_of(available, grid, lags, wanted, members, self.starts)

    def _check_time(self, service: Service, initial_time: datetime) -> None:
        reanalysis = is_reanalysis(self.source, self.variant)
        lags = self.variant.lags_hours
        check_times(initial_time, lags, utc_now(), reanalysis=reanalysis, kept_days=kept_days(service))
