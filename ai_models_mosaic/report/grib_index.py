"""Where the messages of a file are and what they hold, without ecCodes looking at each.

The messages of an ensemble differ in member, lead time and values. What else the sections before the values say is
asked of ecCodes once for all messages that agree in it; member and lead time are read from their bytes.
Source: WMO Manual on Codes I.2, FM 92 GRIB edition 2, templates 4.0 to 4.6, 4.86 and 4.117, which have the forecast
time in one place.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import eccodes

from ..errors import InputError
from ..verification.messages import ScannedMessage, message_of, scan

INDICATOR_BYTES = 16
"""Section 0 of edition 2."""

PRODUCT = 4
"""The section that says what the values are; those after it say how they are packed."""

MEMBER = 1
"""Product definition template of members, whose number is one byte."""

TIMED = (0, MEMBER, 2, 5, 6, 86, 117)
"""Product definition templates of instantaneous fields, and of products of an ensemble at a point in time."""

UNIT, TIME, NUMBER = 17, slice(18, 22), 35
"""Bytes of section 4: unit of the forecast time, forecast time, number of the member."""

HOURS = {1: 1, 10: 3, 11: 6, 12: 12}
"""Hours of the units of forecast time, code table 4.4."""

Sections = dict[int, bytes]

What = TypeVar("What")


@dataclass(frozen=True, slots=True)
class Placed(Generic[What]):
    """A message in its file.

    Parameters
    ----------
    what : object
        What was said of it, or of the first that differs in no more than member and lead time.
    offset, length : int
        Bytes.
    number : int or None
        Its member; None where `what` is of just this message, or of all members.
    lead_hours : int or None
        Its lead time, h; None where `what` is of just this message.
    """

    what: What
    offset: int
    length: int
    number: int | None
    lead_hours: int | None


def index(path: Path) -> Iterator[ScannedMessage]:
    """The messages of a file, as `scan` gives them, but quickly.

    Parameters
    ----------
    path : Path
        A GRIB file; what is not of edition 2 is left to `scan`.

    Raises
    ------
    InputError
        If the file cannot be read as GRIB.
    """
    if not _is_quick(path):
        yield from scan(path)
        return
    for placed in placed_messages(path, partial(message_of, path)):
        if placed.what is not None:
            yield _scanned(placed.what, placed)


def placed_messages(path: Path, describe: Callable[[int], What]) -> Iterator[Placed[What]]:
    """The messages of a file, each with what is said of its like.

    Parameters
    ----------
    path : Path
        A GRIB file; in editions other than 2, every message is described.
    describe : callable
        Says of a message, by its ecCodes handle, what does not depend on member, lead time and values.

    Raises
    ------
    InputError
        If the file cannot be read as GRIB.
    """
    try:
        if _is_quick(path):
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                yield from _quickly(path, content, describe)
        else:
            yield from _one_by_one(path, describe)
    except (OSError, ValueError, IndexError, eccodes.CodesInternalError) as error:
        raise InputError(f"{path} cannot be read as GRIB: {error}. Expected complete messages") from error


def _is_quick(path: Path) -> bool:
    """Whether a file begins with a message of edition 2; a pipe, which can be read but once, is left alone."""
    if path.exists() and not path.is_file() and not path.is_dir():
        return False
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise InputError(f"{path} cannot be read as GRIB: {error}") from error
    return head[:4] == b"GRIB" and head[7:] == b"\2"


def _one_by_one(path: Path, describe: Callable[[int], What]) -> Iterator[Placed[What]]:
    with path.open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file, headers_only=True)) is not None:
            try:
                offset = eccodes.codes_get_message_offset(handle)
                yield Placed(describe(handle), offset, eccodes.codes_get_long(handle, "totalLength"), None, None)
            finally:
                eccodes.codes_release(handle)


def _quickly(path: Path, content: mmap.mmap, describe: Callable[[int], What]) -> Iterator[Placed[What]]:
    known: dict[tuple[bytes, ...], What] = {}
    place = 0
    while (place := content.find(b"GRIB", place)) >= 0:
        length = int.from_bytes(content[place + 8 : place + INDICATOR_BYTES], "big")
        if (
            content[place + 7] != 2
            or length <= INDICATOR_BYTES
            or content[place + length - 4 : place + length] != b"7777"
        ):
            raise InputError(
                f"{path} cannot be read as GRIB: the message at byte {place} is not complete. Expected complete "
                "messages of edition 2, as its first is"
            )
        sections = _sections(content, place)
        key = _key(content[place : place + 8], sections)
        if key is None:
            yield Placed(_described(content[place : place + length], describe), place, length, None, None)
        else:
            if key not in known:
                known[key] = _described(content[place : place + length], describe)
            product = sections[PRODUCT]
            number = product[NUMBER] if _template(product) == MEMBER else None
            hours = int.from_bytes(product[TIME], "big") * HOURS[product[UNIT]]
            yield Placed(known[key], place, length, number, hours)
        place += length


def _sections(content: mmap.mmap, place: int) -> Sections:
    """Sections 1 to 4 of a message."""
    found: Sections = {}
    place += INDICATOR_BYTES
    while PRODUCT not in found:
        length = int.from_bytes(content[place : place + 4], "big")
        if length < 5:
            raise ValueError(f"a section of {length} bytes at byte {place}")
        found[content[place + 4]] = content[place : place + length]
        place += length
    return found


def _key(indicator: bytes, sections: Sections) -> tuple[bytes, ...] | None:
    """All that is said but member and lead time; None where these are not known to be found."""
    product = sections[PRODUCT]
    template = _template(product)
    negative = product[TIME.start] >= 0x80
    if template not in TIMED or product[UNIT] not in HOURS or negative:
        return None
    rest = product[: TIME.start] + product[TIME.stop :]
    if template == MEMBER:
        rest = product[: TIME.start] + product[TIME.stop : NUMBER] + product[NUMBER + 1 :]
    return (indicator, *(content for number, content in sections.items() if number != PRODUCT), rest)


def _template(product: bytes) -> int:
    return int.from_bytes(product[7:9], "big")


def _described(content: bytes, describe: Callable[[int], What]) -> What:
    handle = eccodes.codes_new_from_message(content)
    try:
        return describe(handle)
    finally:
        eccodes.codes_release(handle)


def _scanned(message: ScannedMessage, placed: Placed[ScannedMessage | None]) -> ScannedMessage:
    if placed.lead_hours is None:
        return replace(message, offset=placed.offset)
    return replace(
        message,
        offset=placed.offset,
        length=placed.length,
        number=message.number if placed.number is None else placed.number,
        valid_time=message.initial_time + timedelta(hours=placed.lead_hours),
    )
