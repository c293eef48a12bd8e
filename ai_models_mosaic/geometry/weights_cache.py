"""Sparse matrices of regridding on disk; see `disk_cache`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .disk_cache import Arrays, cached_arrays

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

VERSION = 2
"""Counts the ways in which weights were ever computed or written: a new one never meets old files."""


def cached(key: object, shape: tuple[int, int], compute: Callable[[], csr_matrix]) -> csr_matrix:
    """A matrix from the cache, or computed and put there.

    Parameters
    ----------
    key : object
        What the matrix depends on; its ``repr`` must tell everything.
    shape : (int, int)
        Of the matrix.
    compute : callable
        Makes the matrix.
    """
    from scipy.sparse import csr_matrix

    def parts() -> Arrays:
        made = compute()
        return {"data": made.data, "indices": made.indices, "indptr": made.indptr, "shape": np.array(made.shape)}

    def check(found: Arrays) -> None:
        _refuse_others(found, shape)

    found = cached_arrays("weights", (VERSION, key), parts, "the weights of this regridding", check)
    return csr_matrix((found["data"], found["indices"], found["indptr"]), shape=tuple(found["shape"]))


def _refuse_others(found: Arrays, shape: tuple[int, int]) -> None:
    """Raise unless arrays make a matrix of this shape: SciPy reads past the ends of memory for indices beyond."""
    data, indices, starts = (found[name] for name in ("data", "indices", "indptr"))
    if tuple(found["shape"]) != shape:
        raise ValueError(f"expected a matrix of shape {shape}, got {tuple(found['shape'])}")
    if data.dtype != np.float64 or data.ndim != 1 or not np.isfinite(data).all():
        raise ValueError(f"expected finite float64 weights, got others, {data.dtype}")
    if indices.shape != data.shape or indices.dtype.kind != "i" or starts.dtype.kind != "i":
        raise ValueError(f"expected an integer index for each of {data.size} weights, got others")
    if indices.size and (indices.min() < 0 or indices.max() >= shape[1]):
        raise ValueError(f"expected columns from 0 to {shape[1] - 1}, got others")
    ascending = starts.shape == (shape[0] + 1,) and (np.diff(starts) >= 0).all()
    if not ascending or starts[0] != 0 or starts[-1] != data.size:
        raise ValueError(f"expected the weights of {shape[0]} rows, one after the other, got others")
