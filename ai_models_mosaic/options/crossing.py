"""Members that are every pair of a start and a draw of noise."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import OptionError

OPTION = "--crossed"

LEAST = 3
"""Starts, and draws of noise: with two, one would be left to tell the error of an estimate by."""

MOST_MEMBERS = 65_534
"""As GRIB numbers them."""


@dataclass(frozen=True)
class Crossing:
    """How members pair starts and noise: the noise changes when all starts have had it.

    Parameters
    ----------
    starts, noises : int
        How many of each.

    Raises
    ------
    OptionError
        If they are too few, or the members too many.
    """

    starts: int
    noises: int

    def __post_init__(self) -> None:
        if min(self.starts, self.noises) < LEAST or self.size > MOST_MEMBERS:
            raise OptionError(
                f"{OPTION}: expected at least {LEAST} starts and {LEAST} draws of noise, and at most {MOST_MEMBERS} "
                f"members, got {self.starts}x{self.noises}"
            )

    @property
    def size(self) -> int:
        """Members."""
        return self.starts * self.noises

    def refuse(self, size: int | None, members: Sequence[int], *, antithetic: bool, growing: str | None = None) -> None:
        """Refuse options that do not go with it.

        Parameters
        ----------
        size : int or None
            Of the ensemble, as asked for.
        members : sequence of int
            To be run, as asked for; none for all.
        antithetic : bool
            Whether noise is to come in opposite pairs.
        growing : str or None
            The option by which the ensemble would become larger.

        Raises
        ------
        OptionError
            If the members are not all of these, or their noise is not independent.
        """
        if growing is not None:
            raise OptionError(f"{growing}: expected it without {OPTION}, which says how many members there are")
        if size not in (None, self.size):
            raise OptionError(
                f"--num-ensemble-members: expected {self.size} with {OPTION} {self.starts}x{self.noises}, or nothing, "
                f"got {size}"
            )
        if members and sorted(members) != list(range(1, self.size + 1)):
            raise OptionError(f"--member-number: expected it without {OPTION}, which splits the variance of all")
        if antithetic:
            raise OptionError(f"--antithetic: expected it without {OPTION}, whose draws of noise are independent")

    def start_of(self, member: int) -> int:
        """Which of the starts a member has, from 1."""
        return (member - 1) % self.starts + 1

    def noise_of(self, member: int) -> int:
        """The member of an ordinary run whose noise a member has, from 1."""
        return (member - 1) // self.starts + 1


def parse_crossing(text: str) -> Crossing:
    """Starts and draws of noise from ``8x6`` or ``8×6``.

    Raises
    ------
    OptionError
        If it is of another form.
    """
    match = re.fullmatch(r"\s*(\d{1,5})\s*[x×X*]\s*(\d{1,5})\s*", text)
    if match is None:
        raise OptionError(f"{OPTION}: expected starts × draws of noise, such as 8x6, got {text!r}")
    return Crossing(int(match[1]), int(match[2]))
