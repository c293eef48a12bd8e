"""One contour of every member: where they agree the lines lie together."""

from __future__ import annotations

from typing import Any

import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..arrays import FloatArray
from ..errors import OptionError
from .drawing import Canvas, members_in_words, step_at, when
from .ensemble import canonical
from .fields import mean, percentiles, present, shown, style
from .projections import Projection
from .styles import Style, nice_levels

WIDTH_INCHES = 8.0
MEMBER, MEAN = "#0b6fb8", "#111111"


def spaghetti(
    dataset: xarray.Dataset,
    name: str,
    level: float | None = None,
    hours: float | None = None,
    projection: Projection | None = None,
) -> Figure:
    """One contour of every member, and of their mean.

    Parameters
    ----------
    dataset : xarray.Dataset
        An ensemble.
    name : str
        Of the field, such as ``z500``.
    level : float or None
        Value of the contour, in the units that are shown; a usual one if None.
    hours : float or None
        Lead time; the middle one if None.
    projection : Projection or None
        The globe or the ensemble's region, if None.

    Raises
    ------
    OptionError
        If there is no such field or lead time, or no member has the value.
    """
    dataset = canonical(dataset)
    step, kind = step_at(dataset, hours), style(dataset, name)
    members = shown(dataset, name, step)
    low, high = percentiles(members, (0, 100))
    if level is None:
        level = contour_of(kind, members)
    elif not low < level < high:
        raise OptionError(
            f"expected a contour between {low:.4g} and {high:.4g} {kind.units}, the "
            f"least and largest values of {kind.label}; got {level:g}"
        )
    canvas = Canvas(dataset, projection, width=700)
    figure = Figure(figsize=(WIDTH_INCHES, WIDTH_INCHES * canvas.shape + 0.9), layout="constrained")
    axis = figure.subplots()
    canvas.frame(axis, filled=True, line=0.4)
    for values in present(members):
        _line(canvas, axis, values, level, colors=MEMBER, linewidths=0.6, alpha=0.55)
    _line(canvas, axis, mean(members), level, colors=MEAN, linewidths=1.6)
    lines = [Line2D([], [], color=MEMBER, linewidth=0.9), Line2D([], [], color=MEAN, linewidth=1.6)]
    labels = [members_in_words(dataset), "their mean"]
    axis.legend(lines, labels, loc="lower center", bbox_to_anchor=(0.5, -0.09), ncols=2, fontsize=8, frameon=False)
    axis.set_title(f"{kind.title}, contour of {level:g} {kind.units}\n{when(dataset, step)}", fontsize=9)
    return figure


def _line(canvas: Canvas, axis: Axes, values: FloatArray, level: float, **looks: Any) -> None:
    raster = canvas.sampler(values)
    low, high = percentiles(raster, (0, 100))
    if low < level < high:
        axis.contour(*canvas.paper.axes, raster, [level], **looks)


def contour_of(kind: Style, members: FloatArray) -> float:
    """The usual contour of a field if it is there, else a round value in the middle."""
    low, middle, high = percentiles(members, (2, 50, 98))
    if kind.line is not None and low < kind.line < high:
        return kind.line
    return min(nice_levels(low, high), key=lambda level: abs(level - middle))
