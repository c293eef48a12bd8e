"""States of members as tensors, where the network computes: on the CPU and on a GPU by the same lines.

What a step made is copied to the host once, for the output and for what a run keeps to go on from. The
histories of as many members as there is room for beside a step stay on the device; those of the others are
read from that copy again, a batch at a time and beside the computation.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..arrays import Bool, Float32, Float32Array
from . import Arrival, Made
from .batching import Halving
from .copies import Copies, StoredState, host_tensor
from .states import Noise
from .tensor_vitals import TensorProbe
from .vitals import Probe

LOG = logging.getLogger(__name__)

Histories = Float32[Tensor, "member history lon lat channel"]
States = Float32[Tensor, "member lon lat channel"]
"""Physical units, on the device."""

History = tuple[StoredState, ...]


class DeviceStep(Protocol):
    """What makes the steps on a device."""

    @property
    def shares_starts(self) -> bool:
        """Whether `advance` takes what `start` gives."""

    @property
    def halving(self) -> Halving:
        """How many members are computed together."""

    def room(self, members: int, state_bytes: int, history: int) -> int:
        """Members whose histories, of so many states of so many bytes, have room beside a step of so many."""

    def start(self, states: Histories, clock: Tensor) -> Tensor:
        """What comes before the first noise: the same for members of one history."""

    def advance(self, states: Histories, clock: Tensor, noise: Tensor, started: Tensor | None) -> States:
        """The next states; the others are used up, and so is `started`, which is as of `start` or None."""


@dataclass(frozen=True)
class Start:
    """What members of one history have in common: see `MosaicNetwork.start`.

    Parameters
    ----------
    history : tuple of StoredState
        Theirs.
    stream : Tensor (1, pixel, width)
        The network's stream before the first noise.
    """

    history: History
    stream: Tensor


class TensorStates:
    """Histories of members as tensors; see `engines.EnsembleStates`.

    Members share the states that they start from until they have replaced them by their own.

    Parameters
    ----------
    step : DeviceStep
        Makes the steps.
    histories : mapping of int to float32 array (history, lon, lat, channel)
        Where every member starts, oldest state first.
    copies : Copies
        Between the memory of the host and that of the device.
    """

    def __init__(
        self,
        step: DeviceStep,
        histories: Mapping[int, Float32[Float32Array, "history lon lat channel"]],
        copies: Copies,
    ) -> None:
        self._step, self._copies = step, copies
        distinct = {id(history): history for history in histories.values()}
        stored = {key: [StoredState(state) for state in host_tensor(history)] for key, history in distinct.items()}
        self._histories = {
            member: deque(stored[id(history)], maxlen=len(history)) for member, history in histories.items()
        }
        for states in self._histories.values():
            for state in states:
                state.users += 1
        self._resident: frozenset[int] | None = None
        self._start: Start | None = None
        self._observed: Probe | None = None
        self._probe: TensorProbe | None = None

    @property
    def ahead(self) -> int:
        """See `EnsembleStates.ahead`."""
        return self._copies.ahead

    def advance(self, members: Sequence[int], progress: tuple[float, float], noise: Noise) -> Arrival:
        """See `EnsembleStates.advance`."""
        before = [tuple(self._histories[member]) for member in members]
        with torch.inference_mode():
            clock, drawn = self._copies.small(np.array(progress, dtype=np.float32)), self._copies.small(noise)
            parts = self._step.halving(
                len(members),
                lambda part: self._part(members[part], before[part], clock, drawn[part]),
                self._spill,
            )
            made, finite = [part[0] for part in parts], [part[1] for part in parts]
            vitals = [part[3] for part in parts if part[3] is not None]
            stored, arrival = self._copies.to_host(made, finite, self._most_batches(len(members)), vitals)
        for member, state, on_device in zip(members, stored, (one for part in made for one in part), strict=True):
            if member in self._residents(len(members)):
                state.device = on_device
            self._take(member, state)
        # Used by streams in which they were not allocated: until all is done, their memory may not be given away.
        in_use = [parts, before]

        def arrived() -> Made:
            taken = arrival()
            in_use.clear()
            return taken

        return arrived

    def restore(self, members: Sequence[int], values: Float32[Float32Array, "member lon lat channel"]) -> None:
        """See `EnsembleStates.restore`."""
        for member, state in zip(members, host_tensor(values), strict=True):
            self._take(member, StoredState(state))

    def observe(self, probe: Probe) -> None:
        """See `ObservedStates.observe`; what is in host memory is measured there, by who gets it."""
        self._observed = probe if self._copies.separate else None

    def heed(self, stopping: Callable[[], bool]) -> None:
        """See `HeedingStates.heed`."""
        self._copies.heed(stopping)

    def _part(
        self, members: Sequence[int], histories: Sequence[History], clock: Tensor, noise: Tensor
    ) -> tuple[States, Bool[Tensor, "member channel"], list[Tensor], Tensor | None]:
        """A step of members that are computed together: what is made, what is finite, what was read, vital signs."""
        states = [state for history in histories for state in history]
        read = self._copies.to_device(states)
        residents = self._residents(len(members))
        for member, own in zip(members, range(0, len(states), len(histories[0])), strict=True):
            if member in residents:
                for at in range(own, own + len(histories[0])):
                    states[at].device = read[at]
        stacked = torch.stack(read).unflatten(0, (len(members), -1))
        made = self._step.advance(stacked, clock, noise, self._started(histories, stacked, clock))
        return made, self._copies.finite(made), read, self._measured(made)

    def _measured(self, made: States) -> Tensor | None:
        if self._observed is None:
            return None
        if self._probe is None:
            self._probe = TensorProbe(self._observed, made.device)
        return self._probe(made)

    def _started(self, histories: Sequence[History], stacked: Histories, clock: Tensor) -> Tensor | None:
        """The start of members that all have one history, computed for one of them and kept for others; or None."""
        first = histories[0]
        if not self._step.shares_starts or any(history != first for history in histories):
            return None
        if self._start is None or self._start.history != first:
            # Members part with their newest state: it is shared if all of a history is.
            if first[-1].users == 1:
                return None
            self._start = Start(first, self._step.start(stacked[:1], clock))
        # The network uses up what it is given.
        return self._start.stream.repeat(len(histories), 1, 1)

    def _take(self, member: int, state: StoredState) -> None:
        """Make a state the newest of a member."""
        history = self._histories[member]
        oldest = history[0]
        history.append(state)
        state.users, oldest.users = 1, oldest.users - 1
        if self._start is not None and oldest is self._start.history[0] and not oldest.users:
            self._start = None

    def _residents(self, members: int) -> frozenset[int]:
        """Members whose histories stay on the device, beside steps of so many."""
        if self._resident is None and not self._copies.separate:
            self._resident = frozenset()
        if self._resident is None:
            history = next(iter(self._histories.values()))
            room = self._step.room(members, history[0].host.nbytes, len(history))
            self._resident = frozenset(list(self._histories)[:room])
            if room < len(self._histories):
                LOG.info(
                    "The states of %d of %d members stay on the device; the others are read from the host's memory",
                    room,
                    len(self._histories),
                )
        return self._resident

    def _spill(self) -> bool:
        """Keep all states in the host's memory alone from now on; whether that made room on the device."""
        on_device = [state for history in self._histories.values() for state in history if state.device is not None]
        if not on_device:
            return False
        self._resident, self._start = frozenset(), None
        for state in on_device:
            state.device = None
        LOG.warning(
            "The memory of the device does not suffice for the states of all members beside a step: they stay in the "
            "host's memory from now on"
        )
        return True

    def _most_batches(self, members: int) -> int:
        """Batches of so many members whose states may be in the host's memory: histories, and what replaces them."""
        history = next(iter(self._histories.values()))
        return (len(history) + 1) * -(-len(self._histories) // members)
