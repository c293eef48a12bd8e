"""How the kernels of an engine cut their work: recorded by a run, and taken again by who goes on with it or repeats it.

The order of sums depends on it, and so do the last bits of a member. A table of the package, or a file that the user
has tuned, says what a new run takes; neither may change a run that has begun.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, TypeGuard

from ..engines import CutEngine
from ..errors import OptionError

LOG = logging.getLogger(__name__)

NAME = "tilings"
"""Under which cards and states have it."""

MOST_SHAPES, MOST_KEYS = 16, 512
"""Of what a card may say."""


def tilings_of(engine: object) -> dict[str, Any]:
    """What an engine cuts by, under `NAME`; nothing where it has no such kernels."""
    found = engine.tilings if isinstance(engine, CutEngine) else {}
    return {NAME: found} if found else {}


def take_tilings(engine: object, tilings: object) -> None:
    """Have an engine cut as it is recorded; where it cannot, say that the last bits will be others."""
    if not isinstance(engine, CutEngine) or not is_tilings(tilings) or not tilings:
        return
    try:
        engine.use_tilings(tilings)
    except OptionError as error:
        LOG.warning("%s; going on with those of this device: fields may differ in the last bits", error)


def is_tilings(value: object) -> TypeGuard[Mapping[str, list[int]]]:
    """Whether it may be what was recorded: by shape, five whole numbers."""
    return (
        isinstance(value, Mapping)
        and len(value) <= MOST_SHAPES
        and all(isinstance(shape, str) and _is_tiling(numbers) for shape, numbers in value.items())
    )


def _is_tiling(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 5
        and all(type(each) is int and 0 < each <= MOST_KEYS for each in value)
    )
