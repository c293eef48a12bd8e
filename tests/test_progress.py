import logging

import numpy as np
import pytest

from ai_models_mosaic.progress import QUIET_SECONDS, Progress, duration
from ai_models_mosaic.state import ForecastStep


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def run(caplog):
    """Runs members one batch after the other, each taking some seconds; returns the lines logged."""
    caplog.set_level(logging.INFO, logger="ai_models_mosaic.progress")

    def play(members, steps, seconds, per_batch=1, step_hours=24):
        caplog.clear()
        clock = Clock()
        progress = Progress(members, steps, clock)
        said = []
        for step in range(1, steps + 1):
            for first in range(0, members, per_batch):
                batch = tuple(range(first + 1, min(first + per_batch, members) + 1))
                clock.now += seconds * len(batch)
                progress.advance(ForecastStep(step, step * step_hours, batch, np.empty((len(batch), 0, 0, 0))))
                said += [(clock.now - 1000, record.message) for record in caplog.records]
                caplog.clear()
        return said

    return play


def test_one_line_per_step_says_what_is_done_and_when_the_rest_will_be(run):
    assert run(members=3, steps=3, seconds=4, step_hours=6) == [
        (12, "Step 1 of 3 (+6 h), 3 of 3 members; 4 s per member and step, ETA 24 s"),
        (24, "Step 2 of 3 (+12 h), 3 of 3 members; 4 s per member and step, ETA 12 s"),
        (36, "Step 3 of 3 (+18 h), 3 of 3 members; 4 s per member and step, all done in 36 s"),
    ]


def test_a_long_step_is_reported_on_whenever_it_was_quiet_for_long(run):
    assert run(members=4, steps=1, seconds=10) == [
        (20, "Step 1 of 1 (+24 h), 2 of 4 members; 10 s per member and step, ETA 20 s"),
        (40, "Step 1 of 1 (+24 h), 4 of 4 members; 10 s per member and step, all done in 40 s"),
    ]


def test_batches_count_as_many_members_as_they_have(run):
    assert run(members=5, steps=2, seconds=100, per_batch=2) == [
        (200, "Step 1 of 2 (+24 h), 2 of 5 members; 1 min 40 s per member and step, ETA 13 min 20 s"),
        (400, "Step 1 of 2 (+24 h), 4 of 5 members; 1 min 40 s per member and step, ETA 10 min 0 s"),
        (500, "Step 1 of 2 (+24 h), 5 of 5 members; 1 min 40 s per member and step, ETA 8 min 20 s"),
        (700, "Step 2 of 2 (+48 h), 2 of 5 members; 1 min 40 s per member and step, ETA 5 min 0 s"),
        (900, "Step 2 of 2 (+48 h), 4 of 5 members; 1 min 40 s per member and step, ETA 1 min 40 s"),
        (1000, "Step 2 of 2 (+48 h), 5 of 5 members; 1 min 40 s per member and step, all done in 16 min 40 s"),
    ]


def test_a_fast_forecast_logs_once_per_step_only(run):
    said = run(members=50, steps=40, seconds=0.25)
    assert len(said) == 40
    assert said[-1][1].endswith("50 of 50 members; 0.25 s per member and step, all done in 8 min 20 s")


@pytest.mark.parametrize(("members", "seconds"), [(100, 7.0), (9, 14.9), (30, 3.1)])
def test_silence_inside_a_step_is_never_longer_than_promised_and_one_member(run, members, seconds):
    times = [time for time, _ in run(members=members, steps=2, seconds=seconds)]
    assert max(np.diff([0, *times])) <= QUIET_SECONDS + seconds
    assert len(times) <= 2 * members * seconds / QUIET_SECONDS + 2


def test_the_estimate_follows_the_mean_pace_so_far(caplog):
    caplog.set_level(logging.INFO, logger="ai_models_mosaic.progress")
    clock = Clock()
    progress = Progress(1, 4, clock)
    for step, seconds in enumerate([30, 10, 20], start=1):  # 30, 20 and 20 s on average
        clock.now += seconds
        progress.advance(ForecastStep(step, 24 * step, (1,), np.empty((1, 0, 0, 0))))
    assert [record.message.split("ETA ")[1] for record in caplog.records] == ["1 min 30 s", "40 s", "20 s"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.1234, "0.12 s"),
        (1.26, "1.3 s"),
        (9.96, "10 s"),
        (48.4, "48 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (100_000, "27 h 46 min"),
    ],
)
def test_a_duration_reads_as_people_say_it(seconds, words):
    assert duration(seconds) == words
