"""The fields of one date that pictures show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from ..arrays import FloatArray
from ..channels import Channel
from ..geometry.grid import LatLonGrid
from .cases import Case

MAP_LEAD_HOURS = 120
"""Maps show the lead time that is nearest to this."""


@dataclass(frozen=True)
class Picture:
    """One channel of one date.

    Parameters
    ----------
    lead_hours : int
        Of the maps.
    truth, mean, spread, member : array (lon, lat)
        At that lead; spread with M − 1, zero for one member. `member` is the first.
    plume_lead_hours : tuple of int
    plume : array (member, lead)
        At the point.
    plume_truth : array (lead,)
        At the point.
    """

    lead_hours: int
    truth: FloatArray
    mean: FloatArray
    spread: FloatArray
    member: FloatArray
    plume_lead_hours: tuple[int, ...]
    plume: FloatArray
    plume_truth: FloatArray


@dataclass
class Snapshot:
    """All channels of one date.

    Parameters
    ----------
    grid : LatLonGrid
    initial_time : datetime
    member : int
        Number of the member that is shown.
    point_deg : (float, float)
        Latitude and longitude of the plumes' grid point.
    asked_deg : (float, float)
        The place that was asked for, which that point stands for.
    pictures : dict of str to Picture
        By name of the channel.
    """

    grid: LatLonGrid
    initial_time: datetime
    member: int
    point_deg: tuple[float, float]
    asked_deg: tuple[float, float]
    pictures: dict[str, Picture] = field(default_factory=dict)


class Illustrator:
    """Keeps the fields of one date, and no others.

    Parameters
    ----------
    grid : LatLonGrid
    wanted : datetime or None
        Which date; None for the first that comes.
    point_deg : (float, float)
        Latitude and longitude; the nearest grid point is taken.
    """

    def __init__(self, grid: LatLonGrid, wanted: datetime | None, point_deg: tuple[float, float]) -> None:
        self._grid, self._wanted = grid, wanted
        self._asked = latitude, longitude = point_deg
        east = (np.array(grid.longitude_deg) - longitude + 180) % 360 - 180
        self._column = int(np.abs(east).argmin())
        self._row = int(np.abs(np.array(grid.latitude_deg) - latitude).argmin())
        self._closed = False
        self.snapshot: Snapshot | None = None

    def look(self, case: Case, channel: Channel, leads: Sequence[int], forecast: FloatArray, truth: FloatArray) -> None:
        """Keep a channel if its date is the one.

        Parameters
        ----------
        case : Case
            The date.
        channel : Channel
        leads : sequence of int
            Hours.
        forecast : array (member, lead, lon, lat)
        truth : array (lead, lon, lat)
        """
        if self._closed or case.initial_time != (self._wanted or case.initial_time):
            return
        if self.snapshot is None or self.snapshot.initial_time != case.initial_time:
            point = (self._grid.latitude_deg[self._row], self._grid.longitude_deg[self._column])
            self.snapshot = Snapshot(self._grid, case.initial_time, case.members[0], point, self._asked)
        shown = int(np.abs(np.array(leads) - MAP_LEAD_HOURS).argmin())
        members = forecast[:, shown]
        self.snapshot.pictures[channel.name] = Picture(
            lead_hours=leads[shown],
            truth=truth[shown].copy(),
            mean=members.mean(axis=0),
            spread=members.std(axis=0, ddof=1) if len(members) > 1 else np.zeros_like(truth[shown]),
            member=members[0].copy(),
            plume_lead_hours=tuple(leads),
            plume=forecast[..., self._column, self._row].copy(),
            plume_truth=truth[..., self._column, self._row].copy(),
        )

    def close(self, initial_time: datetime) -> None:
        """A date is done: if it was the one, no other is looked at."""
        self._closed |= self.snapshot is not None and self.snapshot.initial_time == initial_time
