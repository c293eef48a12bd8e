"""Arrays, coordinates and attributes of a store, after the conventions of CF and WeatherBench 2."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np

from ...geometry.grid import Region
from ...params import Field
from ..products import Product
from ..variance import WORDS

DIMENSIONS = "_ARRAY_DIMENSIONS"
"""Where xarray finds the dimensions of an array."""

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
            found["standard_name"] = first.standard_name
        if self.product is not None and self.product.kind in CELL_METHODS:
            found["cell_methods"] = CELL_METHODS[self.product.kind]
        if self.product is not None and self.product.starts:
            found["cell_methods"] = f"number: variance (comment: {WORDS[self.product.kind]})"
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


def coordinates(layout: Layout) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Values and attributes of the coordinates, by name.

    Parameters
    ----------
    layout : Layout
        What the store holds.
    """
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
