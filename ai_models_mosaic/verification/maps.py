"""Pictures of one date: maps of truth, mean, spread and a member, and plumes at a point."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..arrays import FloatArray
from ..channels import Channel
from ..geometry.grid import LatLonGrid
from ..report.drawing import Canvas, colour_bar
from ..report.maps import contour_levels
from ..report.plumes import where
from ..report.styles import Bands, Style, bands, nice_levels, spread_bands, style_of, value_bands
from ..report.units import pretty
from .accumulate import Sums
from .snapshots import Picture, Snapshot

SHOWN_PLUMES = 6
"""Channels of the picture with plumes."""

ERROR_COLOURS = "RdBu_r"

WIDTH_INCHES, ROW_INCHES = 10.0, 3.3
"""Of a page of maps, and of a row of two."""


def map_pages(sums: Sums, name: str) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """Truth, ensemble mean, a member, spread and error of every channel; name of the channel and what draws them.

    Parameters
    ----------
    sums : Sums
        With a snapshot; without one there are no pages.
    name : str
        Of the forecasts.
    """
    snapshot = sums.snapshot
    if snapshot is None:
        return
    canvas = Canvas(_coordinates(snapshot.grid), width=700)
    for channel in sums.channels:
        if channel.name in snapshot.pictures:
            yield channel.label, partial(_map_page, canvas, snapshot, channel, sums.members, name)


def _map_page(canvas: Canvas, snapshot: Snapshot, channel: Channel, members: int, name: str) -> Figure:
    picture = snapshot.pictures[channel.name]
    kind = style_of(channel.param, channel.level_hpa, channel.units)
    shown = _shown(picture, members, snapshot.member, kind)
    figure, axes = _sheet(len(shown))
    for axis, field in zip(axes, shown, strict=True):
        _map(canvas, figure, axis, field)
    figure.suptitle(
        f"{name}: {kind.label}, from {snapshot.initial_time:%Y-%m-%d %H} UTC, day {picture.lead_hours / 24:g}",
        fontsize=12,
    )
    return figure


def _coordinates(grid: LatLonGrid) -> xarray.Dataset:
    return xarray.Dataset(coords={"latitude": list(grid.latitude_deg), "longitude": list(grid.longitude_deg)})


def _sheet(count: int) -> tuple[Figure, list[Axes]]:
    """As many axes, in rows of two; the last stands in the middle if it is alone."""
    rows = [[f"{place}"] * 2 + [f"{place + 1}"] * 2 for place in range(0, count - 1, 2)]
    if count % 2:
        rows.append([".", f"{count - 1}", f"{count - 1}", "."])
    figure = Figure(figsize=(WIDTH_INCHES, ROW_INCHES * len(rows) + 0.4), layout="constrained")
    axes = figure.subplot_mosaic("\n".join("".join(row) for row in rows))
    return figure, [axes[f"{place}"] for place in range(count)]


@dataclass(frozen=True)
class _Field:
    """What one map shows: ``(lat, lon)``, in the units of its bar."""

    title: str
    values: FloatArray
    bands: Bands
    units: str
    contours: tuple[float, ...] = ()


def _shown(picture: Picture, members: int, number: int, kind: Style) -> list[_Field]:
    """The maps of one channel; fields of the same kind share their colours."""
    plain = {"truth": picture.truth}
    if members > 1:
        plain["ensemble mean"] = picture.mean
    plain[f"member {number}" if members > 1 else "forecast"] = picture.member
    plain = {title: kind.converted(values).T for title, values in plain.items()}
    ends = [(float(np.nanmin(values)), float(np.nanmax(values))) for values in plain.values()]
    kind = kind.fitted(min(low for low, _ in ends), max(high for _, high in ends))
    shades, lines = value_bands(kind), tuple(contour_levels(kind)) if kind.contour else ()
    fields = [_Field(title, values, shades, kind.units, lines) for title, values in plain.items()]
    if members > 1:
        spread = picture.spread.T * kind.factor
        title = f"spread of {members} members"
        fields.append(_Field(title, spread, spread_bands(float(np.nanmax(spread))), kind.units))
    error = (picture.mean - picture.truth).T * kind.factor
    largest = float(np.nanmax(np.abs(error)))
    title = "mean − truth" if members > 1 else "forecast − truth"
    return [*fields, _Field(title, error, bands(ERROR_COLOURS, nice_levels(-largest, largest, 10)), kind.units)]


def _required(snapshot: Snapshot | None) -> Snapshot:
    if snapshot is None:
        raise ValueError("expected a snapshot")
    return snapshot


def _map(canvas: Canvas, figure: Figure, axis: Axes, field: _Field) -> None:
    canvas.fill(axis, field.values, field.bands)
    if field.contours:
        canvas.contours(axis, field.values, field.contours, labels=False, width=0.4)
    canvas.frame(axis, line=0.5)
    axis.set_title(field.title, fontsize=10)
    colour_bar(figure, [axis], field.bands, field.units)


def plume_page(sums: Sums, name: str, colour: str) -> Figure:
    """Members, their mean and the truth at a point, by lead time.

    Parameters
    ----------
    sums : Sums
        With a snapshot.
    name : str
        Of the forecasts.
    colour : str
        Of the members.

    Raises
    ------
    ValueError
        If there is no snapshot.
    """
    snapshot = _required(sums.snapshot)
    channels = [channel for channel in sums.channels if channel.name in snapshot.pictures][:SHOWN_PLUMES]
    figure = Figure(figsize=(7, 2.2 * len(channels) + 0.8), layout="constrained")
    axes = figure.subplots(len(channels), 1, squeeze=False, sharex=True)[:, 0]
    for axis, channel in zip(axes, channels, strict=True):
        picture = snapshot.pictures[channel.name]
        days = np.array(picture.plume_lead_hours) / 24
        single = sums.members == 1
        if not single:
            axis.plot(days, picture.plume.T, color=colour, linewidth=0.7, alpha=0.6)
        label = "forecast" if single else f"mean of {sums.members} members (thin lines)"
        axis.plot(days, picture.plume.mean(axis=0), color=colour, linewidth=2, label=label)
        axis.plot(days, picture.plume_truth, color="#222222", linewidth=1.6, linestyle="--", label="truth")
        axis.set_ylabel(f"{channel.label} ({pretty(channel.units)})", fontsize=8)
        whole_days(axis)
        axis.grid(alpha=0.25)
    axes[0].legend(fontsize=7, frameon=False)
    axes[-1].set_xlabel("lead time (days)")
    figure.suptitle(f"{name}: {_place(snapshot)}\nfrom {snapshot.initial_time:%Y-%m-%d %H} UTC", fontsize=12)
    return figure


def _place(snapshot: Snapshot) -> str:
    """The place as it was asked for, and the grid's point that stands for it, if that is another."""
    point = where(*snapshot.point_deg)
    asked = where(*snapshot.asked_deg)
    return f"at {asked}" if asked == point else f"at {asked} (nearest point of the grid: {point})"


def whole_days(axis: Axes) -> None:
    """An axis of lead times in days that begins at step 0 and has ticks at whole days only."""
    axis.set_xlim(left=0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
