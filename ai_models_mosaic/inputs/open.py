"""An input of any kind, opened for a program: where members start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..options.lagging import Lagging
from ..state import InitialState
from ..variants import Variant
from ..wording.redaction import redacted
from .fields import AvailableFields, Wanted, list_available
from .grib_messages import find_messages
from .histories import choose_histories
from .lagged import lagged_states
from .requests import check_file
from .states import initial_states_of
from .zarr import dataset_fields, zarr_fields
from .zarr_store.opening import is_zarr


@dataclass(frozen=True)
class OpenInput:
    """An input that was looked at: it holds a complete history, whose values are read when they are needed.

    Parameters
    ----------
    variant : Variant
        Whose grid and history are needed.
    held : callable
        Gives the fields that there are for an initial time.
    wanted : Wanted
        The initial time.
    source : str
        Where it is from, for people and for replay.

    Raises
    ------
    InputError
        If no history is complete; says what is missing.
    """

    variant: Variant
    held: Callable[[Wanted], AvailableFields]
    wanted: Wanted
    source: str

    def __post_init__(self) -> None:
        # It raises if there is none.
        _ = self.initial_time

    @cached_property
    def initial_time(self) -> datetime:
        """Valid time of the newest state, UTC without zone."""
        histories = choose_histories(self._available, self.variant.lags_hours, self.wanted)
        return next(iter(histories.values())).times[-1]

    def states(
        self, members: Sequence[int], starts: int = 0, lagging: Lagging | None = None
    ) -> dict[int, InitialState]:
        """Where some members start: from their own member of the input, where that is an ensemble.

        Parameters
        ----------
        members : sequence of int
            Of the forecast, from 1.
        starts : int
            Of a crossed ensemble, how many; else 0.
        lagging : Lagging or None
            How long before the initial time members start; None: all at that time.

        Returns
        -------
        dict of int to InitialState
            On the variant's grid; those that start from the same share one.

        Raises
        ------
        InputError
            If a start is not there, or a value is unreadable, not finite or unphysical; names all fields that are.
        """
        if lagging is None:
            return self._states_of(self._available, self.wanted, members, starts)
        return lagged_states(
            lambda wanted, own: self._states_of(self.held(wanted), wanted, own, starts),
            self.initial_time,
            lagging,
            members,
        )

    @cached_property
    def _available(self) -> AvailableFields:
        return self.held(self.wanted)

    def _states_of(
        self, available: AvailableFields, wanted: Wanted, members: Sequence[int], starts: int
    ) -> dict[int, InitialState]:
        grid, lags = self.variant.architecture.grid, self.variant.lags_hours
        return initial_states_of(available, grid, lags, wanted, members, starts)


def open_for(source: Any, variant: Variant, time: datetime | None = None) -> OpenInput:
    """Open an input for a variant.

    Parameters
    ----------
    source : str, Path, xarray.Dataset or iterable of earthkit-data fields
        A GRIB file, a Zarr store, a URL of one, a dataset in the layout of WeatherBench 2, or GRIB fields.
    variant : Variant
        Whose grid and history are needed.
    time : datetime or None
        The initial time, UTC where it has no zone; None for the newest complete history.

    Returns
    -------
    OpenInput
        Looked at; values are read when they are needed.

    Raises
    ------
    InputError
        If it is none of these, or does not hold what is needed.
    """
    wanted, lags = Wanted(time=None if time is None else _in_utc(time)), variant.lags_hours
    if isinstance(source, str | Path):
        name = check_file(str(source))
        shown = redacted(str(Path(name).resolve()) if Path(name).exists() else name)
        if is_zarr(name):
            return OpenInput(variant, partial(zarr_fields, name, lags), wanted, shown)
        return OpenInput(variant, _always(list_available(find_messages(Path(name)))), wanted, shown)
    if hasattr(source, "data_vars"):
        return OpenInput(variant, partial(dataset_fields, source, lags), wanted, "xarray.Dataset")
    if hasattr(source, "__iter__"):
        return OpenInput(variant, _always(list_available(source)), wanted, type(source).__name__)
    raise InputError(
        f"expected a path, a URL, an xarray.Dataset or earthkit-data fields to start from, got {type(source).__name__}"
    )


def _always(available: AvailableFields) -> Callable[[Wanted], AvailableFields]:
    """What was listed once, whatever the initial time."""
    return lambda _: available


def _in_utc(time: datetime) -> datetime:
    """A time as fields have it: UTC, without zone."""
    if not isinstance(time, datetime):
        raise InputError(f"--date: expected a datetime, got {time!r}")
    return time if time.tzinfo is None else time.astimezone(timezone.utc).replace(tzinfo=None)
