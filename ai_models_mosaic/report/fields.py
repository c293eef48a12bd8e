"""What is drawn of an ensemble: fields under their short names, in the units people read, and their statistics."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray

from ..arrays import FloatArray
from ..errors import InputError, OptionError
from .styles import Style, style_of

WIND_SPEEDS = {"10ws": ("10u", "10v"), "ws": ("u", "v")}
"""Speeds that are made of components, where an ensemble has none."""

PREFERRED = ("z500", "t850", "msl", "2t", "10ws")
"""Fields that are drawn if nothing else is asked for."""

MOST_LISTED = 24

MISSING_FIELDS = "missing_fields"
"""Attribute of a dataset: how many fields are not there that others would let expect."""

WITHOUT = "means, spreads and probabilities are of the members that have the field"
"""What that means for what is drawn."""

HELD_LEVELS = "held_levels"
"""Attribute of a variable that is not on every level of its dataset: those that it is on, hPa."""

Point = tuple[float, float, str]
"""Latitude and longitude in degrees, and a name."""


def split(name: str, dataset: xarray.Dataset) -> tuple[str, float | None]:
    """Param and level in hPa of a field such as ``z500``, ``2t`` or ``10ws``, if the ensemble has it.

    Raises
    ------
    OptionError
        If it has not.
    """
    for param, level in _readings(name):
        parts = [param] if param in dataset else [part for part in WIND_SPEEDS.get(param, ()) if part in dataset]
        if len(parts) < (1 if param in dataset else 2):
            continue
        levels = levels_of(dataset, parts[0])
        if level in levels or (level is None and not levels):
            return param, level
    known = names(dataset)
    listed = ", ".join(known[:MOST_LISTED]) + (f" and {len(known) - MOST_LISTED} more" * (len(known) > MOST_LISTED))
    raise OptionError(f"expected fields that the ensemble has, got {name}; it has {listed}")


def _readings(name: str) -> list[tuple[str, float | None]]:
    match = re.fullmatch(r"(.*?\D)(\d+(?:\.\d+)?)", name)
    return [(name, None), *([(match[1], float(match[2]))] if match else [])]


def names(dataset: xarray.Dataset) -> list[str]:
    """Every field that can be drawn, speeds made of components included."""
    found = []
    speeds = [speed for speed, parts in WIND_SPEEDS.items() if speed not in dataset and set(parts) <= {*dataset}]
    for param in [*map(str, dataset.data_vars), *speeds]:
        levels = levels_of(dataset, WIND_SPEEDS[param][0] if param in speeds else param)
        found += [f"{param}{level:g}" for level in levels] or [param]
    return found


def levels_of(dataset: xarray.Dataset, param: str) -> list[float]:
    """Levels in hPa that a variable has fields on; none if it is on no levels."""
    variable = dataset[param]
    return list(variable.attrs.get(HELD_LEVELS, dataset["level"].values.tolist())) if "level" in variable.dims else []


def preferred(dataset: xarray.Dataset) -> list[str]:
    """The fields that are drawn if nothing else is asked for; of an ensemble with none of them, the first few."""
    known = names(dataset)
    return [name for name in PREFERRED if name in known] or known[: len(PREFERRED)]


def native(dataset: xarray.Dataset, name: str, step: int) -> FloatArray:
    """Values ``(number, latitude, longitude)`` in the ensemble's own units.

    Parameters
    ----------
    dataset : xarray.Dataset
        As `canonical` returns it.
    name : str
        Such as ``z500``.
    step : int
        Index of the lead time.

    Raises
    ------
    OptionError
        If there is no such field.
    """
    param, level = split(name, dataset)
    chosen = dataset.isel(step=step) if level is None else dataset.isel(step=step).sel(level=level)
    parts = [param] if param in dataset else WIND_SPEEDS[param]
    axes = ("number", "latitude", "longitude")
    values = [_with_members(chosen[part]).transpose(*axes).values.astype(np.float32) for part in parts]
    return values[0] if len(values) == 1 else np.hypot(*values)


def _with_members(field: xarray.DataArray) -> xarray.DataArray:
    return field if "number" in field.dims else field.expand_dims(number=[0])


def shown(dataset: xarray.Dataset, name: str, step: int) -> FloatArray:
    """Values ``(number, latitude, longitude)`` in the units of the field's `Style`."""
    return style(dataset, name).converted(native(dataset, name, step))


