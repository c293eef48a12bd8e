"""Tensors of weights files: safetensors, and zip files as torch.save writes them.

Nothing is unpickled but tensors and plain containers, and whatever a file holds that is no weights is an error of the
file.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

import torch
from safetensors import SafetensorError, safe_open

from ..errors import CheckpointError
from ..files import parse_json
from ..wording.excerpts import first_line, mention, shortened

METADATA_KEY = "mosaic"
"""Metadata go under one key, as JSON: several would be written in another order each time."""

MOST_HEADER_BYTES = 100_000_000
"""Of a safetensors file, as its library has it."""


def read_safetensors(path: Path, place: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Parameters
    ----------
    path : Path
        The file, for messages.
    place : Path
        Where a copy of it is, which nobody else can change: it is mapped.

    Raises
    ------
    CheckpointError
        If it is damaged, or no such file.
    """
    try:
        with safe_open(place, framework="pt") as file:
            said = (file.metadata() or {}).get(METADATA_KEY, "{}")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    # Types that this PyTorch has not are an AttributeError.
    except (SafetensorError, OSError, ValueError, RuntimeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a complete safetensors file: {first_line(error)}") from error
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
            header = parse_json(file.read(length))
        said = header.get("__metadata__", {}).get(METADATA_KEY, "{}")
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a complete safetensors file: {first_line(error)}") from error
    return _texts(path, said)


def _texts(path: Path, said: object) -> dict[str, str]:
    """The metadata of a file, which are texts by name, from its JSON."""
    found = parsed(path, said) if isinstance(said, str) else said
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise CheckpointError(f"{path}: expected metadata that are texts by name, got {shortened(found)}")
    return found


def parsed(path: Path, text: str) -> Any:
    """What a text of a file is as JSON.

    Raises
    ------
    CheckpointError
        If it is none.
    """
    try:
        return parse_json(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: expected metadata in JSON, got something else ({first_line(error)})") from error


def read_torch(path: Path, place: Path) -> dict[str, torch.Tensor]:
    """The state dict of a torch zip file; arguments and errors as `read_safetensors`."""
    if not _is_zip(place):
        raise CheckpointError(
            f"{path} is not a complete checkpoint: expected a zip file as torch.save writes it, or safetensors; "
            "fetch it again"
        )
    storages: list[torch.UntypedStorage] = []

    def keep(storage: torch.UntypedStorage, _: str) -> torch.UntypedStorage:
        storages.append(storage)
        return storage

    try:
        content = torch.load(place, map_location=cast(Any, keep), mmap=True, weights_only=True)
        _refuse_other_places(place, storages)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} was refused: it asks to unpickle more than tensors and plain containers, which could run any "
            f"code on this machine; save only the state dict"
        ) from error
    # The damage of a mapped file reaches the unpickler, which may then fail in any way.
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {first_line(error)}") from error
    state = content.get("model_state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    ):
        raise CheckpointError(f"{path} holds no state dict: expected tensors by name, or those in 'model_state_dict'")
    return dict(state)


def refuse_strange_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse tensors that are no plain numbers, or of which a file has not all.

    Raises
    ------
    CheckpointError
        If there are such; names them.
    """
    strange = [f"{key} {kind}" for key, tensor in tensors.items() if (kind := _strangeness(tensor))]
    if strange:
        raise CheckpointError(
            f"{path}: expected plain tensors, got {mention('others', strange)}; save the weights dense"
        )


def _strangeness(tensor: torch.Tensor) -> str | None:
    """What a tensor is that is not plain numbers in memory; None if it is."""
    if tensor.is_nested:
        return "nested"
    if tensor.layout != torch.strided:
        return f"{tensor.layout}".removeprefix("torch.")
    if tensor.device.type != "cpu":
        return f"on {tensor.device}"
    if tensor.is_quantized or tensor.is_complex() or tensor.is_neg():
        return f"{tensor.dtype}{' negated' if tensor.is_neg() else ''}"
    last = sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride(), strict=True))
    end = (tensor.storage_offset() + last + 1) * tensor.element_size() if tensor.numel() else 0
    held = tensor.untyped_storage().nbytes()
    return f"of {end} bytes, of which the file has {held}" if end > held else None


def _refuse_other_places(place: Path, storages: Sequence[torch.UntypedStorage]) -> None:
    """Raise unless each storage is one record of the file, to its end.

    PyTorch maps as many bytes as the pickle says from where a record begins: of a shorter one, or one that is
    compressed, it would take for weights whatever comes after.
    """
    with zipfile.ZipFile(place) as archive, place.open("rb") as file:
        records = [part for part in archive.infolist() if "data" in Path(part.filename).parts[1:-1] and part.file_size]
        if any(part.compress_type != zipfile.ZIP_STORED for part in records):
            raise ValueError("expected weights that are not compressed")
        wanted = sorted((_begin(file, part), part.file_size) for part in records)
    mapped = sorted((storage.data_ptr(), storage.nbytes()) for storage in storages if storage.nbytes())
    # Where the mapping begins is nowhere said: all storages are as far from it as their records from the file's begin.
    starts = {pointer - begin for (pointer, _), (begin, _) in zip(mapped, wanted, strict=False)}
    if [size for _, size in mapped] != [size for _, size in wanted] or len(starts) > 1:
        raise ValueError("expected every tensor's storage to be all of its record, got others")


def _begin(file: IO[bytes], part: zipfile.ZipInfo) -> int:
    """Where the content of a record begins: after its header, a name and more."""
    file.seek(part.header_offset + 26)
    name, more = struct.unpack("<HH", file.read(4))
    return int(part.header_offset + 30 + name + more)


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return False
