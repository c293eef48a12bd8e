"""The ensemble and its products as a Zarr store, after the conventions of CF and WeatherBench 2.

Dimensions are time, prediction_timedelta, number, level, longitude, latitude; a chunk holds a
variable of one member and lead time with all its levels, so that threads, and processes, never
write to the same one.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import FloatArray
from ..errors import OutputError
from ..grid import Region
from .fields import Field
from .files import PARTIAL_SUFFIX, sync
from .products import Product

DIMENSIONS = "_ARRAY_DIMENSIONS"
"""Where xarray finds the dimensions of an array."""

STANDARD_NAMES = {
    "t": "air_temperature",
    "2t": "air_temperature",
    "u": "eastward_wind",
    "10u": "eastward_wind",
    "v": "northward_wind",
    "10v": "northward_wind",
    "ws": "wind_speed",
    "10si": "wind_speed",
    "z": "geopotential",
    "q": "specific_humidity",
    "w": "lagrangian_tendency_of_air_pressure",
    "msl": "air_pressure_at_mean_sea_level",
}
"""CF standard names by param."""

CELL_METHODS = {
    "mean": "number: mean",
    "spread": "number: standard_deviation",
    "minimum": "number: minimum",
    "maximum": "number: maximum",
}
"""CF cell methods by kind of product; there are none for quantiles and probabilities."""


@dataclass(frozen=True)
class Layout:
    """What a store holds.

    Parameters
    ----------
    region : Region
        Its points.
    initial_time : datetime
        UTC, without zone.
    lead_times_hours : tuple of int
        Ascending.
    members : tuple of int
        Member numbers, in the order of the store; empty if only products are written.
    fields : tuple of Field
        Written of every member.
    products : tuple of (Product, Field)
        Written beside them.
    attributes : tuple of (str, str)
        Of the whole store.
    """

    region: Region
    initial_time: datetime
    lead_times_hours: tuple[int, ...]
    members: tuple[int, ...]
    fields: tuple[Field, ...]
    products: tuple[tuple[Product, Field], ...]
    attributes: tuple[tuple[str, str], ...] = ()

    @property
    def levels_hpa(self) -> tuple[int, ...]:
        """All pressure levels, ascending."""
        fields = (*(self.fields if self.members else ()), *(field for _, field in self.products))
        return tuple(sorted({field.level_hpa for field in fields if field.level_hpa is not None}))


@dataclass(frozen=True)
class Variable:
    """One array of a store.

    Parameters
    ----------
    name : str
        Its name.
    dimensions : tuple of str
        Of the array.
    fields : tuple of Field
        What it holds: one field, or a parameter on every level of the store, ascending.
    units : str
        Of its values.
    product : Product or None
        None for the members' own values.
    """

    name: str
    dimensions: tuple[str, ...]
    fields: tuple[Field, ...]
    units: str
    product: Product | None

    @property
    def attributes(self) -> dict[str, Any]:
        """CF attributes, and xarray's dimensions."""
        first = self.fields[0]
        found: dict[str, Any] = {
            DIMENSIONS: list(self.dimensions),
            "units": self.units.replace("**", ""),
            "long_name": self.name.replace("_", " "),
            "short_name": first.param,
            "coordinates": "valid_time",
        }
        if "level" not in self.dimensions and first.level_hpa is not None:
            found["level_hpa"] = first.level_hpa
        if self.product is None or self.product.kind in CELL_METHODS:
            found["standard_name"] = STANDARD_NAMES[first.param]
        if self.product is not None and self.product.kind in CELL_METHODS:
            found["cell_methods"] = CELL_METHODS[self.product.kind]
        return found


def variables(layout: Layout) -> tuple[Variable, ...]:
    """The arrays of a store, those of members first.

    A parameter on every level of the store is one array with the dimension level; one on some of
    them only has an array for each, such as ``temperature_850``.

    Parameters
    ----------
    layout : Layout
        What the store holds.
    """
    grouped: dict[tuple[Product | None, str], list[Field]] = defaultdict(list)
    for field in layout.fields if layout.members else ():
        grouped[None, field.variable].append(field)
    for product, field in layout.products:
        grouped[product, field.variable].append(field)
    return tuple(variable for (product, _), fields in grouped.items() for variable in _arrays(layout, product, fields))


