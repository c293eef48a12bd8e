"""Members that started before the run does, brought to its start."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import numpy as np

from ..arrays import Float32Array
from ..engines import Engine
from ..state import ForecastStep, InitialState
from ..wording.numbers import counted
from .progress import Watch
from .ranks import Ranks
from .rollout import Ensemble
from .run import EnsembleJob, EnsembleRun, NoWriter

LOG = logging.getLogger(__name__)


class _NewestSteps(NoWriter):
    """Keeps as many of the newest states of every member as a step starts from."""

    def __init__(self, starts: Mapping[int, InitialState]) -> None:
        self._kept: dict[int, deque[Float32Array]] = {
            member: deque(state.values, maxlen=len(state.values)) for member, state in starts.items()
        }

    def write(self, forecast: ForecastStep) -> None:
        """Keep a step of some members in place of the oldest that is kept of them."""
        if forecast.step > 0:
            for member, fields in zip(forecast.members, forecast.values, strict=True):
                # A device needs what it lent again.
                self._kept[member].append(fields.copy())

    def of(self, member: int) -> Float32Array:
        """The newest states of a member, oldest first."""
        return np.stack(self._kept[member])


def brought_to_start(
    starts: Mapping[int, InitialState], ensemble: Ensemble, step_hours: int, engine: Engine, ranks: Ranks, watch: Watch
) -> dict[int, InitialState]:
    """What every member starts the run from: for those that started before, what they have become since.

    Parameters
    ----------
    starts : mapping of int to InitialState
        Where members start, some ahead of the run.
    ensemble : Ensemble
        Their noise.
    step_hours : int
        Length of a step, h.
    engine : Engine
        Makes the steps.
    ranks : Ranks
        The processes.
    watch : Watch
        Told of these steps, and says when to stop.

    Returns
    -------
    dict of int to InitialState
        At the start of the run; the same on all ranks.

    Raises
    ------
    MosaicError
        As of `EnsembleRun`.
    """
    arrived = dict(starts)
    for hours in sorted({state.ahead_hours for state in starts.values()} - {0}):
        own = {member: replace(state, ahead_hours=0) for member, state in starts.items() if state.ahead_hours == hours}
        LOG.info("%s started %d h before", counted(len(own), "member"), hours)
        job = EnsembleJob(own, replace(ensemble, members=tuple(own), lagging=None), step_hours, hours // step_hours)
        newest = _NewestSteps(own)
        EnsembleRun(job, engine, ranks, newest, None, watch, is_group=True)()
        arrived |= ranks.share(lambda: {one: _later(own[one], hours, newest.of(one)) for one in own})  # noqa: B023
    return arrived


def _later(start: InitialState, hours: int, values: Float32Array) -> InitialState:
    times = tuple(time + timedelta(hours=hours) for time in start.times)
    return InitialState(start.grid, times, values, start.digest, start.number)
