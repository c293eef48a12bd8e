"""What the attributes of a store's variables say: whether they are states, and in which units."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...channels import CHANNELS
from ...errors import InputError
from ...wording.redaction import redacted

if TYPE_CHECKING:
    import xarray

LOG = logging.getLogger(__name__)

NO_STATE = re.compile(
    r"\b(time|realization|number|member|ensemble|sample)s?\s*:\s*"
    r"(mean|sum|max|min|median|mode|range|mid_range|standard_deviation|variance|root_mean_square)"
)
"""CF's cell methods of what is no state."""

UNITS = {
    "K": (
        ("k", "kelvin", "kelvins", "degk", "degreekelvin", "degreeskelvin", "degreesk"),
        ("c", "degc", "°c", "celsius", "degreecelsius", "degreescelsius", "degreesc", "f", "degf", "°f", "fahrenheit"),
    ),
    "m s**-1": (
        ("ms-1", "m/s", "m/sec", "msec-1", "meterspersecond", "metrespersecond", "meters/second"),
        ("kt", "kts", "kn", "knot", "knots", "km/h", "kmh-1", "kmhr-1", "kph", "mph"),
    ),
    "Pa": (
        ("pa", "pascal", "pascals", "nm-2"),
        ("hpa", "hectopascal", "hectopascals", "mb", "mbar", "millibar", "millibars", "kpa"),
    ),
    "m**2 s**-2": (
        ("m2s-2", "m2/s2", "jkg-1", "j/kg"),
        ("m", "meter", "meters", "metre", "metres", "gpm", "dam", "gpdam", "km"),
    ),
    "kg kg**-1": (("kgkg-1", "kg/kg", "1", "dimensionless", "g/g", "gg-1"), ("g/kg", "gkg-1", "%")),
    "Pa s**-1": (("pas-1", "pa/s", "pa/sec"), ("hpas-1", "hpa/s", "pah-1", "pa/h", "hpah-1", "hpa/h", "ms-1", "m/s")),
}
"""Spellings of units that are expected, and of others that such a field may well be in, as `_plain` has them."""

EXPONENTS = str.maketrans("⁰¹²³⁻−", "0123--")


def refuse_other_fields(dataset: xarray.Dataset, path: str) -> None:
    """Refuse variables that are no states, or in other units, by what they say of themselves.

    Parameters
    ----------
    dataset : xarray.Dataset
        With the variables of WeatherBench 2.
    path : str
        For messages.

    Raises
    ------
    InputError
        Says which, and why.
    """
    units = {channel.variable: channel.units for channel in CHANNELS}
    for name in sorted(units.keys() & {str(name) for name in dataset.data_vars}):
        attributes = dataset[name].attrs
        methods, kind = str(attributes.get("cell_methods", "")), attributes.get("GRIB_stepType", "instant")
        if NO_STATE.search(methods) or kind not in ("instant", "unknown"):
            said = f"cell_methods {methods!r}" if NO_STATE.search(methods) else f"GRIB_stepType {kind!r}"
            raise InputError(f"{redacted(path)}: {name} is not a state, but has {said}: expected instantaneous fields")
    refuse_other_units(dataset, path, units)


def refuse_other_units(dataset: xarray.Dataset, path: str, expected: Mapping[str, str]) -> None:
    """Refuse variables that are in other units, by what they say of themselves; tell of units that are not known.

    Parameters
    ----------
    dataset : xarray.Dataset
    path : str
        For messages.
    expected : mapping of str to str
        SI units by name of variable; those that are not there are none of this.

    Raises
    ------
    InputError
        Names all of them.
    """
    others = []
    for name in sorted(name for name in expected if name in dataset.data_vars and expected[name] in UNITS):
        said, wanted = str(dataset[name].attrs.get("units") or ""), expected[name]
        usual, other = UNITS[wanted]
        if _plain(said) in other:
            others.append(f"{name} in {said!r}, not {wanted}")
        elif _plain(said) not in ("", *usual):
            LOG.warning(
                "%s: %s is in %r by its attribute units, which is taken for %s", redacted(path), name, said, wanted
            )
    if others:
        raise InputError(
            f"{redacted(path)}: expected fields in SI units, got {', '.join(others)}. Convert them, or correct the "
            "attribute units"
        )


def _plain(units: str) -> str:
    """Units in lower case, without blanks and signs of a power."""
    return re.sub(r"[\s*^_.·{}]", "", units.lower().translate(EXPONENTS))