def _arrays(layout: Layout, product: Product | None, fields: Sequence[Field]) -> Iterator[Variable]:
    leading = ("time", "prediction_timedelta", *(("number",) if product is None else ()))
    suffix = "" if product is None else f"_{product.name}"
    ascending = tuple(sorted(fields, key=lambda field: field.level_hpa or 0))
    units = fields[0].units if product is None else product.units(fields[0])
    if tuple(field.level_hpa for field in ascending) == layout.levels_hpa:
        dimensions = (*leading, "level", "longitude", "latitude")
        yield Variable(fields[0].variable + suffix, dimensions, ascending, units, product)
        return
    for field in fields:
        yield Variable(field.name + suffix, (*leading, "longitude", "latitude"), (field,), units, product)


class ZarrOutput:
    """A Zarr store that bears the suffix ``.partial`` until `finish`.

    Parameters
    ----------
    path : Path
        Its name when complete.
    layout : Layout
        What it holds.
    resume : bool
        Whether to go on with the partial store that is there.
    finished : bool
        Whether what is gone on with may have its name already.

    Raises
    ------
    OutputError
        If it cannot be created, zarr is not installed, or there is nothing to go on with.
    """

    def __init__(self, path: Path, layout: Layout, *, resume: bool = False, finished: bool = False) -> None:
        self.path, self.partial = path, path.with_name(path.name + PARTIAL_SUFFIX)
        self._layout = layout
        self._variables = variables(layout)
        self._steps = {hours: index for index, hours in enumerate(layout.lead_times_hours)}
        self._numbers = {member: index for index, member in enumerate(layout.members)}
        self._product_of = {
            (variable.product, field): (variable, index)
            for variable in self._variables
            if variable.product is not None
            for index, field in enumerate(variable.fields)
        }
        self._named = finished and not self.partial.exists()
        place = path if self._named else self.partial
        zarr = require_zarr(f"writing {path}")
        if resume and not (place / ".zgroup").exists():
            raise OutputError(f"cannot write {path}: expected the store of an unfinished run in {place}, got nothing")
        with _named_errors(path):
            self._group = zarr.open_group(str(place), mode="r+" if resume else "w")
            if not resume:
                self._create()
            self._unsynced = set() if resume else {found for found in place.rglob("*") if found.is_file()}
        self._arrays = {variable.name: self._group[variable.name] for variable in self._variables}

    def write_member(self, lead_time_hours: int, member: int, fields: FloatArray) -> None:
        """Write all fields of a member.

        Parameters
        ----------
        lead_time_hours : int
            One of the layout's.
        member : int
            One of the layout's.
        fields : array (lon, lat, channel)
            On the whole grid.

        Raises
        ------
        OutputError
            If the store cannot be written to.
        """
        where = (0, self._steps[lead_time_hours], self._numbers[member])
        self._refuse_removed()
        with _named_errors(self.path):
            for variable in self._variables:
                if variable.product is None:
                    channels = [field.channels[0] for field in variable.fields]
                    values = self._layout.region.take(np.moveaxis(fields[..., channels], -1, 0))
                    self._arrays[variable.name][where] = values if "level" in variable.dimensions else values[0]
                    self._unsynced.add(self._chunk(variable, where))

    def write_product(self, lead_time_hours: int, product: Product, field: Field, values: FloatArray) -> None:
        """Write a product of a field.

        Parameters
        ----------
        lead_time_hours : int
            One of the layout's.
        product, field : Product, Field
            One of the layout's.
        values : array (lon, lat)
            On the region.

        Raises
        ------
        OutputError
            If the store cannot be written to.
        """
        variable, level = self._product_of[product, field]
        where = (0, self._steps[lead_time_hours], *((level,) if "level" in variable.dimensions else ()))
        self._refuse_removed()
        with _named_errors(self.path):
            self._arrays[variable.name][where] = values
            self._unsynced.add(self._chunk(variable, where))

    def flush(self) -> None:
        """Bring to disk all that was written; nothing may be written meanwhile.

        Raises
        ------
        OutputError
            If the system cannot.
        """
        with _named_errors(self.path):
            for path in (*self._unsynced, *{path.parent for path in self._unsynced}):
                sync(path)
        self._unsynced.clear()

    def finish(self) -> Path:
        """Consolidate the metadata and give the store its name; returns it.

        Raises
        ------
        OutputError
            If it cannot be renamed.
        """
        if self._named:
            return self.path
        zarr = require_zarr(f"writing {self.path}")
        self._refuse_removed()
        with _named_errors(self.path):
            for leftover in self.partial.rglob(f"*{PARTIAL_SUFFIX}"):
                # Chunks that a death cut short, under a name of zarr's.
                leftover.unlink()
            zarr.consolidate_metadata(str(self.partial))
            sync(self.partial / ".zmetadata")
            replace_folder(self.partial, self.path)
        return self.path

    def _chunk(self, variable: Variable, where: tuple[int, ...]) -> Path:
        """The file of a chunk: what is not counted in `where` is whole in each."""
        places = (*where, *(0 for _ in variable.dimensions[len(where) :]))
        return self.partial / variable.name / ".".join(str(place) for place in places)

    def _refuse_removed(self) -> None:
        # zarr would make the folders again and leave out what is lost.
        if not (self.partial / ".zgroup").exists():
            raise OutputError(f"cannot write {self.path}: its partial store was removed while it was being written")

    def _create(self) -> None:
        layout = self._layout
        self._group.attrs.update({"Conventions": "CF-1.8", **dict(layout.attributes)})
        for name, (values, attributes) in _coordinates(layout).items():
            # Without a fill value: zarr's, 0, would make xarray take the number 0 for missing.
            array = self._group.create_dataset(name, data=values, chunks=False, fill_value=None)
            array.attrs.update(attributes)
        sizes = {name: values.shape[-1] for name, (values, _) in _coordinates(layout).items()}
        for variable in self._variables:
            # Products come level by level, from any thread.
            whole = ("longitude", "latitude", *(("level",) if variable.product is None else ()))
            array = self._group.create_dataset(
                variable.name,
                shape=[sizes[name] for name in variable.dimensions],
                chunks=[sizes[name] if name in whole else 1 for name in variable.dimensions],
                dtype="<f4",
                fill_value=np.nan,
            )
            array.attrs.update(variable.attributes)


