"""What is in a file or store, in so few words that it can be asked again: whether it is still what a run made."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from .grib.files import end_digest

HEAD_BYTES = 16
"""Of a GRIB message, with its length in the last eight."""

END = b"7777"


def describe(path: Path) -> dict[str, Any]:
    """Size and digest of the end of a file, and its messages if it is GRIB; of a store, its files and metadata.

    What was changed in the middle of a file, its length kept, is not seen: to digest everything would
    take as long as to read it.

    Parameters
    ----------
    path : Path
        What is there.

    Raises
    ------
    OSError
        If it is not there, or cannot be read.
    """
    if path.is_dir():
        files = [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
        found = {"files": len(files), "bytes": sum(file.stat().st_size for file in files)}
        return {**found, "metadata_sha256": hashlib.sha256((path / ".zmetadata").read_bytes()).hexdigest()}
    size = path.stat().st_size
    with path.open("rb") as file:
        is_grib = file.read(4) == b"GRIB"
    return {
        "bytes": size,
        **({"messages": count_messages(path)} if is_grib else {}),
        "tail_sha256": end_digest(path, size),
    }


def count_messages(path: Path) -> int | None:
    """How many messages of GRIB edition 2 a file holds; None if it holds anything else.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        descriptor, size, position, count = file.fileno(), os.fstat(file.fileno()).st_size, 0, 0
        while position < size:
            head = os.pread(descriptor, HEAD_BYTES, position)
            length = int.from_bytes(head[8:], "big")
            if head[:4] != b"GRIB" or head[7:8] != b"\2" or not HEAD_BYTES < length <= size - position:
                return None
            position, count = position + length, count + 1
            if os.pread(descriptor, len(END), position - len(END)) != END:
                return None
    return count
