"""How values are packed into GRIB messages: method, and bits by parameter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import OptionError
from ..params import FIELDS, Field, named

BITS_PER_VALUE = 16
"""The error is at most the field's range / 65 535."""

MOST_BITS = 32
"""More would exceed the float32 of the model."""

METHODS = {"simple": "grid_simple", "ccsds": "grid_ccsds"}
"""Packing methods by their names as options; CCSDS is lossless compression of simply packed values."""

PACKING, BITS = "--packing", "--bits-per-value"


@dataclass(frozen=True)
class Packing:
    """Method and precision.

    Parameters
    ----------
    method : str
        A name in `METHODS`.
    bits : int
        Bits per value, 1 … 32.
    bits_of : tuple of (str, int)
        Names of fields with bits of their own; a later one wins.

    Raises
    ------
    OptionError
        If there is no such method or field, or bits are out of range.
    """

    method: str = "simple"
    bits: int = BITS_PER_VALUE
    bits_of: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise OptionError(f"{PACKING}: expected {' or '.join(METHODS)}, got {self.method!r}")
        for bits in (self.bits, *(bits for _, bits in self.bits_of)):
            if not 1 <= bits <= MOST_BITS:
                raise OptionError(f"{BITS}: expected 1 to {MOST_BITS} bits, got {bits}")
        for name, _ in self.bits_of:
            named(name, BITS)

    def bits_for(self, field: Field) -> int:
        """Bits per value of a field."""
        found = self.bits
        for name, bits in self.bits_of:
            if field in named(name, BITS, FIELDS):
                found = bits
        return found

    def keys(self, field: Field) -> Mapping[str, Any]:
        """GRIB keys of a field."""
        return {"packingType": METHODS[self.method], "bitsPerValue": self.bits_for(field)}


def parse_packing(method: str, bits: str | None) -> Packing:
    """The packing of two options.

    Parameters
    ----------
    method : str
        ``simple`` or ``ccsds``.
    bits : str or None
        ``16`` for all, ``z=18,q=12`` by parameter, or both: ``14,z=18``.

    Raises
    ------
    OptionError
        If they make no sense.
    """
    everywhere, by_name = BITS_PER_VALUE, []
    for part in (bits or str(BITS_PER_VALUE)).split(","):
        match = re.fullmatch(r"\s*(?:(\w+)\s*=\s*)?(\d+)\s*", part)
        if not match:
            raise OptionError(f"{BITS}: expected bits such as 16, or z=18,q=12 by parameter, got {bits!r}")
        if match[1]:
            by_name.append((match[1], int(match[2])))
        else:
            everywhere = int(match[2])
    return Packing(method, everywhere, tuple(by_name))
