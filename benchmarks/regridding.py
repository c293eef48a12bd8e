"""Time of mapping the usual grids of services onto 1.5°: weights made, weights from the cache, and a field.

``python benchmarks/regridding.py [--repeats 20] [--json FILE]``
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from ai_models_mosaic.geometry.grid import LatLonGrid, ReducedGrid
from ai_models_mosaic.geometry.regrid import ConservativeRegridder

TARGET = LatLonGrid.regular(1.5)


def gaussian_latitudes(rows: int) -> tuple[float, ...]:
    """Of a Gaussian grid, from south to north, degrees."""
    nodes, _ = np.polynomial.legendre.leggauss(rows)
    return tuple(np.degrees(np.arcsin(nodes)).tolist())


def octahedral(number: int) -> ReducedGrid:
    """O1280 and its like: 20 points in the row next to a pole, 4 more in each further one."""
    half = [20 + 4 * row for row in range(number)]
    return ReducedGrid(gaussian_latitudes(2 * number), tuple(half + half[::-1]), (0.0,) * (2 * number))


def reduced(number: int) -> ReducedGrid:
    """About N320: rows as long as their parallel asks for, in multiples of 8, with 4 N points at the equator."""
    latitudes = gaussian_latitudes(2 * number)
    lengths = [max(18, 8 * round(number * np.cos(np.radians(latitude)) / 2)) for latitude in latitudes]
    return ReducedGrid(latitudes, tuple(lengths), (0.0,) * (2 * number))


GRIDS = {
    "0.25°": lambda: LatLonGrid.regular(0.25),
    "0.1°": lambda: LatLonGrid.regular(0.1),
    "like N320": lambda: reduced(320),
    "O1280": lambda: octahedral(1280),
}


def seconds_of(what: object, repeats: int) -> float:
    """Median time of a call."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        what()  # type: ignore[operator]
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def measure(grid: LatLonGrid | ReducedGrid, repeats: int) -> dict[str, float]:
    """Times of a grid, s."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AI_MODELS_MOSAIC_CACHE"] = folder
        first = seconds_of(lambda: ConservativeRegridder(grid, TARGET), 1)
        again = seconds_of(lambda: ConservativeRegridder(grid, TARGET), 3)
        regridder = ConservativeRegridder(grid, TARGET)
        kept = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6
    field = np.random.default_rng(0).normal(size=grid.shape)
    return {
        "points": field.size,
        "first": first,
        "again": again,
        "field": seconds_of(lambda: regridder(field), repeats),
        "MB": kept,
    }


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--repeats", type=int, default=20)
    made.add_argument("--json", type=Path, help="write raw figures")
    options = made.parse_args()
    found = {}
    print("| grid | points | weights, first | weights, again | one field | cache |\n|---|---|---|---|---|---|")
    for name, make in GRIDS.items():
        found[name] = times = measure(make(), options.repeats)
        print(
            f"| {name} | {times['points']} | {times['first'] * 1e3:.0f} ms | {times['again'] * 1e3:.0f} ms | "
            f"{times['field'] * 1e3:.1f} ms | {times['MB']:.1f} MB |",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
