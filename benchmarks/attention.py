"""Attention alone against the number of tokens: block-sparse with fixed lists, and dense.

Heads, width, blocks and selected counts are those of the finest stage of ``era5``; only the tokens vary. Prints a table
and the exponent of growth between two sizes: ``python benchmarks/attention.py --tokens 3072 12288 49152``.
On a CPU that others use as well, take ``--clock processor`` and one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from ai_models_mosaic.model.attention import BACKENDS, BlockLayout, block_means, block_sparse_attention, select_blocks
from ai_models_mosaic.variants import ERA5

TOKENS = tuple(3072 * 4**power for power in range(5))

EXPONENT_FROM, EXPONENT_TO = 12_288, 196_608

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """Inputs of one size, as the network has them."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    gates: torch.Tensor
    layout: BlockLayout


def make_case(tokens: int, groups: int, device: torch.device, dtype: torch.dtype) -> Case:
    """Random inputs of the finest stage's shape, of so many groups of heads."""
    stage = ERA5.architecture.stages[0]
    generator = torch.Generator().manual_seed(0)
    heads = (groups * stage.gqa_ratio, groups, groups)
    query, key, value = (
        torch.randn(1, count, tokens, stage.head_width, generator=generator).to(device, dtype) for count in heads
    )
    gates = torch.randn(1, heads[0], tokens, 3, generator=generator).softmax(dim=-1).to(device)
    count = min(stage.selected_blocks, tokens // stage.sparse_block)
    return Case(query, key, value, gates, BlockLayout(stage.local_block, stage.sparse_block, count))


@dataclass(frozen=True)
class Stopwatch:
    """Median time of some calls."""

    device: torch.device
    repeats: int
    clock: Callable[[], float]

    def seconds(self, work: Callable[[], object]) -> float:
        """On one clock, the device having finished."""
        times = []
        for _ in range(self.repeats):
            start = self.clock()
            work()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            times.append(self.clock() - start)
        return statistics.median(times)


def measure(case: Case, backend: str, stopwatch: Stopwatch, dense_up_to: int) -> dict[str, float]:
    """Seconds of the whole, of what is quadratic in blocks within it, and of dense attention."""
    tokens = case.query.shape[2]
    heads = (case.query, case.key, case.value)

    def scoring() -> object:
        query, key = (block_means(tensor, case.layout.sparse) for tensor in heads[:2])
        return select_blocks(query, key, case.layout.selected)

    found = {
        "tokens": tokens,
        "sparse": stopwatch.seconds(lambda: block_sparse_attention(*heads, case.gates, case.layout, backend)),
        "scoring": stopwatch.seconds(scoring),
    }
    if tokens <= dense_up_to:
        # The fused kernels of a CPU know no groups.
        ratio = case.query.shape[1] // case.key.shape[1]
        served = [tensor.repeat_interleave(ratio, dim=1) for tensor in heads[1:]]
        dense = functional.scaled_dot_product_attention
        found["dense"] = stopwatch.seconds(lambda: dense(case.query, *served))
    return found


def exponent(rows: list[dict[str, float]], name: str, first: int = EXPONENT_FROM, last: int = EXPONENT_TO) -> float:
    """Slope of a straight line through the logarithms, by least squares; NaN of fewer than two sizes."""
    points = [
        (math.log(row["tokens"]), math.log(row[name])) for row in rows if name in row and first <= row["tokens"] <= last
    ]
    if len(points) < 2:
        return math.nan
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS)
    parser.add_argument("--backend", choices=BACKENDS, default="sdpa")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--groups", type=int, default=3, help="key/value heads, four query heads each (default: 3)")
    parser.add_argument("--dense-up-to", type=int, default=12_288, help="tokens of the largest dense attention")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--json", type=Path, help="where raw figures go")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    stopwatch, rows = Stopwatch(device, options.repeats, CLOCKS[options.clock]), []
    print(
        "| tokens | block-sparse, s | of it scoring and selection | dense, s | per token, µs |\n|---|---|---|---|---|"
    )
    with torch.inference_mode():
        # Once for nothing: compilers, and the first use of a library.
        for tokens in (min(options.tokens), *options.tokens):
            case = make_case(tokens, options.groups, device, PRECISIONS[options.precision])
            rows.append(row := measure(case, options.backend, stopwatch, options.dense_up_to))
            if len(rows) == 1:
                continue
            dense = f"{row['dense']:.3g}" if "dense" in row else ""
            share, per_token = row["scoring"] / row["sparse"], row["sparse"] / tokens
            print(f"| {tokens} | {row['sparse']:.3g} | {share:.1%} | {dense} | {1e6 * per_token:.3g} |", flush=True)
    rows.pop(0)
    for name in ("sparse", "scoring", "dense"):
        first = 0 if name == "dense" else EXPONENT_FROM
        print(f"exponent of {name}: {exponent(rows, name, first):.3f}")
    if options.json is not None:
        about = {name: str(value) for name, value in vars(options).items()}
        about |= {"device": str(device), "machine": platform.machine(), "threads": torch.get_num_threads()}
        options.json.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