def _coordinates(layout: Layout) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Values and attributes of the coordinates."""
    start = int(layout.initial_time.replace(tzinfo=timezone.utc).timestamp())
    leads = np.array(layout.lead_times_hours, dtype="<i8")
    since = {"units": "seconds since 1970-01-01T00:00:00", "calendar": "proleptic_gregorian"}
    found: dict[str, tuple[Any, dict[str, Any]]] = {
        "time": (
            np.array([start], dtype="<i8"),
            {DIMENSIONS: ["time"], "standard_name": "forecast_reference_time", "long_name": "initial time", **since},
        ),
        "prediction_timedelta": (
            leads,
            {
                DIMENSIONS: ["prediction_timedelta"],
                "standard_name": "forecast_period",
                "long_name": "lead time",
                "units": "hours",
                # So xarray makes it a time without being asked.
                "dtype": "timedelta64[ns]",
            },
        ),
        "valid_time": (
            start + 3600 * leads[None],
            {DIMENSIONS: ["time", "prediction_timedelta"], "standard_name": "time", "long_name": "valid time", **since},
        ),
        "longitude": (
            np.array(layout.region.longitude_deg),
            {DIMENSIONS: ["longitude"], "standard_name": "longitude", "units": "degrees_east"},
        ),
        "latitude": (
            np.array(layout.region.latitude_deg),
            {DIMENSIONS: ["latitude"], "standard_name": "latitude", "units": "degrees_north"},
        ),
    }
    if layout.members:
        number = {DIMENSIONS: ["number"], "standard_name": "realization", "long_name": "member", "units": "1"}
        found["number"] = (np.array(layout.members, dtype="<i8"), number)
    if layout.levels_hpa:
        level = {DIMENSIONS: ["level"], "standard_name": "air_pressure", "units": "hPa", "positive": "down"}
        found["level"] = (np.array(layout.levels_hpa, dtype="<i8"), level)
    return found


def check_store(path: Path, option: str) -> None:
    """Raise before a long run if a store could not be written.

    Parameters
    ----------
    path : Path
        Its name.
    option : str
        Where it was typed.

    Raises
    ------
    OutputError
        If the path is a file, or a folder that is no store.
    """
    if path.exists() and not (path / ".zgroup").exists():
        raise OutputError(f"{option} {path}: there is something of this name that is no Zarr store; it is left alone")


def require_zarr(what: str) -> Any:
    """The module zarr.

    Raises
    ------
    OutputError
        If it is not installed.
    """
    try:
        import zarr
    except ImportError as error:
        raise OutputError(f"{what} needs zarr: pip install 'ai-models-mosaic[zarr]'") from error
    return zarr


def replace_folder(partial: Path, path: Path) -> None:
    """Give a folder its name; an older one of that name goes."""
    old = path.with_name(path.name + ".old")
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    partial.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder that nobody must take for a whole one when a death leaves a part of it."""
    old = path.with_name(path.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    path.rename(old)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    except KeyError as error:
        # zarr's own word for a folder that it cannot make.
        if isinstance(error.__cause__, OSError):
            raise OutputError(f"cannot write {path}: {error.__cause__.strerror}") from error
        raise
