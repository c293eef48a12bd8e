"""States of members in host memory, for engines that compute from NumPy arrays."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..arrays import Float32, Float32Array
from . import Arrival, Made

Histories = Float32[Float32Array, "member history lon lat channel"]
Noise = Float32[Float32Array, "member noise"]
States = Float32[Float32Array, "member lon lat channel"]
"""All in physical units but for the noise."""

Step = Callable[[Histories, tuple[float, float], Noise], States]
"""One step of a batch of members; see `StepsOnHost.step`."""


class HostStates:
    """Histories of members in NumPy arrays; see `engines.EnsembleStates`.

    Members share the arrays that they start from until they have replaced them by their own.

    Parameters
    ----------
    step : Step
        Makes one step of a batch.
    histories : mapping of int to float32 array (history, lon, lat, channel)
        Where every member starts, oldest state first.
    """

    ahead = 0

    def __init__(self, step: Step, histories: Mapping[int, Float32[Float32Array, "history lon lat channel"]]) -> None:
        self._step = step
        self._states = {member: deque(history, maxlen=len(history)) for member, history in histories.items()}

    def advance(self, members: Sequence[int], progress: tuple[float, float], noise: Noise) -> Arrival:
        """See `EnsembleStates.advance`; the step is made at once."""
        histories = np.stack([np.stack(self._states[member]) for member in members])
        values = self._step(histories, progress, noise)
        # The next step starts from the very arrays that are handed out.
        values.setflags(write=False)
        self.restore(members, values)
        made = Made(values, np.isfinite(values).all(axis=(1, 2)))
        return lambda: made

    def restore(self, members: Sequence[int], values: States) -> None:
        """See `EnsembleStates.restore`."""
        for member, state in zip(members, values, strict=True):
            self._states[member].append(state)


class StepsOnHost:
    """An engine whose members' states are in host memory: it brings `step`, and gets `begin`."""

    def step(self, history: Histories, progress: tuple[float, float], noise: Noise) -> States:
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
        raise NotImplementedError

    def begin(self, histories: Mapping[int, Float32[Float32Array, "history lon lat channel"]]) -> HostStates:
        """See `engines.Engine.begin`."""
        return HostStates(self.step, histories)
