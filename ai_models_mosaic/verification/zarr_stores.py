"""Forecasts and truth in Zarr stores in the layouts of WeatherBench 2, and in NetCDF files.

Dimensions may come in any order and direction, and under the names that are usual. A store is read one variable at a
time, for the wanted levels and times only.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import FloatArray, IntArray
from ..channels import Channel
from ..errors import InputError
from ..geometry.grid import LatLonGrid
from ..inputs.netcdf import netcdf_files
from ..inputs.zarr_store.attributes import refuse_other_units
from ..inputs.zarr_store.layout import (
    DIMENSIONS,
    HOURS,
    LEAD_TIME,
    MEMBER,
    arranged,
    levels_of,
    member_numbers,
    times_of,
)
from ..inputs.zarr_store.opening import is_zarr, open_dataset, values_of
from ..wording.numbers import counted
from .cases import Case
from .netcdf_files import open_as_weatherbench, with_weatherbench_names
from .zarr_products import member_positions, product_variables, refuse_products

if TYPE_CHECKING:
    import xarray

LOG = logging.getLogger(__name__)

SPACE = {name: DIMENSIONS[name] for name in ("level", "latitude", "longitude")}

FORECAST_DIMENSIONS = {
    "init_time": ("init_time", "initial_time", "forecast_reference_time", "time"),
    "lead_time": LEAD_TIME,
    "member": MEMBER,
    **SPACE,
}
"""Names that each dimension of a forecast may have; the member may be absent."""

TRUTH_DIMENSIONS = {"time": DIMENSIONS["time"], **SPACE}
"""Names that each dimension of the truth may have."""

KEPT_BYTES = 256 * 2**20
"""Fields of the truth that are kept for the next initial date."""


def is_store(path: str) -> bool:
    """Whether a path is read here: a Zarr store, or NetCDF files."""
    return is_zarr(path) or bool(netcdf_files(path))


class StoreDimensions:
    """A store with its dimensions under one name each, and its fields on a grid.

    Parameters
    ----------
    source : str or xarray.Dataset
        Local path of a store, or a URL that fsspec knows; or a name or pattern of NetCDF files; or what was opened.
    dimensions : dict of str to tuple of str
        Names that each dimension may have.
    optional : tuple of str
        Dimensions that may be absent.
    name : str
        What messages call a dataset, which has no path.

    Raises
    ------
    InputError
        If the store cannot be opened, lacks a dimension, or is not on a global grid.
    """

    def __init__(
        self,
        source: str | xarray.Dataset,
        dimensions: dict[str, tuple[str, ...]],
        optional: tuple[str, ...] = (),
        name: str = "the dataset",
    ) -> None:
        self.path = path = source if isinstance(source, str) else name
        opened = _opened(source, "init_time" in dimensions)
        self.dataset = arranged(opened, path, dimensions, ("level", *optional))
        self.levels_hpa = levels_of(self.dataset, path) if self.has_levels else []
        try:
            self.grid, self._columns, self._rows = _grid(self.dataset)
        except ValueError as error:
            raise InputError(f"{path} is not on a usable grid: {error}") from error

    @property
    def has_levels(self) -> bool:
        """Whether there are fields on pressure levels."""
        return "level" in self.dataset.dims

    def require(self, channels: Sequence[Channel]) -> None:
        """Refuse channels that are not there.

        Raises
        ------
        InputError
            Names all of them.
        """
        missing = [channel.name for channel in channels if not self.has(channel)]
        if missing:
            raise InputError(
                f"{self.path} lacks {', '.join(missing)}: expected variables named as in WeatherBench 2, with levels "
                f"in hPa; got {', '.join(sorted(str(name) for name in self.dataset.data_vars))}"
                + (f" at {'/'.join(str(level) for level in self.levels_hpa)} hPa" if self.levels_hpa else "")
            )
        refuse_products(self.path, self.dataset, channels)
        refuse_other_units(self.dataset, self.path, {self._variable(channel): channel.units for channel in channels})

    def leave_out_products(self) -> list[str]:
        """Keep of the members only those that are; says of every other what it is.

        Raises
        ------
        InputError
            If there is no member.
        """
        labels = self.dataset["member"].values.tolist() if "member" in self.dataset.indexes else []
        kept = member_positions(labels)
        if labels and not kept:
            raise InputError(f"{self.path}: expected members, got products of an ensemble: {', '.join(labels)}")
        others = [f"members called {label}, left out" for place, label in enumerate(labels) if place not in kept]
        if others:
            self.dataset = self.dataset.isel(member=kept)
        return others

    def has(self, channel: Channel) -> bool:
        """Whether the channel's variable and level are there."""
        return self._variable(channel) in self.dataset

    def _variable(self, channel: Channel) -> str:
        """Name of the variable that has a channel: that of all levels, or one of its own."""
        on_levels = channel.variable in self.dataset and channel.level_hpa in (None, *self.levels_hpa)
        return channel.variable if on_levels else channel.name

    def has_members(self, channel: Channel) -> bool:
        """Whether the channel's variable has the dimension of members."""
        return "member" in self.dataset[self._variable(channel)].dims

    def read(self, channel: Channel, order: Sequence[str], **indices: object) -> FloatArray:
        """Values ``(*order, lon, lat)``, of one channel, at the given indices of other dimensions."""
        variable = self.dataset[self._variable(channel)]
        level = {}
        if channel.level_hpa is not None and "level" in variable.dims:
            level["level"] = self.levels_hpa.index(channel.level_hpa)
        chosen = variable.isel(**level, **indices)  # type: ignore[arg-type]
        values = values_of(chosen.transpose(*order, "longitude", "latitude"), self.path)
        return values[..., self._columns, :][..., self._rows]


