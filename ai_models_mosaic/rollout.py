"""The forecast: a generator over steps that owns all randomness."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np

from .arrays import Float32Array, WordArray
from .channels import CHANNELS
from .engines import Engine
from .errors import ForecastError, OptionError
from .state import ForecastStep, InitialState

MAXIMUM_SEED = 2**64 - 1
RELEASED_STRIDE_HOURS = 6


@dataclass(frozen=True)
class Ensemble:
    """Which members to run, and from which randomness.

    Parameters
    ----------
    seed : int
        0 … 2⁶⁴ − 1.
    members : tuple of int
        Distinct member numbers from 1, in the order in which they run.
    per_batch : int
        Members that go through the network together. With 1, a member's fields are bit-identical
        however it is run; with more, they are equal to rounding.

    Raises
    ------
    OptionError
        If a number is out of range or given twice.
    """

    seed: int
    members: tuple[int, ...]
    per_batch: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MAXIMUM_SEED:
            raise OptionError(f"expected a seed from 0 to 2**64 - 1, got {self.seed}")
        if not self.members or min(self.members) < 1 or len(set(self.members)) < len(self.members):
            raise OptionError(f"expected distinct member numbers from 1, got {self.members}")
        if self.per_batch < 1:
            raise OptionError(f"expected at least one member per batch, got {self.per_batch}")

    def batches(self) -> Iterator[tuple[int, ...]]:
        """The members in groups of `per_batch`."""
        for first in range(0, len(self.members), self.per_batch):
            yield self.members[first : first + self.per_batch]


def member_noise(seed: int, initial_time: datetime, member: int, step: int, width: int) -> Float32Array:
    """ε ~ N(0, I) of one member and step, the same whoever asks, and when, and in what order.

    The Philox counter generator is keyed by the seed and the initial time and counts at
    (step, member); its raw words are guaranteed stable by NumPy, which its normal variates are
    not, so these are made here (Box-Muller, in float64).
    Source: specification of the network, section 7; Salmon et al., SC 2011.

    Parameters
    ----------
    seed : int
        0 … 2⁶⁴ − 1.
    initial_time : datetime
        UTC, without zone.
    member, step : int
        From 1.
    width : int
        Width of ε.

    Returns
    -------
    float32 array (width,)
    """
    seconds = int(initial_time.replace(tzinfo=timezone.utc).timestamp()) % 2**64
    generator = np.random.Philox(key=_words(seed, seconds), counter=_words(0, step, member, 0))
    pairs = (width + 1) // 2
    raw = generator.random_raw(2 * pairs) >> np.uint64(11)
    radius = np.sqrt(-2.0 * np.log((raw[:pairs] + 1.0) * 2.0**-53))
    angle = 2.0 * np.pi * (raw[pairs:] * 2.0**-53)
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    return normal[:width].astype(np.float32)


def _words(*values: int) -> WordArray:
    return np.array(values, dtype=np.uint64)


def progress_features(initial_time: datetime, step: int, step_hours: int) -> tuple[float, float]:
    """Day and year progress of the newest input of a step, in days and years.

    The year's clock moves on by stride / 365.25 per step, where the stride counts 6 h: four times
    too fast. The released model was validated that way, so it stays; neither clock wraps at 1.
    Source: specification of the network, section 4.

    Parameters
    ----------
    initial_time : datetime
        UTC, without zone.
    step : int
        The step that is about to be made, from 1.
    step_hours : int
        Length of a step, h.
    """
    midnight = initial_time.replace(hour=0, minute=0, second=0, microsecond=0)
    new_year = midnight.replace(month=1, day=1)
    days_in_year = (new_year.replace(year=new_year.year + 1) - new_year).days
    stride = step_hours / RELEASED_STRIDE_HOURS
    day = (initial_time - midnight).total_seconds() / 86_400 + (step - 1) * stride / 4
    year = (midnight - new_year).days / days_in_year + (step - 1) * stride / 365.25
    return day, year


def forecast(
    engine: Engine, initial: InitialState, ensemble: Ensemble, step_hours: int, steps: int
) -> Iterator[ForecastStep]:
    """Advance all members step by step.

    Memory holds the history of every member and grows with neither steps nor output.

    Parameters
    ----------
    engine : Engine
        Makes one step of a batch of members.
    initial : InitialState
        Where every member starts.
    ensemble : Ensemble
        Members and seed.
    step_hours : int
        Length of a step, h.
    steps : int
        Steps to make.

    Yields
    ------
    ForecastStep
        One per step and batch of members, in that order.

    Raises
    ------
    ForecastError
        If a field becomes NaN or infinite.
    """
    history = len(initial.times)
    # Members share the initial arrays until they have replaced them by their own.
    states = {member: deque(initial.values, maxlen=history) for member in ensemble.members}
    for step in range(1, steps + 1):
        clock = progress_features(initial.initial_time, step, step_hours)
        for members in ensemble.batches():
            noise = [
                member_noise(ensemble.seed, initial.initial_time, member, step, engine.noise_width)
                for member in members
            ]
            values = engine.step(np.stack([np.stack(states[member]) for member in members]), clock, np.stack(noise))
            _refuse_non_finite(values, members, step, step * step_hours)
            # The next step starts from the very arrays that are handed out.
            values.setflags(write=False)
            for member, state in zip(members, values, strict=True):
                states[member].append(state)
            yield ForecastStep(step, step * step_hours, members, values)


def _refuse_non_finite(values: Float32Array, members: Sequence[int], step: int, hours: int) -> None:
    if np.isfinite(values).all():
        return
    bad = ~np.isfinite(values).all(axis=(1, 2))
    index, channel = (int(found) for found in np.argwhere(bad)[0])
    raise ForecastError(
        f"the forecast became non-finite: {CHANNELS[channel].name} of member {members[index]} at step {step} "
        f"(+{hours} h), and {int(bad.sum()) - 1} more fields. Half precision overflows first: try "
        "--precision float32; if that is what ran, check the input fields and the checkpoint"
    )
