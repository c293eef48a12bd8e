"""How fields are drawn: names, units, colours, contours.

All palettes are safe for colour-blind eyes: those of ColorBrewer that say so, cividis and magma.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import matplotlib
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.ticker import MaxNLocator

from ..arrays import FloatArray, IntArray
from ..channels import STANDARD_GRAVITY
from .units import pretty

SPREAD_COLOURS = "BuPu"
PROBABILITY_COLOURS = "YlGnBu"
PROBABILITY_LEVELS = (0.0, 5.0, 20.0, 40.0, 60.0, 80.0, 95.0, 100.0)

ROUNDING = 1e-5
"""Of all that the levels reach: what lies above an edge by no more has its colour."""


@dataclass(frozen=True)
class Style:
    """How one field is drawn.

    Parameters
    ----------
    label : str
        In words, with the level.
    units : str
        As they are printed.
    factor, offset : float
        What makes shown values of the ensemble's: times the one, plus the other.
    colours : str
        Of matplotlib's palettes.
    levels : tuple of float
        Where one colour ends and the next begins; to be taken from the values if empty.
    diverging : bool
        Whether the palette has a middle, which is 0 where levels are taken from values.
    contour : float or None
        Interval of contours; None for none.
    line : float or None
        The contour of which a spaghetti plot is made; one in the middle of the values if None.
    """

    label: str
    units: str = ""
    factor: float = 1.0
    offset: float = 0.0
    colours: str = "cividis"
    levels: tuple[float, ...] = ()
    diverging: bool = False
    contour: float | None = None
    line: float | None = None

    def converted(self, values: FloatArray) -> FloatArray:
        """The ensemble's values in the units that are shown."""
        return values * np.float32(self.factor) + np.float32(self.offset)

    @property
    def axis(self) -> str:
        """Name and units."""
        return f"{self.label} ({self.units})" if self.units else self.label

    @property
    def title(self) -> str:
        """The name at the beginning of a line."""
        return self.label[:1].upper() + self.label[1:]

    def fitted(self, low: float, high: float) -> Style:
        """With levels, and a contour's if it has an interval, that suit values from low to high."""
        if self.levels:
            return self
        if self.diverging:
            high = max(abs(low), abs(high))
            low = -high
        levels = tuple(nice_levels(low, high))
        return replace(self, levels=levels, contour=self.contour and float(levels[1] - levels[0]))


@dataclass(frozen=True)
class Bands:
    """Colours between levels; values outside have the first and the last.

    Parameters
    ----------
    levels : tuple of float
        Ascending, n.
    colours : tuple of str
        Hexadecimal, n − 1 within the levels and one on either side that goes on.
    below, above : bool
        Whether there are values below the first level, and above the last.
    """

    levels: tuple[float, ...]
    colours: tuple[str, ...]
    below: bool = True
    above: bool = True

    def index(self, values: FloatArray) -> IntArray:
        """Index of the colour of every value; NaN is as above the last level."""
        edges = np.asarray(self.levels[0 if self.below else 1 : None if self.above else -1])
        # Between points that all have the value of an edge, such as 20 % of five members, there is rounding on both
        # sides of it, and that would be a pattern of two colours.
        return np.searchsorted(edges + ROUNDING * (self.levels[-1] - self.levels[0]), values)


def bands(
    palette: str, levels: Sequence[float], *, below: bool = True, above: bool = True, pale_first: bool = False
) -> Bands:
    """Bands of a palette.

    Parameters
    ----------
    palette : str
        Of matplotlib's.
    levels : sequence of float
        Ascending.
    below, above : bool
        Whether values may lie outside.
    pale_first : bool
        Make the first band white: there is next to nothing.
    """
    count = len(levels) - 1 + below + above
    found = [to_hex(colour) for colour in matplotlib.colormaps[palette](np.linspace(0.02, 0.98, count))]
    if pale_first:
        found[0] = "#ffffff"
    return Bands(tuple(levels), tuple(found), below, above)


