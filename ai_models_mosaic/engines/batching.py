"""How many members go through the network together, and what happens where the memory does not suffice."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from ..errors import ForecastError

LOG = logging.getLogger(__name__)

SHARE = 0.8
"""Of the free memory that is planned with: the estimate is one, and allocators leave gaps."""

DEVIATION = 1.5
"""Measured over estimated memory from which on it is worth a warning. Less does no harm: the kernels of a GPU make a
large batch in parts, and take half of what is estimated for one of sixteen."""

T = TypeVar("T")


def histories_that_fit(available: float, step: float, history: int) -> int:
    """Members whose histories fit beside a step.

    Parameters
    ----------
    available : float
        Bytes that are free.
    step : float
        Bytes that a step takes of them.
    history : int
        Bytes of the history of a member.

    Returns
    -------
    int
        From 0.
    """
    return int(max(0.0, SHARE * available - step) // history)


class Halving:
    """Steps of any number of members, made in parts, and in smaller ones whenever they do not fit.

    Once made smaller, parts stay so: what did not fit will not fit at the next step either.

    Parameters
    ----------
    out_of_memory : type of Exception
        What is raised where the memory does not suffice.
    release : callable
        Called before every new attempt.
    """

    def __init__(self, out_of_memory: type[Exception], release: Callable[[], None] = lambda: None) -> None:
        self._out_of_memory, self._release = out_of_memory, release
        self._most: int | None = None

    def __call__(self, members: int, step: Callable[[slice], T], spill: Callable[[], bool] = lambda: False) -> list[T]:
        """Make a step of some members, at once unless they proved too many.

        Parameters
        ----------
        members : int
            How many.
        step : callable
            Makes the step of some that follow each other.
        spill : callable
            Makes room in another way than by smaller parts, if there is one; whether it did.

        Returns
        -------
        list
            What the parts gave, in order.

        Raises
        ------
        ForecastError
            If not even one member fits.
        """
        while True:
            size = min(members, self._most or members)
            try:
                return [step(slice(first, min(first + size, members))) for first in range(0, members, size)]
            except self._out_of_memory as error:
                reason = _first_line(error)
            # Outside of the handler, whose traceback holds what filled the memory.
            if not spill():
                self._halve(size, reason)
            self._release()

    def _halve(self, size: int, reason: str) -> None:
        if size == 1:
            raise ForecastError(
                "the memory does not suffice for one member; free some of it, or try --precision float16 or "
                f"bfloat16, or a larger device. The device says: {reason}"
            )
        self._most = size // 2
        LOG.warning(
            "The memory does not suffice for %d members at once: going on with %d. --members-per-batch %d avoids the "
            "attempt",
            size,
            self._most,
            self._most,
        )


def compare_memory(estimated: int, measured: int, members: int) -> None:
    """Log what a step really took, as a warning where it was more than `DEVIATION` of the estimate.

    Parameters
    ----------
    estimated, measured : int
        Peak bytes.
    members : int
        Of the step.
    """
    good = measured <= DEVIATION * estimated
    LOG.log(
        logging.INFO if good else logging.WARNING,
        "The first step of %d members took %.2f GB of the device's memory; %.2f GB were estimated%s",
        members,
        measured / 1e9,
        estimated / 1e9,
        "" if good else ". If it does not suffice, give --members-per-batch",
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
