"""Pictures of one date: maps of truth, mean, spread and a member, and plumes at a point."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..arrays import FloatArray
from ..geometry.grid import LatLonGrid, latitude_bounds, longitude_bounds
from .accumulate import Sums
from .snapshots import Picture, Snapshot

SHOWN_PLUMES = 6
"""Channels of the picture with plumes."""


def map_pages(sums: Sums, name: str) -> Iterator[tuple[str, Figure]]:
    """Truth, ensemble mean, a member, spread and error of every channel; name of the channel and drawing.

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
    for channel in sums.channels:
        picture = snapshot.pictures.get(channel.name)
        if picture is None:
            continue
        shown = _shown(picture, sums.members, snapshot.member)
        figure = Figure(figsize=(11, 2.9 * math.ceil(len(shown) / 2) + 0.4), layout="constrained")
        axes = figure.subplots(math.ceil(len(shown) / 2), 2).ravel()
        for axis, field in zip(axes, shown, strict=False):
            _map(axis, snapshot.grid, field, pretty(channel.units))
        for axis in axes[len(shown) :]:
            axis.set_axis_off()
        figure.suptitle(
            f"{name}: {channel.name.replace('_', ' ')}, from {snapshot.initial_time:%Y-%m-%d %H} UTC, "
            f"day {picture.lead_hours / 24:g}",
            fontsize=12,
        )
        yield channel.label, figure


@dataclass(frozen=True)
class _Field:
    """What one map shows, and the ends of its colours."""

    title: str
    values: FloatArray
    colours: str
    low: float
    high: float


def _shown(picture: Picture, members: int, number: int) -> list[_Field]:
    """The maps of one channel; fields of the same kind share their colours."""
    plain = {"truth": picture.truth}
    if members > 1:
        plain["ensemble mean"] = picture.mean
    plain[f"member {number}" if members > 1 else "forecast"] = picture.member
    low = min(float(values.min()) for values in plain.values())
    high = max(float(values.max()) for values in plain.values())
    fields = [_Field(title, values, "viridis", low, high) for title, values in plain.items()]
    if members > 1:
        spread = picture.spread
        fields.append(_Field(f"spread of {members} members", spread, "magma_r", 0.0, float(spread.max()) or 1.0))
    error = picture.mean - picture.truth
    largest = float(np.abs(error).max()) or 1.0
    title = "mean − truth" if members > 1 else "forecast − truth"
    return [*fields, _Field(title, error, "RdBu_r", -largest, largest)]


def pretty(units: str) -> str:
    """Units as they are printed: ``m² s⁻²``."""
    for plain, raised in (("**-1", "⁻¹"), ("**-2", "⁻²"), ("**2", "²")):
        units = units.replace(plain, raised)
    return units


def _required(snapshot: Snapshot | None) -> Snapshot:
    if snapshot is None:
        raise ValueError("expected a snapshot")
    return snapshot


def _map(axis: Axes, grid: LatLonGrid, field: _Field, units: str) -> None:
    """One field, cell by cell: no smoothing that the grid does not have."""
    bounds = longitude_bounds(np.array(grid.longitude_deg)), latitude_bounds(grid)
    mesh = axis.pcolormesh(*bounds, field.values.T, cmap=field.colours, vmin=field.low, vmax=field.high)
    axis.set_title(field.title, fontsize=10)
    axis.set_xlim(float(bounds[0][0]), float(bounds[0][-1]))
    axis.set_xticks(range(0, 361, 60))
    axis.set_yticks(range(-90, 91, 30))
    axis.tick_params(labelsize=7)
    bar = axis.figure.colorbar(mesh, ax=axis, fraction=0.05, pad=0.02)
    bar.ax.tick_params(labelsize=7)
    bar.set_label(units, fontsize=8)


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
        axis.grid(alpha=0.25)
    axes[0].legend(fontsize=7, frameon=False)
    axes[-1].set_xlabel("lead time (days)")
    latitude, longitude = snapshot.point_deg
    figure.suptitle(
        f"{name}: at {abs(latitude):g}°{'N' if latitude >= 0 else 'S'} {longitude:g}°E, "
        f"from {snapshot.initial_time:%Y-%m-%d %H} UTC",
        fontsize=12,
    )
    return figure
