import re
import subprocess
import sys
import weakref
from datetime import datetime, timedelta

import numpy as np
import pytest

from ai_models_mosaic.engines.states import StepsOnHost
from ai_models_mosaic.errors import ForecastError, OptionError
from ai_models_mosaic.forecast.rollout import Ensemble, member_noise, progress_features, rollout
from ai_models_mosaic.geometry.grid import LatLonGrid
from ai_models_mosaic.state import InitialState

GRID = LatLonGrid((0.0, 90.0, 180.0, 270.0), (-90.0, 0.0, 90.0))
START = datetime(2020, 2, 29, 18)
# Tells the points and channels of a field apart.
PATTERN = np.arange(4 * 3 * 2, dtype=np.float32).reshape(4, 3, 2) / 1024


class ToyEngine(StepsOnHost):
    """Remembers what it is given; the state that it makes in its n-th call for its i-th member is 10 n + i."""

    noise_width = 4
    description = "toy"

    def __init__(self):
        self.histories, self.clocks, self.noises = [], [], []

    def step(self, history, progress, noise):
        self.histories.append(history.copy())
        self.clocks.append(progress)
        self.noises.append(noise.copy())
        made = 10 * len(self.histories) + np.arange(len(noise), dtype=np.float32)
        return made[:, None, None, None] + PATTERN

    def memory_bytes(self, members):
        return members

    def given(self):
        """The histories as the one number that every state stands for: calls of members of states."""
        for history in self.histories:
            np.testing.assert_array_equal(history - history[..., :1, :1, :1], np.broadcast_to(PATTERN, history.shape))
        return [history[..., 0, 0, 0].astype(int).tolist() for history in self.histories]


class NoisyEngine(ToyEngine):
    """A state is the mean of its history, plus its noise: members drift apart as those of a model do."""

    def step(self, history, progress, noise):
        return history.mean(axis=1) + noise[:, :2][:, None, None, :] + np.float32(progress[0])


def initial_state(history=2, step_hours=24, start=START):
    """States 1, 2, … from the oldest to the newest."""
    times = tuple(start - timedelta(hours=step_hours * back) for back in reversed(range(history)))
    return InitialState(GRID, times, np.stack([PATTERN + 1 + index for index in range(history)]))


def forecast(engine, initial, ensemble, step_hours, steps):
    """The steps that the engine makes: all but step 0."""
    starts = dict.fromkeys(ensemble.members, initial)
    return (made for made in rollout(engine, starts, ensemble, step_hours, steps) if made.step > 0)


def fields_of(engine, members, per_batch=1, seed=1, steps=3, start=START):
    """Fields of a forecast by (member, step)."""
    ensemble = Ensemble(seed, members, per_batch)
    return {
        (member, step.step): values.copy()
        for step in forecast(engine, initial_state(start=start), ensemble, 24, steps)
        for member, values in zip(step.members, step.values, strict=True)
    }


# The order of inputs and outputs.


def test_every_step_sees_the_newest_states_oldest_first_and_its_own_member_only():
    engine = ToyEngine()
    steps = list(forecast(engine, initial_state(), Ensemble(0, (7, 2)), 24, 4))
    assert engine.given() == [
        [[1, 2]],  # step 1, member 7, makes 10
        [[1, 2]],  # step 1, member 2, makes 20
        [[2, 10]],
        [[2, 20]],
        [[10, 30]],
        [[20, 40]],
        [[30, 50]],
        [[40, 60]],
    ]
    assert [int(step.values[0, 0, 0, 0]) for step in steps] == [10, 20, 30, 40, 50, 60, 70, 80]


def test_a_history_of_four_states_loses_one_and_gains_one_per_step_of_a_batch():
    engine = ToyEngine()
    list(forecast(engine, initial_state(4, 6), Ensemble(0, (1, 2, 3), per_batch=2), 6, 3))
    assert engine.given() == [
        [[1, 2, 3, 4], [1, 2, 3, 4]],  # members 1 and 2 become 10 and 11
        [[1, 2, 3, 4]],  # member 3 becomes 20
        [[2, 3, 4, 10], [2, 3, 4, 11]],
        [[2, 3, 4, 20]],
        [[3, 4, 10, 30], [3, 4, 11, 31]],
        [[3, 4, 20, 40]],
    ]


@pytest.mark.parametrize("step_hours", [24, 6])
def test_steps_are_yielded_in_order_of_step_and_batch_with_their_lead_times(step_hours):
    initial = initial_state(step_hours=step_hours)
    steps = forecast(ToyEngine(), initial, Ensemble(0, (10, 3, 5, 1, 8), per_batch=2), step_hours, 2)
    assert [(step.step, step.lead_time_hours, step.members, step.values.shape) for step in steps] == [
        (1, step_hours, (10, 3), (2, 4, 3, 2)),
        (1, step_hours, (5, 1), (2, 4, 3, 2)),
        (1, step_hours, (8,), (1, 4, 3, 2)),
        (2, 2 * step_hours, (10, 3), (2, 4, 3, 2)),
        (2, 2 * step_hours, (5, 1), (2, 4, 3, 2)),
        (2, 2 * step_hours, (8,), (1, 4, 3, 2)),
    ]


