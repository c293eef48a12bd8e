"""The forecast: one generator over steps, which owns all randomness."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial

import numpy as np

from ..arrays import BoolArray, Float32Array, WordArray
from ..channels import CHANNELS
from ..engines import Arrival, Engine, HeedingStates, ObservedStates
from ..engines.vitals import Probe
from ..errors import ForecastError, MosaicError, OptionError
from ..options.crossing import Crossing
from ..options.lagging import Lagging
from ..state import ForecastStep, InitialState

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
    factors_by_step : tuple of float
        What ε is multiplied with besides, from the first step on; those after the last have that of the last.
    crossing : Crossing or None
        Which members share ε, where they are starts times draws of noise.
    lagging : Lagging or None
        How long before the run members started, where that was at several times.

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
    factors_by_step: tuple[float, ...] = ()
    crossing: Crossing | None = None
    lagging: Lagging | None = None

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
        """The members in groups of `per_batch`, all of which have the same clock; in the order of their first."""
        alike: dict[int, list[int]] = {}
        for member in self.members:
            alike.setdefault(0 if self.lagging is None else self.lagging.of(member), []).append(member)
        groups = [
            tuple(members[first : first + self.per_batch])
            for members in alike.values()
            for first in range(0, len(members), self.per_batch)
        ]
        places = {member: place for place, member in enumerate(self.members)}
        yield from sorted(groups, key=lambda group: places[group[0]])

    def origin(self, initial_time: datetime, member: int, step: int, step_hours: int) -> tuple[datetime, int]:
        """When a member's own forecast began, and which of its steps one of the run is.

        Parameters
        ----------
        initial_time : datetime
            Of the run, UTC without zone.
        member, step : int
            From 1.
        step_hours : int
            Length of a step, h.
        """
        before = 0 if self.lagging is None else self.lagging.of(member)
        return initial_time - timedelta(hours=before), step + before // step_hours

    def noise(self, initial_time: datetime, member: int, step: int, width: int) -> Float32Array:
        """ε of one member and step as the network gets it; arguments as of `member_noise`.

        Returns
        -------
        float32 array (width,)
        """
        factor = self.noise_factor * (self.factors_by_step[:step][-1] if self.factors_by_step else 1.0)
        if factor == 0:
            return np.zeros(width, dtype=np.float32)
        if self.crossing is not None:
            member = self.crossing.noise_of(member)
        mirrored = self.antithetic and member % 2 == 0
        drawn = member_noise(self.seed, initial_time, member - 1 if mirrored else member, step, width)
        return drawn * np.float32(-factor if mirrored else factor)


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


def rollout(
    engine: Engine,
    starts: Mapping[int, InitialState],
    ensemble: Ensemble,
    step_hours: int,
    steps: int,
    *,
    batches: Sequence[tuple[int, ...]] | None = None,
    restored: Iterable[ForecastStep] = (),
    done: int = 0,
    lend: bool = False,
    probe: Probe | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[ForecastStep]:
    """Every step of every batch of members, from step 0 on: step by step, and in a step batch by batch.

    Nothing is computed before it is asked for, except by a device: that begins the next batch before what it made of
    one is handed over. Memory grows with neither steps nor output.

    Parameters
    ----------
    engine : Engine
        Keeps the states, and makes the steps.
    starts : mapping of int to InitialState
        Where every member starts; all at the same initial time.
    ensemble : Ensemble
        Members and noise.
    step_hours : int
        Length of a step, h.
    steps : int
        Steps to make after step 0.
    batches : sequence of tuple of int, or None
        Members that go through the network together; None for all of the ensemble.
    restored : iterable of ForecastStep
        What was made before and every history still needs, steps ascending.
    done : int
        Steps of batches that were made before, in the order of this generator; they are not yielded.
    lend : bool
        Whether arrays may be in buffers that a device needs again, see `engines.Made`. Who asks for that lets go of
        all but the newest of every history; others may keep what they get.
    probe : Probe or None
        What to measure of every step but the first, where it is made.
    stopping : callable
        Says whether to give up waiting for buffers that were lent.

    Yields
    ------
    ForecastStep

    Raises
    ------
    ForecastError
        If a field becomes NaN or infinite.
    TerminatedError
        If it is to stop, and all buffers are still lent.
    """
    batches = tuple(ensemble.batches()) if batches is None else batches
    if not batches:
        return
    initial_time = starts[batches[0][0]].initial_time
    states = engine.begin({member: starts[member].values for batch in batches for member in batch})
    if probe is not None and isinstance(states, ObservedStates):
        states.observe(probe)
    if isinstance(states, HeedingStates):
        states.heed(stopping)
    for made in restored:
        states.restore(made.members, made.values)
    # Else they would be kept to the end of the run.
    del restored

    def begun(step: int, members: tuple[int, ...]) -> Callable[[], ForecastStep]:
        if step == 0:
            return partial(initial_step, starts, members)
        began, own_step = ensemble.origin(initial_time, members[0], step, step_hours)
        clock = progress_features(began, own_step, step_hours)
        noise = np.stack([ensemble.noise(began, member, own_step, engine.noise_width) for member in members])
        arrival = states.advance(members, clock, noise)
        return partial(_arrived, arrival, starts, step, step_hours, members, lend=lend, probe=probe)

    units = ((step, members) for step in range(steps + 1) for members in batches[max(0, done - step * len(batches)) :])
    yield from _in_order(units, begun, states.ahead)


def _in_order(
    units: Iterable[tuple[int, tuple[int, ...]]],
    begin: Callable[[int, tuple[int, ...]], Callable[[], ForecastStep]],
    ahead: int,
) -> Iterator[ForecastStep]:
    """What is begun in order, handed over in order, with so many steps begun beyond; step 0 needs none."""
    waiting: deque[tuple[int, Callable[[], ForecastStep]]] = deque()
    failure: MosaicError | None = None
    for step, members in units:
        try:
            waiting.append((step, begin(step, members)))
        except MosaicError as error:
            # What was begun before is whole.
            failure = error
            break
        while waiting and sum(later > 0 for later, _ in waiting) - (waiting[0][0] > 0) >= ahead:
            yield waiting.popleft()[1]()
    while waiting:
        yield waiting.popleft()[1]()
    if failure is not None:
        raise failure


def _arrived(
    arrival: Arrival,
    starts: Mapping[int, InitialState],
    step: int,
    step_hours: int,
    members: tuple[int, ...],
    *,
    lend: bool,
    probe: Probe | None,
) -> ForecastStep:
    made = arrival()
    _refuse_non_finite(made.finite, members, step, step * step_hours)
    vitals = made.vitals
    if probe is not None and vitals is None:
        vitals = probe.measure(made.values)
    values = made.values.copy() if made.lent and not lend else made.values
    return later_step(starts, step, step_hours, members, values, vitals)


def initial_step(starts: Mapping[int, InitialState], members: tuple[int, ...]) -> ForecastStep:
    """Step 0 of some members: the newest of the states that they start from."""
    return later_step(starts, 0, 0, members, np.stack([starts[member].values[-1] for member in members]))


def later_step(
    starts: Mapping[int, InitialState],
    step: int,
    step_hours: int,
    members: tuple[int, ...],
    values: Float32Array,
    vitals: Float32Array | None = None,
) -> ForecastStep:
    """What was made of some members at a step, with its grid and times."""
    start = starts[members[0]]
    return ForecastStep(step, step * step_hours, members, values, start.grid, start.initial_time, vitals)


def _refuse_non_finite(finite: BoolArray, members: Sequence[int], step: int, hours: int) -> None:
    if finite.all():
        return
    index, channel = (int(place) for place in np.argwhere(~finite)[0])
    raise ForecastError(
        f"the forecast became non-finite: {CHANNELS[channel].name} of member {members[index]} at step {step} "
        f"(+{hours} h), and {int((~finite).sum()) - 1} more fields. Half precision overflows first: try "
        "--precision float32; if that is what ran, check the input fields and the checkpoint"
    )
