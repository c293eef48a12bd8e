"""How far an ensemble may be from one without end: the Monte-Carlo error of its probabilities and means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import FloatArray
from ..errors import OptionError
from ..geometry.grid import LatLonGrid, Region
from ..outputs.products import Product, parse_products
from ..params import Field, named
from ..state import ForecastStep

OPTION = "--mc-error"

EXPECTED = (
    f"{OPTION}: expected ERROR@probability:FIELD<VALUE or ERROR@mean:FIELD, perhaps with @max, @mean, "
    "@max:N/W/S/E or @mean:N/W/S/E behind it, such as 0.02@probability:2t<273.15"
)

FEWEST = 2
"""Members whose mean has an error that can be seen."""


@dataclass(frozen=True)
class Tolerance:
    """The largest error that is asked for.

    Parameters
    ----------
    error : float
        A share (0 … 1) for a probability, else in units of the field.
    quantity : str
        ``mean:FIELD`` or ``probability:FIELD<VALUE``.
    over : str
        ``max``: the largest of all points counts; ``mean``: their mean, weighted by area.
    area : tuple of float or None
        North, west, south, east, degrees; None for the globe.
    """

    error: float
    quantity: str
    over: str = "max"
    area: tuple[float, ...] | None = None

    def __str__(self) -> str:
        area = "" if self.area is None else f":{'/'.join(f'{edge:g}' for edge in self.area)}"
        return f"{self.error:g}@{self.quantity}@{self.over}{area}"

    @property
    def field(self) -> Field:
        """Of which field."""
        return named(_name_in(self.quantity), OPTION)[0]

    @property
    def event(self) -> Product | None:
        """What is to happen, for a probability."""
        return parse_products(self.quantity)[0] if self.quantity.startswith("probability") else None


def parse_tolerances(text: str) -> tuple[Tolerance, ...]:
    """A list such as ``0.02@probability:2t<273.15,0.1@mean:2t@mean:70/-10/35/40``.

    Raises
    ------
    OptionError
        If it is none, or names a field that there is not.
    """
    return tuple(_parse(part.strip(), text) for part in text.split(","))


def _parse(part: str, text: str) -> Tolerance:
    match = re.fullmatch(
        r"(?P<error>\d*\.?\d+(?:e-?\d+)?)@(?P<quantity>mean:\w+|prob(?:ability)?:\s*\w+\s*[<>]=?\s*[^@\s]+)"
        r"(?:@(?P<over>max|mean)(?::(?P<area>[-\d.]+(?:/[-\d.]+){3}))?)?",
        part,
    )
    if match is None or float(match["error"]) <= 0:
        raise OptionError(f"{EXPECTED}, got {text!r}")
    quantity = re.sub(r"\s", "", match["quantity"]).replace("prob:", "probability:")
    try:
        area = None if match["area"] is None else tuple(float(edge) for edge in match["area"].split("/"))
    except ValueError as error:
        raise OptionError(f"{EXPECTED}, got {text!r}") from error
    if quantity.startswith("probability") and not float(match["error"]) < 1:
        raise OptionError(f"{OPTION}: the error of a probability is a share below 1, such as 0.02, got {part!r}")
    if len(named(_name_in(quantity), OPTION)) > 1:
        raise OptionError(f"{OPTION}: expected one level, such as z500, got {quantity!r}")
    made = Tolerance(float(match["error"]), quantity, match["over"] or "max", area)
    # It raises if the threshold is no number.
    _ = made.event
    return made


def _name_in(quantity: str) -> str:
    return re.split("[<>]", quantity.partition(":")[2])[0]


def posterior_error(happened: FloatArray, members: int) -> FloatArray:
    """Standard error of a probability of which so many members speak.

    Parameters
    ----------
    happened : array (...)
        Members in which it happened.
    members : int
        All.

    Returns
    -------
    float64 array (...)
        Standard deviation of what can be known of it, where every probability was as likely before (Bayes, Laplace):
        not zero where it happened in none, or in all, of a few members.
    """
    share = (happened + 1) / (members + 2)
    return np.sqrt(share * (1 - share) / (members + 3))


class SamplingError:
    """Follows the error of one quantity as members come, at every lead time after the initial one.

    Parameters
    ----------
    tolerance : Tolerance
        What is asked for.
    grid : LatLonGrid
        Of the members.

    Raises
    ------
    OptionError
        If the area has no point of the grid.
    """

    def __init__(self, tolerance: Tolerance, grid: LatLonGrid) -> None:
        self.tolerance = tolerance
        self._field, self._event = tolerance.field, tolerance.event
        try:
            self._region = Region.whole(grid) if tolerance.area is None else Region.within(grid, *tolerance.area)
        except ValueError as error:
            raise OptionError(f"{OPTION}: {error}; choose a larger one") from error
        shares = grid.cell_weights()[list(self._region.rows)]
        self._weights = np.broadcast_to(shares, self._region.shape)
        self._moments: dict[int, tuple[int, FloatArray, FloatArray]] = {}

    def add(self, forecast: ForecastStep) -> None:
        """Take a step of some members."""
        if forecast.step == 0:
            return
        channels = np.moveaxis(forecast.values[..., list(self._field.channels)], -1, 1)
        values = np.asarray(self._region.take(self._field.of(channels)), dtype=np.float64)
        for one in values:
            count, mean, squares = self._moments.get(forecast.step, (0, np.zeros(one.shape), np.zeros(one.shape)))
            seen = one if self._event is None else self._event.happens(one).astype(np.float64)
            # Welford: sums of squares would lose what is small beside a temperature in K.
            apart = seen - mean
            mean = mean + apart / (count + 1)
            self._moments[forecast.step] = (count + 1, mean, squares + apart * (seen - mean))

    @property
    def reached(self) -> float | None:
        """The error now, the largest of all lead times; None while it cannot be told."""
        errors = [self._of(*moments) for moments in self._moments.values()]
        return None if not errors or any(error is None for error in errors) else max(e for e in errors if e is not None)

    @property
    def is_met(self) -> bool:
        """Whether it is no larger than asked for."""
        return self.reached is not None and self.reached <= self.tolerance.error

    def _of(self, count: int, mean: FloatArray, squares: FloatArray) -> float | None:
        if count < FEWEST:
            return None
        if self._event is not None:
            errors = posterior_error(np.rint(mean * count), count)
        else:
            errors = np.sqrt(squares / (count - 1) / count)
        if self.tolerance.over == "max":
            return float(errors.max())
        return float(np.average(errors, weights=self._weights))


def check_tolerances(tolerances: Sequence[Tolerance], grid: LatLonGrid, lead_times_hours: Sequence[int]) -> None:
    """Refuse what no number of members could tell.

    Parameters
    ----------
    tolerances : sequence of Tolerance
        What is asked for.
    grid : LatLonGrid
        Of the members.
    lead_times_hours : sequence of int
        Those that are written, h.

    Raises
    ------
    OptionError
        If an area has no point of the grid, or no lead time is after the initial one.
    """
    for tolerance in tolerances:
        SamplingError(tolerance, grid)
    if tolerances and not any(lead_times_hours):
        raise OptionError(
            f"{OPTION} looks at lead times after 0 h that are written, and there are none: expected one in "
            "--output-steps, and a --lead-time that has it"
        )


def all_met(errors: Sequence[SamplingError]) -> bool:
    """Whether something was asked for, and all of it is reached."""
    return bool(errors) and all(error.is_met for error in errors)
