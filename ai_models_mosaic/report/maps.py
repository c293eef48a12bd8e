"""Maps: mean and spread, a member, the probability of a threshold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..arrays import FloatArray
from ..errors import OptionError
from .drawing import Canvas, colour_bar, fitted, members_in_words, step_at, when
from .ensemble import canonical
from .fields import Threshold, mean, native, percentiles, shown, spread, style
from .projections import Projection
from .styles import Style, probability_bands, spread_bands, value_bands

WIDTH_INCHES = 7.0

HIGH_SPREAD_PERCENT = 99.5
"""Of the points of a map have less spread than the last colour but one ends at."""


def mean_and_spread(
    dataset: xarray.Dataset, name: str, hours: Sequence[float | None] = (None,), projection: Projection | None = None
) -> Figure:
    """Mean and spread side by side, one row for each lead time.

    Parameters
    ----------
    dataset : xarray.Dataset
        An ensemble.
    name : str
        Of the field, such as ``z500``.
    hours : sequence of float or None
        Lead times; None for the middle one.
    projection : Projection or None
        The globe or the ensemble's region, if None.

    Raises
    ------
    OptionError
        If there is no such field or lead time.
    """
    dataset = canonical(dataset)
    steps = [step_at(dataset, each) for each in hours]
    canvas, kind = Canvas(dataset, projection, width=800), fitted(dataset, name, steps)
    fields = [shown(dataset, name, step) for step in steps]
    spreads = [spread(members) for members in fields]
    width = WIDTH_INCHES * 1.3
    figure = Figure(figsize=(width, len(steps) * (width / 2 * canvas.shape + 0.35) + 1.1), layout="constrained")
    axes = figure.subplots(len(steps), 2, squeeze=False)
    shades = spread_bands(largest(spreads))
    for row, step, members, deviation in zip(axes, steps, fields, spreads, strict=True):
        draw_values(canvas, row[0], mean(members), kind)
        canvas.fill(row[1], deviation, shades)
        canvas.frame(row[1])
        row[0].set_title(f"mean, {when(dataset, step).partition(', ')[2]}", fontsize=8)
        row[1].set_title("spread (standard deviation)", fontsize=8)
    colour_bar(figure, axes[:, 0], value_bands(kind), kind.axis)
    colour_bar(figure, axes[:, 1], shades, f"spread ({kind.units})" if kind.units else "spread")
    _title(figure, dataset, f"{kind.title}: mean and spread of {members_in_words(dataset)}")
    return figure


def member(
    dataset: xarray.Dataset, name: str, number: int, hours: float | None = None, projection: Projection | None = None
) -> Figure:
    """One member.

    Parameters
    ----------
    number : int
        Of the member; the rest as for `mean_and_spread`.

    Raises
    ------
    OptionError
        If there is no such field, lead time or member.
    """
    dataset = canonical(dataset)
    numbers = dataset["number"].values.tolist()
    if number not in numbers:
        raise OptionError(f"expected a member that the ensemble has, got {number}; it has {_ranges(numbers)}")
    step = step_at(dataset, hours)
    values = shown(dataset.sel(number=[number]), name, step)[0]
    return _single(dataset, name, step, values, f"member {number} of {len(numbers)}", projection)


def ensemble_mean(
    dataset: xarray.Dataset, name: str, hours: float | None = None, projection: Projection | None = None
) -> Figure:
    """The mean; parameters are those of `mean_and_spread`.

    Raises
    ------
    OptionError
        If there is no such field or lead time.
    """
    dataset = canonical(dataset)
    step = step_at(dataset, hours)
    values = mean(shown(dataset, name, step))
    return _single(dataset, name, step, values, f"mean of {members_in_words(dataset)}", projection)


def _single(
    dataset: xarray.Dataset, name: str, step: int, values: FloatArray, what: str, projection: Projection | None
) -> Figure:
    canvas, kind = Canvas(dataset, projection), fitted(dataset, name, [step])
    figure, axis = _sheet(canvas)
    draw_values(canvas, axis, values, kind)
    colour_bar(figure, [axis], value_bands(kind), kind.axis)
    axis.set_title(f"{kind.title}, {what}\n{when(dataset, step)}", fontsize=9)
    return figure


def ensemble_spread(
    dataset: xarray.Dataset, name: str, hours: float | None = None, projection: Projection | None = None
) -> Figure:
    """The standard deviation over members; parameters are those of `mean_and_spread`.

    Raises
    ------
    OptionError
        If there is no such field or lead time.
    """
    dataset = canonical(dataset)
    step, kind, canvas = step_at(dataset, hours), style(dataset, name), Canvas(dataset, projection)
    values = spread(shown(dataset, name, step))
    shades = spread_bands(largest([values]))
    figure, axis = _sheet(canvas)
    canvas.fill(axis, values, shades)
    canvas.frame(axis)
    colour_bar(figure, [axis], shades, f"spread ({kind.units})" if kind.units else "spread")
    axis.set_title(f"{kind.title}, spread of {members_in_words(dataset)}\n{when(dataset, step)}", fontsize=9)
    return figure


def probability(
    dataset: xarray.Dataset, threshold: Threshold, hours: float | None = None, projection: Projection | None = None
) -> Figure:
    """The share of members with an event.

    Parameters
    ----------
    threshold : Threshold
        The event; the rest as for `mean_and_spread`.

    Raises
    ------
    OptionError
        If there is no such field or lead time.
    """
    dataset = canonical(dataset)
    step, canvas, shades = step_at(dataset, hours), Canvas(dataset, projection), probability_bands()
    values = threshold.probability(native(dataset, threshold.name, step))
    figure, axis = _sheet(canvas)
    canvas.fill(axis, values, shades)
    canvas.frame(axis)
    colour_bar(figure, [axis], shades, f"probability (%), share of {members_in_words(dataset)}")
    words = threshold.words(style(dataset, threshold.name))
    axis.set_title(f"Probability of {words}\n{when(dataset, step)}", fontsize=9)
    return figure


def draw_values(canvas: Canvas, axis: Axes, values: FloatArray, kind: Style, *, small: bool = False) -> None:
    """Colours, coasts, and contours where the field is one that has them."""
    canvas.fill(axis, values, value_bands(kind))
    if kind.contour:
        levels = contour_levels(kind)
        canvas.contours(axis, values, levels[:: 2 if small else 1], labels=not small, width=0.35 if small else 0.7)
    canvas.frame(axis, line=0.3 if small else 0.6)


def contour_levels(kind: Style) -> list[float]:
    """Contours over all that the levels of a style reach, and some beyond."""
    interval = kind.contour or 1.0
    first, last = (round(level / interval) for level in (kind.levels[0], kind.levels[-1]))
    beyond = (last - first) // 2
    return [interval * number for number in range(first - beyond, last + beyond + 1)]


def largest(spreads: Sequence[FloatArray]) -> float:
    """What few points of some maps have more spread than."""
    known = [high for values in spreads for high in percentiles(values, (HIGH_SPREAD_PERCENT,)) if np.isfinite(high)]
    return max(known, default=1.0)


def _sheet(canvas: Canvas) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH_INCHES, WIDTH_INCHES * canvas.shape + 1.2), layout="constrained")
    return figure, figure.subplots()


def _title(figure: Figure, dataset: xarray.Dataset, text: str) -> None:
    figure.suptitle(f"{text}, {when(dataset, 0).partition(',')[0]}", fontsize=11)


def _ranges(numbers: Sequence[int]) -> str:
    whole = list(numbers) == list(range(numbers[0], numbers[-1] + 1))
    return f"{numbers[0]} to {numbers[-1]}" if whole else ", ".join(map(str, numbers))
