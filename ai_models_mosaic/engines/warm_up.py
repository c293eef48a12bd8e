"""What a GPU needs before its first step and what can be done while fields and weights are read: kernels above all.

A kernel is compiled, or fetched from the cache, when it is first launched, for the widths, heads and blocks that it is
launched with. So small networks of two adjacent stages each, with the widths of the one that is to run and hardly any
pixels, are run in threads of their own; compilers let go of Python's lock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from ..checkpoints.held_file import HeldAhead
from ..model.attention.triton import lists_of
from ..model.network import MosaicNetwork
from ..variants import Architecture, Stage
from .form import Form

LOG = logging.getLogger(__name__)

MEMBERS = 2
"""Of a small network's batch: of one, kernels may be compiled that no batch uses."""


class WarmUp:
    """Chooses how the network computes and launches every kernel once, beside whatever else is done.

    Parameters
    ----------
    architecture : Architecture
        Of the network that is to run.
    device : torch.device
        Where.
    dtype : torch.dtype
        Of its products.
    choose : callable
        Gives the form of the network, tried on the device.
    """

    def __init__(
        self, architecture: Architecture, device: torch.device, dtype: torch.dtype, choose: Callable[[], Form]
    ) -> None:
        self._device = device
        small, larger = small_architectures(architecture), larger_stages(architecture)
        self._threads = ThreadPoolExecutor(1 + len(small) + len(larger), thread_name_prefix="warm-up")
        self._form = self._threads.submit(choose)
        self._runs = [self._threads.submit(self._run, some, device, dtype) for some in small]
        self._runs += [self._threads.submit(self._select, stage, device) for stage in larger]

    def form(self) -> Form:
        """The form, once it was tried; raises what the choice of it raised."""
        return self._form.result()

    def wait(self) -> None:
        """Until every kernel was launched. What failed is logged: the first step will say what is wrong."""
        for run in self._runs:
            _log_failure(run)
        self._threads.shutdown(wait=False)
        if self._device.type == "cuda":
            # What the small networks took is free for members.
            torch.cuda.empty_cache()

    def _run(self, architecture: Architecture, device: torch.device, dtype: torch.dtype) -> None:
        run_small(architecture, device, dtype, self.form())

    def _select(self, stage: Stage, device: torch.device) -> None:
        run_selection(stage, device, self.form())


@dataclass(frozen=True)
class Ahead:
    """What was begun before an engine is loaded.

    Parameters
    ----------
    weights : HeldAhead or None
        A copy of their file.
    kernels : WarmUp or None
        Those of a GPU.
    """

    weights: HeldAhead | None = None
    kernels: WarmUp | None = None


NOTHING = Ahead()


def small_architectures(architecture: Architecture) -> tuple[Architecture, ...]:
    """Networks with the channels and the grid of one, and few pixels: one of every two adjacent stages.

    Parameters
    ----------
    architecture : Architecture
        The one that is to run.

    Returns
    -------
    tuple of Architecture
        One block per stage on either way.
    """
    stages = (*architecture.stages, architecture.bottleneck)
    return tuple(_small(architecture, fine, coarse) for fine, coarse in pairwise(stages))


def larger_stages(architecture: Architecture) -> tuple[Stage, ...]:
    """The stages of an architecture that have more pixels than in small networks, and select among more blocks."""
    small = small_architectures(architecture)
    pairs = zip(
        (*architecture.stages, architecture.bottleneck),
        (*(one.stages[0] for one in small), small[-1].bottleneck),
        strict=True,
    )
    return tuple(stage for stage, shrunk in pairs if stage.nside != shrunk.nside)


def _small(architecture: Architecture, fine: Stage, coarse: Stage) -> Architecture:
    """The smallest whose blocks tile both stages; that of full resolution if need be."""
    for nside in _sides(coarse.nside):
        try:
            stages = (replace(fine, nside=2 * nside, encoder_depth=1, decoder_depth=1),)
            bottleneck = replace(coarse, nside=nside, encoder_depth=1, decoder_depth=0)
        except ValueError:
            continue
        return replace(architecture, stages=stages, bottleneck=bottleneck)
    raise ValueError(f"expected stages whose blocks tile nside {coarse.nside}")


def _sides(largest: int) -> Iterator[int]:
    side = 1
    while side < largest:
        yield side
        side *= 2
    yield largest


def run_small(architecture: Architecture, device: torch.device, dtype: torch.dtype, form: Form) -> None:
    """One step of a network without numbers.

    Parameters
    ----------
    architecture : Architecture
        Of few pixels.
    device : torch.device
        Where.
    dtype : torch.dtype
        Of its products.
    form : Form
        How it computes.
    """
    with torch.device("meta"):
        network = MosaicNetwork(architecture)
    network = network.eval().requires_grad_(False).to_empty(device=device)
    for tensor in network.state_dict().values():
        tensor.zero_()
    form.use_in(network)
    network.prepare(dtype)
    shape = (MEMBERS, architecture.history, *architecture.grid.shape, architecture.channels)
    noise = torch.zeros(MEMBERS, architecture.noise_width, device=device)
    with torch.inference_mode():
        network(torch.zeros(shape, device=device), torch.zeros(2, device=device), noise)


def run_selection(stage: Stage, device: torch.device, form: Form) -> None:
    """Select among as many blocks as a stage has: the kernel is compiled for their number.

    Parameters
    ----------
    stage : Stage
        Of the network that is to run.
    device : torch.device
        Where.
    form : Form
        How it computes.
    """
    if form.backend != "triton":
        return
    blocks = stage.pixels // stage.sparse_block
    with torch.inference_mode():
        query, key = (
            torch.zeros(MEMBERS, heads, blocks, stage.head_width, device=device)
            for heads in (stage.query_heads, stage.key_value_heads)
        )
        lists_of(query, key, stage.selected_blocks)


def _log_failure(run: Future[None]) -> None:
    error = run.exception()
    if error is not None:
        LOG.info("A small network could not be run ahead of the forecast: %s: %s", type(error).__name__, error)
