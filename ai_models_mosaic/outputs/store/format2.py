"""A store of Zarr format 2, written file by file.

zarr 2 and 3 write the metadata of this format differently, and zarr 3 leaves out chunks that hold
only missing values. Here the files are the same to the byte whichever of them is installed, and
those that zarr 2 made of the same values.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import Any

import numpy as np

from ...arrays import AnyArray
from ...files import PARTIAL_SUFFIX, create, parse_json, sync
from ..extras import require

GROUP = ".zgroup"
"""What makes a folder a Zarr store."""

ATTRIBUTES = ".zattrs"
ARRAY = ".zarray"
CONSOLIDATED = ".zmetadata"
METADATA = (GROUP, ATTRIBUTES, f"*/{ATTRIBUTES}", f"*/{ARRAY}")
"""All that is consolidated, as patterns."""

COMPRESSOR = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}
"""As numcodecs describes it; the one that zarr 2 takes unasked."""


class Format2Store:
    """A store in a folder that is there.

    Parameters
    ----------
    folder : Path
        Where it is while it is written.

    Raises
    ------
    OutputError
        If numcodecs, which comes with zarr, is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._unsynced: set[Path] = set()
        self._codec = require("numcodecs", f"writing {folder}").get_codec(COMPRESSOR)

    def begin(self) -> None:
        """Make the folder a store.

        Raises
        ------
        OSError
            If it cannot be written to, as with everything that writes here.
        """
        self._write_json(self.folder / GROUP, {"zarr_format": 2})

    def describe(self, attributes: Mapping[str, Any]) -> None:
        """Set the attributes of the whole store; those that it had go."""
        self._write_json(self.folder / ATTRIBUTES, attributes)

    def attributes(self) -> dict[str, Any]:
        """The attributes of the whole store."""
        found: dict[str, Any] = _said_in(self.folder / ATTRIBUTES)
        return found

    def create(self, name: str, shape: Sequence[int], chunks: Sequence[int], attributes: Mapping[str, Any]) -> None:
        """Begin an array of float32, or describe it anew; chunks are missing values until they are written.

        Parameters
        ----------
        name : str
            Its name.
        shape, chunks : sequence of int
            Whole chunks only.
        attributes : mapping of str to object
            Of the array.
        """
        self._create(name, shape, chunks, np.dtype("<f4"), "NaN", attributes)

    def put(self, name: str, values: AnyArray, attributes: Mapping[str, Any]) -> None:
        """Write an array of one chunk."""
        # Without a fill value: zarr's, 0, would make xarray take the number 0 for missing.
        self._create(name, values.shape, values.shape, values.dtype, None, attributes)
        self.write(name, [0] * values.ndim, values)

    def write(self, name: str, places: Sequence[int], values: AnyArray) -> None:
        """Write a whole chunk, from any thread.

        Parameters
        ----------
        name : str
            Of the array.
        places : sequence of int
            Which chunk, for every dimension.
        values : array
            Its values, in the array's type.
        """
        self._write(self.folder / name / chunk_name(places), self._codec.encode(np.ascontiguousarray(values)))

    def holds(self, name: str, values: AnyArray) -> bool:
        """Whether there is an array of one chunk with just these values, undamaged."""
        path = self.folder / name / chunk_name([0] * values.ndim)
        try:
            return bytes(self._codec.decode(path.read_bytes())) == values.tobytes()
        # What blosc says of bytes that are not its own is a RuntimeError.
        except (OSError, RuntimeError):
            return False

    def whole_chunks(self, name: str, counts: Sequence[int]) -> int:
        """How many chunks of an array are there.

        Parameters
        ----------
        name : str
            Of the array.
        counts : sequence of int
            Chunks along every dimension, when all are there.
        """
        expected = {chunk_name(places) for places in itertools.product(*map(range, counts))}
        with os.scandir(self.folder / name) as found:
            return sum(entry.name in expected and entry.stat().st_size > 0 for entry in found)

    def consolidate(self) -> None:
        """Copy all metadata into one file, where readers look first."""
        files = (path for name in METADATA for path in self.folder.glob(name))
        metadata = {str(path.relative_to(self.folder)): _said_in(path) for path in files}
        self._write_json(self.folder / CONSOLIDATED, {"metadata": metadata, "zarr_consolidated_format": 1})

    def flush(self) -> None:
        """Bring to disk all that was written; more may be written meanwhile."""
        folders = set()
        while self._unsynced:
            path = self._unsynced.pop()
            sync(path)
            folders.add(path.parent)
        for folder in folders:
            sync(folder)

    def _create(
        self,
        name: str,
        shape: Sequence[int],
        chunks: Sequence[int],
        dtype: np.dtype[Any],
        fill_value: str | None,
        attributes: Mapping[str, Any],
    ) -> None:
        (self.folder / name).mkdir(exist_ok=True)
        described = {
            "zarr_format": 2,
            "shape": list(shape),
            "chunks": list(chunks),
            "dtype": dtype.str,
            "fill_value": fill_value,
            "order": "C",
            "filters": None,
            "compressor": COMPRESSOR,
        }
        self._write_json(self.folder / name / ARRAY, described)
        self._write_json(self.folder / name / ATTRIBUTES, attributes)

    def _write_json(self, path: Path, content: Mapping[str, Any]) -> None:
        self._write(path, json.dumps(content, indent=4, sort_keys=True).encode())

    def _write(self, path: Path, data: bytes) -> None:
        """Write a file that is whole as soon as it is there."""
        partial = path.with_name(path.name + PARTIAL_SUFFIX)
        with BufferedWriter(FileIO(create(partial), "wb")) as file:
            file.write(data)
        partial.replace(path)
        self._unsynced.add(path)


def chunk_name(places: Sequence[int]) -> str:
    """Name of a chunk's file."""
    return ".".join(str(place) for place in places)


def _said_in(path: Path) -> Any:
    """What a file of metadata says; an error of the file system if somebody has damaged it."""
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:
        raise OSError(0, f"{path} was changed by somebody else: {error}") from error
