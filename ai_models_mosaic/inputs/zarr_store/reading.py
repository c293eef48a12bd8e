"""What zarr reads through: bytes of a place, and the rule for chunks that are not there.

A chunk that is not there stands for the fill value of its array. Where there is none, zarr 2 leaves the memory as it
was and zarr 3 makes zeros, and neither says so; where it is a number such as 0, nobody can tell a chunk that was
left out from one that was lost. So only what reads as NaN may be left out of a field.
"""

from __future__ import annotations

import base64
import struct
from typing import Any

from ...channels import CHANNELS
from ...errors import InputError
from ...files import parse_json
from .places import Place, RefusedError

GROUP_FILES = (".zmetadata", "zarr.json", ".zgroup")
"""Files of which a store has at least one."""

METADATA_FILES = (*GROUP_FILES, ".zarray", ".zattrs")
"""Names of all files that hold no values."""

FIELDS = frozenset(channel.variable for channel in CHANNELS)
"""Arrays of which a number in place of a chunk is not taken for data."""

MOST_ENTRIES = 10**8
"""More than any coordinate has."""

FULL_BYTES = {"blosc": slice(4, 8), "lz4": slice(0, 4)}
"""Where a compressed chunk says how long it was."""


class StoreReader:
    """The bytes of a store by key.

    Parameters
    ----------
    place : Place
        Where they lie.
    name : str
        For messages.

    Raises
    ------
    InputError
        If there is no Zarr store, or its metadata cannot be read.
    """

    def __init__(self, place: Place, name: str) -> None:
        self.place, self.name = place, name
        self._arrays: dict[str, dict[str, Any]] = {}
        self._root, self.zarr_format = self._find_root()
        held = self._root.get("metadata" if self.zarr_format == 2 else "consolidated_metadata")
        self.consolidated = isinstance(held, dict)
        members = held if self.zarr_format == 2 else (held or {}).get("metadata")
        self._members: dict[str, Any] = members if isinstance(members, dict) else {}

    def get(self, key: str, start: int | None = None, end: int | None = None) -> bytes | None:
        """What stands at a key, or a part of it; None for metadata, or a chunk that may be left out.

        Raises
        ------
        InputError
            If it cannot be read, or a chunk is not there that has to be.
        """
        data = self.place.read(key, start, end)
        array, slash, chunk = key.partition("/")
        if key.rpartition("/")[2] in (".zarray", ".zmetadata", "zarr.json") and data is not None:
            self._refuse_absurd(key)
        if not slash or chunk in METADATA_FILES:
            return data
        if data is None:
            return self._in_place_of_nothing(array, key)
        if start is None and end is None:
            self._refuse_short(array, key, data)
        return data

    def _find_root(self) -> tuple[dict[str, Any], int]:
        refused: RefusedError | None = None
        for file in GROUP_FILES:
            try:
                root = self._json(file)
            except RefusedError as error:
                refused = refused or error
                continue
            if root is not None:
                if root.get("node_type") == "array":
                    break
                if file == ".zgroup" and refused is not None:
                    # What refuses to say that something is not there does not list what is.
                    raise refused
                if file == ".zmetadata" and not isinstance(root.get("metadata"), dict):
                    raise InputError(f"{self.name}: expected consolidated metadata in {file}, got {list(root)[:5]}")
                return root, 3 if file == "zarr.json" else 2
        else:
            if refused is not None:
                raise refused
        raise InputError(
            f"{self.name} cannot be opened as a Zarr store: expected a group, with one of {', '.join(GROUP_FILES)}"
        )

    def _json(self, key: str) -> dict[str, Any] | None:
        data = self.place.read(key)
        if data is None:
            return None
        try:
            found = parse_json(data)
        except ValueError as error:
            raise InputError(f"{self.name}: expected JSON in {key}: {error}") from error
        if not isinstance(found, dict):
            raise InputError(f"{self.name}: expected a JSON object in {key}, got {type(found).__name__}")
        return found

    def _refuse_absurd(self, key: str) -> None:
        """Refuse a coordinate of absurd length, for xarray reads coordinates at once."""
        found = self._json(key) or {}
        members = found.get("metadata" if self.zarr_format == 2 else "consolidated_metadata") or {}
        members = members.get("metadata", {}) if self.zarr_format == 3 and isinstance(members, dict) else members
        for name, metadata in {key: found, **(members if isinstance(members, dict) else {})}.items():
            shape = metadata.get("shape") if isinstance(metadata, dict) else None
            if isinstance(shape, list) and len(shape) == 1 and isinstance(shape[0], int) and shape[0] > MOST_ENTRIES:
                raise InputError(f"{self.name}: expected coordinates of a usual length, got {shape[0]} in {name}")

    def _metadata(self, array: str) -> dict[str, Any]:
        """The array's metadata, its attributes under "attributes"."""
        if array not in self._arrays:
            if self.zarr_format == 3:
                found = self._members.get(array) or self._json(f"{array}/zarr.json") or {}
            else:
                parts = [f"{array}/.zarray", f"{array}/.zattrs"]
                held, attributes = (self._members.get(part) or self._json(part) or {} for part in parts)
                found = {**held, "attributes": attributes}
            self._arrays[array] = found
        return self._arrays[array]

    def _in_place_of_nothing(self, array: str, key: str) -> bytes | None:
        """None where the fill value may be used, a nought where zarr 3 left out one; else refused."""
        metadata = self._metadata(array)
        fill = metadata.get("fill_value")
        if fill is not None and (array not in FIELDS or self._reads_as_nan(fill, metadata.get("attributes") or {})):
            return None
        if fill is None and array not in FIELDS and metadata.get("shape") == [1] and not metadata.get("filters"):
            # In format 2 zarr 3 leaves out a coordinate such as the only time, 0 hours since itself.
            return _encoded_nought(metadata)
        value = "no fill value" if fill is None else f"the fill value {fill}, which is no sign of what was there"
        raise InputError(
            f"{self.name}: the chunk {key} is not in the store, and {array} has {value}. "
            "Was the store written, or copied, to its end? A time with all its chunks can be chosen with --date"
        )

    def _reads_as_nan(self, fill: object, attributes: dict[str, Any]) -> bool:
        """Whether xarray makes NaN of a fill value: in format 2 always, else if the attributes say so."""
        if self.zarr_format == 2 or str(fill).lower().startswith(("nan", "0x7f")):
            return True
        return fill in [_number(attributes.get(name)) for name in ("_FillValue", "missing_value")]

    def _refuse_short(self, array: str, key: str, data: bytes) -> None:
        """Refuse a chunk that decodes to another length: zarr 2 leaves the rest of the memory as it was."""
        metadata = self._metadata(array)
        compressor = metadata.get("compressor")
        expected = _chunk_bytes(metadata)
        # With filters, and without a compressor, and in format 3, zarr looks itself.
        if self.zarr_format == 3 or not isinstance(compressor, dict) or metadata.get("filters") or expected is None:
            return
        try:
            found = _decoded_bytes(compressor, data)
        except Exception as error:
            raise InputError(
                f"{self.name}: the chunk {key} cannot be decoded: {type(error).__name__}: {error}"
            ) from error
        if found != expected:
            raise InputError(f"{self.name}: the chunk {key} is damaged: expected {expected} bytes in it, got {found}")


