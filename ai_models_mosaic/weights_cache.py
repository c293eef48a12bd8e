"""Sparse matrices of regridding on disk; see `disk_cache`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_matrix

from .disk_cache import Arrays, cached_arrays

VERSION = 2
"""Counts the ways in which weights were ever computed or written: a new one never meets old files."""


def cached(key: object, compute: Callable[[], csr_matrix]) -> csr_matrix:
    """A matrix from the cache, or computed and put there.

    Parameters
    ----------
    key : object
        What the matrix depends on; its ``repr`` must tell everything.
    compute : callable
        Makes the matrix.
    """

    def parts() -> Arrays:
        made = compute()
        return {"data": made.data, "indices": made.indices, "indptr": made.indptr, "shape": np.array(made.shape)}

    found = cached_arrays("weights", (VERSION, key), parts, "the weights of this regridding")
    return csr_matrix((found["data"], found["indices"], found["indptr"]), shape=tuple(found["shape"]))
