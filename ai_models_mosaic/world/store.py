"""A Zarr store in the layout of WeatherBench 2, filled block by block.

It has its full length from the start and stands under a name ending in ``.partial`` until the
last block is in, so that a store under its own name is whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import AnyArray, Float32Array, FloatArray, TimeArray
from ..channels import CHANNELS, LEVELS_HPA, Channel
from ..errors import InputError
from ..files import PARTIAL_SUFFIX
from ..geometry.grid import LatLonGrid
from ..outputs.store.format2 import ATTRIBUTES, Format2Store
from ..outputs.store.layout import DIMENSIONS

EPOCH = np.datetime64("1970-01-01T00:00:00", "s")
HORIZONTAL = ("longitude", "latitude")
WRITTEN = "times_written"
"""Attribute that counts the times that are in."""


@dataclass(frozen=True)
class StoreVariable:
    """One array of the store.

    Parameters
    ----------
    name, units : str
        As in WeatherBench 2.
    on_levels : bool
        Whether it has the dimension ``level``.
    """

    name: str
    units: str
    on_levels: bool


def variables(channels: Sequence[Channel] = CHANNELS) -> Iterator[StoreVariable]:
    """The variables that hold all channels, in channel order."""
    seen = set()
    for channel in channels:
        if channel.variable not in seen:
            seen.add(channel.variable)
            yield StoreVariable(channel.variable, channel.units, channel.level_hpa is not None)


class WorldStore:
    """Opens or begins a store.

    Parameters
    ----------
    path : Path
        Its final name; ends in ``.zarr``.
    grid : LatLonGrid
        Of every field.
    times : datetime64 array (time,)
        All times that it will hold.
    static_fields : mapping of str to array (lon, lat)
        Written at the start.
    attributes : mapping of str to Any
        What the store says of itself.

    Raises
    ------
    InputError
        If a store was begun with other times or another grid.
    OutputError
        If numcodecs is not installed.
    """

    def __init__(
        self,
        path: Path,
        grid: LatLonGrid,
        times: TimeArray,
        static_fields: Mapping[str, FloatArray],
        attributes: Mapping[str, Any],
    ) -> None:
        self.path, self.grid, self.times = path, grid, times
        self.partial = path.with_name(path.name + PARTIAL_SUFFIX)
        self._store = Format2Store(self.partial)
        if (self.partial / ATTRIBUTES).exists():
            self._refuse_another()
        else:
            shutil.rmtree(self.partial, ignore_errors=True)
            self._begin(static_fields, attributes)
        self._attributes = self._store.attributes()

    @property
    def written(self) -> int:
        """Times that are in."""
        return int(self._attributes[WRITTEN])

    def write(self, fields: Mapping[str, Float32Array], times: TimeArray) -> None:
        """Add a block.

        Parameters
        ----------
        fields : mapping of str to float32 array (time, [level,] lon, lat)
            Every variable.
        times : datetime64 array (time,)
            Of the block; follows what is in, or lies within it.

        Raises
        ------
        InputError
            If the times are not those that come next.
        """
        first = int(np.searchsorted(self.times, times[0]))
        last = first + len(times)
        if not np.array_equal(self.times[first:last], times) or first > self.written:
            raise InputError(f"{self.path.name}: expected times from {self.times[self.written]} on, got {times[0]}")
        for variable in variables():
            # One chunk holds all levels of one time: training and forecasts read whole states.
            for place, values in enumerate(fields[variable.name], first):
                places = (place, *(0 for _ in values.shape))
                self._store.write(variable.name, places, values.astype("<f4", copy=False))
        self._store.flush()
        self._attributes[WRITTEN] = max(self.written, last)
        self._store.describe(self._attributes)

    def finish(self) -> None:
        """Consolidate the metadata and give the store its name."""
        self._store.consolidate()
        self._store.flush()
        self.partial.rename(self.path)

    def _begin(self, static_fields: Mapping[str, FloatArray], attributes: Mapping[str, Any]) -> None:
        self.partial.mkdir(parents=True)
        self._store.begin()
        for name, (values, attributes_of_it) in self._coordinates().items():
            self._store.put(name, values, {DIMENSIONS: [name], **attributes_of_it})
        for name, field in static_fields.items():
            self._store.put(name, np.asarray(field, dtype="<f4"), {DIMENSIONS: list(HORIZONTAL)})
        for variable in variables():
            levels = (len(LEVELS_HPA),) if variable.on_levels else ()
            self._store.create(
                variable.name,
                shape=(len(self.times), *levels, *self.grid.shape),
                chunks=(1, *levels, *self.grid.shape),
                attributes={
                    DIMENSIONS: ["time", *(["level"] if levels else []), *HORIZONTAL],
                    "units": variable.units,
                },
            )
        # Last: what has none was not begun.
        self._store.describe({**attributes, WRITTEN: 0})

    def _coordinates(self) -> dict[str, tuple[AnyArray, dict[str, str]]]:
        clock = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"}
        return {
            "time": ((self.times - EPOCH).astype("<i8"), clock),
            "level": (np.array(LEVELS_HPA, dtype="<i8"), {"units": "hPa"}),
            "longitude": (np.array(self.grid.longitude_deg), {"units": "degrees_east"}),
            "latitude": (np.array(self.grid.latitude_deg), {"units": "degrees_north"}),
        }

    def _refuse_another(self) -> None:
        coordinates = self._coordinates()
        same = all(self._store.holds(name, coordinates[name][0]) for name in ("time", "longitude"))
        if not same:
            raise InputError(
                f"{self.partial} was begun with other times or another grid: "
                "go on with the options that began it, or remove it"
            )
