"""The forecast: a generator over steps that owns all randomness."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
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

MAXIMUM_NOISE_FACTOR = 10.0
"""Beyond it, a typing error is likelier than a wish."""


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
    noise_factor : float
        What ε is multiplied with; 0 turns the perturbations of the model off.
    antithetic : bool
        Every even member has the negated ε of the odd one before it.

    Raises
    ------
    OptionError
        If a number is out of range or given twice.
    """

    seed: int
    members: tuple[int, ...]
    per_batch: int = 1
    noise_factor: float = 1.0
    antithetic: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MAXIMUM_SEED:
            raise OptionError(f"expected a seed from 0 to 2**64 - 1, got {self.seed}")
        if not self.members or min(self.members) < 1 or len(set(self.members)) < len(self.members):
            raise OptionError(f"expected distinct member numbers from 1, got {self.members}")
        if self.per_batch < 1:
            raise OptionError(f"expected at least one member per batch, got {self.per_batch}")
        if not 0 <= self.noise_factor <= MAXIMUM_NOISE_FACTOR:
            raise OptionError(f"expected a noise factor from 0 to {MAXIMUM_NOISE_FACTOR:g}, got {self.noise_factor:g}")

    def batches(self) -> Iterator[tuple[int, ...]]:
        """The members in groups of `per_batch`."""
        for first in range(0, len(self.members), self.per_batch):
            yield self.members[first : first + self.per_batch]

    def noise(self, initial_time: datetime, member: int, step: int, width: int) -> Float32Array:
        """ε of one member and step as the network gets it; arguments as of `member_noise`.

        Returns
        -------
        float32 array (width,)
        """
        if self.noise_factor == 0:
            return np.zeros(width, dtype=np.float32)
        mirrored = self.antithetic and member % 2 == 0
        drawn = member_noise(self.seed, initial_time, member - 1 if mirrored else member, step, width)
        return drawn * np.float32(-self.noise_factor if mirrored else self.noise_factor)


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


class Rollout:
    """The histories of some members, advanced batch by batch.

    Memory holds the history of every member that it was given, and grows with neither steps nor
    output. Members share the arrays that they start from until they have replaced them by their own.

    Parameters
    ----------
    engine : Engine
        Makes one step of a batch of members.
    starts : mapping of int to InitialState
        Where every member starts; all at the same initial time.
    ensemble : Ensemble
        Seed and noise.
    step_hours : int
        Length of a step, h.
    """

    def __init__(self, engine: Engine, starts: Mapping[int, InitialState], ensemble: Ensemble, step_hours: int) -> None:
        first = next(iter(starts.values()))
        self._engine, self._ensemble, self._step_hours = engine, ensemble, step_hours
        self._initial_time = first.initial_time
        self._states = {member: deque(state.values, maxlen=len(first.times)) for member, state in starts.items()}

    def restore(self, forecast: ForecastStep) -> None:
        """Take a step that was made before as the newest state of its members."""
        for member, state in zip(forecast.members, forecast.values, strict=True):
            self._states[member].append(state)

    def advance(self, members: tuple[int, ...], step: int) -> ForecastStep:
        """Make one step of a batch of members.

        Parameters
        ----------
        members : tuple of int
            All of them at step `step` - 1.
        step : int
            From 1.

        Raises
        ------
        ForecastError
            If a field becomes NaN or infinite.
        """
        clock = progress_features(self._initial_time, step, self._step_hours)
        width = self._engine.noise_width
        noise = np.stack([self._ensemble.noise(self._initial_time, member, step, width) for member in members])
        histories = np.stack([np.stack(self._states[member]) for member in members])
        values = self._engine.step(histories, clock, noise)
        _refuse_non_finite(values, members, step, step * self._step_hours)
        # The next step starts from the very arrays that are handed out.
        values.setflags(write=False)
        made = ForecastStep(step, step * self._step_hours, members, values)
        self.restore(made)
        return made


def forecast(
    engine: Engine, initial: InitialState, ensemble: Ensemble, step_hours: int, steps: int
) -> Iterator[ForecastStep]:
    """Advance all members step by step, from one initial state.

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
    rollout = Rollout(engine, dict.fromkeys(ensemble.members, initial), ensemble, step_hours)
    for step in range(1, steps + 1):
        for members in ensemble.batches():
            yield rollout.advance(members, step)


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
