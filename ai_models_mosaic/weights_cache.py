"""Sparse matrices on disk, so that the next run need not compute them again.

A file is written under a name of its own and then renamed, so that runs at the same time do not
hurt each other; one that cannot be read, or that was damaged, is computed and written again. No
failure of the cache is one of the run.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from .arrays import FloatArray

LOG = logging.getLogger(__name__)

VERSION = 1
"""Counts the ways in which weights were ever computed: a new one never meets old files."""

OFF = "off"


def cache_folder() -> Path | None:
    """Where matrices are kept: ``AI_MODELS_MOSAIC_CACHE`` (``off``: nowhere), else the user's cache folder."""
    asked = os.environ.get("AI_MODELS_MOSAIC_CACHE")
    if asked == OFF:
        return None
    if asked:
        return Path(asked)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "ai-models-mosaic"


def cached(key: object, compute: Callable[[], csr_matrix]) -> csr_matrix:
    """A matrix from the cache, or computed and put there.

    Parameters
    ----------
    key : object
        What the matrix depends on; its ``repr`` must tell everything.
    compute : callable
        Makes the matrix.
    """
    folder = cache_folder()
    if folder is None:
        return compute()
    path = folder / f"weights-{hashlib.sha256(repr((VERSION, key)).encode()).hexdigest()[:32]}.npz"
    found = _read(path)
    if found is None:
        found = compute()
        _write(path, found)
    return found


def _read(path: Path) -> csr_matrix | None:
    """The matrix of a file; None if there is none, or it is not as it was written."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            parts = data["data"], data["indices"], data["indptr"]
            if str(data["digest"]) != _digest(*parts):
                raise ValueError("its content is not what was written")
            return csr_matrix(parts, shape=tuple(data["shape"]))
    except Exception as error:  # whatever a damaged file does to its reader
        LOG.warning("Cannot use %s (%s): computing the weights again", path, error)
        return None


def _write(path: Path, matrix: csr_matrix) -> None:
    """Put a matrix into the cache; a folder that cannot be written to is only worth a word."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".partial")
        try:
            with os.fdopen(descriptor, "wb") as file:
                parts = matrix.data, matrix.indices, matrix.indptr
                arrays = dict(zip(("data", "indices", "indptr"), parts, strict=True))
                np.savez(file, shape=np.array(matrix.shape), digest=np.array(_digest(*parts)), **arrays)
            Path(name).replace(path)
        finally:
            with suppress(FileNotFoundError):
                Path(name).unlink()
    except OSError as error:
        LOG.warning("Cannot keep the weights of this regridding in %s: %s", path.parent, error)


def _digest(*arrays: FloatArray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
