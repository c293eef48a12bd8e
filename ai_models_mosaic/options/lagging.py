"""Members that start at several times, and join at the start of the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import OptionError

OPTION = "--lagged"


@dataclass(frozen=True)
class Lagging:
    """How long before the run's start members start, in turn.

    Parameters
    ----------
    hours : tuple of int
        By member, from the first; 0 for the run's start, else below.

    Raises
    ------
    OptionError
        If they are not distinct, one is above 0, or none is 0.
    """

    hours: tuple[int, ...]

    def __post_init__(self) -> None:
        several = len(self.hours) > 1 and len(set(self.hours)) == len(self.hours)
        if not several or max(self.hours) != 0:
            raise OptionError(
                f"{OPTION}: expected several hours before the start, 0 among them and none twice, such as 0,-6,-12, "
                f"got {','.join(map(str, self.hours))}"
            )

    def of(self, member: int) -> int:
        """How long before the run's start a member starts, h."""
        return -self.hours[(member - 1) % len(self.hours)]

    def refuse(
        self, size: int | None, members: Sequence[int], *, crossed: bool, antithetic: bool, growing: str | None
    ) -> None:
        """Refuse options that do not go with it.

        Parameters
        ----------
        size : int or None
            Of the ensemble, as asked for.
        members : sequence of int
            To be run, as asked for; none for all.
        crossed : bool
            Whether members are pairs of starts and noise.
        antithetic : bool
            Whether noise is to come in opposite pairs.
        growing : str or None
            The option by which the size of the ensemble is found on the way.

        Raises
        ------
        OptionError
            Says which, or that some starts would have no member.
        """
        others = {"--crossed": crossed, "--antithetic": antithetic, str(growing): growing is not None}
        for flag in (flag for flag, is_given in others.items() if is_given):
            raise OptionError(f"{flag}: expected it without {OPTION}, whose members start at different times")
        count = len(self.hours)
        if (size or 1) < count and not (size is None and members):
            raise OptionError(
                f"--num-ensemble-members: expected at least {count} with {OPTION}, one for every start, got {size or 1}"
            )

    def check(self, step_hours: int) -> None:
        """Refuse what a variant has no steps for.

        Parameters
        ----------
        step_hours : int
            Length of its step, h.

        Raises
        ------
        OptionError
            If something is no multiple of it.
        """
        wrong = [hours for hours in self.hours if hours % step_hours]
        if wrong:
            raise OptionError(f"{OPTION}: expected multiples of the time step, {step_hours} h, got {wrong[0]}")


def parse_lagging(text: str) -> Lagging:
    """Starts before the run's, in hours, from ``0,-6,-12,-24``.

    Raises
    ------
    OptionError
        If it is of another form.
    """
    try:
        return Lagging(tuple(int(part) for part in text.split(",")))
    except ValueError:
        raise OptionError(f"{OPTION}: expected hours, such as 0,-6,-12,-24, got {text!r}") from None
