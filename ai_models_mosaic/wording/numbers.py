"""Numbers as people read them."""

from __future__ import annotations

UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def counted(number: int, what: str) -> str:
    """A number with what it counts: ``1 member``, ``2 members``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def size_of(count: float) -> str:
    """Bytes in a unit that leaves something to read: ``3.2 GB``, ``41 MB``."""
    name, unit = next((pair for pair in UNITS if count >= 0.9995 * pair[1]), ("B", 1.0))
    return f"{count / unit:.{1 if name == 'GB' else 0}f} {name}"
