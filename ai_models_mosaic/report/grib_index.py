"""Where the messages of a file are and what they hold, without ecCodes looking at each.

The messages of an ensemble differ in member, lead time and values. What else the sections before the values say is
asked of ecCodes once for all messages that agree in it; member and lead time are read from their bytes.
Source: WMO Manual on Codes I.2, FM 92 GRIB edition 2, templates 4.0 and 4.1.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import eccodes

from ..errors import InputError
from ..verification.messages import ScannedMessage, message_of, scan

INDICATOR_BYTES = 16
"""Section 0 of edition 2."""

PRODUCT = 4
"""The section that says what the values are; those after it say how they are packed."""

UNPERTURBED, MEMBER = 0, 1
"""Product definition templates of instantaneous fields that are known here."""

UNIT, TIME, NUMBER = 17, slice(18, 22), 35
"""Bytes of section 4: unit of the forecast time, forecast time, number of the member."""

HOURS = {1: 1, 10: 3, 11: 6, 12: 12}
"""Hours of the units of forecast time, code table 4.4."""

Sections = dict[int, bytes]


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
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            quick = content[:4] == b"GRIB" and content[7] == 2
            if quick:
                yield from _messages(path, content)
    except (OSError, ValueError, IndexError, eccodes.CodesInternalError) as error:
        raise InputError(f"{path} cannot be read as GRIB: {error}. Expected complete messages") from error
    if not quick:
        yield from scan(path)


def _messages(path: Path, content: mmap.mmap) -> Iterator[ScannedMessage]:
    known: dict[tuple[bytes, ...], ScannedMessage | None] = {}
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
        if key is None or key not in known:
            message = _decoded(path, content[place : place + length], place)
            if key is not None:
                known[key] = message
        else:
            message = known[key]
        if message is not None:
            yield message if key is None else _placed(message, place, length, sections[PRODUCT])
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
    template = int.from_bytes(product[7:9], "big")
    negative = product[TIME.start] >= 0x80
    if template not in (UNPERTURBED, MEMBER) or product[UNIT] not in HOURS or negative:
        return None
    rest = product[: TIME.start] + product[TIME.stop :]
    if template == MEMBER:
        rest = product[: TIME.start] + product[TIME.stop : NUMBER] + product[NUMBER + 1 :]
    return (indicator, *(content for number, content in sections.items() if number != PRODUCT), rest)


def _decoded(path: Path, content: bytes, place: int) -> ScannedMessage | None:
    handle = eccodes.codes_new_from_message(content)
    try:
        message = message_of(path, handle)
    finally:
        eccodes.codes_release(handle)
    return None if message is None else replace(message, offset=place)


def _placed(message: ScannedMessage, place: int, length: int, product: bytes) -> ScannedMessage:
    hours = int.from_bytes(product[TIME], "big") * HOURS[product[UNIT]]
    member = int.from_bytes(product[7:9], "big") == MEMBER
    return replace(
        message,
        offset=place,
        length=length,
        number=product[NUMBER] if member else message.number,
        valid_time=message.initial_time + timedelta(hours=hours),
    )
