"""The passes by kernels against the plain ones under Triton's interpreter: ``python tests/interpreted_passes.py``.

A program of its own, since the interpreter is chosen when Triton is first imported. Prints JSON: the largest difference
of every case and precision, over one plus the size of the number; what members are in a batch; and whole networks.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"

import parity
import tiny
import torch
from torch import Tensor

from ai_models_mosaic.model.attention import BlockLayout, block_means
from ai_models_mosaic.model.fused import KERNELS, PLAIN, Heads, KernelPasses, Passes, Turns, launched
from ai_models_mosaic.model.fused.choice import UnfitKernelsError, adds_within, try_passes

# The interpreter takes as long for a small tile as for a large one.
launched.ELEMENTS = 2**17

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Draw:
    """Random numbers, the same for either form."""

    def __init__(self, dtype: torch.dtype, members: int) -> None:
        self.dtype, self.members = dtype, members
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.randn(*shape, generator=self._generator).to(dtype or self.dtype)

    def rows(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """The first members of three."""
        return self(3, *shape, dtype=dtype)[: self.members].clone()


def norm(width: int, rows: int, **how: object) -> Callable[[Passes, Draw], tuple[Tensor, ...]]:
    return lambda passes, draw: (passes.norm_to(draw.rows(rows, width, dtype=torch.float32), draw.dtype, **how),)


def norms_of_half(passes: Passes, draw: Draw) -> tuple[Tensor, ...]:
    x = draw.rows(7, 24)
    rows, mapped, factor = passes.norm_and_map(x, draw.dtype, draw(5, 24, dtype=torch.float32), norms=2)
    mapped = mapped if factor is None else mapped * factor[..., None]
    return rows, mapped, passes.norm_to(x, torch.float32, norms=0, silu=True)


def sum_of(width: int, *, skip: bool) -> Callable[[Passes, Draw], tuple[Tensor, ...]]:
    def case(passes: Passes, draw: Draw) -> tuple[Tensor, ...]:
        x, positions = draw.rows(5, width), draw(5, width)
        out, again = torch.empty(x.shape), torch.empty_like(x)
        if skip:
            passes.norm_of_sum(x, positions, out, draw.rows(5, width, dtype=torch.float32), again)
            return out, again
        passes.norm_of_sum(x, positions, out)
        return (out,)

    return case


def rotation(heads: Heads, blocks: int, padding: int, *, shut: bool) -> Callable[[Passes, Draw], tuple[Tensor, ...]]:
    def case(passes: Passes, draw: Draw) -> tuple[Tensor, ...]:
        pixels = blocks * heads.layout.sparse
        joined = draw.rows(pixels, sum(heads.columns) + padding)
        turns = Turns(*(draw(pixels, heads.width // 2, dtype=torch.float32) for _ in range(4)))
        summary = passes.summary(joined.shape[0], pixels, heads, joined.device)
        passes.rotate(joined, heads, turns, summary, without_selected=shut)
        means = summary.means or [block_means(tensor, heads.layout.sparse) for tensor in heads.dealt(joined)]
        return joined, summary.gates, *means

    return case


def gating(hidden: int, rows: int) -> Callable[[Passes, Draw], tuple[Tensor, ...]]:
    def case(passes: Passes, draw: Draw) -> tuple[Tensor, ...]:
        # The shift is a part of those of all blocks.
        shifts = draw.rows(hidden + 7, dtype=torch.float32)
        return (passes.gated_product(draw.rows(rows, 2 * hidden), shifts[:, 3 : 3 + hidden]),)

    return case


def interpolation(
    heads: int, width: int, targets: int, count: int, *, factor: bool = False
) -> Callable[[Passes, Draw], tuple[Tensor, ...]]:
    def case(passes: Passes, draw: Draw) -> tuple[Tensor, ...]:
        directions, values = draw.rows(11, heads, 3, dtype=torch.float32), draw.rows(11, heads * width)
        neighbours = torch.arange(targets * count).view(targets, count) * 7 % 11
        toward = draw(targets, count, 3, dtype=torch.float32)
        by = draw.rows(11, dtype=torch.float32) if factor else None
        return (passes.interpolate(3 * directions, values, neighbours, toward, draw.dtype, by),)

    return case


def noise(inputs: int, outputs: int) -> Callable[[Passes, Draw], tuple[Tensor, ...]]:
    return lambda passes, draw: (
        passes.map_members(draw.rows(inputs, dtype=torch.float32), draw(outputs, inputs)),
    )  # fmt: skip


CASES = {
    "norm": norm(32, 9),
    "norm of a width that is no power of two, and SiLU": norm(24, 7, silu=True),
    "norm twice": norm(40, 3, norms=2),
    "norm of one number": norm(1, 1),
    "norm of nothing": norm(24, 0),
    "norms of half precision": norms_of_half,
    "norm of a sum": sum_of(24, skip=False),
    "norm of a sum with a skip": sum_of(16, skip=True),
    "rotation": rotation(Heads(4, 2, 16, BlockLayout(16, 16, 1)), 3, 0, shut=False),
    "rotation of ragged heads and blocks": rotation(Heads(6, 2, 12, BlockLayout(24, 12, 1)), 2, 5, shut=False),
    "rotation of the smallest head": rotation(Heads(1, 1, 4, BlockLayout(1, 1, 1)), 1, 0, shut=False),
    "rotation without the selected branch": rotation(Heads(4, 1, 8, BlockLayout(8, 8, 1)), 2, 1, shut=True),
    "gate": gating(32, 8),
    "gate of ragged rows": gating(20, 9),
    "gate of one number": gating(1, 1),
    "gate of nothing": gating(20, 0),
    "interpolation": interpolation(4, 8, 13, 8),
    "interpolation of ragged heads": interpolation(3, 5, 6, 5, factor=True),
    "interpolation from one point": interpolation(1, 4, 1, 1),
    "noise": noise(8, 37),
    "noise of one number": noise(1, 1),
}


def made(case: Callable, passes: Passes, dtype: torch.dtype, members: int = 2) -> list[Tensor]:
    return [tensor.float() for tensor in case(passes, Draw(dtype, members))]


def difference(case: Callable, dtype: torch.dtype) -> float:
    pairs = zip(made(case, KERNELS, dtype), made(case, PLAIN, dtype), strict=True)
    return max(float(((one - plain).abs() / (1 + plain.abs())).max()) if one.numel() else 0.0 for one, plain in pairs)


def alike(case: Callable, dtype: torch.dtype) -> bool:
    """Whether the first member of three is what it is alone; block means and rows lie by member."""
    alone, together = (made(case, KERNELS, dtype, members) for members in (1, 3))
    return all(torch.equal(one, all_[: one.shape[0]]) for one, all_ in zip(alone, together, strict=True))


def parity_difference(path: Path) -> float:
    """One member of a parity file through the whole network, made ready as for a run."""
    network, case = parity.load(path)
    network.use_passes(KERNELS)
    network.prepare()
    one = case | {"noise": case["noise"][:1]}
    return float((parity.predict(network, one) - case["output"][:1]).abs().max())


def network_of(passes: Passes, dtype: torch.dtype) -> Callable[..., Tensor]:
    network = parity.build_network(tiny.ARCHITECTURE, tiny.checkpoint_of(tiny.parameters()), tiny.STATICS)
    network.use_passes(passes)
    network.prepare(dtype)
    return network


def half_difference(dtype: torch.dtype) -> float:
    """Root mean square difference of a network in half precision by kernels from one in plain PyTorch, over its std."""
    inputs = tiny.inputs(2)
    kernels = KernelPasses(adds_within=adds_within(torch.device("cpu"), dtype))
    by_kernels, plain = (network_of(passes, dtype)(*inputs) for passes in (kernels, PLAIN))
    return float((by_kernels - plain).square().mean().sqrt() / plain.std())


def member_difference() -> float:
    """Of members in a batch from members alone: the products of a CPU round differently for more rows."""
    launched.HELD_AT_ONCE = 1
    network = network_of(KERNELS, torch.float32)
    state, progress, noise = tiny.inputs(2)
    together = network(state, progress, noise)
    alone = [network(state[[member]], progress, noise[[member]]) for member in (0, 1)]
    return float((together - torch.cat(alone)).abs().max())


def refusal() -> str:
    """What is said of kernels that are wrong."""

    class Wrong(KernelPasses):
        def gated_product(self, mapped: Tensor, shift: Tensor) -> Tensor:
            return super().gated_product(mapped, shift.flip(0))

    try:
        try_passes(Wrong(), tiny.ARCHITECTURE, torch.device("cpu"), torch.float32)
    except UnfitKernelsError as error:
        return str(error)
    return "none"


if __name__ == "__main__":
    data = Path(__file__).parent / "data"
    with torch.inference_mode():
        found = {
            "differences": {
                name: {precision: difference(case, dtype) for precision, dtype in PRECISIONS.items()}
                for name, case in CASES.items()
            },
            "alike": {name: alike(case, torch.float16) for name, case in CASES.items()},
            "trial": {
                name: try_passes(KERNELS, tiny.ARCHITECTURE, torch.device("cpu"), dtype)
                for name, dtype in PRECISIONS.items()
            },
            "refusal": refusal(),
            "parity": {path.stem: parity_difference(path) for path in sorted(data.glob("*.npz"))},
            "half": half_difference(torch.bfloat16),
            "members": member_difference(),
        }
    json.dump(found, sys.stdout)
