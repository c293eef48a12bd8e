"""Whether an unfinished run is the one that is to go on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ResumeError

if TYPE_CHECKING:
    from .resume import ResumeRecord

LOG = logging.getLogger(__name__)


def check_same(folder: Path, found: ResumeRecord, wanted: ResumeRecord) -> None:
    """Refuse to go on with a run of another kind; say when the result may differ in the last bits.

    Raises
    ------
    ResumeError
        If an option, the input or the weights differ; names all that do.
    """
    differing = differences(found.identity, wanted.identity)
    if differing:
        listed = "\n".join(f"  {name}: it began with {began}, now {now}" for name, began, now in differing)
        raise ResumeError(
            f"the unfinished run in {folder} is another than this one:\n{listed}\n"
            "Give the same options, input and weights, or run without --resume to begin again"
        )
    warn_of_others(found.backend, wanted.backend)


def warn_of_others(began: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Say which parts of the machine and its software are others than those that a run began with."""
    for name, then, other in differences(began, now):
        LOG.warning(
            "The run began with %s %s and goes on with %s: fields may differ in the last bits", name, then, other
        )


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Names whose values are not the same, with both values; None where one lacks a name.

    Parameters
    ----------
    first, second : mapping of str to object
        What is a mapping at the top of both is a section, whose names are compared.
    """
    found = []
    for name in dict.fromkeys([*first, *second]):
        one, other = first.get(name), second.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            both = dict.fromkeys([*one, *other])
            found += [(key, one.get(key), other.get(key)) for key in both if one.get(key) != other.get(key)]
        elif one != other:
            found.append((name, one, other))
    return found
