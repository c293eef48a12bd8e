"""Whether the kernels run: tried on the device against the plain form before they are trusted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import torch
from torch import Tensor

from ...variants import Architecture, Stage
from ..attention import block_means
from ..attention.problem import BlockLayout
from .launched import KernelPasses
from .plain import PLAIN, Heads, Passes, Turns

LOG = logging.getLogger(__name__)

AGREEMENT = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}
"""Largest difference from the plain form, which rounds more often, over one plus the size of its number.

A wrong row, column or member is above 0.5, on numbers of unit variance.
"""

MEMBERS = 2
"""Members of a trial: what confuses them would pass with one."""

ROWS = 16
"""Rows of a trial, per member: kernels are compiled for multiples of 16, which all sizes of a released network are."""

Draw = Callable[..., Tensor]
"""Random numbers of a shape, on the device, by default in the precision of the products."""


class UnfitKernelsError(Exception):
    """Kernels that cannot run here, or do not give what the plain form gives; says why."""


def choose_passes(architecture: Architecture, device: torch.device, dtype: torch.dtype) -> Passes:
    """The kernels where they work, with a warning where that is unexpected, else plain PyTorch.

    Parameters
    ----------
    architecture : Architecture
        What is to run.
    device : torch.device
        Where to run; only GPUs have kernels.
    dtype : torch.dtype
        Of the matrix products.

    Returns
    -------
    Passes
        For `MosaicNetwork.use_passes`.
    """
    if device.type != "cuda":
        return PLAIN
    if find_spec("triton") is None:
        LOG.warning("Steps run without the kernels of this package, more slowly: they need the package triton")
        return PLAIN
    passes = KernelPasses(adds_within=adds_within(device, dtype))
    try:
        try_passes(passes, architecture, device, dtype)
    except UnfitKernelsError as reason:
        LOG.warning("Steps run without the kernels of this package, more slowly: %s", reason)
        return PLAIN
    return passes


def adds_within(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether PyTorch's products of this precision add to float32 themselves, and leave float32.

    Parameters
    ----------
    device : torch.device
        Where to run.
    dtype : torch.dtype
        Of the products.

    Returns
    -------
    bool
        Tried, since versions differ in what they take.
    """
    if dtype == torch.float32:
        return True
    passes = KernelPasses()
    try:
        rows, weight = (torch.ones(64, 64, dtype=dtype, device=device) for _ in range(2))
        total = torch.ones(1, 64, 64, device=device)
        passes.add_product(total, rows[None], weight)
        product = passes.product(rows, weight)
    except Exception:
        # Unknown arguments and refused precisions are errors of several kinds.
        LOG.info("PyTorch %s adds half precision to float32 after its products, not within them", torch.__version__)
        return False
    return bool((total == 65).all() and (product == 64).all())


def try_passes(passes: Passes, architecture: Architecture, device: torch.device, dtype: torch.dtype) -> float:
    """Compare passes with the plain ones on small random problems with the widths of an architecture.

    Parameters
    ----------
    passes : Passes
        To try.
    architecture : Architecture
        Gives widths, heads, blocks and neighbours.
    device : torch.device
        Where to run.
    dtype : torch.dtype
        Of the matrix products.

    Returns
    -------
    float
        The largest difference; at most `AGREEMENT`.

    Raises
    ------
    UnfitKernelsError
        If one cannot run, or differs by more than `AGREEMENT`.
    """
    worst = 0.0
    for name, trial in trials(architecture):
        try:
            difference = _difference(passes, trial, device, dtype)
        except Exception as error:
            # Compilers fail in as many ways as there are of them, and none must end a run that could go on.
            said = next(iter(str(error).strip().splitlines()), "")
            raise UnfitKernelsError(f"{name} does not run on {device.type}: {type(error).__name__}: {said}") from error
        # Not <= is also true of NaN.
        if not difference <= AGREEMENT[dtype]:
            raise UnfitKernelsError(
                f"{name} is wrong on {device.type} in {str(dtype).removeprefix('torch.')}: expected to differ from "
                f"PyTorch by at most {AGREEMENT[dtype]:.0e}, got {difference:.1e}"
            )
        worst = max(worst, difference)
    return worst


Trial = Callable[[Passes, Draw, torch.dtype], tuple[Tensor, ...]]


def trials(architecture: Architecture) -> Iterator[tuple[str, Trial]]:
    """All trials by name: what passes, random numbers and a precision give."""
    for of_part in (_of_points(architecture), *map(_of_stage, (*architecture.stages, architecture.bottleneck))):
        yield from of_part.items()


