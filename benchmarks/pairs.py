"""Timing two ways of doing the same thing, in turn, so that a drifting machine does not favour one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def compare(ways: Mapping[str, Callable[[], object]], repeats: int) -> float:
    """Print the median time of each of two ways; returns the median of the second's over the first's, pair by pair."""
    first, second = ways
    times: dict[str, list[float]] = {first: [], second: []}
    for name in ways:
        ways[name]()
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - start)
    for name, taken in times.items():
        print(f"{name}: median {statistics.median(taken):.4g} s of {repeats}")
    return statistics.median(b / a for a, b in zip(times[first], times[second], strict=True))
