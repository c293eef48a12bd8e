"""Buffers of the host's memory that a device writes states to, and that whoever reads them gives back."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable
from math import prod
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arrays import Float32Array
from ..errors import TerminatedError

LOG = logging.getLogger(__name__)

PATIENCE_S = 60.0
"""How long nothing is said while all buffers are in use."""

HEED_S = 0.5
"""How often it is seen meanwhile whether the run is asked to stop."""

MOST_TOGETHER = 8
"""Buffers that are allocated at a time."""


class Lease:
    """The right to a buffer, as long as anybody has an array of it.

    Parameters
    ----------
    tensor : Tensor
        The buffer, float32.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """NumPy's: an array that is made of this keeps this alive, and cannot be written to."""
        shape, place = tuple(self.tensor.shape), (self.tensor.data_ptr(), True)
        return {"version": 3, "shape": shape, "typestr": np.dtype(np.float32).str, "data": place}

    def array(self) -> Float32Array:
        """All of it, read-only, as are all parts of it."""
        return np.asarray(self)


class HostRing:
    """A few buffers of one shape, each of which is handed out again when the last array of it is gone.

    That is when Python lets go of the array: nobody has to remember to give anything back, and nobody can
    give back what is still being read.

    Parameters
    ----------
    shape : tuple of int
        Of a buffer.
    most : int
        Buffers that there may be; they are allocated when they are needed.
    pinned : bool
        In memory that a GPU reads and writes by itself.
    """

    def __init__(self, shape: tuple[int, ...], most: int, *, pinned: bool) -> None:
        self._shape, self._left, self._pinned = shape, most, pinned
        # Nothing else may be used from a finaliser, which runs anywhere, within a call of the queue itself, too.
        self._free: SimpleQueue[Tensor] = SimpleQueue()

    def take(self, stopping: Callable[[], bool] = lambda: False) -> Lease:
        """A buffer that nobody reads; waits for one while all are in use.

        Parameters
        ----------
        stopping : callable
            Says whether to stop waiting. It is not kept: what has the ring would never be let go of.

        Returns
        -------
        Lease

        Raises
        ------
        TerminatedError
            If it is asked to stop before there is one.
        """
        if self._free.empty() and self._left:
            self._add()
        buffer = self._waited_for(stopping)
        lease = Lease(buffer)
        weakref.finalize(lease, self._free.put, buffer).atexit = False
        return lease

    def _waited_for(self, stopping: Callable[[], bool]) -> Tensor:
        said = time.monotonic()
        while True:
            try:
                return self._free.get(timeout=min(HEED_S, PATIENCE_S))
            except Empty:
                if stopping():
                    raise TerminatedError(
                        "stopped by a signal, as asked, while all buffers for states were in use"
                    ) from None
            if time.monotonic() - said >= PATIENCE_S:
                said = time.monotonic()
                LOG.warning("All buffers for states are in use for %.0f s: waiting for the output", PATIENCE_S)

    def _add(self) -> None:
        count = min(self._left, together(4 * prod(self._shape)))
        self._left -= count
        for buffer in self._allocated((count, *self._shape)):
            self._free.put(buffer)

    def _allocated(self, shape: tuple[int, ...]) -> Tensor:
        try:
            return torch.empty(shape, dtype=torch.float32, pin_memory=self._pinned)
        except RuntimeError as error:
            if not self._pinned:
                raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            LOG.warning("No more memory can be pinned for states, which takes longer to copy to: %s", reason)
            self._pinned = False
            return torch.empty(shape, dtype=torch.float32)


def together(size: int) -> int:
    """How many buffers of so many bytes to allocate at a time."""
    # PyTorch rounds what it pins up to a power of two.
    return min(range(1, MOST_TOGETHER + 1), key=lambda count: _power_of_two(count * size) / (count * size))


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()
