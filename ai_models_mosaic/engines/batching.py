"""How many members go through the network together, and what happens where the memory does not suffice."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from ..arrays import Float32Array
from ..errors import ForecastError

LOG = logging.getLogger(__name__)

MOST = 16
"""Members per batch that are ever chosen: one of full size already has enough tokens to fill a GPU."""

SHARE = 0.8
"""Of the free memory that is planned with: the estimate is one, and allocators leave gaps."""

DEVIATION = 1.5
"""Factor between estimated and measured memory from which on it is worth a warning."""

Slice = Callable[[Float32Array, tuple[float, float], Float32Array], Float32Array]
"""A step of some members: history, progress and noise to states; see `StepsOnHost.step`."""


def members_that_fit(memory_bytes: Callable[[int], int], available: float, members: int) -> int:
    """The members per batch for so much memory: a power of two, which a little less memory does not change.

    Parameters
    ----------
    memory_bytes : callable
        Estimated peak of a step of so many members.
    available : float
        Bytes that are free.
    members : int
        There are no more to put into a batch.

    Returns
    -------
    int
        At least 1, whether that fits or not.
    """
    fitting, tried = 1, 2
    while tried <= min(members, MOST) and memory_bytes(tried) <= SHARE * available:
        fitting, tried = tried, 2 * tried
    return fitting


class HalvingStep:
    """A step of any number of members, which is made in parts, and in smaller ones whenever they do not fit.

    Once made smaller, parts stay so: what did not fit will not fit at the next step either.

    Parameters
    ----------
    step : callable
        Takes what `StepsOnHost.step` does and how many members may be at the device at once.
    out_of_memory : type of Exception
        What it raises where the memory does not suffice.
    release : callable
        Called before every new attempt.
    """

    def __init__(
        self,
        step: Callable[[Float32Array, tuple[float, float], Float32Array, int], Float32Array],
        out_of_memory: type[Exception],
        release: Callable[[], None] = lambda: None,
    ) -> None:
        self._step, self._out_of_memory, self._release = step, out_of_memory, release
        self._most: int | None = None

    def __call__(
        self, history: Float32Array, progress: tuple[float, float], noise: Float32Array, at_once: int
    ) -> Float32Array:
        """Make a step; arguments as of `StepsOnHost.step`, and the members at once unless they proved too many.

        Returns
        -------
        float32 array (member, lon, lat, channel)
            Physical units, all members, as one part after the other gave them.

        Raises
        ------
        ForecastError
            If not even one member fits.
        """
        while True:
            size = min(at_once, self._most or at_once)
            try:
                return self._step(history, progress, noise, size)
            except self._out_of_memory as error:
                if size == 1:
                    raise ForecastError(
                        "the memory does not suffice for one member; free some of it, or try --precision float16 or "
                        f"bfloat16, or a larger device. The device says: {_first_line(error)}"
                    ) from error
                self._most = size // 2
                LOG.warning(
                    "The memory does not suffice for %d members at once: going on with %d. --members-per-batch %d "
                    "avoids the attempt",
                    size,
                    self._most,
                    self._most,
                )
            # Outside of the handler, whose traceback holds what filled the memory.
            self._release()


def in_parts(
    step: Slice, history: Float32Array, progress: tuple[float, float], noise: Float32Array, size: int
) -> Float32Array:
    """A step of all members by steps of so many at once; other arguments as of `StepsOnHost.step`."""
    starts = range(0, len(history), size)
    parts = [step(history[first : first + size], progress, noise[first : first + size]) for first in starts]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def compare_memory(estimated: int, measured: int, members: int) -> None:
    """Log what a step really took, as a warning where the estimate was off by more than `DEVIATION`.

    Parameters
    ----------
    estimated, measured : int
        Peak bytes.
    members : int
        Of the step.
    """
    good = 1 / DEVIATION <= measured / max(estimated, 1) <= DEVIATION
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
