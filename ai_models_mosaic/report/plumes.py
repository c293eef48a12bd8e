"""Members and their quantiles at a point, by valid time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, DayLocator, num2date
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ..arrays import AnyArray, FloatArray
from .drawing import HOUR, when
from .ensemble import canonical
from .fields import Point, percentiles, preferred, series, style

COLOUR, MEDIAN = "#0b6fb8", "#0a2f51"

QUANTILES = ((0.1, 0.9, 0.18), (0.25, 0.75, 0.30))
"""Lower, upper, and how dark the band between them is."""

MOST_DAYS = 16
"""Days up to which each has its tick."""


def plumes(dataset: xarray.Dataset, point: Point, names: Sequence[str] = ()) -> Figure:
    """Members, quantiles and median at a point, from the first lead time on.

    Parameters
    ----------
    dataset : xarray.Dataset
        An ensemble.
    point : (float, float, str)
        Latitude and longitude in degrees, and a name.
    names : sequence of str
        Of the fields; the usual ones if empty.

    Raises
    ------
    OptionError
        If there is no such field.
    InputError
        If the point lies outside the grid.
    """
    dataset = canonical(dataset)
    names = list(names) or preferred(dataset)
    values = series(dataset, names, [point])
    return drawn(dataset, point, {name: each[0] for name, each in values.items()})


def drawn(dataset: xarray.Dataset, point: Point, values: Mapping[str, FloatArray]) -> Figure:
    """As `plumes`, of values ``(step, number)`` by name that are there already."""
    figure = Figure(figsize=(5.4, 1.45 * len(values) + 0.9), layout="constrained")
    axes = figure.subplots(len(values), 1, squeeze=False, sharex=True)[:, 0]
    times = dataset["time"].values + dataset["step"].values
    for axis, (name, members) in zip(axes, values.items(), strict=True):
        kind = style(dataset, name)
        _plume(axis, times, members)
        axis.set_title(f"{kind.title} ({kind.units})" if kind.units else kind.title, fontsize=8, loc="left", pad=3)
    _dates(axes[-1], times)
    if dataset.sizes["number"] > 1:
        lines, labels = axes[0].get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside lower center", ncols=4, fontsize=7, frameon=False)
    latitude, longitude, place = point
    figure.suptitle(
        f"{place + ', ' if place else ''}{where(latitude, longitude)}, {when(dataset, 0).partition(',')[0]}"
    )
    return figure


def where(latitude: float, longitude: float) -> str:
    """Coordinates as they were asked for: ``52.5°N 13.4°E``."""
    east = (longitude + 180) % 360 - 180 if longitude > 180 else longitude
    return f"{abs(latitude):g}°{'S' if latitude < 0 else 'N'} {abs(east):g}°{'W' if east < 0 else 'E'}"


def _plume(axis: Axes, times: AnyArray, members: FloatArray) -> None:
    if members.shape[1] > 1:
        for low, high, alpha in QUANTILES:
            ends = np.array([percentiles(each, (100 * low, 100 * high)) for each in members]).T
            label = f"{100 * low:g}–{100 * high:g} %"
            axis.fill_between(times, *ends, color=COLOUR, alpha=alpha, linewidth=0, label=label)
        axis.plot(times, members, color=COLOUR, linewidth=0.45, alpha=0.5)
        axis.plot([], [], color=COLOUR, linewidth=0.7, label=f"{members.shape[1]} members")
    axis.plot(times, [percentiles(each, (50,))[0] for each in members], color=MEDIAN, linewidth=1.8, label="median")
    axis.grid(color="#0000001f", linewidth=0.5)
    axis.tick_params(labelsize=7)
    axis.margins(x=0)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _dates(axis: Axes, times: AnyArray) -> None:
    """Ticks at whole days where there is room for them."""
    days = (times[-1] - times[0]) / HOUR / 24
    if 2 <= days <= MOST_DAYS:
        axis.xaxis.set_major_locator(DayLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(_day))
    else:
        locator = AutoDateLocator()
        axis.xaxis.set_major_locator(locator)
        axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axis.set_xlabel("valid time (UTC)", fontsize=8)


def _day(value: float, position: int | None) -> str:
    """Weekday and day, with the month where it begins."""
    date = num2date(value)
    month = f"\n{date:%b}" if position == 0 or date.day == 1 else ""
    return f"{date:%a}\n{date.day}{month}"
