"""The Triton kernel against the reference under Triton's interpreter: ``python tests/interpreted_kernel.py``.

A program of its own, since the interpreter is chosen when Triton is first imported. Prints JSON: for every case the
largest difference from the reference in float32 on the same numbers.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"

import parity
import torch

from ai_models_mosaic.model.attention import BlockLayout, block_sparse_attention
from ai_models_mosaic.model.attention import triton as attention_triton
from ai_models_mosaic.model.attention.tilings import Tiling
tiling=None
from ai_models_mosaic.variants import ERA5, Stage

F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32


def stage_case(stage: Stage, groups: int, pixels: int, dtype: torch.dtype) -> tuple:
    """A stage with its own blocks, width, ratio and count; fewer pixels and groups of heads."""
    layout = BlockLayout(stage.local_block, stage.sparse_block, stage.selected_blocks)
    return 1, groups, stage.gqa_ratio, pixels, stage.head_width, layout, dtype


STAGE_0, STAGE_1 = ERA5.architecture.stages

# (batch, key/value heads, ratio, pixels, width, layout, dtype)
CASES = {
    "era5 stage 0": stage_case(STAGE_0, 1, 3072, F16),
    "era5 stage 1": stage_case(STAGE_1, 1, 2048, BF16),
    "era5 bottleneck": stage_case(ERA5.architecture.bottleneck, 1, 1024, F16),
    "float32": (1, 2, 4, 128, 32, BlockLayout(64, 16, 3), F32),
    "members and groups": (2, 3, 2, 128, 16, BlockLayout(64, 32, 3), F32),
    "rows and keys that do not fill a tile": (1, 2, 3, 96, 24, BlockLayout(48, 24, 2), F32),
    "keys beyond a turn": (1, 1, 2, 320, 16, BlockLayout(160, 80, 3), F16),
    "widest heads": (1, 1, 4, 128, 128, BlockLayout(128, 64, 1), BF16),
    "one head to a group": (1, 2, 1, 64, 40, BlockLayout(32, 16, 2), F16),
}


def difference(case: tuple) -> float:
    batch, groups, ratio, pixels, width, layout, dtype = case
    generator = torch.Generator().manual_seed(3)
    # As the network has them: channels of a pixel together, heads in between.
    query, key, value = (
        torch.randn(batch, pixels, heads, width, generator=generator).to(dtype).transpose(1, 2)
        for heads in (groups * ratio, groups, groups)
    )
    gates = torch.randn(batch, pixels, groups * ratio, 3, generator=generator).softmax(dim=-1).transpose(1, 2)
    with torch.inference_mode():
        expected = block_sparse_attention(query.float(), key.float(), value.float(), gates, layout, "reference")
        found = block_sparse_attention(query, key, value, gates, layout, "triton")
    return float((found - expected).abs().max())


def coarser(*arguments: int) -> Tiling:
    """Tiles of four times the size: the interpreter takes as long for a small one as for a large one."""
    tiles = tiling(*arguments)
    return Tiling(2 * tiles.rows, 2 * tiles.keys, tiles.warps, tiles.stages)


def coarse_difference(case: tuple) -> float:
    attention_triton.tiling = coarser
    try:
        return difference(case)
    finally:
        attention_triton.tiling = tiling


def parity_difference(path: Path) -> float:
    """One member of a parity file through the whole network."""
    network, case = parity.load(path)
    network.use_backend("triton")
    one = case | {"noise": case["noise"][:1]}
    return float((parity.predict(network, one) - case["output"][:1]).abs().max())


def refusal() -> str:
    query = torch.zeros(1, 2, 32, 16, requires_grad=True)
    key = torch.zeros(1, 1, 32, 16)
    try:
        block_sparse_attention(query, key, key, torch.ones(1, 2, 32, 3), BlockLayout(32, 16, 1), "triton")
    except NotImplementedError as error:
        return str(error)
    return "none"


if __name__ == "__main__":
    found = {
        # The stages with the longest lists; all else goes with the tiles of a GPU.
        name: (coarse_difference if name.startswith("era5 stage") else difference)(case)
        for name, case in CASES.items()
    }
    found["parity"] = parity_difference(Path(__file__).parent / "data" / "hres_tiny.npz")
    json.dump({"differences": found, "refusal": refusal()}, sys.stdout)
