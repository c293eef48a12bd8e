"""Files of states that the next step of an unfinished run starts from, known again by their digests."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Float32Array
from ..files import open_own, write_whole

LONGEST_HEADER = 4096
"""Bytes before the values."""


def save_state(path: Path, values: Float32Array) -> dict[str, Any]:
    """Write a state as NumPy's ``.npy``.

    Parameters
    ----------
    path : Path
        The file.
    values : float32 array (member, lon, lat, channel)
        In physical units.

    Returns
    -------
    dict
        What `read_state` must be told of it: ``sha256`` of the file, and ``shape``.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    values = np.ascontiguousarray(values)
    header = BytesIO()
    described = np.lib.format.header_data_from_array_1_0(values)  # type: ignore[no-untyped-call]
    np.lib.format.write_array_header_1_0(header, described)  # type: ignore[no-untyped-call]
    parts: list[bytes | memoryview] = [header.getvalue(), values.data.cast("B")]
    write_whole(path, parts)
    return {"sha256": _digest(parts), "shape": list(values.shape)}


def read_state(path: Path, known: Mapping[str, Any] | None, shape: tuple[int, ...] | None = None) -> Float32Array:
    """Read a state, (member, lon, lat, channel).

    Parameters
    ----------
    path : Path
        The file.
    known : mapping or None
        As `save_state` returned it; None where nothing is known of the file.
    shape : tuple of int or None
        What the run needs, if that is to be checked.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, or is not what was written, or not what the run needs.
    """
    if known is None:
        raise ValueError("the record knows nothing of it")
    expected = tuple(known["shape"])
    if shape is not None and shape != expected:
        raise ValueError(f"expected a state of shape {shape}, got {expected}")
    with open_own(path) as file:
        # What the header says is not needed, so nobody need read what somebody may have written there.
        size, needed = os.fstat(file.fileno()).st_size, 4 * math.prod(expected)
        if not 0 < size - needed <= LONGEST_HEADER:
            raise ValueError(f"expected {needed} bytes and a header, got {size}")
        parts = [file.read(size - needed)]
        values: Float32Array = np.fromfile(file, dtype=np.float32).reshape(expected)
    if _digest([*parts, values.data.cast("B")]) != known["sha256"]:
        raise ValueError("it is not what was kept")
    return values


def _digest(parts: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
