"""Every member, small: what the mean hides."""

from __future__ import annotations

import math
from collections.abc import Mapping

import xarray
from matplotlib.figure import Figure

from ..arrays import FloatArray
from .drawing import Canvas, colour_bar, fitted, members_in_words, step_at, when
from .ensemble import canonical
from .fields import mean, shown
from .maps import draw_values
from .projections import Projection
from .scenarios import Representatives
from .styles import Style, value_bands

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
    titles = ["mean", *(f"{number}" for number in dataset["number"].values)]
    canvas = Canvas(dataset, projection, width=360)
    figure = _sheet(canvas, dict(zip(titles, [mean(members), *members], strict=True)), kind)
    figure.suptitle(f"{kind.title}, {members_in_words(dataset)} and their mean\n{when(dataset, step)}", fontsize=10)
    return figure


def scenarios(dataset: xarray.Dataset, chosen: Representatives, projection: Projection | None = None) -> Figure:
    """The members that stand for clusters of an ensemble, with the weights of these, and the medoid of all.

    Parameters
    ----------
    dataset : xarray.Dataset
        The ensemble.
    chosen : Representatives
        Of it.
    projection : Projection or None
        The globe or the ensemble's region, if None.
    """
    dataset = canonical(dataset)
    kind = fitted(dataset, chosen.name, [chosen.step])
    members = dict(zip(dataset["number"].values.tolist(), shown(dataset, chosen.name, chosen.step), strict=True))
    fields = {title: members[one.member] for title, one in zip(chosen.titles, chosen.scenarios, strict=True)}
    fields[f"medoid of all, member {chosen.medoid}"] = members[chosen.medoid]
    figure = _sheet(Canvas(dataset, projection, width=360), fields, kind)
    figure.suptitle(f"{kind.title}, scenarios of {members_in_words(dataset)}\n{chosen.when}", fontsize=10)
    return figure


def _sheet(canvas: Canvas, fields: Mapping[str, FloatArray], kind: Style) -> Figure:
    """Small maps of fields ``(latitude, longitude)``, with their titles."""
    columns = _columns(len(fields), canvas.shape)
    rows = math.ceil(len(fields) / columns)
    height = rows * (WIDTH_INCHES / columns * canvas.shape + 0.2) + 1.2
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (title, values) in zip(axes, fields.items(), strict=False):
        draw_values(canvas, axis, values, kind, small=True)
        axis.tick_params(labelbottom=False, labelleft=False)
        axis.set_title(title, fontsize=7, pad=1, fontweight="bold" if title == "mean" else "normal")
    for axis in axes[len(fields) :]:
        axis.remove()
    colour_bar(figure, axes[: len(fields)], value_bands(kind), kind.axis)
    return figure


def _columns(count: int, shape: float) -> int:
    """As many as make the sheet about as high as it is wide."""
    return max(1, min(count, math.ceil(math.sqrt(count * max(shape, 0.4) * 1.8))))