def nice_levels(low: float, high: float, count: int = 12) -> list[float]:
    """Round numbers around a range."""
    if not np.isfinite([low, high]).all() or high <= low:
        low, high = (0.0, 1.0) if not np.isfinite(low) else (low - 0.5 * abs(low or 1), low + 0.5 * abs(low or 1))
    ticks = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(f"{tick:.10g}") for tick in ticks]


def style_of(param: str, level: float | None, units: str = "") -> Style:
    """How a field is drawn.

    Parameters
    ----------
    param : str
        ECMWF's short name.
    level : float or None
        hPa.
    units : str
        Of the values, if the param is not known here.
    """
    found = _SPECIAL.get((param, level)) or _STYLES.get(param)
    if found is None:
        return Style(param if level is None else f"{param} at {level:g} hPa", pretty(units))
    return found if level is None else replace(found, label=f"{found.label} at {level:g} hPa")


def _stepped(first: float, last: float, step: float) -> tuple[float, ...]:
    return tuple(float(value) for value in np.arange(first, last + step / 2, step))


_KELVIN = -273.15
_DAM = 0.1 / STANDARD_GRAVITY
_HEIGHT = Style("geopotential height", "dam", _DAM, colours="YlGnBu_r", contour=8.0)
_TEMPERATURE = Style("temperature", "°C", 1.0, _KELVIN, "RdYlBu_r")
_WIND = Style("wind", "m s⁻¹", colours="PuOr_r", diverging=True)
_SPEED = Style("wind speed", "m s⁻¹", colours="YlGnBu")

_STYLES = {
    "z": _HEIGHT,
    "gh": replace(_HEIGHT, factor=0.1),
    "t": _TEMPERATURE,
    "2t": replace(_TEMPERATURE, label="2 m temperature", levels=_stepped(-40, 40, 5), line=0.0),
    "2d": replace(_TEMPERATURE, label="2 m dew point", levels=_stepped(-40, 30, 5), line=0.0),
    "msl": Style(
        "mean sea level pressure",
        "hPa",
        0.01,
        colours="PuOr_r",
        levels=_stepped(970, 1055, 5),
        contour=5.0,
        line=1000.0,
    ),
    "q": Style("specific humidity", "g kg⁻¹", 1000.0, colours="YlGnBu"),
    "u": replace(_WIND, label="eastward wind"),
    "v": replace(_WIND, label="northward wind"),
    "w": Style("vertical velocity", "Pa s⁻¹", colours="PuOr", diverging=True),
    "10u": replace(_WIND, label="10 m eastward wind"),
    "10v": replace(_WIND, label="10 m northward wind"),
    "ws": _SPEED,
    "10ws": replace(_SPEED, label="10 m wind speed", levels=_stepped(0, 27, 3), line=15.0),
}

_SPECIAL: dict[tuple[str, float | None], Style] = {
    ("z", 500): replace(_HEIGHT, levels=_stepped(480, 600, 8), line=552.0),
    ("gh", 500): replace(_HEIGHT, factor=0.1, levels=_stepped(480, 600, 8), line=552.0),
    ("t", 850): replace(_TEMPERATURE, levels=_stepped(-35, 30, 5), line=0.0),
}


def spread_bands(largest: float) -> Bands:
    """Bands for spreads up to a value that few exceed."""
    levels = nice_levels(0.0, largest, 8)
    return bands(SPREAD_COLOURS, levels, below=False, pale_first=True)


def probability_bands() -> Bands:
    """Bands for probabilities in %."""
    return bands(PROBABILITY_COLOURS, PROBABILITY_LEVELS, below=False, above=False, pale_first=True)


def value_bands(style: Style) -> Bands:
    """Bands for values of a style that has levels."""
    # There is no wind below none.
    below = not (style.levels[0] == 0 and not style.diverging)
    return bands(style.colours, style.levels, below=below)


def widths(found: Bands) -> list[tuple[float, float]]:
    """Lower and upper level of every band within the levels."""
    return list(pairwise(found.levels))