def test_a_step_is_made_when_it_is_asked_for_and_none_without_steps():
    engine = ToyEngine()
    steps = forecast(engine, initial_state(), Ensemble(0, (1, 2)), 24, 5)
    assert len(engine.clocks) == 0
    next(steps)
    assert len(engine.clocks) == 1
    assert list(forecast(ToyEngine(), initial_state(), Ensemble(0, (1,)), 24, 0)) == []


def test_every_member_gets_its_own_noise_at_every_step():
    engine = ToyEngine()
    list(forecast(engine, initial_state(), Ensemble(3, (5, 2, 9), per_batch=2), 24, 2))
    expected = [[(5, 1), (2, 1)], [(9, 1)], [(5, 2), (2, 2)], [(9, 2)]]
    for noise, batch in zip(engine.noises, expected, strict=True):
        assert noise.dtype == np.float32
        np.testing.assert_array_equal(noise, [member_noise(3, START, *who, width=4) for who in batch])


# The clock.


@pytest.mark.parametrize(
    ("start", "step_hours", "clocks"),
    [
        # 18 UTC on day 60 of a leap year.
        (START, 24, [(0.75 + n, 59 / 366 + n * 4 / 365.25) for n in range(4)]),
        (START, 6, [(0.75 + n / 4, 59 / 366 + n / 365.25) for n in range(4)]),
        # The last day of the year: neither clock wraps at 1.
        (datetime(2021, 12, 31), 24, [(0, 364 / 365), (1, 364 / 365 + 4 / 365.25), (2, 364 / 365 + 8 / 365.25)]),
        (datetime(2024, 12, 31, 12), 6, [(0.5, 365 / 366), (0.75, 365 / 366 + 1 / 365.25)]),
    ],
)
def test_the_clock_of_every_step_is_that_of_the_newest_state_with_the_year_four_times_too_fast(
    start, step_hours, clocks
):
    engine = ToyEngine()
    list(forecast(engine, initial_state(2, step_hours, start), Ensemble(0, (1,)), step_hours, len(clocks)))
    np.testing.assert_allclose(engine.clocks, clocks, rtol=0, atol=1e-12)


@pytest.mark.parametrize("year", [1900, 1999, 2000, 2023, 2024])
@pytest.mark.parametrize(("month", "day"), [(1, 1), (2, 28), (3, 1), (12, 31)])
@pytest.mark.parametrize("hour", [0, 6, 18])
def test_the_year_begins_at_zero_has_as_many_days_as_the_calendar_and_no_hours(year, month, day, hour):
    time = datetime(year, month, day, hour)
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    of_day, of_year = progress_features(time, 1, 24)
    assert of_day == hour / 24
    assert of_year == pytest.approx((int(time.strftime("%j")) - 1) / (366 if leap else 365), abs=1e-15)
    assert 0 <= of_year < 1


def test_after_a_year_of_steps_the_clocks_have_counted_on():
    day, year = progress_features(datetime(2021, 1, 1), 366, 24)
    assert (day, year) == (365, pytest.approx(4 * 365 / 365.25))


# The members.


@pytest.mark.parametrize(
    ("seed", "members", "per_batch", "message"),
    [
        (-1, (1,), 1, "expected a seed from 0 to 2**64 - 1, got -1"),
        (2**64, (1,), 1, "expected a seed from 0 to 2**64 - 1, got 18446744073709551616"),
        (0, (), 1, "expected distinct member numbers from 1, got ()"),
        (0, (1, 0), 1, "expected distinct member numbers from 1, got (1, 0)"),
        (0, (3, 1, 3), 1, "expected distinct member numbers from 1, got (3, 1, 3)"),
        (0, (1,), 0, "expected at least one member per batch, got 0"),
    ],
)
def test_an_ensemble_that_makes_no_sense_is_refused(seed, members, per_batch, message):
    with pytest.raises(OptionError, match=f"^{re.escape(message)}$"):
        Ensemble(seed, members, per_batch)


def test_batches_keep_the_members_in_the_order_given():
    members = (300, 2, 17, 1, 64, 9, 128)  # in another order in any set
    assert list(set(members)) != list(members)
    assert list(Ensemble(2**64 - 1, members, 3).batches()) == [(300, 2, 17), (1, 64, 9), (128,)]
    assert list(Ensemble(0, members, 100).batches()) == [members]


