"""What is verified, and against what: the contracts between readers and scores.

Everything is ``(…, lon, lat)``, south to north, in SI units, as everywhere in this package; readers of
files and a rollout in the same process look alike from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np

from ..arrays import FloatArray
from ..channels import CHANNELS, Channel
from ..errors import InputError
from ..geometry.grid import LatLonGrid
from ..geometry.regrid import ConservativeRegridder
from ..state import ForecastStep


@dataclass(frozen=True)
class Case:
    """The forecast of one initial date.

    Parameters
    ----------
    initial_time : datetime
        UTC, without zone.
    members : tuple of int
        Member numbers, in the order of the arrays.
    lead_hours : tuple of int
        Ascending lead times, h.
    read : callable
        Gives the values of a channel, ``(member, lead, lon, lat)``, SI units. A field that is NaN everywhere
        is absent. It is called once per channel, and only while the case is current.
    skipped : tuple of str
        What the source holds of this date but cannot be used, in words.
    ensemble : int
        Members that a complete date has; 0 if the source does not know, when the first date tells.

    Raises
    ------
    ValueError
        If members repeat, or leads do not ascend.
    """

    initial_time: datetime
    members: tuple[int, ...]
    lead_hours: tuple[int, ...]
    read: Callable[[Channel], FloatArray]
    skipped: tuple[str, ...] = ()
    ensemble: int = 0

    def __post_init__(self) -> None:
        if len(set(self.members)) < len(self.members):
            raise ValueError(f"expected distinct members, got {self.members}")
        if list(self.lead_hours) != sorted(set(self.lead_hours)):
            raise ValueError(f"expected ascending lead times, got {self.lead_hours}")


class Forecasts(Protocol):
    """Forecasts from many initial dates, one after another."""

    @property
    def grid(self) -> LatLonGrid:
        """Grid of every field."""
        ...

    def cases(self) -> Iterator[Case]:
        """One case per initial date, ascending."""
        ...


class Truth(Protocol):
    """Fields by valid time: what was, or what usually is."""

    @property
    def grid(self) -> LatLonGrid:
        """Grid of every field."""
        ...

    def read(self, channel: Channel, times: Sequence[datetime]) -> FloatArray:
        """Values ``(time, lon, lat)``; NaN everywhere at a time that is not there."""
        ...


@dataclass(frozen=True)
class Regridded:
    """Truth on another grid, by conservative regridding.

    Parameters
    ----------
    truth : Truth
        Where the fields come from.
    grid : LatLonGrid
        Where they go.
    """

    truth: Truth
    grid: LatLonGrid

    def __post_init__(self) -> None:
        object.__setattr__(self, "_regridder", ConservativeRegridder(self.truth.grid, self.grid))

    def read(self, channel: Channel, times: Sequence[datetime]) -> FloatArray:
        """Values ``(time, lon, lat)`` on the new grid."""
        regridder: ConservativeRegridder = self.__dict__["_regridder"]
        return np.stack([regridder(field) for field in self.truth.read(channel, times)])


def case_of_rollout(
    initial_time: datetime, steps: Iterable[ForecastStep], channels: Sequence[Channel], lead_hours: Sequence[int] = ()
) -> Case:
    """A case of a forecast that runs in this process; holds the chosen channels and leads only.

    Parameters
    ----------
    initial_time : datetime
        UTC, without zone.
    steps : iterable of ForecastStep
        As `rollout.forecast` yields them: members of a step in batches. Run to the end here.
    channels : sequence of Channel
        What to keep.
    lead_hours : sequence of int
        Lead times to keep; all if empty.

    Raises
    ------
    InputError
        If members are not the same at every lead time.
    """
    columns = [CHANNELS.index(channel) for channel in channels]
    held: dict[int, dict[int, FloatArray]] = {}
    for step in steps:
        if lead_hours and step.lead_time_hours not in lead_hours:
            continue
        # Fancy indexing copies: the step's own array, of all channels, is let go.
        kept = np.moveaxis(step.values[..., columns], -1, 1)
        held.setdefault(step.lead_time_hours, {}).update(zip(step.members, kept, strict=True))
    leads = sorted(held)
    members = sorted({member for fields in held.values() for member in fields})
    for lead in leads:
        if sorted(held[lead]) != members:
            raise InputError(f"expected members {members} at +{lead} h, as at other leads; got {sorted(held[lead])}")
    index_of = {channel: index for index, channel in enumerate(channels)}

    def read(channel: Channel) -> FloatArray:
        index = index_of[channel]
        return np.stack([np.stack([held[lead][member][index] for lead in leads]) for member in members])

    return Case(initial_time, tuple(members), tuple(leads), read)
