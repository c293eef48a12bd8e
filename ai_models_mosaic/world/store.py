"""A Zarr store in the layout of WeatherBench 2, filled block by block.

It has its full length from the start and stands under a name ending in ``.partial`` until the
last block is in, so that a store under its own name is whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import AnyArray, Float32Array, FloatArray, TimeArray
from ..channels import CHANNELS, LEVELS_HPA, Channel
from ..errors import InputError
from ..files import PARTIAL_SUFFIX
from ..geometry.grid import LatLonGrid

if TYPE_CHECKING:
    import zarr

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
        If zarr is not installed, or a store was begun with other times or another grid.
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
        try:
            import zarr
        except ImportError as error:
            raise InputError("writing a world needs zarr: pip install 'ai-models-mosaic[zarr]'") from error
        if (self.partial / ".zattrs").exists():
            self._group = zarr.open_group(str(self.partial), mode="r+")
            self._refuse_another()
        else:
            self._group = zarr.open_group(str(self.partial), mode="w")
            self._begin(static_fields, attributes)

    @property
    def written(self) -> int:
        """Times that are in."""
        return int(self._group.attrs[WRITTEN])

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
            self._group[variable.name][first:last] = fields[variable.name]
        self._group.attrs[WRITTEN] = max(self.written, last)

    def finish(self) -> None:
        """Consolidate the metadata and give the store its name."""
        import zarr

        zarr.consolidate_metadata(self._group.store)
        self.partial.rename(self.path)

    def _begin(self, static_fields: Mapping[str, FloatArray], attributes: Mapping[str, Any]) -> None:
        seconds = (self.times - EPOCH).astype(np.int64)
        clock = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"}
        self._coordinate("time", seconds, clock)
        self._coordinate("level", np.array(LEVELS_HPA), {"units": "hPa"})
        self._coordinate("longitude", np.array(self.grid.longitude_deg), {"units": "degrees_east"})
        self._coordinate("latitude", np.array(self.grid.latitude_deg), {"units": "degrees_north"})
        for name, field in static_fields.items():
            array = self._group.array(name, np.asarray(field, dtype=np.float32), fill_value=None)
            array.attrs["_ARRAY_DIMENSIONS"] = list(HORIZONTAL)
        for variable in variables():
            levels = (len(LEVELS_HPA),) if variable.on_levels else ()
            # One chunk holds all levels of one time: training and forecasts read whole states.
            array = self._group.create_dataset(
                variable.name,
                shape=(len(self.times), *levels, *self.grid.shape),
                chunks=(1, *levels, *self.grid.shape),
                dtype="f4",
                fill_value=np.nan,
            )
            array.attrs["_ARRAY_DIMENSIONS"] = ["time", *(["level"] if levels else []), *HORIZONTAL]
            array.attrs["units"] = variable.units
        self._group.attrs.update({**attributes, WRITTEN: 0})

    def _coordinate(self, name: str, values: AnyArray, attributes: Mapping[str, str]) -> None:
        array: zarr.Array = self._group.array(name, values, fill_value=None)
        array.attrs.update({"_ARRAY_DIMENSIONS": [name], **attributes})

    def _refuse_another(self) -> None:
        seconds = (self.times - EPOCH).astype(np.int64)
        same = np.array_equal(self._group["time"][:], seconds) and np.array_equal(
            self._group["longitude"][:], np.array(self.grid.longitude_deg)
        )
        if not same:
            raise InputError(
                f"{self.partial} was begun with other times or another grid: "
                "go on with the options that began it, or remove it"
            )