def _decoded_bytes(compressor: dict[str, Any], data: bytes) -> int:
    """How long a compressed chunk is when decoded; those that say so are not decoded for it."""
    where = FULL_BYTES.get(str(compressor.get("id")))
    if where is not None:
        return int.from_bytes(data[where], "little")
    import numcodecs

    decoded = numcodecs.get_codec(dict(compressor)).decode(data)
    return memoryview(decoded).nbytes


def _encoded_nought(metadata: dict[str, Any]) -> bytes:
    """A chunk of zeros of an array of format 2."""
    import numcodecs

    noughts, compressor = bytes(_chunk_bytes(metadata) or 0), metadata.get("compressor")
    return noughts if compressor is None else bytes(numcodecs.get_codec(dict(compressor)).encode(noughts))


def _chunk_bytes(metadata: dict[str, Any]) -> int | None:
    """Length of a chunk of an array of format 2; None where its values have no fixed size."""
    import numpy as np

    try:
        dtype = np.dtype(metadata["dtype"])
        return None if dtype.hasobject else int(np.prod(metadata["chunks"], dtype=object)) * dtype.itemsize
    except (KeyError, TypeError, ValueError):
        return None


def _number(value: object) -> object:
    """A fill value among the attributes, of which xarray writes floats as base64."""
    if not isinstance(value, str):
        return value
    try:
        return struct.unpack("<d", base64.b64decode(value))[0]
    except (ValueError, struct.error):
        return value
