"""Neighbours of points on disk; see `disk_cache`.

Ties among neighbours are many, and decided by the arithmetic of the search. So a file is bound to all
that takes part in it: the very coordinates, the number of neighbours, the version of scikit-learn, and
the processor and C library whose sines it calls: home folders are shared by unlike machines.
"""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ..arrays import FloatArray, IntArray
from .disk_cache import Arrays, cached_arrays, digest_of_arrays
from .grid import nearest_neighbours

ALGORITHM = "nearest_neighbours 1"
"""The search and the form in which it is kept; counts up when either changes."""

Points = tuple[FloatArray, FloatArray]


def kept_neighbours(target_deg: Points, source_deg: Points, count: int) -> IntArray:
    """As `grid.nearest_neighbours`, but searched only where the cache has them not.

    Parameters
    ----------
    target_deg, source_deg : pair of arrays
        Longitude and latitude, degrees.
    count : int
        Neighbours per target.

    Returns
    -------
    int64 array (target, count)
    """
    targets, sources = target_deg[0].size, source_deg[0].size

    def search() -> Arrays:
        # Half the bytes to read and to check.
        return {"neighbours": nearest_neighbours(target_deg, source_deg, count).astype(np.int32)}

    def check(found: Arrays) -> None:
        neighbours = found["neighbours"]
        if neighbours.shape != (targets, count) or neighbours.dtype != np.int32:
            raise ValueError(f"expected {targets} × {count} int32, got {neighbours.shape} {neighbours.dtype}")
        if neighbours.min() < 0 or neighbours.max() >= sources:
            raise ValueError(f"expected neighbours from 0 to {sources - 1}, got others")

    points = dict(zip(("target_lon", "target_lat", "source_lon", "source_lat"), target_deg + source_deg, strict=True))
    key = (ALGORITHM, count, digest_of_arrays(points), version("scikit-learn"), *_arithmetic())
    found = cached_arrays("geometry", key, search, "the neighbours of the grids' points", check)
    return found["neighbours"].astype(np.int64)


def _arithmetic() -> tuple[str, tuple[str, str], str]:
    """What sines depend on: kind of processor, C library, and the instructions by which the latter chooses its code."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.is_file() else []
    instructions = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return platform.machine(), platform.libc_ver(), instructions
