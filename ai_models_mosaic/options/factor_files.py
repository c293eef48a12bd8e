"""Files of factors by lead time, fitted on past dates: what they must hold, and what lies between their lead times."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import OptionError
from ..files import parse_json

VERSION = 1
"""Of both kinds of file; one of another version is refused."""

SPREAD, NOISE = "ai-models-mosaic calibration", "ai-models-mosaic noise factors"
"""What the files call themselves."""

MOST_BYTES = 64 * 2**20
"""Of a file that is none of these."""


def read_factors(path: Path, option: str, kind: str) -> tuple[dict[str, Any], str]:
    """A file of factors, its head checked, and its SHA-256.

    Parameters
    ----------
    path : Path
    option : str
        Where it was typed, for messages.
    kind : str
        `SPREAD` or `NOISE`.

    Raises
    ------
    OptionError
        If it cannot be read, or is no such file.
    """
    expected = f"{option} {path}: expected a file that ai-models-mosaic calibrate wrote, of the format {kind!r}"
    try:
        if path.stat().st_size > MOST_BYTES:
            raise OptionError(f"{expected}, got {path.stat().st_size} bytes")
        content = path.read_bytes()
        found = parse_json(content, finite=True)
    except (OSError, ValueError) as error:
        raise OptionError(f"{expected}: {error}") from error
    kind_found = found.get("format") if isinstance(found, dict) else None
    if kind_found != kind:
        raise OptionError(f"{expected}, got {kind_found!r}")
    if found.get("version") != VERSION:
        raise OptionError(f"{expected} and version {VERSION}, got version {found.get('version')!r}: fit it again")
    leads = found.get("lead_hours")
    if not _are_numbers(leads, 1, 10_000) or any(later <= earlier for earlier, later in pairwise(leads)):
        raise OptionError(f"{expected}, with lead_hours that ascend, got {leads!r}")
    for name in ("variant", "weights_sha256"):
        if not isinstance(found.get(name), str | None):
            raise OptionError(f"{expected}, with a text or null as {name}, got {found[name]!r}")
    return found, hashlib.sha256(content).hexdigest()


def checked(factors: Any, leads: int, limits: tuple[float, float], what: str) -> tuple[float, ...]:
    """Factors that are as many as there are lead times, and within limits.

    Raises
    ------
    OptionError
        If they are not.
    """
    low, high = limits
    if not _are_numbers(factors, low, high) or len(factors) != leads:
        raise OptionError(f"{what}: expected {leads} factors from {low:g} to {high:g}, got {factors!r}")
    return tuple(float(factor) for factor in factors)


def between(lead_hours: Sequence[float], factors: Sequence[float], hours: float) -> float:
    """The factor at a lead time: linear between two that have one, beyond the outer ones theirs."""
    if hours <= lead_hours[0]:
        return float(factors[0])
    for index, later in enumerate(lead_hours[1:], 1):
        if hours <= later:
            earlier = lead_hours[index - 1]
            share = (hours - earlier) / (later - earlier)
            return float(factors[index - 1] + share * (factors[index] - factors[index - 1]))
    return float(factors[-1])


def refuse_others(option: str, found: Mapping[str, Any], variant: str | None, weights: str | None) -> None:
    """Refuse factors that were fitted for another variant, or other weights; None: not known yet, or not said.

    Raises
    ------
    OptionError
        Says which.
    """
    for name, now in (("variant", variant), ("weights_sha256", weights)):
        then = found.get(name)
        if then is not None and now is not None and then != now:
            words = {"variant": "the variant", "weights_sha256": "weights with SHA-256"}[name]
            raise OptionError(
                f"{option}: it was fitted for {words} {then}, and this forecast is of {now}. Fit one on forecasts of "
                "that, with ai-models-mosaic calibrate"
            )


def _are_numbers(values: Any, low: float, high: float) -> bool:
    return (
        isinstance(values, list)
        and bool(values)
        and all(
            isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high for value in values
        )
    )
