"""Every member, small: what the mean hides."""

from __future__ import annotations

import math

import xarray
from matplotlib.figure import Figure

from .drawing import Canvas, colour_bar, fitted, members_in_words, step_at, when
from .ensemble import canonical
from .fields import mean, shown
from .maps import draw_values
from .projections import Projection
from .styles import value_bands

WIDTH_INCHES = 9.0


def stamps(
    dataset: xarray.Dataset, name: str, hours: float | None = None, projection: Projection | None = None
) -> Figure:
    """The mean and every member.

    Parameters
    ----------
    dataset : xarray.Dataset
        An ensemble.
    name : str
        Of the field, such as ``z500``.
    hours : float or None
        Lead time; the middle one if None.
    projection : Projection or None
        The globe or the ensemble's region, if None.

    Raises
    ------
    OptionError
        If there is no such field or lead time.
    """
    dataset = canonical(dataset)
    step = step_at(dataset, hours)
    members, kind = shown(dataset, name, step), fitted(dataset, name, [step])
    canvas = Canvas(dataset, projection, width=360)
    columns = _columns(len(members) + 1, canvas.shape)
    rows = math.ceil((len(members) + 1) / columns)
    height = rows * (WIDTH_INCHES / columns * canvas.shape + 0.2) + 1.2
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    titles = ["mean", *(f"{number}" for number in dataset["number"].values)]
    for axis, title, values in zip(axes, titles, [mean(members), *members], strict=False):
        draw_values(canvas, axis, values, kind, small=True)
        axis.tick_params(labelbottom=False, labelleft=False)
        axis.set_title(title, fontsize=7, pad=1, fontweight="bold" if title == "mean" else "normal")
    for axis in axes[len(titles) :]:
        axis.remove()
    colour_bar(figure, axes[: len(titles)], value_bands(kind), kind.axis)
    figure.suptitle(f"{kind.title}, {members_in_words(dataset)} and their mean\n{when(dataset, step)}", fontsize=10)
    return figure


def _columns(count: int, shape: float) -> int:
    """As many as make the sheet about as high as it is wide."""
    return max(1, min(count, math.ceil(math.sqrt(count * max(shape, 0.4) * 1.8))))
