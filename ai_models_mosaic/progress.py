"""Progress of an ensemble, counted in members and steps."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from .state import ForecastStep

LOG = logging.getLogger(__name__)

QUIET_SECONDS = 15.0
"""Longest silence while members of a step are still to come."""


class Progress:
    """Logs what is done and how long the rest will take.

    Parameters
    ----------
    members, steps : int
        What there is to do.
    clock : callable
        Gives seconds.
    """

    def __init__(self, members: int, steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._members, self._steps, self._clock = members, steps, clock
        self._done = self._done_of_step = 0
        self._start = self._said = clock()

    def advance(self, forecast: ForecastStep) -> None:
        """Count a batch of members of a step; logs at the end of a step, and when it was quiet for long."""
        if self._done_of_step == self._members:
            self._done_of_step = 0
        self._done += len(forecast.members)
        self._done_of_step += len(forecast.members)
        now = self._clock()
        if self._done_of_step < self._members and now - self._said < QUIET_SECONDS:
            return
        self._said = now
        each = (now - self._start) / self._done
        left = self._members * self._steps - self._done
        LOG.info(
            "Step %d of %d (+%d h), %d of %d members; %s per member and step, %s",
            forecast.step,
            self._steps,
            forecast.lead_time_hours,
            self._done_of_step,
            self._members,
            duration(each),
            f"ETA {duration(each * left)}" if left else f"all done in {duration(now - self._start)}",
        )


def duration(seconds: float) -> str:
    """Seconds in words: ``0.12 s``, ``48 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
