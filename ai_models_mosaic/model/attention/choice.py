"""Which attention backend runs: chosen by device and precision, and tried on the device before it is trusted."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType

import torch

from ...variants import Architecture, Stage
from . import BACKENDS, block_sparse_attention
from .problem import BlockLayout
from .tiles import SCORES_AT_ONCE
from .tilings import StageShape, Tiling, default_tiling
from .triton import capability_of
from .tuned import read_tuned, tuning_key

LOG = logging.getLogger(__name__)

AUTO = "auto"

NO_TILINGS: Mapping[str, Tiling] = MappingProxyType({})

AGREEMENT = {torch.float32: 1e-3, torch.float16: 5e-3, torch.bfloat16: 4e-2}
"""Largest difference from the reference in float32 on the same numbers, of unit variance.

Rounding stays below a fifth of it; a wrong list, head or scale is above 0.1.
"""

NEEDED = MappingProxyType(
    {
        "triton": ("triton", "triton, which PyTorch for CUDA brings"),
        "fa4": ("flash_attn", "flash-attn-4, by pip install --pre flash-attn-4"),
    }
)
"""Modules of packages that a backend needs beside PyTorch, and where they come from."""

SELECTED_ON_TRIAL = 3
"""Key blocks of a trial at most: a list of any length is walked in the same way."""


@dataclass(frozen=True)
class Shape:
    """What of a stage a backend may be compiled for.

    Parameters
    ----------
    layout : BlockLayout
        Its blocks.
    ratio : int
        Query heads per key/value head.
    width : int
        Channels per head, d.
    """

    layout: BlockLayout
    ratio: int
    width: int


class UnfitBackendError(Exception):
    """A backend that cannot run here, or does not give what the reference gives; says which and why."""


def stage_shape(stage: Stage) -> StageShape:
    """What of a stage its tiling depends on."""
    return StageShape(stage.local_block, stage.sparse_block, stage.selected_blocks, stage.gqa_ratio, stage.head_width)


def choose_tilings(architecture: Architecture, device: torch.device, dtype: torch.dtype) -> dict[str, Tiling]:
    """How the Triton kernel is to cut the work of every stage: as was tuned on this device, or by the table.

    Parameters
    ----------
    architecture : Architecture
        What is to run.
    device : torch.device
        Where to run.
    dtype : torch.dtype
        Of the matrix products.

    Returns
    -------
    dict of str to Tiling
        By the text of a stage's `StageShape`.
    """
    tuned, capability = read_tuned(tuning_key(device, dtype)), capability_of(device)
    return {
        str(shape): tuned.get(str(shape)) or default_tiling(shape, dtype.itemsize, capability)
        for shape in map(stage_shape, (*architecture.stages, architecture.bottleneck))
    }


def shapes(architecture: Architecture, tilings: Mapping[str, Tiling] = NO_TILINGS) -> tuple[Shape, ...]:
    """The shapes of an architecture to try, each once.

    Parameters
    ----------
    architecture : Architecture
        What is to run.
    tilings : mapping of str to Tiling
        As of `choose_tilings`.

    Returns
    -------
    tuple of Shape
        From the finest stage to the bottleneck.
    """
    found = [
        Shape(
            BlockLayout(
                stage.local_block,
                stage.sparse_block,
                min(stage.selected_blocks, SELECTED_ON_TRIAL),
                tilings.get(str(stage_shape(stage))),
            ),
            stage.gqa_ratio,
            stage.head_width,
        )
        for stage in (*architecture.stages, architecture.bottleneck)
    ]
    return tuple(dict.fromkeys(found))


def candidates(architecture: Architecture, device: torch.device, dtype: torch.dtype) -> tuple[str, ...]:
    """Backends that are tried without being asked for, the best first.

    Parameters
    ----------
    architecture : Architecture
        What is to run.
    device : torch.device
        Where to run.
    dtype : torch.dtype
        Of the matrix products.

    Returns
    -------
    tuple of str
        Names in `BACKENDS`; the last is ``reference``.
    """
    # The kernel is made for tensor cores, of which float32 makes no use. FlexAttention takes tens of
    # seconds to compile, and whoever has its compiler has the kernel's.
    if device.type == "cuda" and dtype != torch.float32:
        return ("triton", "sdpa", "reference")
    if device.type == "cpu" and dtype == torch.float32 and _fills_tiles(architecture):
        return ("tiled", "sdpa", "reference")
    return ("sdpa", "reference")


def _fills_tiles(architecture: Architecture) -> bool:
    """Whether a block of the finest stage makes half a tile of scores: with fewer, calls cost more than they save."""
    stage = architecture.stages[0]
    return 2 * stage.sparse_block**2 * stage.selected_blocks >= SCORES_AT_ONCE


def choose_backend(wanted: str, architecture: Architecture, device: torch.device, dtype: torch.dtype) -> str:
    """The name of the backend to run with, tried on this device in this precision.

    Parameters
    ----------
    wanted : str
        A name in `BACKENDS`, or ``auto``.
    architecture : Architecture
        What is to run.
    device : torch.device
        Where to run.
    dtype : torch.dtype
        Of the matrix products.

    Returns
    -------
    str
        A name in `BACKENDS`: `wanted`, or the first of `candidates` that is fit.

    Raises
    ------
    UnfitBackendError
        If the one that was asked for is unfit, or all are.
    """
    if wanted != AUTO:
        try_backend(wanted, architecture, device, dtype)
        return wanted
    reasons = []
    for name in candidates(architecture, device, dtype):
        try:
            try_backend(name, architecture, device, dtype)
        except UnfitBackendError as reason:
            LOG.warning("%s; trying the next", reason)
            reasons.append(str(reason))
        else:
            return name
    raise UnfitBackendError(f"no attention backend works here: {'; '.join(reasons)}")


def try_backend(
    name: str,
    architecture: Architecture,
    device: torch.device,
    dtype: torch.dtype,
    tilings: Mapping[str, Tiling] | None = None,
) -> float:
    """Compare a backend with the reference on small random problems.

    Parameters
    ----------
    name : str
        A name in `BACKENDS`.
    architecture : Architecture
        Gives heads and blocks of the problems.
    device : torch.device
        Where to run.
    dtype : torch.dtype
        Of the matrix products.
    tilings : mapping of str to Tiling or None
        For ``triton``; None: those that `choose_tilings` gives.

    Returns
    -------
    float
        The largest difference, of outputs of unit variance; at most `AGREEMENT`.

    Raises
    ------
    UnfitBackendError
        If it cannot run, or differs by more than `AGREEMENT`.
    """
    module, package = NEEDED.get(name, (None, ""))
    if module is not None and find_spec(module) is None:
        raise UnfitBackendError(f"attention backend {name}: expected the package {package}; found none")
    if name != "triton":
        tilings = NO_TILINGS
    elif tilings is None:
        tilings = choose_tilings(architecture, device, dtype)
    return max(tried(name, shape, device, dtype) for shape in shapes(architecture, tilings))


def tried(name: str, shape: Shape, device: torch.device, dtype: torch.dtype) -> float:
    """`difference`, where it is one to be content with.

    Parameters
    ----------
    name : str
        A name in `BACKENDS`.
    shape : Shape
        Heads and blocks.
    device : torch.device
        Where to run.
    dtype : torch.dtype
        Of query, key and value.

    Returns
    -------
    float
        At most `AGREEMENT`.

    Raises
    ------
    UnfitBackendError
        If it cannot run, or differs by more.
    """
    on = f"on {device.type} in {str(dtype).removeprefix('torch.')}"
    try:
        found = difference(name, shape, device, dtype)
    except Exception as error:
        # Compilers fail in as many ways as there are of them, and none must end a run that could go on.
        said = next(iter(str(error).strip().splitlines()), "")
        raise UnfitBackendError(
            f"attention backend {name} does not run {on}: {type(error).__name__}: {said}"
        ) from error
    # Not <= is also true of NaN.
    if not found <= AGREEMENT[dtype]:
        raise UnfitBackendError(
            f"attention backend {name} is wrong {on}: expected to differ from the reference by at most "
            f"{AGREEMENT[dtype]:.0e}, got {found:.1e}"
        )
    return found


def difference(name: str, shape: Shape, device: torch.device, dtype: torch.dtype) -> float:
    """Largest difference of a backend from the reference on one small random problem.

    Parameters
    ----------
    name : str
        A name in `BACKENDS`.
    shape : Shape
        Heads and blocks.
    device : torch.device
        Where to run.
    dtype : torch.dtype
        Of query, key and value; the reference takes the same numbers in float32.

    Returns
    -------
    float
        Of absolute values; NaN where the backend gives one.
    """
    layout, generator = shape.layout, torch.Generator().manual_seed(0)
    # The fewest whole local runs with more blocks than are selected.
    pixels = -(-(layout.selected + 1) * layout.sparse // layout.local) * layout.local
    pixels *= 1 if pixels % layout.sparse == 0 else layout.sparse
    # Two groups: what confuses them would pass with one.
    heads = (2 * shape.ratio, 2, 2)
    query, key, value = (
        torch.randn(1, count, pixels, shape.width, generator=generator).to(device, dtype) for count in heads
    )
    # Laid out as the network has them, which kernels are compiled for.
    gates = torch.randn(1, heads[0], 3, pixels, generator=generator).softmax(dim=2).to(device).transpose(2, 3)
    room = torch.empty(1, pixels, heads[0], shape.width, dtype=dtype, device=device).transpose(1, 2)
    with torch.inference_mode():
        expected = block_sparse_attention(query.float(), key.float(), value.float(), gates, layout, "reference")
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            found = block_sparse_attention(query, key, value, gates, layout, name, out=room)
    worst = (found.float() - expected).abs().max()
    return float(worst)


NAMES = (AUTO, *BACKENDS)
"""What can be asked for."""