@pytest.mark.parametrize("per_batch", [1, 2, 7])
@pytest.mark.parametrize("members", [(1, 2, 3, 4, 5), (5, 3, 1), (3,)])
def test_a_member_is_the_same_in_whatever_ensemble_order_and_batch_it_runs(members, per_batch):
    alone = {key: fields for member in members for key, fields in fields_of(NoisyEngine(), (member,)).items()}
    together = fields_of(NoisyEngine(), members, per_batch)
    assert together.keys() == alone.keys()
    for key, fields in alone.items():
        np.testing.assert_array_equal(together[key], fields)


def test_two_forecasts_in_one_process_do_not_influence_each_other():
    first, second = initial_state(), initial_state(start=START + timedelta(days=1))
    engine = NoisyEngine()
    mine = forecast(engine, first, Ensemble(1, (1, 2)), 24, 3)
    other = forecast(engine, second, Ensemble(1, (1, 2)), 24, 3)
    taken_in_turns = [(one.values.copy(), two.values.copy()) for one, two in zip(mine, other, strict=True)]
    alone = fields_of(NoisyEngine(), (1, 2))
    other_alone = fields_of(NoisyEngine(), (1, 2), start=second.initial_time)
    for (one, two), key in zip(taken_in_turns, [(m, s) for s in (1, 2, 3) for m in (1, 2)], strict=True):
        np.testing.assert_array_equal(one[0], alone[key])
        np.testing.assert_array_equal(two[0], other_alone[key])
    assert not np.array_equal(alone[1, 1], other_alone[1, 1])


def test_the_initial_state_is_left_as_it_was():
    initial = initial_state()
    before = initial.values.copy()
    list(forecast(NoisyEngine(), initial, Ensemble(1, (1, 2), per_batch=2), 24, 4))
    np.testing.assert_array_equal(initial.values, before)


@pytest.mark.parametrize("per_batch", [1, 2, 4])
@pytest.mark.parametrize("history", [2, 4])
def test_no_more_states_are_alive_than_the_histories_of_all_members(history, per_batch):
    class CountingEngine(ToyEngine):
        def __init__(self):
            self.made, self.inputs, self.alive = [], [], []

        def step(self, states, progress, noise):
            assert not any(reference() is not None for reference in self.inputs), "an earlier input is still held"
            self.alive.append(sum(size for reference, size in self.made if reference() is not None))
            self.inputs.append(weakref.ref(states))
            values = np.zeros((len(noise), 4, 3, 2), dtype=np.float32)
            self.made.append((weakref.ref(values), len(noise)))
            return values

    engine = CountingEngine()
    for step in forecast(engine, initial_state(history), Ensemble(0, (4, 1, 3), per_batch), 24, 12):
        del step
    assert max(engine.alive) == 3 * history
    assert engine.alive[-1] == 3 * history


# Forecasts that break.


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_field_that_becomes_non_finite_stops_the_forecast_and_is_named(value):
    class BreakingEngine(ToyEngine):
        def step(self, history, progress, noise):
            values = super().step(history, progress, noise)
            if len(self.clocks) == 4:  # step 2, second batch
                values[1, 2, 1, 1] = value
            return values

    steps = forecast(BreakingEngine(), initial_state(2, 6), Ensemble(0, (9, 4, 8, 7), per_batch=2), 6, 5)
    assert [next(steps).members for _ in range(3)] == [(9, 4), (8, 7), (9, 4)]
    with pytest.raises(ForecastError) as caught:
        next(steps)
    assert str(caught.value) == (
        "the forecast became non-finite: 10m_u_component_of_wind of member 7 at step 2 (+12 h), and 0 more fields. "
        "Half precision overflows first: try --precision float32; if that is what ran, check the input fields and "
        "the checkpoint"
    )


def test_all_other_non_finite_fields_are_counted():
    class BrokenEngine(ToyEngine):
        def step(self, history, progress, noise):
            values = super().step(history, progress, noise)
            values[0, :, :, 1] = np.nan
            values[1] = np.inf
            return values

    with pytest.raises(ForecastError, match=re.escape("10m_u_component_of_wind of member 2 at step 1 (+24 h), and 2 ")):
        next(forecast(BrokenEngine(), initial_state(), Ensemble(0, (2, 3), per_batch=2), 24, 1))


# The noise.


def test_the_noise_of_a_member_and_step_never_changes():
    # Changing these numbers changes every forecast that users have made with a seed.
    noise = member_noise(7, START, member=3, step=5, width=32)
    assert (noise.shape, noise.dtype) == ((32,), np.float32)
    expected = [-1.409820, 0.812068, 0.580497, -0.983331, 0.385567, 1.460295]
    np.testing.assert_allclose(noise[:6], expected, rtol=0, atol=6e-7)
    np.testing.assert_allclose(noise[16:19], [-0.178256, -0.873955, 0.640619], rtol=0, atol=6e-7)


