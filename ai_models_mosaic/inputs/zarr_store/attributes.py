"""What the attributes of a store's variables say: whether they are states, and in which units."""

from __future__ import annotations

import logging
import re
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

SPELLINGS = {
    "K": ("k", "kelvin", "kelvins", "degk", "degreekelvin", "degreeskelvin"),
    "m s**-1": ("ms-1", "m/s", "m/sec", "meterspersecond", "metrespersecond"),
    "Pa": ("pa", "pascal", "pascals"),
    "m**2 s**-2": ("m2s-2", "m2/s2", "jkg-1", "j/kg"),
    "kg kg**-1": ("kgkg-1", "kg/kg", "1", "dimensionless", "g/g"),
    "Pa s**-1": ("pas-1", "pa/s", "pa/sec"),
}
"""Of the units that are expected, in lower case and without blanks and signs of a power."""

OTHERS = frozenset(
    (
        *("c", "degc", "°c", "celsius", "degreecelsius", "degreescelsius", "f", "degf", "°f", "fahrenheit"),
        *("hpa", "mb", "mbar", "millibar", "millibars", "kpa", "hpas-1", "hpa/s", "pah-1", "pa/h"),
        *("g/kg", "gkg-1", "%", "m", "gpm", "dam", "km"),
        *("kt", "kts", "knot", "knots", "km/h", "kmh-1", "mph"),
    )
)
"""Units that a field may well be in, and must not."""


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
        _refuse_other_units(name, str(attributes.get("units") or ""), units[name], path)


def _refuse_other_units(name: str, units: str, wanted: str, path: str) -> None:
    plain = re.sub(r"[\s*^_.·]", "", units.lower())
    if not plain or plain in SPELLINGS[wanted]:
        return
    if plain in OTHERS or any(plain in spellings for spellings in SPELLINGS.values()):
        raise InputError(
            f"{redacted(path)}: {name} is in {units!r} by its attribute units: expected {wanted}. Convert it, or "
            "correct the attribute"
        )
    LOG.warning("%s: %s is in %r by its attribute units, which is taken for %s", redacted(path), name, units, wanted)
