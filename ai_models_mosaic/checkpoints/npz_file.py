"""Arrays of npz files, read without unpickling and without more memory than they can need."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.lib.npyio import NpzFile

from ..arrays import AnyArray, FloatArray
from ..errors import CheckpointError
from ..wording.excerpts import first_line

MOST_HEADER_BYTES, MOST_ITEM_BYTES = 2**16, 16
"""Of an array, at most: what stands before its numbers, and one of them."""


def npz_arrays(path: Path, content: bytes, **shapes: tuple[int, ...]) -> dict[str, FloatArray]:
    """Named arrays of an npz file, float64, without unpickling.

    Parameters
    ----------
    path : Path
        Where it came from, for messages.
    content : bytes
        What the file holds.
    **shapes : tuple of int
        Names and the shapes that they must have.

    Raises
    ------
    CheckpointError
        If the file is damaged, or an array is missing, no numbers, or of another shape.
    """
    try:
        with io.BytesIO(content) as file, NpzFile(cast(Any, file), allow_pickle=False) as data:
            _refuse_bombs(data.zip, shapes)
            arrays = {name: _numbers(name, data[name]) for name in shapes if name in data.files}
    # What is damaged reaches the decompressor, and Python's own tokeniser, parser and memory.
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read as npz: {first_line(error)}") from error
    for name, shape in shapes.items():
        if name not in arrays or arrays[name].shape != shape:
            got = arrays[name].shape if name in arrays else "nothing"
            raise CheckpointError(f"{path}: expected {name!r} of shape {shape}, got {got}")
    return arrays


def _refuse_bombs(archive: zipfile.ZipFile, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise if an array would take more memory than its shape can need."""
    for name, shape in shapes.items():
        most = MOST_HEADER_BYTES + int(np.prod(shape)) * MOST_ITEM_BYTES
        found = sum(part.file_size for part in archive.infolist() if part.filename in (name, f"{name}.npy"))
        if found > most:
            raise ValueError(f"expected {name!r} of shape {shape}, got {found} bytes")


def _numbers(name: str, array: AnyArray) -> FloatArray:
    if array.dtype.kind not in "fiu":
        raise ValueError(f"expected {name!r} to be of real numbers, got {array.dtype}")
    return array.astype(np.float64)
