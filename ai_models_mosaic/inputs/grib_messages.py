"""The messages of a GRIB file: where they are, and their bytes, values and coordinates when they are asked for.

Files are framed here, without ecCodes: what stands between messages does no harm, and a broken message none to the
others. Only where messages are is kept, so that a file may be of any size.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import eccodes
import numpy as np

from ..arrays import FloatArray
from ..errors import InputError
from .field_kinds import integer, text
from .grib_checks import check_points, check_values, grid_section
from .grib_sections import LARGE_GRIB1, grid_and_count, sections_of

START, END = b"GRIB", b"7777"
EDITIONS = (1, 2)

SMALLEST_BYTES = 32
"""Of a message, fewer than any has."""

SEARCH_BYTES = 2**20
"""Read at a time while the beginning of a message is looked for."""

NAMED_BYTES = 2**28
"""Largest message cut short whose field is still told."""

BEGINNING_BYTES = 4096
"""Enough for all that says which field a message is."""

MISSING = 1e30


@dataclass(frozen=True)
class Damage:
    """A place in a file where a message begins that is not whole.

    Parameters
    ----------
    problem : str
        What is wrong with it, and where it is.
    """

    problem: str


class Message:
    """A message of any origin, decoded when its values or coordinates are asked for."""

    def message(self) -> bytes:
        """The whole message."""
        raise NotImplementedError

    @contextmanager
    def headers(self) -> Iterator[int]:
        """Handle of ecCodes, good for keys but perhaps not for values, while in use.

        Raises
        ------
        eccodes.CodesInternalError
            If ecCodes cannot make sense of the message.
        """
        with self._handle() as handle:
            yield handle

    def part(self, start: int, length: int) -> bytes:
        """Some of its bytes."""
        return self.message()[start : start + length]

    def grid_and_count(self) -> tuple[bytes, int]:
        """The section that describes the grid, and the number of fields in it.

        Raises
        ------
        ValueError
            If its sections do not lead to its end.
        """
        message = self.message()
        return grid_and_count(lambda start, length: message[start : start + length], len(message))

    def to_numpy(self, *, flatten: bool = True, dtype: type = np.float64) -> FloatArray:
        """The values in the message's own order, ``(point,)``; NaN where there are none.

        Raises
        ------
        ValueError
            If the message says another number of points than it has, or they cannot be decoded.
        """
        with self._handle() as handle:
            check_values(handle)
            try:
                eccodes.codes_set(handle, "missingValue", MISSING)
                values: FloatArray = eccodes.codes_get_values(handle).astype(dtype)
                has_missing = bool(integer(handle, "numberOfMissing"))
            except (eccodes.CodesInternalError, MemoryError) as error:
                raise ValueError(f"its values cannot be decoded ({error})") from error
        if has_missing:
            values[values == dtype(MISSING)] = np.nan
        return values

    def to_latlon(self, *, flatten: bool = True) -> dict[str, FloatArray]:
        """Coordinates of the values in the message's own order, degrees, each ``(point,)``.

        Raises
        ------
        ValueError
            If the grid section contradicts itself.
        """
        with self._handle() as handle:
            check_points(handle)
            try:
                found = {name: eccodes.codes_get_array(handle, key) for name, key in COORDINATES}
            except (eccodes.CodesInternalError, MemoryError, ValueError) as error:
                raise ValueError(f"its coordinates cannot be made ({error}); {grid_section(handle)}") from error
            if not all(np.isfinite(angles).all() for angles in found.values()):
                raise ValueError(f"its coordinates are not finite; {grid_section(handle)}")
            return found

    @contextmanager
    def _handle(self) -> Iterator[int]:
        handle = eccodes.codes_new_from_message(self.message())
        try:
            yield handle
        finally:
            eccodes.codes_release(handle)


COORDINATES = (("lat", "latitudes"), ("lon", "longitudes"))


@dataclass(frozen=True)
class FileMessage(Message):
    """A message of a file.

    Parameters
    ----------
    path : Path
    offset, length : int
        Bytes.
    beginning : int or None
        As `_beginning` gives it of the message that was found there; None: whatever is there is read.
    """

    path: Path
    offset: int
    length: int
    beginning: int | None = field(default=None, compare=False)

    def message(self) -> bytes:
        """The whole message."""
        return self.part(0, self.length)

    def grid_and_count(self) -> tuple[bytes, int]:
        """As any message, without the data, which then need not be read from the disk."""
        return grid_and_count(self.part, self.length)

    def part(self, start: int, length: int) -> bytes:
        """Some of its bytes."""
        with self._opened() as file:
            file.seek(self.offset + start)
            return file.read(min(length, self.length - start))

    @contextmanager
    def headers(self) -> Iterator[int]:
        """Handle of ecCodes without the data, which then need not be read from the disk."""
        with self._opened() as file:
            file.seek(self.offset)
            handle = eccodes.codes_grib_new_from_file(file, headers_only=True)
        if handle is None:
            raise eccodes.CodesInternalError("no message")
        try:
            yield handle
        finally:
            eccodes.codes_release(handle)

    @contextmanager
    def _opened(self) -> Iterator[FileIO]:
        """The file, if the message that was found in it is still there; others may have been added since.

        Raises
        ------
        InputError
            If it is not, or cannot be read: another field would bear the name and the time of this.
        """
        try:
            with FileIO(self.path) as file:
                if self.beginning not in (None, _beginning(file, self.offset, self.length)):
                    raise InputError(
                        f"{self.path} was changed since it was looked at: expected the same message at byte "
                        f"{self.offset}, got something else. Run again when nobody writes to the file"
                    )
                yield file
        except OSError as error:
            raise InputError(f"{self.path} cannot be read any more: {error.strerror or error}") from error


def _beginning(file: BinaryIO | FileIO, start: int, length: int) -> int:
    """A checksum of what a message begins with: of which field and time it is, and of some of its values.

    What the system says of a file is none: its times and numbers change without its content on file systems of several
    machines, and with every message that is added.
    """
    file.seek(start)
    return zlib.crc32(file.read(min(length, BEGINNING_BYTES)))


@dataclass(frozen=True)
class FieldMessage(Message):
    """A field of earthkit-data, as services give them.

    Parameters
    ----------
    field : earthkit-data field
    """

    field: Any

    def message(self) -> bytes:
        """The whole message."""
        return bytes(self.field.message())


def find_messages(path: Path) -> Iterator[FileMessage | Damage]:
    """The messages of a file in their order, and the places where one is broken.

    Parameters
    ----------
    path : Path
        Read from its beginning to its end, but for the data of messages.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    position = 0
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while (start := _next_start(file, position)) is not None:
            length = _length(file, start)
            if length is None:
                position = start + len(START)
                continue
            message = FileMessage(path, start, length, _beginning(file, start, length))
            if (problem := _problem(file, message, size)) is None:
                yield message
                position = start + length
            else:
                yield Damage(problem)
                position = start + len(START)


