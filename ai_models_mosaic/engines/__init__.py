"""Engines: one forecast step of a batch of members. The only place with normalised numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..arrays import Float32Array


class Engine(Protocol):
    """What a rollout needs of a backend."""

    @property
    def noise_width(self) -> int:
        """Width of ε."""

    @property
    def description(self) -> str:
        """Device, precision and attention backend, for people."""

    def step(self, history: Float32Array, progress: tuple[float, float], noise: Float32Array) -> Float32Array:
        """Advance a batch of members by one step.

        Parameters
        ----------
        history : float32 array (member, history, lon, lat, channel)
            Physical units, oldest state first.
        progress : (float, float)
            Day and year progress of the newest state.
        noise : float32 array (member, noise)
            ε of every member.

        Returns
        -------
        float32 array (member, lon, lat, channel)
            Physical units.
        """

    def memory_bytes(self, members: int) -> int:
        """Estimated peak memory of one step of so many members, weights included."""


@dataclass(frozen=True)
class DataFile:
    """A file beside the weights that a forecast comes from.

    Parameters
    ----------
    what : str
        What it is, such as ``static fields``.
    path : Path
        Where it is.
    sha256 : str
        Its digest.
    """

    what: str
    path: Path
    sha256: str


class LoadedEngine(Engine, Protocol):
    """An engine with weights of a file, as a run announces and records it."""

    @property
    def precision(self) -> str:
        """Precision of the matrix products."""

    @property
    def checkpoint(self) -> Path | None:
        """The file of the weights."""

    @property
    def checkpoint_sha256(self) -> str | None:
        """Digest of that file."""

    @property
    def data(self) -> tuple[DataFile, ...]:
        """The other files that were read: normalisation, static fields, external data."""

    @property
    def untrained(self) -> bool:
        """The weights are random and say so."""

    @property
    def origin(self) -> Mapping[str, Any] | None:
        """Licence and source of weights whose file says so to the engine alone; None: see `assets.origin`."""

    def best_batch(self, members: int) -> int:
        """Members per batch where nobody said how many.

        Parameters
        ----------
        members : int
            There are no more to put into a batch.
        """