def _opened(source: str | xarray.Dataset, forecast: bool) -> xarray.Dataset:
    if not isinstance(source, str):
        return with_weatherbench_names(source)
    files = [] if is_zarr(source) else netcdf_files(source)
    return open_as_weatherbench(files, forecast=forecast) if files else open_dataset(source, "verify")


def _grid(dataset: xarray.Dataset) -> tuple[LatLonGrid, IntArray, IntArray]:
    """The grid, and the store's columns and rows in its order."""
    axes = []
    for name, turn in (("longitude", True), ("latitude", False)):
        values = np.round(dataset[name].values.astype(np.float64), 6)
        # A column given twice, at 0° and at 360°, is the same column.
        axes.append(np.unique(values % 360 if turn else values, return_index=True))
    (longitude, columns), (latitude, rows) = axes
    return LatLonGrid(tuple(longitude.tolist()), tuple(latitude.tolist())), columns, rows


def _lead_hours(coordinate: xarray.DataArray, path: str) -> list[int]:
    """Lead times in hours; plain integers without units, which some stores have, are taken as hours."""
    values = coordinate.values
    units = str(coordinate.attrs.get("units", "hours"))
    plain = np.issubdtype(values.dtype, np.number if "units" in coordinate.attrs else np.integer)
    if np.issubdtype(values.dtype, np.timedelta64):
        values = values / np.timedelta64(1, "h")
    elif not plain or units not in HOURS:
        raise InputError(f"{path}: expected lead times as durations or whole hours, got {values.dtype} in {units}")
    else:
        values = values * HOURS[units]
    values = np.atleast_1d(values.astype(np.float64))
    whole = np.rint(values)
    if not np.allclose(values, whole):
        raise InputError(f"{path}: expected lead times of whole hours, got {values.tolist()} h")
    hours: list[int] = whole.astype(int).tolist()
    if len(set(hours)) < len(hours):
        raise InputError(
            f"{path}: a lead time stands there more than once, which is meant is not to be told: {hours} h"
        )
    return hours


def _refuse_equal_members(layout: StoreDimensions) -> None:
    if "member" in layout.dataset.indexes and not layout.dataset.indexes["member"].is_unique:
        labels = layout.dataset["member"].values.tolist()
        raise InputError(f"{layout.path}: a member stands there more than once: {', '.join(map(str, labels))}")


def _refuse_forecasts(layout: StoreDimensions) -> None:
    """Refuse truth at a lead time: what stands under a time there begins then, and is valid later."""
    coordinates = [layout.dataset.coords[name] for name in LEAD_TIME if name in layout.dataset.coords]
    leads = [
        hours for coordinate in coordinates if not coordinate.ndim for hours in _lead_hours(coordinate, layout.path)
    ]
    if any(leads):
        raise InputError(f"{layout.path}: expected analyses (step 0), got forecasts of +{max(leads)} h")


