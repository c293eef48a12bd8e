"""Engines: one forecast step of a batch of members. The only place with normalised numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ..arrays import BoolArray, Float32Array, FloatArray
from ..checkpoints.files import DataFile
from .vitals import Probe


@dataclass(frozen=True)
class Made:
    """What a step made of a batch of members.

    Parameters
    ----------
    values : float32 array (member, lon, lat, channel)
        The new states, physical units, in host memory, read-only.
    finite : bool array (member, channel)
        Which of their fields are finite.
    lent : bool
        Whether the values are in one of a few buffers, which the states write to again when nobody has an array of
        it any more: who keeps many keeps the states waiting.
    vitals : float32 array (member, number) or None
        Vital signs as `vitals.Probe` lays them out, where a device has measured them.
    """

    values: Float32Array
    finite: BoolArray
    lent: bool = False
    vitals: Float32Array | None = None


Arrival = Callable[[], Made]
"""Waits for a step that was begun, and gives what it made; to be called once."""


class EnsembleStates(Protocol):
    """The histories of some members, where their engine keeps them: on its device, or in host memory."""

    @property
    def ahead(self) -> int:
        """Steps of batches that may be begun before what those before made is taken; they are taken in order."""

    def advance(self, members: Sequence[int], progress: tuple[float, float], noise: Float32Array) -> Arrival:
        """Begin one step of a batch of members; each history loses its oldest state and gains the new one.

        Parameters
        ----------
        members : sequence of int
            All of them at the same step.
        progress : (float, float)
            Day and year progress of the newest state.
        noise : float32 array (member, noise)
            ε of every member.

        Returns
        -------
        Arrival
            Gives what the step made.
        """

    def restore(self, members: Sequence[int], values: Float32Array) -> None:
        """Take a state that was made before as the newest of some members.

        Parameters
        ----------
        members : sequence of int
            All of them at the same step.
        values : float32 array (member, lon, lat, channel)
            Physical units; not changed afterwards.
        """


class Engine(Protocol):
    """What a rollout needs of a backend."""

    @property
    def noise_width(self) -> int:
        """Width of ε."""

    @property
    def description(self) -> str:
        """Device, precision and attention backend, for people."""

    def begin(self, histories: Mapping[int, Float32Array]) -> EnsembleStates:
        """Take the states that members start from.

        Parameters
        ----------
        histories : mapping of int to float32 array (history, lon, lat, channel)
            By member number; physical units, oldest state first. Members may share an array.

        Returns
        -------
        EnsembleStates
            Of these members; other states of the engine stay as they are.
        """

    def memory_bytes(self, members: int) -> int:
        """Estimated peak memory of one step of so many members, weights included, other members' states not."""


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

        Returns
        -------
        int
            From 1 to `members`.
        """


@runtime_checkable
class ObservedStates(Protocol):
    """States that are measured where they lie, which is not in host memory."""

    def observe(self, probe: Probe) -> None:
        """Measure what every step from now on makes."""


@runtime_checkable
class HeedingStates(Protocol):
    """States that may have to wait for who reads what they made."""

    def heed(self, stopping: Callable[[], bool]) -> None:
        """Raise `TerminatedError`, and wait no more, when this says so."""


@runtime_checkable
class NormalisedEngine(Protocol):
    """An engine that knows the climate that its weights were trained in."""

    @property
    def climate(self) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of every channel, ``(channel,)`` each."""


@runtime_checkable
class CutEngine(Protocol):
    """An engine whose last bits depend on how its kernels cut their work."""

    @property
    def tilings(self) -> Mapping[str, Sequence[int]]:
        """The numbers of a `model.attention.tilings.Tiling` by shape, as JSON holds them; none where none are used."""

    def use_tilings(self, tilings: Mapping[str, Sequence[int]]) -> None:
        """Cut as another run did; arguments as `tilings` gives them.

        Raises
        ------
        OptionError
            If that does not run here.
        """
