"""Strict and safe loading of network weights.

Two layouts are read: the released ``.pt`` (a torch zip file with the state dict, or with it under
``model_state_dict``) and safetensors. Both are mapped from a private copy in memory (`held_file`), and nothing is
ever unpickled but tensors and plain containers.
Source: specification of the network, section 10.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .arrays import AnyArray, FloatArray
from .errors import CheckpointError
from .held_file import held
from .model.buffers import make_buffers
from .model.network import MosaicNetwork
from .variants import Architecture

KEY_PREFIX = "model."
STATISTICS = ("statistics.state_mean", "statistics.state_std")
"""Keys of a checkpoint of our own that need no statistics file: float64 ``(channel,)`` each."""

METADATA_KEY = "mosaic"
"""Metadata go under one key, as JSON: several would be written in another order each time."""

MOST_HEADER_BYTES = 100_000_000
"""Of a safetensors file, as its library has it."""

MOST_NPY_HEADER_BYTES, MOST_ITEM_BYTES = 2**16, 16
"""Of an array in an npz file, at most: what stands before its numbers, and one of them."""

MOST_SHOWN = 60
"""Characters of a wrong value that a message shows."""

MENTIONED = 8
"""Keys that one message lists before it counts the rest."""


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation per channel, physical units, float64 ``(channel,)``.

    Raises
    ------
    CheckpointError
        If they are not finite, or a standard deviation is not positive.
    """

    mean: FloatArray
    std: FloatArray

    def __post_init__(self) -> None:
        if not (np.isfinite(self.mean).all() and np.isfinite(self.std).all() and (self.std > 0).all()):
            raise CheckpointError("expected finite means and positive standard deviations in the statistics")


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint file.

    Parameters
    ----------
    path : Path
        Where it came from, for messages.
    state : mapping of str to Tensor
        Parameters and buffers by key, without the leading ``model.``.
    statistics : Statistics or None
        Normalisation, where the file carries it.
    metadata : mapping of str to str
        What the file says of itself.
    digest : callable or None
        Gives the SHA-256 of what was read.
    """

    path: Path
    state: Mapping[str, torch.Tensor]
    statistics: Statistics | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    digest: Callable[[], str] | None = None

    @property
    def sha256(self) -> str:
        """Digest of what was read.

        Raises
        ------
        CheckpointError
            If that was no file.
        """
        if self.digest is None:
            raise CheckpointError(f"{self.path} was not read from a file, and has no digest")
        return self.digest()

    @property
    def untrained(self) -> bool:
        """Whether the weights are random and say so."""
        return self.metadata.get("untrained") == "true"


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint: what becomes of the file afterwards changes nothing.

    Parameters
    ----------
    path : Path
        A ``.safetensors`` file, or a torch zip file of any other name.

    Raises
    ------
    CheckpointError
        If the file is absent, damaged, of another kind, being written to, or needs unpickling of anything but
        tensors and plain containers.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: expected a .pt or .safetensors file")
    with held(path) as copy:
        tensors, metadata = (
            _read_safetensors(path, copy.place)
            if path.suffix == ".safetensors"
            else (_read_torch(path, copy.place), {})
        )
    twice = [key for key in tensors if KEY_PREFIX + key in tensors]
    if twice:
        raise CheckpointError(f"{path} holds both with and without {KEY_PREFIX!r}: {', '.join(twice[:MENTIONED])}")
    found = {key.removeprefix(KEY_PREFIX): tensor for key, tensor in tensors.items()}
    carried = [found.pop(key).double().numpy() for key in STATISTICS if key in found]
    if len(carried) == 1:
        raise CheckpointError(f"{path} holds only one of {' and '.join(STATISTICS)}")
    return Checkpoint(path, found, Statistics(*carried) if carried else None, metadata, copy.digest)


def _read_safetensors(path: Path, place: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a file, from a copy of it."""
    try:
        with safe_open(place, framework="pt") as file:
            said = (file.metadata() or {}).get(METADATA_KEY, "{}")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    # Types that this PyTorch has not are an AttributeError.
    except (SafetensorError, OSError, ValueError, RuntimeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a complete safetensors file: {_first_line(error)}") from error
    return tensors, _texts(path, said)


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself, without its tensors.

    Raises
    ------
    CheckpointError
        If it is no such file.
    """
    try:
        # The library would map the file, which ends the process if somebody cuts it short.
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > MOST_HEADER_BYTES:
                raise ValueError(f"expected a header of at most {MOST_HEADER_BYTES} bytes, got {length}")
            header = json.loads(file.read(length))
        said = header.get("__metadata__", {}).get(METADATA_KEY, "{}")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a complete safetensors file: {_first_line(error)}") from error
    return _texts(path, said)


def _texts(path: Path, said: object) -> dict[str, str]:
    """The metadata of a file, which are texts by name, from its JSON."""
    try:
        found = json.loads(said) if isinstance(said, str) else said
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: expected metadata in JSON, got something else ({_first_line(error)})"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise CheckpointError(f"{path}: expected metadata that are texts by name, got {_short(found)}")
    return found


def _read_torch(path: Path, place: Path) -> dict[str, torch.Tensor]:
    """The state dict of a file, from a copy of it."""
    if not _is_zip(place):
        raise CheckpointError(
            f"{path} is not a complete checkpoint: expected a zip file as torch.save writes it, or safetensors; "
            "fetch it again"
        )
    try:
        content = torch.load(place, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} was refused: it asks to unpickle more than tensors and plain containers, which could run any "
            f"code on this machine; save only the state dict"
        ) from error
    # The damage of a mapped file reaches the unpickler, which may then fail in any way.
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {_first_line(error)}") from error
    state = content.get("model_state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    ):
        raise CheckpointError(f"{path} holds no state dict: expected tensors by name, or those in 'model_state_dict'")
    return dict(state)


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return False


def build_network(
    architecture: Architecture, checkpoint: Checkpoint, static_fields: FloatArray | None = None
) -> MosaicNetwork:
    """The network of a checkpoint; its tensors are those of the file, not copies.

    Buffers in the file win over computed ones.

    Parameters
    ----------
    architecture : Architecture
        What the checkpoint must hold.
    checkpoint : Checkpoint
        Parameters and perhaps buffers.
    static_fields : array (lon, lat, 3) or None
        Raw static fields; needed where the file has no ``static_vars``.

    Raises
    ------
    CheckpointError
        If a parameter is missing, a key unexpected, or a shape or dtype wrong; names all.
    """
    network = fitting_network(architecture, checkpoint)
    state = dict(checkpoint.state)
    try:
        state |= make_buffers(architecture, network.state_dict().keys() - state.keys(), state, static_fields)
    except LookupError as error:
        raise CheckpointError(f"{checkpoint.path} carries no static fields, and none were found: {error}") from error
    network.load_state_dict(state, assign=True)
    if json.loads(checkpoint.metadata.get("recipe", "{}")).get("without_selected"):
        network.close_selected()
    return network.eval().requires_grad_(False)


def fitting_network(architecture: Architecture, checkpoint: Checkpoint) -> MosaicNetwork:
    """The network that a checkpoint fits, without numbers; arguments and errors as `build_network`."""
    with torch.device("meta"):
        network = MosaicNetwork(architecture)
    _refuse_misfits(checkpoint, network.state_dict(), {name for name, _ in network.named_parameters()})
    _refuse_strange_neighbours(checkpoint, architecture)
    return network


def _refuse_misfits(checkpoint: Checkpoint, expected: Mapping[str, torch.Tensor], parameters: set[str]) -> None:
    """Raise unless the checkpoint's keys, shapes and dtypes are those of the network."""
    state = checkpoint.state
    problems = [
        _mention("missing parameters", sorted(parameters - state.keys())),
        _mention("unexpected keys", sorted(state.keys() - expected.keys())),
        _mention(
            "wrong shapes",
            [
                f"{key} {tuple(state[key].shape)} instead of {tuple(wanted.shape)}"
                for key, wanted in expected.items()
                if key in state and state[key].shape != wanted.shape
            ],
        ),
        _mention(
            "wrong dtypes",
            [
                f"{key} {state[key].dtype} instead of {wanted.dtype}"
                for key, wanted in expected.items()
                if key in state and state[key].dtype != wanted.dtype
            ],
        ),
    ]
    if any(problems):
        details = "; ".join(problem for problem in problems if problem)
        raise CheckpointError(f"{checkpoint.path} does not fit the network: {details}. Is it another variant's?")


def _refuse_strange_neighbours(checkpoint: Checkpoint, architecture: Architecture) -> None:
    """Raise if neighbours that the checkpoint carries are no points of the grids."""
    sources = {"interp_to_hp": architecture.grid.size, "interp_to_ll": architecture.stages[0].pixels}
    for group, points in sources.items():
        neighbours = checkpoint.state.get(f"{group}.neighbors")
        if neighbours is not None and (int(neighbours.min()) < 0 or int(neighbours.max()) >= points):
            raise CheckpointError(f"{checkpoint.path}: expected {group}.neighbors from 0 to {points - 1}, got others")


def _mention(what: str, items: list[str]) -> str:
    if not items:
        return ""
    rest = f" and {len(items) - MENTIONED} more" if len(items) > MENTIONED else ""
    return f"{what}: {', '.join(items[:MENTIONED])}{rest}"


def _short(value: object) -> str:
    """A value as messages show it."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def save_checkpoint(
    path: Path, state: Mapping[str, torch.Tensor], statistics: Statistics | None, metadata: Mapping[str, str]
) -> None:
    """Write a safetensors checkpoint; it appears under its name only when complete.

    Parameters
    ----------
    path : Path
        Ends in ``.safetensors``.
    state : mapping of str to Tensor
        Parameters, and any buffers that shall win over computed ones.
    statistics : Statistics or None
        Normalisation; with it the file is self-contained.
    metadata : mapping of str to str
        What the file says of itself.
    """
    tensors = {KEY_PREFIX + key: tensor.contiguous() for key, tensor in _unshared(state).items()}
    if statistics is not None:
        tensors |= {
            key: torch.from_numpy(np.asarray(values, dtype=np.float64))
            for key, values in zip(STATISTICS, (statistics.mean, statistics.std), strict=True)
        }
    partial = path.with_name(path.name + ".partial")
    # The library makes files that only their owner can read; weights are for everybody's eyes.
    partial.touch()
    mode = partial.stat().st_mode
    try:
        save_file(tensors, partial, metadata={METADATA_KEY: json.dumps(dict(metadata), sort_keys=True)})
        partial.chmod(mode)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _unshared(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same tensors, with copies of those whose memory another has: safetensors knows no sharing."""
    seen: set[int] = set()
    unshared = {}
    for key, tensor in state.items():
        memory = tensor.untyped_storage().data_ptr()
        unshared[key] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return unshared


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
        raise CheckpointError(f"{path} cannot be read as npz: {_first_line(error)}") from error
    for name, shape in shapes.items():
        if name not in arrays or arrays[name].shape != shape:
            got = arrays[name].shape if name in arrays else "nothing"
            raise CheckpointError(f"{path}: expected {name!r} of shape {shape}, got {got}")
    return arrays


def _refuse_bombs(archive: zipfile.ZipFile, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise if an array would take more memory than its shape can need."""
    for name, shape in shapes.items():
        most = MOST_NPY_HEADER_BYTES + int(np.prod(shape)) * MOST_ITEM_BYTES
        found = sum(part.file_size for part in archive.infolist() if part.filename in (name, f"{name}.npy"))
        if found > most:
            raise ValueError(f"expected {name!r} of shape {shape}, got {found} bytes")


def _numbers(name: str, array: AnyArray) -> FloatArray:
    if array.dtype.kind not in "fiu":
        raise ValueError(f"expected {name!r} to be of real numbers, got {array.dtype}")
    return array.astype(np.float64)
