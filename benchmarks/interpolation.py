"""Time of the interpolation between grids: folded, as the network has it, against the plain form.

``python benchmarks/interpolation.py [--nside 32]``; nside 64 is the full size, and takes minutes.
"""

from __future__ import annotations

import argparse

import torch
from pairs import compare
from torch import Tensor

from ai_models_mosaic.geometry.grid import LatLonGrid
from ai_models_mosaic.model.buffers import make_buffers
from ai_models_mosaic.model.interpolation import CrossGridAttention
from ai_models_mosaic.variants import ERA5, Architecture, Stage

TARGETS_AT_ONCE = 1024
"""The plain form gathers keys and values of so many targets at a time."""


def plain(layer: CrossGridAttention, x: Tensor) -> Tensor:
    """Section 5 of the specification as it is written: keys and values of every neighbour are gathered."""
    key, value = layer.to_kv(layer.norm(x[0])).chunk(2, dim=-1)
    parts = []
    for neighbours, rel_pos in zip(
        layer.neighbors.split(TARGETS_AT_ONCE), layer.rel_pos.split(TARGETS_AT_ONCE), strict=True
    ):
        query = layer.to_q(rel_pos).unflatten(-1, (layer.heads, -1))
        near_key, near_value = (t[neighbours].unflatten(-1, (layer.heads, -1)) for t in (key, value))
        scores = (query * near_key).sum(dim=-1) / query.shape[-1] ** 0.5
        parts.append((scores.softmax(dim=1)[..., None] * near_value).sum(dim=1).flatten(1))
    return layer.to_o(torch.cat(parts))[None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nside", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    nside, repeats = (options := parser.parse_args()).nside, options.repeats
    width, heads = ERA5.architecture.stages[0].width, ERA5.architecture.stages[0].query_heads
    grid = LatLonGrid.regular(96 / nside)
    stages = tuple(Stage(side, width, heads, 12, 12, 1, 1) for side in (nside, nside // 2))
    architecture = Architecture(grid, stages[:1], stages[1], neighbours=24, history=2)
    layer = CrossGridAttention(stages[0], grid.size, stages[0].pixels, 24)
    names = ("interp_to_hp.neighbors", "interp_to_hp.rel_pos")
    for name, buffer in make_buffers(architecture, names, {}).items():
        setattr(layer, name.split(".")[1], buffer)
    x = torch.randn(1, grid.size, width, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        folded = layer(x)
        difference = float((folded - plain(layer, x)).abs().max() / folded.square().mean().sqrt())
        ratio = compare({"folded": lambda: layer(x), "plain": lambda: plain(layer, x)}, repeats)
    shape = f"{grid.size} points -> {stages[0].pixels} pixels × 24 neighbours × width {width}"
    print(f"{shape}, float32, {torch.get_num_threads()} threads: plain / folded = {ratio:.1f}")
    print(f"largest difference over rms: {difference:.1e}")


if __name__ == "__main__":
    main()