class ZarrForecasts:
    """Forecasts in the layout of WeatherBench 2: initial time, lead time, perhaps member, level, latitude, longitude.

    Parameters
    ----------
    path : str or xarray.Dataset
        Local path, or a URL that fsspec knows; or what was opened.
    channels : sequence of Channel
        What will be read.
    lead_hours : sequence of int
        Lead times wanted; all if empty. Lead 0 is never verified.

    Raises
    ------
    InputError
        If the store cannot be used, or holds no wanted lead time.
    """

    def __init__(self, path: str | xarray.Dataset, channels: Sequence[Channel], lead_hours: Sequence[int] = ()) -> None:
        self._layout = StoreDimensions(path, FORECAST_DIMENSIONS, ("member",), "the forecast")
        path = self._layout.path
        self._layout.require(channels)
        products = product_variables(self._layout.dataset, channels)
        self._left_out = ["variables of products, left out"] * len(products) + self._layout.leave_out_products()
        self._times = times_of(self._layout.dataset, path, "init_time")
        _refuse_equal_members(self._layout)
        found = _lead_hours(self._layout.dataset["lead_time"], path)
        self._leads = {lead: index for index, lead in enumerate(found) if lead > 0 and lead in (lead_hours or found)}
        if not self._leads:
            raise InputError(f"{path} has none of the lead times {list(lead_hours)} h: it has {found}")

    @property
    def grid(self) -> LatLonGrid:
        """Grid of every field."""
        return self._layout.grid

    def cases(self) -> Iterator[Case]:
        """One case per initial date, ascending."""
        dataset = self._layout.dataset
        members = tuple(member_numbers(dataset)) if "member" in dataset.dims else (0,)
        leads = tuple(sorted(self._leads))
        for order, (time, index) in enumerate(sorted(zip(self._times, range(len(self._times)), strict=True))):
            # What is left out of a store is told once.
            yield Case(time, members, leads, self._reader(index), () if order else tuple(self._left_out))

    def _reader(self, index: int) -> ReadChannel:
        return ReadChannel(self._layout, index, [self._leads[lead] for lead in sorted(self._leads)])


class ReadChannel:
    """Reads a channel of one initial date, ``(member, lead, lon, lat)``.

    Parameters
    ----------
    layout : StoreDimensions
        The store.
    time : int
        Index of the initial date.
    leads : sequence of int
        Indices of the lead times.
    """

    def __init__(self, layout: StoreDimensions, time: int, leads: Sequence[int]) -> None:
        self._layout, self._time, self._leads = layout, time, list(leads)

    def __call__(self, channel: Channel) -> FloatArray:
        """The values, as the store has them."""
        has_members = self._layout.has_members(channel)
        order = ("member", "lead_time") if has_members else ("lead_time",)
        values = self._layout.read(channel, order, init_time=self._time, lead_time=self._leads)
        return values if has_members else values[None]


class ZarrTruth:
    """Fields by valid time, from one store or several.

    Memory holds what neighbouring initial dates share, up to `KEPT_BYTES`, whatever the number of dates.

    Parameters
    ----------
    paths : sequence of str or xarray.Dataset
        Stores in the layout of WeatherBench 2, on one grid: time, level, latitude, longitude.
    channels : sequence of Channel
        What will be read.
    name : str
        What messages call datasets.

    Raises
    ------
    InputError
        If a store cannot be used, or they differ in grid.
    """

    def __init__(
        self, paths: Sequence[str | xarray.Dataset], channels: Sequence[Channel], name: str = "the truth"
    ) -> None:
        self._layouts = [StoreDimensions(path, TRUTH_DIMENSIONS, name=name) for path in paths]
        self._where: dict[datetime, tuple[int, int]] = {}
        for store, layout in enumerate(self._layouts):
            layout.require(channels)
            _refuse_forecasts(layout)
            if not layout.grid.same_points(self.grid):
                raise InputError(f"{layout.path} is on {layout.grid}, but {self._layouts[0].path} on {self.grid}")
            times = times_of(layout.dataset, layout.path)
            if doubles := sum(time in self._where for time in times):
                LOG.warning("%s: %s in a store before it, too, which counts", layout.path, counted(doubles, "time"))
            self._where = {time: (store, index) for index, time in enumerate(times)} | self._where
        self._kept: OrderedDict[tuple[str, datetime], FloatArray] = OrderedDict()
        self._bytes = 0

    @property
    def grid(self) -> LatLonGrid:
        """Grid of every field."""
        return self._layouts[0].grid

    @property
    def times(self) -> list[datetime]:
        """All valid times, ascending."""
        return sorted(self._where)

    def read(self, channel: Channel, times: Sequence[datetime]) -> FloatArray:
        """Values ``(time, lon, lat)``; NaN everywhere at a time that is not there."""
        fields = np.full((len(times), *self.grid.shape), np.nan, dtype=np.float32)
        self._fetch(channel, [time for time in times if (channel.name, time) not in self._kept])
        for field, time in zip(fields, times, strict=True):
            if (channel.name, time) in self._kept:
                self._kept.move_to_end((channel.name, time))
                field[:] = self._kept[channel.name, time]
        self._forget()
        return fields

    def _fetch(self, channel: Channel, times: Sequence[datetime]) -> None:
        """Read what is not kept yet, each store once: its chunks may hold many times."""
        for store, layout in enumerate(self._layouts):
            wanted = sorted({time for time in times if self._where.get(time, (-1, -1))[0] == store})
            if not wanted:
                continue
            values = layout.read(channel, ("time",), time=[self._where[time][1] for time in wanted])
            for time, field in zip(wanted, values, strict=True):
                self._kept[channel.name, time] = np.array(field, dtype=np.float32)
                self._bytes += self._kept[channel.name, time].nbytes

    def _forget(self) -> None:
        while self._bytes > KEPT_BYTES:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
