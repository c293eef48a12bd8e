"""Products of an ensemble in Zarr stores, which are no forecasts: told by attributes, names and labels of members."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..channels import Channel
from ..errors import InputError
from ..inputs.field_kinds import TYPES

if TYPE_CHECKING:
    import xarray

MEMBER_METHOD = re.compile(r"\b(?:number|realization|sample|member|ensemble|ensemble_member): (?!point\b)(\w+)")
"""A statistic over members in CF's ``cell_methods``, such as ``number: standard_deviation``."""

STATISTICS = "mean|avg|average|median|spread|std|stdev|stddev|standard_deviation|var|variance|min|minimum|max|maximum"
SHARES = r"(?:quantile|percentile|probability|prob|pct)_?[\w.-]*"

PRODUCT_NAME = re.compile(rf"(?:(?:ens|ensemble)_?)?(?:{STATISTICS}|{SHARES})", re.IGNORECASE)
"""What is added to the name of a variable, or stands among the labels of members."""


def statistic_of(attributes: Mapping[Any, Any]) -> str:
    """Which statistic of the members a variable is, by its attributes; empty if it is none.

    Parameters
    ----------
    attributes : mapping
        CF's ``cell_methods``, or the keys of GRIB that cfgrib keeps.
    """
    method = MEMBER_METHOD.search(str(attributes.get("cell_methods", "")))
    kind = str(attributes.get("GRIB_dataType", ""))
    return f"cell_methods {method[0]}" if method else f"GRIB_dataType {kind}" if kind in TYPES else ""


def refuse_products(path: str, dataset: xarray.Dataset, channels: Sequence[Channel]) -> None:
    """Refuse variables that bear the name of a field and are a statistic of it.

    Raises
    ------
    InputError
        Names all of them.
    """
    names = dict.fromkeys(name for channel in channels for name in (channel.variable, channel.name) if name in dataset)
    found = {name: statistic_of(dataset[name].attrs) for name in names}
    products = [f"{name} ({statistic})" for name, statistic in found.items() if statistic]
    if products:
        raise InputError(
            f"{path}: expected fields of members or of single forecasts, got products of an ensemble: "
            f"{', '.join(products)}"
        )


def product_variables(dataset: xarray.Dataset, channels: Sequence[Channel]) -> list[str]:
    """Variables that hold products of these channels beside the fields themselves, such as ``geopotential_mean``."""
    fields = {name for channel in channels for name in (channel.variable, channel.name)}
    return [str(name) for name in dataset.data_vars if any(_is_product_of(str(name), field) for field in fields)]


def _is_product_of(name: str, field: str) -> bool:
    return name.startswith(f"{field}_") and PRODUCT_NAME.fullmatch(name[len(field) + 1 :]) is not None


def member_positions(labels: Sequence[Any]) -> list[int]:
    """Positions of the members among labels of which some may name products, such as ``mean``."""
    return [
        position
        for position, label in enumerate(labels)
        if not (isinstance(label, str) and PRODUCT_NAME.fullmatch(label.strip()))
    ]
