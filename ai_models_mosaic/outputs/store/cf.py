"""Names, dimensions and attributes of a NetCDF file by CF 1.8, as CDO, GDAL, iris and xarray look for them.

A parameter on every level of the file is one variable, ``t``; one on some of them only has a variable for each,
``t850``, with its level as a scalar coordinate. Names begin with a letter and are those of cfgrib: ``t2m``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timezone
from typing import Any, TypeAlias

import numpy as np

from ...arrays import AnyArray
from ...params import netcdf_name
from ..grib.keys import product_keys
from ..products import Product
from ..variance import WORDS
from .layout import CELL_METHODS, Layout, Variable

CONVENTIONS = "CF-1.8"

HOURS_SINCE = "hours since 1970-01-01 00:00:00"

Coordinate: TypeAlias = tuple[tuple[str, ...], AnyArray, dict[str, Any]]
"""Dimensions, values and attributes."""

HEIGHTS_M = {"2t": 2, "10u": 10, "10v": 10, "10si": 10}
"""Heights above ground of parameters, m."""

TIMES = ("forecast_reference_time", "forecast_period")
"""Coordinates of every variable beside its dimensions."""


@dataclass(frozen=True)
class Part:
    """What one NetCDF file holds of a forecast.

    Parameters
    ----------
    members : tuple of int
        Those of it; empty for none.
    alone : bool
        Whether it is of one member, which then is a scalar and no dimension.
    products : bool
        Whether products are in it.
    """

    members: tuple[int, ...]
    alone: bool = False
    products: bool = True

    def holds(self, variable: Variable) -> bool:
        """Whether a variable of the store is in it."""
        return self.products if variable.product is not None else bool(self.members)

    def dimensions(self, variable: Variable) -> tuple[str, ...]:
        """Dimensions of a variable: members, valid times, levels, places."""
        many = variable.product is None and not self.alone
        levels = ("level",) if "level" in variable.dimensions else ()
        return (*(("number",) if many else ()), "time", *levels, "latitude", "longitude")


def name_of(variable: Variable) -> str:
    """Name of a variable: ``t``, ``t850``, ``t2m_mean``, ``z500_quantile_2p5``, ``t2m_probability_below_minus_5``."""
    first = variable.fields[0]
    level = "" if "level" in variable.dimensions or first.level_hpa is None else f"{first.level_hpa}"
    product = "" if variable.product is None else f"_{variable.product.name}"
    return f"{netcdf_name(first.param)}{level}{product}".replace(".", "p").replace("-", "minus_")


def attributes_of(variable: Variable, part: Part) -> dict[str, Any]:
    """Attributes of a variable, its coordinates included."""
    first = variable.fields[0]
    names = [*TIMES, *(["number"] if part.alone and variable.product is None else []), *scalars_of(variable)]
    attributes: dict[str, Any] = {
        "long_name": _long_name(variable),
        "units": variable.units.replace("**", ""),
        "GRIB_shortName": first.param,
        "coordinates": " ".join(names),
    }
    product = variable.product
    if product is not None and not product.starts:
        attributes["GRIB_dataType"] = product_keys(product, 1)["type"]
    if product is None or product.kind in CELL_METHODS or product.percent:
        attributes["standard_name"] = first.standard_name
    if product is not None and product.kind in CELL_METHODS:
        attributes["cell_methods"] = CELL_METHODS[product.kind].replace("number", "realization")
    if product is not None and product.starts:
        attributes["cell_methods"] = f"realization: variance (comment: {WORDS[product.kind]})"
    return attributes


def coordinates(layout: Layout, part: Part) -> dict[str, Coordinate]:
    """Coordinates of a file by name; those of variables alone are given by `scalars_of`.

    Parameters
    ----------
    layout : Layout
        Of the whole forecast.
    part : Part
        What the file holds of it.
    """
    start = layout.initial_time.replace(tzinfo=timezone.utc).timestamp() / 3600
    leads = np.array(layout.lead_times_hours, dtype=np.float64)
    since = {"units": HOURS_SINCE, "calendar": "proleptic_gregorian"}
    made: dict[str, Coordinate] = {}
    if part.members:
        number = {"standard_name": "realization", "long_name": "ensemble member", "units": "1"}
        members = np.array(part.members, dtype=np.int32)
        made["number"] = ((), members[0], number) if part.alone else (("number",), members, number)
    made["time"] = (
        ("time",),
        start + leads,
        {"standard_name": "time", "long_name": "valid time", **since, "axis": "T"},
    )
    made["forecast_reference_time"] = (
        (),
        np.array(start, dtype=np.float64),
        {"standard_name": "forecast_reference_time", "long_name": "initial time", **since},
    )
    period = {"standard_name": "forecast_period", "long_name": "lead time", "units": "hours"}
    made["forecast_period"] = (("time",), leads, period)
    if layout.levels_hpa:
        made["level"] = (("level",), np.array(layout.levels_hpa, dtype=np.float64), _pressure())
    latitude = np.array(layout.region.latitude_deg, dtype=np.float64)[::-1]
    made["latitude"] = (
        ("latitude",),
        latitude,
        {"standard_name": "latitude", "long_name": "latitude", "units": "degrees_north", "axis": "Y"},
    )
    made["longitude"] = (
        ("longitude",),
        np.array(layout.region.longitude_deg, dtype=np.float64),
        {"standard_name": "longitude", "long_name": "longitude", "units": "degrees_east", "axis": "X"},
    )
    return made


def scalars_of(variable: Variable) -> Mapping[str, Coordinate]:
    """Scalar coordinates of a variable by name: its level or height, its quantile or threshold."""
    first, product = variable.fields[0], variable.product
    made: dict[str, Coordinate] = {}
    if "level" not in variable.dimensions and first.level_hpa is not None:
        made[f"level_{first.level_hpa}"] = ((), np.array(first.level_hpa, dtype=np.float64), _pressure())
    height = HEIGHTS_M.get(first.param)
    if height is not None:
        made[f"height_{height}m"] = (
            (),
            np.array(height, dtype=np.float64),
            {"standard_name": "height", "long_name": "height", "units": "m", "positive": "up", "axis": "Z"},
        )
    if product is not None and product.percent:
        name = f"quantile_{product.percent}".replace(".", "p")
        made[name] = ((), np.array(product.share, dtype=np.float64), {"long_name": "quantile", "units": "1"})
    if product is not None and product.comparison:
        made[f"{name_of(variable)}_threshold"] = (
            (),
            np.array(product.threshold, dtype=np.float64),
            {"long_name": "threshold", "units": first.units.replace("**", ""), "comparison": product.comparison},
        )
    return made


def _pressure() -> dict[str, Any]:
    return {
        "standard_name": "air_pressure",
        "long_name": "pressure level",
        "units": "hPa",
        "positive": "down",
        "axis": "Z",
    }


def _long_name(variable: Variable) -> str:
    first = variable.fields[0]
    field = first.variable.replace("_", " ")
    if "level" not in variable.dimensions and first.level_hpa is not None:
        field = f"{field} at {first.level_hpa} hPa"
    return field if variable.product is None else _of_members(field, variable.product, first.units.replace("**", ""))


def _of_members(field: str, product: Product, units: str) -> str:
    if product.percent:
        return f"{field}: {product.percent} % quantile of the members"
    if product.comparison:
        return f"{field}: probability of {product.comparison} {product.threshold} {units}"
    return f"{field}: {WORDS.get(product.kind, f'{product.kind} of the members')}"
