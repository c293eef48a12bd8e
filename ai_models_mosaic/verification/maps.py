"""Pictures of one date: maps of truth, mean, spread and a member, and plumes at a point."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..arrays import FloatArray
from ..grid import LatLonGrid, latitude_bounds, longitude_bounds
from .accumulate import Sums
from .snapshots import Snapshot

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
    for channel in sums.channels if snapshot else ():
        assert_snapshot = _required(snapshot)
        picture = assert_snapshot.pictures.get(channel.name)
        if picture is None:
            continue
        single = sums.members == 1
        figure = Figure(figsize=(11, 8.4 if not single else 6.0), layout="constrained")
        axes = figure.subplots(2 if single else 3, 2).ravel()
        fields = [picture.truth, picture.member] if single else [picture.truth, picture.mean, picture.member]
        low, high = (float(end) for end in (np.min(fields), np.max(fields)))
        error = picture.mean - picture.truth
        largest = float(np.abs(error).max()) or 1.0
        shown = [("truth", picture.truth, "viridis", low, high)]
        if single:
            shown.append(("forecast", picture.member, "viridis", low, high))
        else:
            spread = float(picture.spread.max()) or 1.0
            shown += [
                ("ensemble mean", picture.mean, "viridis", low, high),
                (f"member {assert_snapshot.member}", picture.member, "viridis", low, high),
                (f"spread of {sums.members} members", picture.spread, "magma_r", 0.0, spread),
            ]
        shown.append((f"{'forecast' if single else 'mean'} − truth", error, "RdBu_r", -largest, largest))
        for axis, (title, field, colours, least, most) in zip(axes, shown, strict=False):
            _map(axis, assert_snapshot.grid, field, title, (colours, least, most), channel.units)
        for axis in axes[len(shown) :]:
            axis.set_axis_off()
        figure.suptitle(
            f"{name}: {channel.name.replace('_', ' ')}, from {assert_snapshot.initial_time:%Y-%m-%d %H} UTC, "
            f"day {picture.lead_hours / 24:g}",
            fontsize=12,
        )
        yield channel.label, figure


def _required(snapshot: Snapshot | None) -> Snapshot:
    if snapshot is None:
        raise ValueError("expected a snapshot")
    return snapshot


def _map(
    axis: Axes, grid: LatLonGrid, field: FloatArray, title: str, scale: tuple[str, float, float], units: str
) -> None:
    """One field, cell by cell: no smoothing that the grid does not have."""
    colours, low, high = scale
    mesh = axis.pcolormesh(
        longitude_bounds(np.array(grid.longitude_deg)),
        latitude_bounds(grid),
        field.T,
        cmap=colours,
        vmin=low,
        vmax=high,
    )
    axis.set_title(title, fontsize=10)
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
        axis.set_ylabel(f"{channel.label} ({channel.units})", fontsize=8)
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