def test_the_largest_seed_and_times_before_1970_have_noise_of_their_own():
    noise = member_noise(2**64 - 1, datetime(1969, 7, 20, 12), member=3, step=2, width=4)
    np.testing.assert_allclose(noise, [1.635891, -1.033695, -0.146431, 0.743131], rtol=0, atol=6e-7)


def test_the_noise_is_the_same_in_another_process():
    program = (
        "from datetime import datetime; from ai_models_mosaic.forecast.rollout import member_noise\n"
        "print(member_noise(11, datetime(2026, 5, 12, 6), member=40, step=60, width=32).tobytes().hex())"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == member_noise(11, datetime(2026, 5, 12, 6), 40, 60, 32).tobytes().hex()


def test_no_two_seeds_times_members_and_steps_share_their_noise():
    draws = [
        member_noise(seed, START + timedelta(hours=hours), member, step, 2).tobytes()
        for seed in (0, 1, 2**63, 2**64 - 1)
        for hours in (-6, 0, 6)
        for member in (1, 2, 3, 10, 50, 255, 256, 1000)
        for step in range(1, 41)
    ]
    assert len(set(draws)) == len(draws) == 3840


@pytest.mark.parametrize(
    "other",
    [(1, START, 1, 1), (0, START + timedelta(hours=6), 1, 1), (0, START, 2, 1), (0, START, 1, 2)],
    ids=["seed", "time", "member", "step"],
)
def test_noise_that_differs_in_one_thing_is_uncorrelated(other):
    width = 10_000
    correlation = np.corrcoef(member_noise(0, START, 1, 1, width), member_noise(*other, width))[0, 1]
    assert abs(correlation) < 4 / np.sqrt(width)


def test_noise_is_standard_normal():
    noise = np.concatenate(
        [member_noise(0, START, member, step, 32) for member in range(1, 51) for step in range(1, 64)]
    )
    noise = noise.astype(np.float64)
    assert noise.size > 100_000
    error = 1 / np.sqrt(noise.size)  # four standard errors of each
    assert abs(noise.mean()) < 4 * error
    assert abs(noise.var() - 1) < 4 * np.sqrt(2) * error
    assert abs((noise**3).mean()) < 4 * np.sqrt(15) * error
    assert abs((noise**4).mean() - 3) < 4 * np.sqrt(96) * error
    # Within one standard deviation, and beyond three.
    assert np.mean(np.abs(noise) < 1) == pytest.approx(0.682689, abs=2 * error)
    assert np.mean(np.abs(noise) > 3) == pytest.approx(0.0026998, abs=4 * np.sqrt(0.0027) * error)


def test_the_components_of_a_draw_are_independent():
    draws = np.stack([member_noise(0, START, member, 1, 8) for member in range(1, 4001)])
    for power in (1, 2):
        correlation = np.corrcoef((draws**power).T) - np.eye(8)
        assert np.abs(correlation).max() < 5 / np.sqrt(len(draws))


@pytest.mark.parametrize("width", [2, 8, 32])
def test_an_odd_width_drops_the_last_component(width):
    whole = member_noise(0, START, 1, 1, width)
    np.testing.assert_array_equal(member_noise(0, START, 1, 1, width - 1), whole[:-1])


# The helpers of the ensemble maker.


def test_antithetic_members_have_opposite_noise_and_odd_ones_that_of_an_ordinary_run():
    usual, pairs = Ensemble(3, (1,)), Ensemble(3, (1,), antithetic=True)
    for member in (1, 3, 17):
        ordinary = usual.noise(START, member, 2, 8)
        np.testing.assert_array_equal(ordinary, member_noise(3, START, member, 2, 8))
        np.testing.assert_array_equal(pairs.noise(START, member, 2, 8), ordinary)
        np.testing.assert_array_equal(pairs.noise(START, member + 1, 2, 8), -ordinary)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_the_noise_factor_multiplies(factor):
    found = Ensemble(3, (1,), noise_factor=factor).noise(START, 5, 2, 8)
    np.testing.assert_array_equal(found, member_noise(3, START, 5, 2, 8) * np.float32(factor))
    assert found.dtype == np.float32


def test_a_factor_of_zero_is_no_noise_at_all():
    fields = fields_of(NoisyEngine(), (1, 2))
    quiet = list(forecast(NoisyEngine(), initial_state(), Ensemble(1, (1, 2), noise_factor=0), 24, 3))
    assert not (fields[1, 3] == fields[2, 3]).all()
    np.testing.assert_array_equal(quiet[-1].values, quiet[-2].values)


@pytest.mark.parametrize("factor", [-0.1, 10.1, float("nan")])
def test_a_noise_factor_that_makes_no_sense_is_refused(factor):
    with pytest.raises(OptionError, match=r"^expected a noise factor from 0 to 10, got "):
        Ensemble(0, (1,), noise_factor=factor)
