"""How values are packed into GRIB messages: method, and bits by parameter."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...errors import OptionError
from ...options.declarations import option
from ...params import FIELDS, Field, named
from ..selection import GROUP

BITS_PER_VALUE = 16
"""The error is at most the field's range / 65 535."""

MOST_BITS = 32
"""More would exceed the float32 of the model."""

METHODS = {"simple": "grid_simple", "ccsds": "grid_ccsds"}
"""Packing methods by their names as options; CCSDS is lossless compression of simply packed values."""

PACKING, BITS = "--packing", "--bits-per-value"


@dataclass(frozen=True)
class Bits:
    """Bits per value.

    Parameters
    ----------
    usual : int
        Of most fields, 1 … 32.
    of : tuple of (str, int)
        Names of fields with bits of their own; a later one wins.

    Raises
    ------
    OptionError
        If there is no such field, or bits are out of range.
    """

    usual: int = BITS_PER_VALUE
    of: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        for bits in (self.usual, *(bits for _, bits in self.of)):
            if not 1 <= bits <= MOST_BITS:
                raise OptionError(f"{BITS}: expected 1 to {MOST_BITS} bits, got {bits}")
        for name, _ in self.of:
            named(name, BITS)


def parse_bits(text: str) -> Bits:
    """Bits per value: ``16`` for all, ``z=18,q=12`` by parameter, or both: ``14,z=18``.

    Raises
    ------
    OptionError
        If they make no sense.
    """
    usual, by_name = BITS_PER_VALUE, []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(?:(\w+)\s*=\s*)?([0-9]{1,9})\s*", part)
        if not match:
            raise OptionError(f"{BITS}: expected bits such as 16, or z=18,q=12 by parameter, got {text!r}")
        if match[1]:
            by_name.append((match[1], int(match[2])))
        else:
            usual = int(match[2])
    return Bits(usual, tuple(by_name))


@dataclass(frozen=True)
class Packing:
    """Method and precision.

    Raises
    ------
    OptionError
        If there is no such method.
    """

    method: str = option(
        PACKING,
        group=GROUP,
        metavar=f"{{{','.join(METHODS)}}}",
        default="simple",
        help="of GRIB: ccsds is smaller at the same precision, and slower",
    )
    bits: Bits = option(
        BITS,
        group=GROUP,
        parse=parse_bits,
        metavar="BITS",
        default=Bits(),
        help="precision of GRIB, for all or by parameter: 16, or z=18,q=12, or 14,z=18",
        shown="16",
    )

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise OptionError(f"{PACKING}: expected {' or '.join(METHODS)}, got {self.method!r}")

    def bits_for(self, field: Field) -> int:
        """Bits per value of a field."""
        found = self.bits.usual
        for name, bits in self.bits.of:
            if field in named(name, BITS, FIELDS):
                found = bits
        return found