def _difference(passes: Passes, trial: Trial, device: torch.device, dtype: torch.dtype) -> float:
    """The largest of all that a trial gives."""
    results = []
    for form in (passes, PLAIN):
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int, kind: torch.dtype = dtype, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(*shape, generator=generator).to(device, kind)

        with torch.inference_mode():
            results.append([tensor.float() for tensor in trial(form, draw, dtype)])
    return max(float(((one - plain).abs() / (1 + plain.abs())).max()) for one, plain in zip(*results, strict=True))


def _of_stage(stage: Stage) -> dict[str, Trial]:
    """Trials of what a block does."""
    width, hidden = stage.width, stage.hidden_width
    layout = BlockLayout(stage.local_block, stage.sparse_block, stage.selected_blocks)
    heads = Heads(stage.query_heads, stage.key_value_heads, stage.head_width, layout)

    def norm(passes: Passes, draw: Draw, dtype: torch.dtype) -> tuple[Tensor, ...]:
        return (passes.norm_to(draw(MEMBERS, ROWS, width, kind=torch.float32), dtype),)

    def norm_of_sum(passes: Passes, draw: Draw, dtype: torch.dtype) -> tuple[Tensor, ...]:
        x, skip = draw(MEMBERS, ROWS, width), draw(MEMBERS, ROWS, width, kind=torch.float32)
        out, again = torch.empty_like(skip), torch.empty_like(x)
        passes.norm_of_sum(x, draw(ROWS, width), out, skip, again)
        return out, again

    def rotation(passes: Passes, draw: Draw, dtype: torch.dtype) -> tuple[Tensor, ...]:
        pixels, columns = 2 * layout.sparse, sum(heads.columns)
        joined = draw(MEMBERS, pixels, columns + -columns % KernelPasses.columns_of)
        turns = Turns(*(draw(pixels, heads.width // 2, kind=torch.float32) for _ in range(4)))
        summary = passes.summary(MEMBERS, pixels, heads, joined.device)
        passes.rotate(joined, heads, turns, summary)
        means = summary.means or [block_means(tensor, layout.sparse) for tensor in heads.dealt(joined)]
        return joined, summary.gates, *means

    def gating(passes: Passes, draw: Draw, dtype: torch.dtype) -> tuple[Tensor, ...]:
        return (passes.gated_product(draw(MEMBERS, ROWS, 2 * hidden), draw(MEMBERS, hidden, kind=torch.float32)),)

    return {"the norm": norm, "the norm of a sum": norm_of_sum, "the rotation": rotation, "the gate": gating}


def _of_points(architecture: Architecture) -> dict[str, Trial]:
    """Trials of what lies between the grid and the mesh, and of the noise."""
    stage, count = architecture.stages[0], architecture.neighbours

    def norms(passes: Passes, draw: Draw, dtype: torch.dtype) -> tuple[Tensor, ...]:
        few = draw(3, stage.width, kind=torch.float32) / stage.width**0.5
        x = draw(MEMBERS, ROWS, stage.width, kind=torch.float32)
        rows, mapped, factor = passes.norm_and_map(x, dtype, few, norms=2)
        return (
            rows,
            mapped if factor is None else mapped * factor[..., None],
            passes.norm_to(x, dtype, silu=True),
            passes.norm_to(draw(MEMBERS, ROWS, stage.width), torch.float32, norms=0, silu=True),
        )

    def interpolation(passes: Passes, draw: Draw, dtype: torch.dtype) -> tuple[Tensor, ...]:
        sources = 2 * ROWS
        directions = draw(MEMBERS, sources, stage.query_heads, 3, kind=torch.float32)
        neighbours = torch.arange(ROWS * count, device=directions.device).view(ROWS, count) % sources
        toward = draw(ROWS, count, 3, kind=torch.float32)
        values, factor = draw(MEMBERS, sources, stage.width), draw(MEMBERS, sources, kind=torch.float32)
        return (passes.interpolate(directions, values, neighbours, toward, dtype, factor),)

    def noise(passes: Passes, draw: Draw, dtype: torch.dtype) -> tuple[Tensor, ...]:
        weight = draw(ROWS, architecture.noise_width)
        return (passes.map_members(draw(MEMBERS, architecture.noise_width, kind=torch.float32), weight),)

    return {"the norm": norms, "the interpolation": interpolation, "the map of the noise": noise}
