"""Until when a forecast has to be complete, and how much may still be begun."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from ..errors import OptionError

UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}

LONGEST_S = 7 * 86_400.0

EXPECTED = "--deadline: expected seconds, minutes or hours, such as 60s, 5m or 2h, or a time of day such as 06:00, UTC"

OF_A_GROUP, OF_WRITING = 1.1, 1.25
"""Factors on times that were measured: the next group of members, and writing more of them, may take longer."""

SPARE_S = 0.5
"""Left free, for what was not measured."""


@dataclass(frozen=True)
class Deadline:
    """A deadline as typed.

    Parameters
    ----------
    text : str
        As typed.
    """

    text: str

    def __str__(self) -> str:
        return self.text

    def at(self, started: float) -> float:
        """When it is.

        Parameters
        ----------
        started : float
            When the process started, s since 1970.

        Returns
        -------
        float
            Seconds since 1970; a time of day is the first after the start.
        """
        if self.text[-1] in UNITS_S:
            return started + float(self.text[:-1]) * UNITS_S[self.text[-1]]
        hour, minute = (int(part) for part in self.text.split(":"))
        start = datetime.fromtimestamp(started, timezone.utc)
        then = start.replace(hour=hour, minute=minute, second=0, microsecond=0)
        return (then if then > start else then + timedelta(days=1)).timestamp()


def parse_deadline(text: str) -> Deadline:
    """A deadline such as ``60s``, ``5m``, ``2h`` or ``06:00``.

    Raises
    ------
    OptionError
        If it is none, or longer than a week.
    """
    length = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if length and 0 < float(length[1]) * UNITS_S[length[2]] <= LONGEST_S:
        return Deadline(text)
    if re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", text):
        return Deadline(text)
    raise OptionError(f"{EXPECTED}, got {text!r}")


def process_start() -> float:
    """When this process started, s since 1970."""
    try:
        # Behind the name, which may hold anything; field 22 of proc(5).
        ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        # Where the system does not say: it has computed for at least as long as it is there.
        age = time.process_time()
    return time.time() - age


class Budget:
    """Says whether another group of members fits, from what those before it took.

    Parameters
    ----------
    at : float or None
        The deadline, s since 1970; None: there is none.
    clock : callable
        Gives seconds since 1970.
    """

    def __init__(self, at: float | None, clock: Callable[[], float] = time.time) -> None:
        self.at, self.clock = at, clock
        self._group_s = 0.0
        self._groups = 0
        self._fixed_s = self._per_member_s = 0.0

    def took(self, group_s: float) -> None:
        """A group of members was made in so many seconds."""
        # The first warms everything up, and says little of others.
        self._group_s = group_s if self._groups < 2 else max(self._group_s, group_s)
        self._groups += 1

    def wrote(self, members: int, fixed_s: float, rest_s: float) -> None:
        """So many members were written, in a time of which some does not depend on their number."""
        self._fixed_s, self._per_member_s = fixed_s, rest_s / members

    def writing_s(self, members: int) -> float:
        """What it takes to write so many, s, with something to spare."""
        return OF_WRITING * (self._fixed_s + members * self._per_member_s) + SPARE_S

    def fits(self, members: int) -> bool:
        """Whether another group can be made now, and so many members, with it, be written in time."""
        return self.at is None or self.clock() + OF_A_GROUP * self._group_s + self.writing_s(members) <= self.at

    def is_spent(self, members: int, more_s: float = 0.0) -> bool:
        """Whether so many members could not be written in time after so many seconds more."""
        return self.at is not None and self.clock() + more_s + self.writing_s(members) > self.at

    @property
    def late_s(self) -> float:
        """Seconds since the deadline; 0 before it."""
        return 0.0 if self.at is None else max(0.0, self.clock() - self.at)
