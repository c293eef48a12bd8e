"""The external data of a graph: which files it names, and what they hold, kept from all change.

ONNX Runtime would open whatever path a graph names, and map it for as long as it runs. So the paths are read here,
which takes no more of protobuf than its wire format, and the session gets arrays in memory and no path at all.
Source: onnx.proto, version 1.23.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..arrays import AnyArray
from ..checkpoints.files import DataFile
from ..checkpoints.held_file import held
from ..errors import CheckpointError

MOST_GRAPH_BYTES = 2**31
"""Where protobuf ends."""

CHILDREN = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
"""Of every message that may hold tensors, at whatever depth, the fields in which it does."""

INITIALISERS = ("model", "graph", "tensor")
"""Where tensors with external data may stand: the weights of the graph itself."""

DIMS, DATA_TYPE, NAME, EXTERNAL_DATA, DATA_LOCATION = 1, 2, 8, 13, 14
"""Fields of a tensor."""

EXTERNAL = 1
"""A tensor's data location."""

TYPES = dict(enumerate(("<f4", "u1", "i1", "<u2", "<i2", "<i4", "<i8"), 1)) | dict(
    enumerate(("?", "<f2", "<f8", "<u4", "<u8"), 9)
)
"""NumPy's names of ONNX' data types."""


@dataclass(frozen=True)
class ExternalTensor:
    """A tensor whose numbers are in another file.

    Parameters
    ----------
    name : str
        Name of the initialiser.
    dtype : dtype
        Of its numbers, little-endian.
    shape : tuple of int
        Of the tensor.
    location : str
        The file, as the graph names it.
    offset : int
        Where its numbers begin there, bytes.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    location: str
    offset: int


@dataclass(frozen=True)
class ExternalData:
    """What a graph's external data held when they were read.

    Parameters
    ----------
    arrays : dict
        By name of the initialiser; they lie in memory that nobody else can change.
    files : tuple of DataFile
        Where they came from.
    size : int
        Bytes of those files.
    """

    arrays: dict[str, AnyArray]
    files: tuple[DataFile, ...]
    size: int


def read_external_data(path: Path, graph: bytes) -> ExternalData:
    """Hold what a graph's external data are now.

    Parameters
    ----------
    path : Path
        The graph.
    graph : bytes
        Its content.

    Returns
    -------
    ExternalData
        With the digest of every file.

    Raises
    ------
    CheckpointError
        If a file is outside of the graph's folder, absent, or too short.
    ValueError
        If the graph is damaged.
    """
    tensors = external_tensors(path, graph)
    contents: dict[str, memoryview] = {}
    files = []
    with ExitStack() as stack:
        for location in dict.fromkeys(tensor.location for tensor in tensors):
            file = _file(path, location)
            copy = stack.enter_context(held(file))
            with copy.place.open("rb") as content:
                size = content.seek(0, 2)
                # An empty file cannot be mapped.
                mapped = mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
            contents[location] = memoryview(mapped)
            files.append(DataFile(f"external data {location}", file, copy.digest()))
    arrays = {tensor.name: _array(path, tensor, contents[tensor.location]) for tensor in tensors}
    return ExternalData(arrays, tuple(files), sum(len(content) for content in contents.values()))


def external_tensors(path: Path, graph: bytes) -> tuple[ExternalTensor, ...]:
    """The tensors of a graph that are elsewhere.

    Parameters
    ----------
    path : Path
        The graph, for messages.
    graph : bytes
        Its content.

    Returns
    -------
    tuple of ExternalTensor
        In the order of the graph.

    Raises
    ------
    CheckpointError
        If one is no weight of the graph itself.
    ValueError
        If the graph is damaged.
    """
    found = []
    for place, tensor in _tensors(memoryview(graph), ("model",)):
        external = _external_tensor(tensor)
        if external is None:
            continue
        if place != INITIALISERS:
            raise CheckpointError(
                f"{path}: expected external data for weights of the graph only, got some for {external.name!r} within "
                f"its {place[-2]}; ai-models-mosaic export-onnx writes no such graph"
            )
        found.append(external)
    return tuple(found)


def _tensors(content: memoryview, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], memoryview]]:
    """All tensors within a message, each with the kinds of messages that it is in."""
    children = CHILDREN[place[-1]]
    for number, value in _fields(content):
        kind = children.get(number)
        if kind is None:
            continue
        if not isinstance(value, memoryview):
            raise ValueError(f"a {kind} is a number")
        inner = (*place, kind)
        if kind == "tensor":
            yield inner, value
        else:
            yield from _tensors(value, inner)


def _external_tensor(content: memoryview) -> ExternalTensor | None:
    """What is said of a tensor that is elsewhere; None of one that is not."""
    numbers: dict[int, int] = {}
    shape: list[int] = []
    name, entries = "", {}
    for number, value in _fields(content):
        if number == DIMS:
            shape += [value] if isinstance(value, int) else _numbers(value)
        elif isinstance(value, int):
            numbers[number] = value
        elif number == NAME:
            name = str(value, "utf-8")
        elif number == EXTERNAL_DATA:
            entry = {key: str(text, "utf-8") for key, text in _fields(value) if isinstance(text, memoryview)}
            entries[entry.get(1, "")] = entry.get(2, "")
    if numbers.get(DATA_LOCATION) != EXTERNAL:
        return None
    kind = numbers.get(DATA_TYPE, 0)
    if kind not in TYPES:
        raise ValueError(f"external data of type {kind} for {name!r}")
    offset = int(entries.get("offset") or 0)
    found = ExternalTensor(name, np.dtype(TYPES[kind]), tuple(shape), entries.get("location", ""), offset)
    if "length" in entries and int(entries["length"]) != _size(found):
        raise ValueError(f"external data of {entries['length']} bytes for {name!r} of {_size(found)}")
    return found


def _array(path: Path, tensor: ExternalTensor, content: memoryview) -> AnyArray:
    end = tensor.offset + _size(tensor)
    if tensor.offset < 0 or min(tensor.shape, default=0) < 0 or end > len(content):
        raise CheckpointError(
            f"{path}: expected {tensor.name!r} at bytes {tensor.offset} to {end} of {tensor.location}, got a file of "
            f"{len(content)}; copy both files again"
        )
    return np.frombuffer(content[tensor.offset : end], dtype=tensor.dtype).reshape(tensor.shape)


def _size(tensor: ExternalTensor) -> int:
    """Bytes."""
    size = tensor.dtype.itemsize
    for length in tensor.shape:
        size *= length
    return size


def _file(path: Path, location: str) -> Path:
    """The file that a graph names by a location, which is within its folder."""
    named = Path(location)
    file = path.parent / named
    inside = file.resolve().is_relative_to(path.parent.resolve())
    if not location or named.is_absolute() or ".." in named.parts or not inside:
        raise CheckpointError(
            f"{path}: expected external data in the folder of the graph, got {location!r}; a graph may name no file "
            "elsewhere, nor one that a link leads to"
        )
    if not file.is_file():
        raise CheckpointError(f"{path}: its external data {file} are not there; keep both files together")
    return file


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of all fields of a message: integers, or bytes."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(content, at)
            yield key >> 3, value
            continue
        if kind == 2:
            length, at = _varint(content, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of the unknown kind {kind}")
        if at + length > len(content):
            raise ValueError("it ends within a field")
        yield key >> 3, content[at : at + length]
        at += length


def _numbers(content: memoryview) -> list[int]:
    """Integers that stand one after the other."""
    found, at = [], 0
    while at < len(content):
        value, at = _varint(content, at)
        found.append(value)
    return found


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    """An integer, and where it ends."""
    value = shift = 0
    while at < len(content) and shift < 70:
        byte = content[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value & (2**64 - 1), at
    raise ValueError("it ends within a number")
