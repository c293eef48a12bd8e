import json
import logging
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from steps import forecast_step

from ai_models_mosaic.forecast.progress import QUIET_SECONDS, Progress, Watch, duration


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def run(caplog):
    """Runs members one batch after the other, each taking some seconds; returns the lines logged."""
    caplog.set_level(logging.INFO, logger="ai_models_mosaic.forecast.progress")

    def play(members, steps, seconds, per_batch=1, step_hours=24):
        caplog.clear()
        clock = Clock()
        progress = Progress(members, steps, clock)
        said = []
        for step in range(1, steps + 1):
            for first in range(0, members, per_batch):
                batch = tuple(range(first + 1, min(first + per_batch, members) + 1))
                clock.now += seconds * len(batch)
                progress.advance(forecast_step(step, step * step_hours, batch))
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
    caplog.set_level(logging.INFO, logger="ai_models_mosaic.forecast.progress")
    clock = Clock()
    progress = Progress(1, 4, clock)
    for step, seconds in enumerate([30, 10, 20], start=1):  # 30, 20 and 20 s on average
        clock.now += seconds
        progress.advance(forecast_step(step, 24 * step, (1,)))
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


def test_what_was_done_before_is_neither_counted_for_the_pace_nor_for_the_rest(caplog):
    caplog.set_level(logging.INFO, logger="ai_models_mosaic.forecast.progress")
    clock = Clock()
    # Of 2 members × 4 steps, 3 are done: it goes on with the second member of step 2.
    progress = Progress(2, 4, clock, done=3)
    for step, member in ((2, 2), (3, 1), (3, 2)):
        clock.now += 10
        progress.advance(forecast_step(step, 24 * step, (member,)))
    assert caplog.messages == [
        "Step 2 of 4 (+48 h), 2 of 2 members; 10 s per member and step, ETA 40 s",
        "Step 3 of 4 (+72 h), 2 of 2 members; 10 s per member and step, ETA 20 s",
    ]


def test_a_progress_file_that_can_no_longer_be_written_is_warned_of_once(tmp_path, caplog):
    folder = tmp_path / "p"
    folder.mkdir()
    watch = Watch(folder / "progress.jsonl")
    watch.note("begin", members=3)
    (line,) = (folder / "progress.jsonl").read_text().splitlines()
    assert json.loads(line).keys() == {"time", "event", "members"}
    (folder / "progress.jsonl").unlink()
    folder.rmdir()
    for _ in range(3):
        watch.note("step")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.messages[0].endswith("No such file or directory; nothing more is noted there")


def test_lines_are_added_to_the_log_that_a_shell_sends_a_stream_to(tmp_path):
    log = tmp_path / "run.log"
    log.write_text("a line of others\n")
    with log.open("a") as stream:
        Watch(Path(f"/proc/self/fd/{stream.fileno()}")).note("end")
    before, line = log.read_text().splitlines()
    assert (before, json.loads(line)["event"]) == ("a line of others", "end")


def test_the_first_signal_asks_and_the_second_ends():
    watch = Watch()
    with watch.listening():
        assert not watch.stopping
        signal.raise_signal(signal.SIGTERM)
        assert watch.stopping
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_another_thread_hears_no_signals_and_runs_all_the_same():
    heard = []
    thread = threading.Thread(target=lambda: [heard.append(1) for _ in [0] if _in_listening()])
    thread.start()
    thread.join()
    assert heard == [1]


def _in_listening():
    with Watch().listening():
        return True
