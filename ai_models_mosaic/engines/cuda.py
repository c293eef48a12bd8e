"""A step on a CUDA GPU that is recorded once and replayed: CUDA graphs.

Recording has not been seen on a GPU: the run on an H100 that `docs/gpu.md` tells of was without.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

LOG = logging.getLogger(__name__)

WARM_UPS = 3
"""Steps before a capture: libraries make their work spaces and choose their kernels in the first."""

Advance = Callable[[Tensor, Tensor, Tensor], Tensor]
"""States, progress and noise on the device to the next states there."""


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
