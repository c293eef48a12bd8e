"""States of one or more Zarr stores in the layout of WeatherBench 2, by time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import Float32Array, FloatArray
from ..channels import CHANNELS, STATIC_FIELDS, Channel
from ..errors import InputError
from ..geometry.grid import LatLonGrid
from ..inputs.states import unit_hint
from ..inputs.zarr import open_store
from ..inputs.zarr_store.layout import DIMENSIONS, levels_of, times_of
from ..inputs.zarr_store.opening import values_of

if TYPE_CHECKING:
    import xarray


LOG = logging.getLogger(__name__)

READ_AT_ONCE = 32
"""Times that are read together."""


@dataclass(frozen=True)
class Sample:
    """Where a forecast may start: a time whose history and targets one store has.

    Parameters
    ----------
    archive : int
        Index of the store.
    time : datetime
        The initial time, UTC without zone.
    """

    archive: int
    time: datetime


class Archive:
    """One store on the grid of a variant.

    Parameters
    ----------
    path : str
        Local path or URL.
    grid : LatLonGrid
        What its points must be, in either direction of latitude.

    Raises
    ------
    InputError
        If it cannot be opened, has no time, lacks a channel, or is on another grid.
    """

    def __init__(self, path: str, grid: LatLonGrid) -> None:
        self.path, self.grid = path, grid
        self._dataset = open_store(path, DIMENSIONS)
        self.times = times_of(self._dataset, path)
        if not self.times:
            raise InputError(f"{path}: expected states, got none: its dimension time is empty")
        self._index_of = {time: index for index, time in enumerate(self.times)}
        self._refuse_misfits()
        latitude = self._dataset["latitude"].values
        self._flip = bool(latitude[0] > latitude[-1])
        self._held: Float32Array | None = None

    def starts(self, lags_hours: Sequence[int], lead_hours: Sequence[int]) -> list[datetime]:
        """Every time whose history and targets are all there, ascending."""
        offsets = [timedelta(hours=hours) for hours in (*lags_hours, *lead_hours)]
        return [time for time in self.times if all(time + offset in self._index_of for offset in offsets)]

    def state(self, time: datetime) -> Float32Array:
        """The state of a time, physical units, ``(lon, lat, channel)``.

        Raises
        ------
        InputError
            If the store lacks the time, or a value is not finite.
        """
        if time not in self._index_of:
            raise InputError(f"{self.path} has no {time:%Y-%m-%d %H} UTC: {self.times[0]} … {self.times[-1]}")
        index = self._index_of[time]
        if self._held is None:
            return self._states(slice(index, index + 1))[0]
        state: Float32Array = self._held[index]
        return state

    def warn_of_units(self) -> None:
        """Warn of channels whose first state looks as if it were in other units than a forecast's input may be."""
        state = self.state(self.times[0])
        for index, channel in enumerate(CHANNELS):
            values = state[..., index]
            if hint := unit_hint(values, channel):
                span = "%s: %s lies within %g … %g, where %s was expected%s"
                LOG.warning(span, self.path, channel.name, values.min(), values.max(), channel.units, hint)

    @property
    def bytes_needed(self) -> int:
        """Memory that all states would take."""
        return len(self.times) * self.grid.size * len(CHANNELS) * np.dtype(np.float32).itemsize

    def hold(self) -> None:
        """Read all states into memory: worth it where they fit, for every epoch would read them again."""
        held = np.empty((len(self.times), *self.grid.shape, len(CHANNELS)), dtype=np.float32)
        for first in range(0, len(self.times), READ_AT_ONCE):
            held[first : first + READ_AT_ONCE] = self._states(slice(first, first + READ_AT_ONCE))
        held.setflags(write=False)
        self._held = held

    def _states(self, which: slice) -> Float32Array:
        """``(time, lon, lat, channel)``."""
        blocks = {name: self._read(name, which) for name in {channel.variable for channel in CHANNELS}}
        values = np.stack([self._level(blocks[channel.variable], channel) for channel in CHANNELS], axis=-1)
        if not np.isfinite(values).all():
            time, _, _, channel = np.argwhere(~np.isfinite(values))[0]
            when = self.times[which.start + int(time)]
            raise InputError(f"{self.path}: {CHANNELS[channel].name} of {when:%Y-%m-%d %H} UTC is not finite")
        return values.astype(np.float32, copy=False)

    def static_fields(self) -> FloatArray:
        """Raw static fields, ``(lon, lat, 3)``.

        Raises
        ------
        InputError
            If one is missing.
        """
        missing = [name for name in STATIC_FIELDS if name not in self._dataset]
        if missing:
            raise InputError(f"{self.path} lacks the static fields {', '.join(missing)}")
        return np.stack(
            [self._read(name, slice(0, 1)).reshape(self.grid.shape).astype(np.float64) for name in STATIC_FIELDS],
            axis=-1,
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the times and of the first and last state: enough to tell one archive from another."""
        parts = [str(self.times).encode(), self.state(self.times[0]).tobytes(), self.state(self.times[-1]).tobytes()]
        return sha256(b"".join(parts)).hexdigest()

    def _read(self, variable: str, which: slice) -> FloatArray:
        """``([time,] [level,] lon, lat)`` from the south."""
        array = self._dataset[variable]
        if "time" in array.dims:
            array = array.isel(time=which)
        values = values_of(array.transpose(..., "longitude", "latitude"), self.path)
        return values[..., ::-1] if self._flip else values

    @cached_property
    def _levels(self) -> list[float]:
        return levels_of(self._dataset, self.path)

    def _level(self, block: FloatArray, channel: Channel) -> FloatArray:
        return block if channel.level_hpa is None else block[:, self._levels.index(channel.level_hpa)]

    def _refuse_misfits(self) -> None:
        dataset: xarray.Dataset = self._dataset
        longitude, latitude = (dataset[name].values.astype(float) for name in ("longitude", "latitude"))
        try:
            found = LatLonGrid(tuple(longitude.tolist()), tuple(sorted(latitude.tolist())))
        except ValueError as error:
            raise InputError(f"{self.path}: {error}") from error
        if not found.same_points(self.grid):
            raise InputError(f"{self.path}: expected states on {self.grid}, got {found}; regrid them first")
        missing = [
            channel.name
            for channel in CHANNELS
            if channel.variable not in dataset or channel.level_hpa not in (None, *self._levels)
        ]
        if missing:
            raise InputError(f"{self.path} lacks {len(missing)} channels: {', '.join(missing[:8])}")


def open_archives(paths: Sequence[str | Path], grid: LatLonGrid) -> list[Archive]:
    """Every store of a list; errors as `Archive`."""
    return [Archive(str(path), grid) for path in paths]
