"""What a card must have for `replay`, and of which kind: a card is a file like any other, and may hold anything."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import pairwise

from ..variants import VARIANTS
from ..wording.excerpts import shortened
from .tiles import NAME as TILINGS
from .tiles import is_tilings

PRECISIONS = ("float32", "float16", "bfloat16")

MOST_MEMBERS = 2**31 - 1
"""Members are numbered by 32 bits in GRIB."""

MOST_THREADS = 1024
"""Threads that a forecast may have run on; asked for more, PyTorch ends the process."""

MOST_STEPS = 100_000
"""Of any forecast, far beyond what makes sense."""

ABSENT = object()
"""What is found where a card has nothing."""


def refuse_other_forms(found: object) -> None:
    """Raise unless a card has all that is read of it, each of its kind.

    Parameters
    ----------
    found : object
        What the card's JSON is.

    Raises
    ------
    KeyError
        If something is absent.
    ValueError
        If it is of another kind; says what was expected.
    """
    for path, (expected, fits) in FORM.items():
        value = _at(found, path)
        if fits(value):
            continue
        if value is ABSENT:
            raise KeyError(path)
        raise ValueError(f"expected {path} to be {expected}, got {shortened(value)}")


def _at(found: object, path: str) -> object:
    for name in path.split("."):
        if not isinstance(found, Mapping) or name not in found:
            return ABSENT
        found = found[name]
    return found


def _whole(least: float, most: float = math.inf) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_members(value: object) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(map(_whole(1, MOST_MEMBERS), value)) and len(set(value)) == len(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is None
    except ValueError:
        return False


def _is_engine(value: object) -> bool:
    threads = re.match(r"CPU \((\d+) threads\)", value) if isinstance(value, str) else None
    return isinstance(value, str) and (threads is None or 1 <= int(threads[1][:9]) <= MOST_THREADS)


def _is_area(value: object) -> bool:
    return value in (None, ABSENT) or (isinstance(value, list) and len(value) == 4 and all(map(_is_number, value)))


def _is_crossing(value: object) -> bool:
    numbers = [value.get(name) for name in ("starts", "noises")] if isinstance(value, Mapping) else []
    return value in (None, ABSENT) or (bool(numbers) and all(map(_whole(1, MOST_MEMBERS), numbers)))


def _is_lagging(value: object) -> bool:
    hours = value.get("hours") if isinstance(value, Mapping) else None
    return value in (None, ABSENT) or (isinstance(hours, list) and all(map(_whole(-math.inf, 0), hours)))


def _is_one(value: object) -> bool:
    """No number with a fraction anywhere in it."""
    if isinstance(value, Mapping):
        return all(map(_is_one, value.values()))
    return all(map(_is_one, value)) if isinstance(value, list) else not isinstance(value, float | bool)


def _is_noise(value: object) -> bool:
    if value is None or value is ABSENT:
        return True
    if not isinstance(value, Mapping) or not _is_text(value.get("sha256")):
        return False
    leads, factors = value.get("lead_hours"), value.get("factors")
    if not isinstance(leads, list) or not isinstance(factors, list) or not 0 < len(leads) == len(factors):
        return False
    ascend = all(map(_whole(1), leads)) and all(earlier < later for earlier, later in pairwise(leads))
    return ascend and all(map(_is_number, factors))


def _is_file(value: object) -> bool:
    if value is None or value is ABSENT:
        return True
    return isinstance(value, Mapping) and _is_text(value.get("path")) and _is_text(value.get("sha256"))


def _texts_by_name(*others: type) -> Callable[[object], bool]:
    return lambda value: (
        isinstance(value, Mapping) and all(_is_text(each) or isinstance(each, others) for each in value.values())
    )


def _one_of(*known: object) -> Callable[[object], bool]:
    return lambda value: any(value is each or (isinstance(value, str) and value == each) for each in known)


FORM: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    "variant": (f"one of {', '.join(VARIANTS)}", _one_of(*VARIANTS)),
    "seed": ("a whole number from 0 to 2**64 - 1", _whole(0, 2**64 - 1)),
    "members": ("distinct numbers of members from 1", _is_members),
    "ensemble_size": ("a whole number from 1, or null", lambda value: value is None or _whole(1, MOST_MEMBERS)(value)),
    "members_per_batch": ("a whole number from 1", _whole(1, MOST_MEMBERS)),
    "precision": (f"one of {', '.join(PRECISIONS)}", _one_of(*PRECISIONS)),
    "metadata": ("texts or numbers by name", _texts_by_name(int, float)),
    "packages": ("versions by name", _texts_by_name(type(None))),
    "engine": (f"a text, with at most {MOST_THREADS} threads", _is_engine),
    TILINGS: ("five whole numbers by shape, or nothing", lambda value: value is ABSENT or is_tilings(value)),
    "run": ("a text, or nothing", lambda value: value is ABSENT or _is_text(value)),
    "input.source": ("a text", _is_text),
    "input.sha256": ("a text", _is_text),
    "input.initial_time": ("a time such as 2020-01-31T06:00:00", _is_time),
    "weights.file": ("a text", _is_text),
    "weights.sha256": ("a text", _is_text),
    "options.engine": ("torch or onnx", _one_of("torch", "onnx", ABSENT)),
    "options.noise_factor": ("a number", _is_number),
    "options.noise_factors": ("a digest, lead times that ascend and their factors, or null", _is_noise),
    "options.output.calibration": ("a path and a digest, or null", _is_file),
    "steps": ("a whole number from 0, or nothing", lambda value: value is ABSENT or _whole(0, MOST_STEPS)(value)),
    "options.perturbations": ("on or off", _one_of("on", "off")),
    "options.antithetic": ("true or false", _one_of(True, False)),
    "options.compiled": ("true or false", _one_of(True, False, ABSENT)),
    "options.attention_backend": ("a text", lambda value: value is ABSENT or _is_text(value)),
    "options.crossed": ("whole numbers of starts and noises, or null", _is_crossing),
    "options.lagged": ("hours before the start, or null", _is_lagging),
    "options.output": ("an object, or nothing", lambda value: value is ABSENT or isinstance(value, Mapping)),
    "options.output.packing": ("a packing with whole numbers of bits", _is_one),
    "options.output.selection.area": ("four numbers, or null", _is_area),
}
"""What is read of a card, by its place, in words and as a test."""
