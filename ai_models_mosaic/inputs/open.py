"""An input of any kind, opened for a program: where members start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..state import InitialState
from ..variants import Variant
from ..wording.redaction import redacted
from .fields import AvailableFields, Wanted, list_available
from .grib_messages import find_messages
from .histories import choose_histories
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
    available : AvailableFields
        The fields that there are.
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
    available: AvailableFields
    wanted: Wanted
    source: str

    def __post_init__(self) -> None:
        # It raises if there is none.
        _ = self.initial_time

    @cached_property
    def initial_time(self) -> datetime:
        """Valid time of the newest state, UTC without zone."""
        histories = choose_histories(self.available, self.variant.lags_hours, self.wanted)
        return next(iter(histories.values())).times[-1]

    def states(self, members: Sequence[int], starts: int = 0) -> dict[int, InitialState]:
        """Where some members start: from their own member of the input, where that is an ensemble.

        Parameters
        ----------
        members : sequence of int
            Of the forecast, from 1.
        starts : int
            Of a crossed ensemble, how many; else 0.

        Returns
        -------
        dict of int to InitialState
            On the variant's grid; those that start from the same share one.

        Raises
        ------
        InputError
            If a value is unreadable, not finite or unphysical; names all fields that are.
        """
        grid, lags = self.variant.architecture.grid, self.variant.lags_hours
        return initial_states_of(self.available, grid, lags, self.wanted, members, starts)


def open_for(source: Any, variant: Variant, time: datetime | None = None) -> OpenInput:
    """Open an input for a variant.

    Parameters
    ----------
    source : str, Path, xarray.Dataset or iterable of earthkit-data fields
        A GRIB file, a Zarr store, a URL of one, a dataset in the layout of WeatherBench 2, or GRIB fields.
    variant : Variant
        Whose grid and history are needed.
    time : datetime or None
        The initial time, UTC without zone; None for the newest complete history.

    Returns
    -------
    OpenInput
        Looked at; values are read when they are needed.

    Raises
    ------
    InputError
        If it is none of these, or does not hold what is needed.
    """
    wanted, lags = Wanted(time=time), variant.lags_hours
    if isinstance(source, str | Path):
        name = check_file(str(source))
        shown = redacted(str(Path(name).resolve()) if Path(name).exists() else name)
        found = zarr_fields(name, lags, wanted) if is_zarr(name) else list_available(find_messages(Path(name)))
        return OpenInput(variant, found, wanted, shown)
    if hasattr(source, "data_vars"):
        return OpenInput(variant, dataset_fields(source, lags, wanted), wanted, "xarray.Dataset")
    if hasattr(source, "__iter__"):
        return OpenInput(variant, list_available(source), wanted, type(source).__name__)
    raise InputError(
        f"expected a path, a URL, an xarray.Dataset or earthkit-data fields to start from, got {type(source).__name__}"
    )
