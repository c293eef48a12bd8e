"""A step on a CUDA GPU: pinned transfers beside the computation, and CUDA graphs.

Nothing here was run on a GPU yet. What is not CUDA's own is written against the interface that
``torch.cuda`` and ``torch.cpu`` share, so that the tests run the very same lines on the CPU.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arrays import Float32Array

LOG = logging.getLogger(__name__)

WARM_UPS = 3
"""Steps before a capture: libraries make their work spaces and choose their kernels in the first."""

IN_FLIGHT = 2
"""Parts whose states may be on their way at a time."""

Advance = Callable[[Tensor, Tensor, Tensor], Tensor]
"""States, progress and noise on the device to the next states there."""


class StreamedStep:
    """A step of parts of a batch: one part is copied to the GPU, one computed, one copied back.

    Parameters
    ----------
    advance : callable
        Makes the step on the device.
    device : torch.device
        Where.
    accelerator : module
        Gives streams: ``torch.cuda``, or ``torch.cpu`` where all of them are one.
    """

    def __init__(self, advance: Advance, device: torch.device, accelerator: ModuleType = torch.cuda) -> None:
        self._advance, self._device, self._accelerator = advance, device, accelerator
        self._pinned = device.type == "cuda"
        self._to_device, self._from_device = self._stream(), self._stream()

    def __call__(
        self, history: Float32Array, progress: tuple[float, float], noise: Float32Array, at_once: int
    ) -> Float32Array:
        """Make a step; arguments as of `states.StepsOnHost.step`, and the members of a part."""
        made = np.empty((len(history), *history.shape[2:]), dtype=np.float32)
        clock = torch.tensor(progress, dtype=torch.float32).to(self._device)
        on_their_way: deque[tuple[slice, Tensor, Any, tuple[Tensor, ...]]] = deque()
        for first in range(0, len(history), at_once):
            part = slice(first, min(first + at_once, len(history)))
            on_their_way.append((part, *self._launch(history[part], clock, noise[part])))
            if len(on_their_way) >= IN_FLIGHT:
                self._collect(made, *on_their_way.popleft())
        while on_their_way:
            self._collect(made, *on_their_way.popleft())
        return made

    def _launch(
        self, history: Float32Array, clock: Tensor, noise: Float32Array
    ) -> tuple[Tensor, Any, tuple[Tensor, ...]]:
        """Queue a part; gives where its states will be, the event after that, and what must live until then."""
        with self._accelerator.stream(self._to_device):
            inputs = [self._host_copy(array).to(self._device, non_blocking=True) for array in (history, noise)]
        compute = self._accelerator.current_stream(self._device)
        compute.wait_stream(self._to_device)
        made = self._advance(inputs[0], clock, inputs[1])
        self._from_device.wait_stream(compute)
        with self._accelerator.stream(self._from_device):
            host = torch.empty(made.shape, dtype=torch.float32, pin_memory=self._pinned)
            host.copy_(made, non_blocking=True)
            arrived = self._accelerator.Event()
            arrived.record(self._from_device)
        # Memory of one stream is used in another: kept until all is done, it cannot be given away between.
        return host, arrived, (*inputs, clock, made)

    def _collect(self, made: Float32Array, part: slice, host: Tensor, arrived: Any, kept: tuple[Tensor, ...]) -> None:
        arrived.synchronize()
        made[part] = host.numpy()

    def _host_copy(self, array: Float32Array) -> Tensor:
        """The array in memory that the GPU reads by itself."""
        copied = torch.empty(array.shape, dtype=torch.float32, pin_memory=self._pinned)
        copied.numpy()[...] = array
        return copied

    def _stream(self) -> Any:
        return self._accelerator.Stream(self._device) if self._pinned else self._accelerator.Stream()


class GraphedStep:
    """A step that is recorded once per number of members and then replayed by one call.

    What cannot be recorded, or gives other numbers when replayed, runs as before, with a warning.

    Parameters
    ----------
    advance : callable
        Makes the step on the device.
    capture : callable
        Gives a callable that replays a step for inputs of the same shapes; `capture` unless in tests.
    """

    def __init__(self, advance: Advance, capture: Callable[[Advance, tuple[Tensor, ...]], Advance] | None = None):
        self._advance, self._capture = advance, capture or capture_graph
        self._graphs: dict[tuple[int, ...], Advance] = {}
        self._works = True

    def __call__(self, states: Tensor, progress: Tensor, noise: Tensor) -> Tensor:
        """States, progress and noise on the device to the next states there."""
        shape = tuple(states.shape)
        if self._works and shape not in self._graphs:
            self._add(shape, (states, progress, noise))
        return self._graphs.get(shape, self._advance)(states, progress, noise)

    def forget(self) -> None:
        """Record anew: the step is another than it was."""
        self._graphs.clear()

    def _add(self, shape: tuple[int, ...], inputs: tuple[Tensor, Tensor, Tensor]) -> None:
        try:
            graph = self._capture(self._advance, inputs)
            if not torch.equal(graph(*inputs), self._advance(*inputs)):
                raise RuntimeError("replayed, it gives other numbers")
        except RuntimeError as error:
            self._works = False
            self._graphs.clear()
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            LOG.warning("No CUDA graph could be made of the step (%s): going on without", reason)
            return
        self._graphs[shape] = graph
        LOG.info("Recorded the step of %d members as a CUDA graph", shape[0])


def capture_graph(advance: Advance, inputs: tuple[Tensor, ...]) -> Advance:
    """A CUDA graph of a step.

    Parameters
    ----------
    advance : callable
        Makes the step on the device.
    inputs : tuple of Tensor
        On a GPU; only their shapes count.

    Returns
    -------
    callable
        Replays the step for inputs of these shapes; the result is a copy.

    Raises
    ------
    RuntimeError
        If the step cannot be recorded.
    """
    # A graph reads and writes always the same memory.
    fixed = tuple(tensor.clone() for tensor in inputs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(fixed[0].device):
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                advance(*fixed)
        torch.cuda.current_stream().wait_stream(aside)
        with torch.cuda.graph(graph):
            made = advance(*fixed)

    def replay(*new: Tensor) -> Tensor:
        for tensor, values in zip(fixed, new, strict=True):
            tensor.copy_(values)
        graph.replay()
        return made.clone()

    return replay
