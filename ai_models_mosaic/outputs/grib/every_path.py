"""All files that a path with GRIB keys can name, from few messages: of all combinations there may be 100 000."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol


class HasKeys(Protocol):
    """Something that can be asked for GRIB keys."""

    def get(self, key: str) -> Any:
        """A key in its native type."""


class _Asked:
    """Remembers which keys something was asked for, and their values."""

    def __init__(self, message: HasKeys) -> None:
        self._message = message
        self.known: dict[str, object] = {}

    def get(self, key: str) -> Any:
        return self.known.setdefault(key, self._message.get(key))


class _Known:
    """Keys without a message."""

    def __init__(self, keys: dict[str, object]) -> None:
        self._keys = keys

    def get(self, key: str) -> Any:
        return self._keys[key]


def all_paths(path_of: Callable[[HasKeys], Path], *axes: Iterable[HasKeys]) -> Iterator[Path]:
    """The paths of all combinations of what messages differ in.

    Parameters
    ----------
    path_of : callable
        Names the file of a message.
    axes : iterable of iterables of messages
        Messages that differ in one thing only, such as the member; each need last until the next only. The first
        of every axis is the same. A key is taken to change along one of the axes.
    """
    first: dict[str, object] = {}
    differing: list[list[dict[str, object]]] = []
    for axis in axes:
        found = []
        for message in axis:
            asked = _Asked(message)
            path_of(asked)
            first = first or asked.known
            changed = {key: value for key, value in asked.known.items() if value != first[key]}
            if changed not in found:
                found.append(changed)
        differing.append(found)
    for places in itertools.product(*differing):
        yield path_of(_Known({**first, **{key: value for place in places for key, value in place.items()}}))
