"""The sections that a GRIB message is made of, found without ecCodes.

Where their lengths do not lead to the end of the message, ecCodes may end the whole process instead of telling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

Part = Callable[[int, int], bytes]
"""Gives so many bytes of a message from a place on; fewer where it ends."""

END_BYTES = 4
"""Of the four sevens that end a message."""

HEADERS_BYTES = 4096
"""Of a message, read at once while its sections are looked for."""

LARGE_GRIB1 = 0x800000
"""Bit of the 24 of GRIB1's length: messages above 8 MiB count in units of 120 bytes, by a convention of ECMWF."""

GRIB1_OPTIONAL = ((2, 0x80), (3, 0x40))
"""Sections that are there if a flag of the first says so."""

FOLLOWERS = {0: (1,), 1: (2, 3), 2: (3,), 3: (4,), 4: (5,), 5: (6,), 6: (7,), 7: (2, 3, 4)}
"""GRIB2's sections that may follow one; those from the second on may come again."""


@dataclass(frozen=True)
class Section:
    """One of a message.

    Parameters
    ----------
    number : int
        By the definition of its edition.
    start, length : int
        Bytes.
    """

    number: int
    start: int
    length: int


def sections_of(part: Part, total: int) -> list[Section]:
    """The sections of a message between its first and its last.

    Parameters
    ----------
    part : callable
        Reads of it.
    total : int
        Bytes of it.

    Returns
    -------
    list of Section
        That adjoin, and end where the four sevens begin.

    Raises
    ------
    ValueError
        If they do not.
    """
    beginning = part(0, HEADERS_BYTES)

    def of_memory(start: int, length: int) -> bytes:
        known = beginning[start : start + length]
        return known if len(known) == length else part(start, length)

    end, edition = total - END_BYTES, beginning[7]
    found, position = [], 0
    for section in _edition_1(of_memory, end) if edition == 1 else _edition_2(of_memory, end):
        if section.length < 5 or section.start + section.length > end:
            raise ValueError(f"its section {section.number} says to have {section.length} bytes")
        found.append(section)
        position = section.start + section.length
    if position != end:
        raise ValueError(f"its sections end {end - position} bytes before it does")
    return found


def _edition_1(part: Part, end: int) -> Iterator[Section]:
    def length_at(position: int) -> int:
        return int.from_bytes(part(position, 3), "big")

    first = Section(1, 8, length_at(8))
    yield first
    flags, position = (part(8 + 7, 1) or b"\0")[0], first.start + first.length
    for number, flag in GRIB1_OPTIONAL:
        if flags & flag:
            yield Section(number, position, length_at(position))
            position += length_at(position)
    large = int.from_bytes(part(4, 3), "big") & LARGE_GRIB1
    # Of a large message, the length of its data does not fit into the section, which says something else.
    yield Section(4, position, end - position if large else length_at(position))


def _edition_2(part: Part, end: int) -> Iterator[Section]:
    position, before = 16, 0
    while position < end:
        head = part(position, 5)
        length, number = int.from_bytes(head[:4], "big"), head[4]
        if number not in FOLLOWERS[before]:
            raise ValueError(f"after its section {before} comes one that says to be {number}")
        yield Section(number, position, length)
        position, before = position + length, number
    if before != max(FOLLOWERS):
        raise ValueError(f"its section {before} is its last")


def grid_and_count(part: Part, total: int) -> tuple[bytes, int]:
    """The section that describes a message's grid, and the number of fields in it.

    Some centres put u and v into one GRIB2 message, of which readers miss the second; ecCodes'
    own digest of the grid fails on such messages. Arguments and errors as `sections_of`.
    """
    found = sections_of(part, total)
    if part(7, 1) == b"\1":
        # Without a section of its own, the grid is that of a number in the first.
        grid = next((each for each in found if each.number == 2), Section(1, 8 + 6, 1))
        return part(grid.start, grid.length), 1
    grids = [each for each in found if each.number == 3]
    return part(grids[-1].start, grids[-1].length), sum(each.number == 7 for each in found)