def _problem(file: BinaryIO, message: FileMessage, size: int) -> str | None:
    """What is wrong with a message, if anything is."""
    if not _ends_well(file, message.offset, message.length, size):
        return _damage(file, message.offset, message.length, size)

    def part(start: int, length: int) -> bytes:
        file.seek(message.offset + start)
        return file.read(min(length, message.length - start))

    try:
        sections_of(part, message.length)
    except ValueError as error:
        return f"the message at byte {message.offset}: {error}"
    return None


def _ends_well(file: BinaryIO, start: int, length: int, size: int) -> bool:
    if not SMALLEST_BYTES <= length <= size - start:
        return False
    file.seek(start + length - len(END))
    return file.read(len(END)) == END


def _next_start(file: BinaryIO, position: int) -> int | None:
    """Where the next four letters stand that a message begins with."""
    file.seek(position)
    kept = b""
    while block := file.read(SEARCH_BYTES if kept else len(START)):
        found = (kept + block).find(START)
        if found >= 0:
            return position - len(kept) + found
        position += len(block)
        kept = (kept + block)[-len(START) + 1 :]
    return None


def _length(file: BinaryIO, start: int) -> int | None:
    """Bytes of a message as it says itself; None if it is none, but a text with its four letters in it."""
    file.seek(start)
    indicator = file.read(16)
    if len(indicator) < 16 or indicator[7] not in EDITIONS:
        return None
    if indicator[7] == 2:
        return int.from_bytes(indicator[8:16], "big")
    length = int.from_bytes(indicator[4:7], "big")
    return _large_length(file, start, length) if length & LARGE_GRIB1 else length


def _large_length(file: BinaryIO, start: int, length: int) -> int:
    """Bytes of a GRIB1 message whose length does not fit into its 24 bits."""

    def section_length(position: int) -> int:
        file.seek(position)
        return int.from_bytes(file.read(3), "big")

    file.seek(start + 8 + 7)
    flags = (file.read(1) or b"\0")[0]
    position = start + 8 + section_length(start + 8)
    for bit in (0x80, 0x40):
        position += section_length(position) if flags & bit else 0
    short = section_length(position)
    return (length & ~LARGE_GRIB1) * 120 - short + 4 if short < 120 else length


def _damage(file: BinaryIO, start: int, length: int, size: int) -> str:
    available = size - start
    if length > available:
        problem = f"it says to have {length} bytes, but the file ends after {available}: it was cut short"
    else:
        problem = f"it says to have {length} bytes, but does not end there"
    file.seek(start)
    name = _name_of_part(file.read(min(available, length, NAMED_BYTES)), length)
    return f"the message at byte {start}{name}: {problem}"


def _name_of_part(beginning: bytes, length: int) -> str:
    """The field of a message of which the end is wrong, as far as its beginning says."""
    if not max(len(beginning), SMALLEST_BYTES) <= length <= NAMED_BYTES:
        return ""
    whole = beginning[: length - len(END)].ljust(length - len(END), b"\0") + END
    try:
        sections_of(lambda start, count: whole[start : start + count], length)
        handle = eccodes.codes_new_from_message(whole)
    except (eccodes.CodesInternalError, ValueError):
        return ""
    try:
        name, level = text(handle, "shortName"), integer(handle, "level")
    finally:
        eccodes.codes_release(handle)
    return f" ({name} at level {level})" if name and name != "unknown" else ""
