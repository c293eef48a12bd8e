"""Fields from a Zarr store in the layout of WeatherBench 2.

Variables are named as the channels are, with dimensions time, level, latitude and longitude in
any order and direction; levels are in hPa. Stores may be local or anything that fsspec opens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from .arrays import FloatArray
from .channels import CHANNELS, Channel
from .errors import InputError
from .grid import LatLonGrid
from .holdings import HeldField, Holdings, Wanted
from .inputs import initial_state_of
from .state import InitialState

if TYPE_CHECKING:
    import xarray

SUFFIX = ".zarr"

DIMENSIONS = {
    "time": ("time", "valid_time"),
    "level": ("level", "isobaricInhPa", "pressure_level", "plev"),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon"),
}
"""Names that each dimension may have."""


def is_zarr(path: str) -> bool:
    """Whether a path or URL names a Zarr store, by its ending."""
    return path.rstrip("/").endswith(SUFFIX)


def read_zarr(path: str, grid: LatLonGrid, lags_hours: Sequence[int], wanted: Wanted | None = None) -> InitialState:
    """Select, check and regrid the history of a Zarr store.

    Parameters
    ----------
    path : str
        Local path, or a URL that fsspec knows, such as ``gs://…/era5.zarr``.
    grid : LatLonGrid
        The variant's grid.
    lags_hours : sequence of int
        Hours of the states relative to the initial time, oldest first.
    wanted : Wanted or None
        The initial time; None for the newest complete history.

    Raises
    ------
    InputError
        If the store cannot be opened or has no usable time, and as `inputs.read_initial_state`.
    """
    wanted = wanted or Wanted()
    return initial_state_of(zarr_holdings(path, lags_hours, wanted), grid, lags_hours, wanted)


def zarr_holdings(path: str, lags_hours: Sequence[int], wanted: Wanted) -> Holdings:
    """What a store holds for one initial time; arguments and errors are those of `read_zarr`."""
    dataset = open_store(path)
    times = store_times(dataset, path)
    return _holdings(Store(dataset), times, lags_hours, wanted)


class Store:
    """Reads a store variable by variable and time by time: chunks usually hold all levels.

    Parameters
    ----------
    dataset : xarray.Dataset
        With the dimensions time, level, latitude and longitude.
    """

    def __init__(self, dataset: xarray.Dataset) -> None:
        self.dataset = dataset
        self.levels_hpa = [round(float(level)) for level in dataset["level"].values]
        # Levels are asked for one after another, so the last block is enough.
        self._block = lru_cache(maxsize=1)(self._read_block)

    def has(self, channel: Channel) -> bool:
        """Whether the store has the channel's variable and level."""
        return channel.variable in self.dataset and channel.level_hpa in (None, *self.levels_hpa)

    def read(self, channel: Channel, time_index: int) -> FloatArray:
        """One field, ``(latitude, longitude)``, as the store has it."""
        block = self._block(channel.variable, time_index)
        return block if channel.level_hpa is None else block[self.levels_hpa.index(channel.level_hpa)]

    def _read_block(self, variable: str, time_index: int) -> FloatArray:
        return self.dataset[variable].isel(time=time_index).transpose(..., "latitude", "longitude").values


@dataclass(frozen=True)
class ZarrField:
    """One field of a store, with as much of an earthkit-data field's manner as `inputs` needs.

    Parameters
    ----------
    store : Store
        Where the values are read, when they are asked for.
    channel : Channel
        Which field.
    time_index : int
        Which time.
    """

    store: Store
    channel: Channel
    time_index: int

    def to_numpy(self, *, flatten: bool, dtype: type) -> FloatArray:
        """The values, ``(latitude · longitude,)`` if flattened."""
        values: FloatArray = self.store.read(self.channel, self.time_index).astype(dtype)
        return values.ravel() if flatten else values

    def to_latlon(self, *, flatten: bool) -> dict[str, FloatArray]:
        """Coordinates of the values, degrees."""
        axes = (self.store.dataset[name].values for name in ("latitude", "longitude"))
        latitude, longitude = np.meshgrid(*axes, indexing="ij")
        return {"lat": latitude.ravel(), "lon": longitude.ravel()} if flatten else {"lat": latitude, "lon": longitude}

    def message(self) -> bytes:
        """What the digest of the input is made of."""
        return self.store.read(self.channel, self.time_index).tobytes()


def open_store(path: str) -> xarray.Dataset:
    """Open a store, its dimensions renamed to time, level, latitude and longitude.

    Raises
    ------
    InputError
        If a package is missing, the store cannot be opened, or it lacks a dimension.
    """
    try:
        import xarray
        import zarr  # noqa: F401
    except ImportError as error:
        raise InputError(f"reading {path} needs xarray and zarr: pip install 'ai-models-mosaic[zarr]'") from error
    try:
        dataset = xarray.open_dataset(path, engine="zarr", chunks=None)
    except ImportError as error:
        raise InputError(f"reading {path} needs another package: {error}") from error
    except Exception as error:
        raise InputError(f"{path} cannot be opened as a Zarr store: {type(error).__name__}: {error}") from error
    found = {name: wanted for wanted, names in DIMENSIONS.items() for name in names if name in dataset.dims}
    missing = sorted(set(DIMENSIONS) - set(found.values()))
    if missing:
        raise InputError(
            f"{path}: expected the dimensions time, level, latitude and longitude, as in WeatherBench 2; "
            f"got {', '.join(str(name) for name in dataset.dims)}"
        )
    return dataset.rename({name: wanted for name, wanted in found.items() if name != wanted})


def store_times(dataset: xarray.Dataset, path: str) -> list[datetime]:
    """The store's times, UTC without zone.

    Raises
    ------
    InputError
        If they do not decode to dates.
    """
    values = dataset["time"].values
    if not np.issubdtype(values.dtype, np.datetime64):
        raise InputError(f"{path}: expected times that decode to dates, got {values.dtype} ({dataset['time'].attrs})")
    return values.astype("datetime64[s]").astype(datetime).tolist()


def _holdings(store: Store, times: Sequence[datetime], lags_hours: Sequence[int], wanted: Wanted) -> Holdings:
    """The fields of the one history that may be used: an archive has far too many to look at all."""
    index_of = {time: index for index, time in enumerate(times)}
    accepted = sorted((time for time in times if wanted.accepts(time)), reverse=True)
    history_of = {time: [time + timedelta(hours=lag) for lag in lags_hours] for time in accepted}
    whole = [time for time in accepted if all(state in index_of for state in history_of[time])]
    states = [state for time in (whole or accepted)[:1] for state in history_of[time] if state in index_of]
    holdings = Holdings()
    for index, channel in enumerate(CHANNELS):
        if store.has(channel):
            holdings.contents[channel.variable].add(channel.level_hpa)
            for state in states:
                field = ZarrField(store, channel, index_of[state])
                holdings.add(HeldField(field, index, state, 0, 0, SUFFIX, "regular_ll"))
    # For messages, the ends of what there is.
    holdings.times.update([*times[:1], *states, *times[-1:]])
    return holdings
