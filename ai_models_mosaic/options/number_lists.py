"""The one grammar for lists of whole numbers, of members as of lead times and levels."""

from __future__ import annotations

import re
from collections import Counter

from ..errors import OptionError

MOST = 65_535
"""Numbers in a list: GRIB can number no more members, and no forecast has more steps."""

FORMS = "24,48, 24-96, 24/to/96 or 24/to/96/by/24"

_NUMBER = "[0-9]{1,18}"

_RANGE = re.compile(
    rf"\s*(?P<first>{_NUMBER})(?:\s*-\s*(?P<last>{_NUMBER})|/to/(?P<to>{_NUMBER})(?:/by/(?P<by>{_NUMBER}))?)?\s*"
)


def parse_ranges(text: str, option: str, *, least: int = 0) -> tuple[range, ...]:
    """Ranges of whole numbers, in their order, without making the numbers.

    Parameters
    ----------
    text : str
        Numbers, ``A-B``, ``A/to/B`` or ``A/to/B/by/C``, separated by commas; single numbers, as in MARS, by slashes as
        well. Where A is above B, the range counts down.
    option : str
        For messages.
    least : int
        The smallest number that makes sense.

    Raises
    ------
    OptionError
        If it is no such list, or of more numbers than `MOST`.
    """
    parts = [part.split("/") if "/to/" not in part else [part] for part in text.split(",")]
    found = tuple(_range(words, least) for part in parts for words in part)
    ranges = tuple(numbers for numbers in found if numbers is not None)
    if len(ranges) < len(found):
        raise OptionError(f"{option}: expected whole numbers from {least} and ranges, such as {FORMS}, got {text!r}")
    # A range knows how many it has without making them.
    if sum(len(numbers) for numbers in ranges) > MOST:
        raise OptionError(f"{option}: expected a list of at most {MOST} numbers, got {text!r}")
    return ranges


def parse_numbers(text: str, option: str, *, least: int = 0) -> tuple[int, ...]:
    """Different whole numbers, in the order of the list; arguments as of `parse_ranges`.

    Raises
    ------
    OptionError
        If it is no such list, too long, or names a number twice.
    """
    numbers = [number for some in parse_ranges(text, option, least=least) for number in some]
    repeated = [number for number, count in Counter(numbers).items() if count > 1]
    if repeated:
        raise OptionError(f"{option}: expected each number once, got {min(repeated)} twice in {text!r}")
    return tuple(numbers)


def _range(text: str, least: int) -> range | None:
    """A number or a range of them; None if it is neither."""
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    first, by = int(match["first"]), int(match["by"] or 1)
    last = int(match["last"] or match["to"] or first)
    if by < 1 or min(first, last) < least:
        return None
    return range(first, last + 1, by) if first <= last else range(first, last - 1, -by)
