"""The Triton kernels against the reference under Triton's interpreter: ``python tests/interpreted_kernel.py``.

A program of its own, since the interpreter is chosen when Triton is first imported. Prints JSON: for every case the
largest difference from the reference in float32 on the same numbers, and what else was seen.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"

import fa4_standin
import parity
import torch
from torch._dynamo.utils import counters

from ai_models_mosaic.model.attention import (
    BlockLayout,
    block_means,
    block_sparse_attention,
    fa4,
    select_blocks,
    tuning,
)
from ai_models_mosaic.model.attention.tilings import Tiling
from ai_models_mosaic.model.attention.triton import selected_blocks
from ai_models_mosaic.model.layers import Attention, Block
from ai_models_mosaic.variants import ERA5, Stage

F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32

COARSE = Tiling(512, 256, 256, warps=4, stages=2)
"""The interpreter takes as long for a small tile as for a large one."""

H100 = Tiling(64, 128, 64, warps=4, stages=3)


def stage_case(stage: Stage, pixels: int, dtype: torch.dtype, tiling: Tiling) -> tuple:
    """A stage with its own blocks, width, ratio and count; fewer pixels and one group of heads."""
    layout = BlockLayout(stage.local_block, stage.sparse_block, stage.selected_blocks, tiling)
    return 1, 1, stage.gqa_ratio, pixels, stage.head_width, layout, dtype


STAGE_0, STAGE_1 = ERA5.architecture.stages

# (batch, key/value heads, ratio, pixels, width, layout, dtype)
CASES = {
    "era5 stage 0": stage_case(STAGE_0, 3072, F16, COARSE),
    "era5 stage 1": stage_case(STAGE_1, 2048, BF16, COARSE),
    "era5 bottleneck": stage_case(ERA5.architecture.bottleneck, 1024, F16, H100),
    "float32": (1, 2, 4, 128, 32, BlockLayout(64, 16, 3), F32),
    "members and groups": (2, 3, 2, 128, 16, BlockLayout(64, 32, 3), F32),
    "rows and keys that do not fill a tile": (1, 2, 3, 96, 24, BlockLayout(48, 24, 2), F32),
    "keys beyond a turn": (1, 1, 2, 320, 16, BlockLayout(160, 80, 3), F16),
    "widest heads": (1, 1, 4, 128, 128, BlockLayout(128, 64, 1), BF16),
    "one head to a group": (1, 2, 1, 64, 40, BlockLayout(32, 16, 2), F16),
    "one block": (2, 1, 2, 32, 16, BlockLayout(32, 32, 1), F32),
    "blocks of one pixel": (1, 1, 2, 24, 16, BlockLayout(8, 1, 5), F32),
}


def heads_of(case: tuple) -> tuple[torch.Tensor, ...]:
    """Query, key and value as the network has them, views of one padded tensor, and gates."""
    batch, groups, ratio, pixels, width, _, dtype = case
    generator = torch.Generator().manual_seed(3)
    widths = [groups * ratio * width, groups * width, groups * width]
    joined = torch.randn(batch, pixels, sum(widths) + 24, generator=generator).to(dtype)
    heads = joined[..., : sum(widths)].split(widths, dim=-1)
    gates = torch.randn(batch, pixels, groups * ratio, 3, generator=generator).softmax(dim=-1).transpose(1, 2)
    return *(head.unflatten(-1, (-1, width)).transpose(1, 2) for head in heads), gates


def difference(case: tuple) -> float:
    query, key, value, gates = heads_of(case)
    layout = case[5]
    expected = block_sparse_attention(query.float(), key.float(), value.float(), gates, layout, "reference")
    found = block_sparse_attention(query, key, value, gates, layout, "triton")
    assert found.transpose(1, 2).is_contiguous()
    return float((found - expected).abs().max())


def into(dtype: torch.dtype) -> dict[str, float | bool]:
    """The sum in a given buffer of another width, with means that are known, against the one in float32."""
    case = CASES["one head to a group"]
    query, key, value, gates = heads_of(case)
    layout, (batch, heads, pixels, width) = case[5], query.shape
    wide = torch.full((batch, pixels, heads * width + 8), 7.0, dtype=dtype)
    out = wide[..., : heads * width].unflatten(-1, (heads, width)).transpose(1, 2)
    means = tuple(block_means(tensor, layout.sparse) for tensor in (query, key, value))
    expected = block_sparse_attention(query, key, value, gates, layout, "triton")
    found = block_sparse_attention(query, key, value, gates, layout, "triton", means=means, out=out)
    rest = wide[..., heads * width :]
    return {
        "difference": float((found.float() - expected.to(dtype).float()).abs().max()),
        "in place": found is out and bool((rest == 7).all()),
    }


def selections() -> dict[str, bool]:
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, heads, 40, 24, generator=generator) for heads in (6, 3))
    found = selected_blocks(query, key, 7)
    expected = select_blocks(query, key, 7)
    alone = selected_blocks(query[1:], key[1:], 7)
    same = torch.zeros(1, 1, 5, 16)
    broken = query.clone()
    broken[0] = float("nan")
    of_nan = selected_blocks(broken, key, 7)
    return {
        "as torch": torch.equal(found.long().sort().values, expected.sort().values),
        "int32": found.dtype == torch.int32,
        "alone": torch.equal(found[1:], alone),
        "ties to the lower": selected_blocks(same, same, 3).unique(dim=2).flatten().tolist() == [0, 1, 2],
        "nan": bool(((of_nan >= 0) & (of_nan < 40)).all()) and torch.equal(of_nan[1], found[1]),
    }


def alone() -> bool:
    """Whether a member is the same to the bit alone and in a batch."""
    case = CASES["members and groups"]
    *heads, gates = heads_of(case)
    together = block_sparse_attention(*heads, gates, case[5], "triton")
    one = block_sparse_attention(*(head[1:] for head in heads), gates[1:], case[5], "triton")
    return torch.equal(together[1:], one)


def compiled(backend: str) -> dict[str, float]:
    """A block of the network in half precision, in one graph, where attention is an operator of its own."""
    stage = Stage(4, 32, 4, 64, 32, 3, 1, mlp_ratio=2.0)
    block = Block(stage, noise_width=4).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for tensor in (*block.parameters(), *block.buffers()):
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * tensor.shape[-1] ** -0.5)
    for linear in (block.attention.to_q, block.attention.to_k, block.attention.to_v, block.attention.to_o):
        linear.half()
    block.attention.backend = "triton"
    x, noise = torch.randn(2, stage.pixels, stage.width, generator=generator), torch.ones(2, 4)
    expected = block(x.clone(), noise)
    counters.clear()
    made = torch.compile(block, fullgraph=True, dynamic=False, backend=backend)(x, noise)
    return {"difference": float((made - expected).abs().max()), "graphs": counters["stats"]["unique_graphs"]}


def parity_difference(path: Path) -> float:
    """One member of a parity file through the whole network."""
    network, case = parity.load(path)
    network.use_backend("triton")
    for module in network.modules():
        if isinstance(module, Attention):
            module.layout = replace(module.layout, tiling=COARSE)
    one = case | {"noise": case["noise"][:1]}
    return float((parity.predict(network, one) - case["output"][:1]).abs().max())


def by_flash_attention(dtype: torch.dtype) -> dict[str, float | bool]:
    """The branches of a stand-in of FlashAttention-4, joined by a kernel of this project, against the reference."""
    fa4_standin.install()
    fa4.capability_of = lambda device: (9, 0)
    case = 2, 2, 2, 1024, 40, BlockLayout(256, 128, 3), dtype
    query, key, value, gates = heads_of(case)
    wide = torch.full((2, 1024, 4 * 40 + 8), 7.0, dtype=dtype)
    out = wide[..., :160].unflatten(-1, (4, 40)).transpose(1, 2)
    expected = block_sparse_attention(query.float(), key.float(), value.float(), gates, case[5], "reference")
    found = block_sparse_attention(query, key, value, gates, case[5], "fa4", out=out)
    return {"difference": float((found - expected).abs().max()), "in place": bool((wide[..., 160:] == 7).all())}


def tuned() -> list[dict]:
    """Two stages of one shape, by a clock that likes the second tiling; the third is cut to what the first is."""
    stage = Stage(4, 32, 4, 16, 8, 3, 1)
    architecture = replace(ERA5.architecture, stages=(stage,), bottleneck=replace(stage, nside=2))
    tuning.CANDIDATES = (Tiling(16, 16, 16, 4, 2), Tiling(32, 64, 64, 4, 2))
    ticks = iter((3.0, 2.0, 4.0, 2.0))

    def timer(call):
        call()
        return next(ticks)

    measured = list(tuning.timings(architecture, torch.device("cpu"), F32, timer, members=2))
    return [
        {"shape": str(one.shape), "tiling": str(one.tiling), "ms": one.milliseconds, "operations": one.operations}
        for one in measured
    ] + [{shape: str(tiling) for shape, tiling in tuning.fastest(measured).items()}]


def refusal(layout: BlockLayout, *, trains: bool) -> str:
    query = torch.zeros(1, 2, 48, 16, requires_grad=trains)
    key = torch.zeros(1, 1, 48, 16)
    try:
        block_sparse_attention(query, key, key, torch.ones(1, 2, 48, 3), layout, "triton")
    except (NotImplementedError, ValueError) as error:
        return str(error)
    return "none"


if __name__ == "__main__":
    found = {"trains": refusal(BlockLayout(48, 16, 1), trains=True)}
    with torch.inference_mode():
        found["ragged"] = refusal(BlockLayout(24, 16, 1), trains=False)
        found["differences"] = {name: difference(case) for name, case in CASES.items()}
        found["differences"]["parity"] = parity_difference(Path(__file__).parent / "data" / "hres_tiny.npz")
        found["into"] = {str(dtype).removeprefix("torch."): into(dtype) for dtype in (F16, BF16, F32)}
        found["selections"] = selections()
        found["alone"] = alone()
        found["fa4"] = {"float16": by_flash_attention(F16), "bfloat16": by_flash_attention(BF16)}
        found["tuned"] = tuned()
        found["compiled"] = {backend: compiled(backend) for backend in sys.argv[1:]}
    json.dump(found, sys.stdout)
