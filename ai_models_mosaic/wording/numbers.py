"""Numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence

UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))

SHORTEST_SERIES = 4
"""Numbers that are told by their first, last and step."""


def counted(number: int, what: str) -> str:
    """A number with what it counts: ``1 member``, ``2 members``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def size_of(count: float) -> str:
    """Bytes in a unit that leaves something to read: ``3.2 GB``, ``41 MB``."""
    name, unit = next((pair for pair in UNITS if count >= 0.9995 * pair[1]), ("B", 1.0))
    return f"{count / unit:.{1 if name == 'GB' else 0}f} {name}"


def series(numbers: Sequence[int]) -> str:
    """Ascending numbers, evenly spaced ones in the words of the options: ``1-20``, ``0/to/90/by/3, 96/to/240/by/6``.

    Parameters
    ----------
    numbers : sequence of int
        Different, ascending.
    """
    parts, place = [], 0
    while place < len(numbers):
        end = place + 1
        while end < len(numbers) and numbers[end] - numbers[end - 1] == numbers[place + 1] - numbers[place]:
            end += 1
        if end - place >= SHORTEST_SERIES:
            first, last, step = numbers[place], numbers[end - 1], numbers[place + 1] - numbers[place]
            parts.append(f"{first}-{last}" if step == 1 else f"{first}/to/{last}/by/{step}")
        else:
            end = place + 1
            parts.append(str(numbers[place]))
        place = end
    return ", ".join(parts)


def rounded(value: float, digits: int = 5) -> float | None:
    """A number with so many digits, short in JSON; None for what is none there."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