def style(dataset: xarray.Dataset, name: str) -> Style:
    """How a field is drawn.

    Raises
    ------
    OptionError
        If there is no such field.
    """
    param, level = split(name, dataset)
    source = dataset[param if param in dataset else WIND_SPEEDS[param][0]]
    return style_of(param, level, str(source.attrs.get("units", "")))


def present(members: FloatArray) -> FloatArray:
    """The members that have the field; all if none has it."""
    there = ~np.isnan(members).all(axis=(1, 2))
    return members[there] if there.any() else members


def percentiles(values: FloatArray, wanted: Sequence[float]) -> list[float]:
    """Percentiles of what is not NaN; NaN if nothing is."""
    known = values[~np.isnan(values)]
    return [float(each) for each in np.percentile(known, wanted)] if known.size else [float("nan")] * len(wanted)


def mean(members: FloatArray) -> FloatArray:
    """The mean over the members that are there."""
    return present(members).mean(axis=0)


def spread(members: FloatArray) -> FloatArray:
    """The standard deviation over members, of the population that they are drawn from; 0 of one member."""
    members = present(members)
    if len(members) == 1:
        return np.zeros_like(members[0])
    return members.std(axis=0, ddof=1)


@dataclass(frozen=True)
class Threshold:
    """An event, such as a temperature below freezing.

    Parameters
    ----------
    name : str
        Of the field.
    below : bool
        Whether the event lies below the value, or above.
    value : float
        In the units of the ensemble, that is in SI.
    """

    name: str
    below: bool
    value: float

    @classmethod
    def parsed(cls, text: str) -> Threshold:
        """From ``2t<273.15`` or ``10ws>17.2``.

        Raises
        ------
        OptionError
            If it is of another form.
        """
        match = re.fullmatch(r"\s*(\w+)\s*([<>])\s*([-+.\deE]+)\s*", text)
        try:
            if match is None:
                raise ValueError
            return cls(match[1], match[2] == "<", float(match[3]))
        except ValueError as error:
            raise OptionError(
                f"--threshold: expected a field, < or >, and a value in SI units, such as '2t<273.15'; got {text}"
            ) from error

    def probability(self, members: FloatArray) -> FloatArray:
        """Share of the members with the event, %; NaN where they have no value."""
        members = present(members)
        event = members < self.value if self.below else members > self.value
        return np.where(np.isnan(members).any(axis=0), np.nan, 100.0 * event.mean(axis=0)).astype(np.float32)

    def words(self, kind: Style) -> str:
        """The event, in the units that people read: ``2 m temperature below 0 °C``."""
        return f"{kind.label} {'below' if self.below else 'above'} {self._value(kind)}"

    def symbols(self, kind: Style) -> str:
        """The event without the field: ``< 0 °C``."""
        return f"{'<' if self.below else '>'} {self._value(kind)}"

    def _value(self, kind: Style) -> str:
        return f"{round(self.value * kind.factor + kind.offset, 6):.4g} {kind.units}".strip()


def default_thresholds(chosen: Sequence[str]) -> list[Threshold]:
    """Events of the chosen fields that are of interest anywhere: frost and gales."""
    known = {"2t": Threshold("2t", True, 273.15), "10ws": Threshold("10ws", False, 17.2)}
    return [known[name] for name in chosen if name in known]


def series(dataset: xarray.Dataset, chosen: Sequence[str], points: Sequence[Point]) -> dict[str, FloatArray]:
    """Values ``(point, step, number)`` at points, between the grid's points bilinearly, in the units of the styles.

    Raises
    ------
    InputError
        If a point lies outside the grid.
    """
    from .rasters import Sampler

    place = np.array([[point[1], point[0]] for point in points])
    sampler = Sampler(dataset["latitude"].values, dataset["longitude"].values, place[:, 0], place[:, 1])
    for (latitude, longitude, name), outside in zip(points, sampler.outside, strict=True):
        if outside:
            raise InputError(f"--point {latitude:g},{longitude:g},{name}: lies outside the grid of the ensemble")
    return {
        name: np.stack([sampler(shown(dataset, name, step)).T for step in range(dataset.sizes["step"])], axis=1)
        for name in chosen
    }
