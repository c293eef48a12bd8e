"""Units as they are printed."""

from __future__ import annotations

import re

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def pretty(units: str, power: int = 1) -> str:
    """``m**2 s**-2``, ``m2 s-2`` and ``m^2 s^-2`` as ``m² s⁻²``, or a power of it; what is no number stays.

    Parameters
    ----------
    units : str
        Such as ``m**2 s**-2``.
    power : int
        To which the whole is raised: 2 makes ``m⁴ s⁻⁴`` of that.
    """

    def raised(match: re.Match[str]) -> str:
        exponent = int(match[2] or 1) * power
        return match[1] + ("" if exponent == 1 else str(exponent).translate(RAISED))

    return re.sub(r"([A-Za-z%]+)(?:\*\*|\^)?(-?\d+)?", raised, units)
