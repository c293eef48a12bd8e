"""--deadline: as many members as fit, none of them half, and what is written is an ordinary ensemble of as many."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import tiny
from late_device import LateEngine
from running import ROOT, SAMPLE, keys, messages
from test_extending import WORDS, Typed, stop_at, typed  # noqa: F401 - a fixture
from test_torch_engine import CPU, STATISTICS, made_network, physical_inputs
from toy_run import FIELDS, START, ToyEngine, initial_state
from toy_series import LoadedToy

from ai_models_mosaic.api import Model
from ai_models_mosaic.engines import ring
from ai_models_mosaic.engines.torch import TorchEngine
from ai_models_mosaic.errors import ForecastError, OptionError, OutputError, TerminatedError
from ai_models_mosaic.forecast.deadline import Budget, parse_deadline
from ai_models_mosaic.forecast.growing import Bounds, GrowingRun
from ai_models_mosaic.forecast.kept_steps import KeptSteps
from ai_models_mosaic.forecast.options import parse_options
from ai_models_mosaic.forecast.progress import Watch
from ai_models_mosaic.forecast.ranks import SingleRank
from ai_models_mosaic.forecast.rollout import Ensemble, rollout
from ai_models_mosaic.forecast.run import EnsembleJob
from ai_models_mosaic.state import InitialState
from ai_models_mosaic.variants import MINI

STEPS, STEP_S, MEMBER_WRITTEN_S, OPENED_S = 3, 10.0, 1.0, 2.0
MOST = 100


class Clock:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class TimedEngine(ToyEngine):
    """Every step takes its time of a clock, which may grow with the steps that were made."""

    def __init__(
        self,
        clock: Clock,
        chance: np.random.Generator,
        slower_from: int | None = None,
        fails_at: int | None = None,
    ) -> None:
        self._clock, self._chance, self._slower_from, self._fails_at = clock, chance, slower_from, fails_at
        self.calls, self.longest_s = 0, 0.0

    def step(self, history, progress, noise):
        self.calls += 1
        if self.calls == self._fails_at:
            raise ForecastError("the toy broke")
        slow = self._slower_from is not None and self.calls > self._slower_from
        took = STEP_S * self._chance.uniform(0.95, 1.05) * (4 if slow else 1)
        self.longest_s = max(self.longest_s, took)
        self._clock.now += took
        return super().step(history, progress, noise)


class Grown:
    """A run against a deadline, and what it wrote, and when."""

    sizes: list[int]
    """That were written; of the last, if it ended with an error."""

    def __init__(self, folder: Path, at: float | None, seed: int = 0, *, per_group: int = 1, **engine: int) -> None:
        self.clock, self.written_at = Clock(), list[float]()
        Grown.sizes = self.sizes = []
        self.engine = TimedEngine(self.clock, np.random.default_rng(seed), **engine)
        self.starts = dict.fromkeys(range(1, MOST + 1), initial_state())
        with KeptSteps(folder, range(STEPS + 1), range(FIELDS)) as self.kept:
            bounds = Bounds(MOST, Budget(at, self.clock))
            grow = GrowingRun(self.job, self.engine, SingleRank(), Watch(), bounds, self.kept, self.write)
            self.size = grow(per_group)

    def job(self, members: Sequence[int]) -> EnsembleJob:
        return EnsembleJob(self.starts, Ensemble(5, tuple(members), len(members)), 24, STEPS)

    def write(self, size: int, for_now: bool) -> float:
        """Takes its time, and looks whether every member is whole."""
        assert for_now == (size < MOST)
        alone = rollout(ToyEngine(), self.starts, Ensemble(5, (size,)), 24, STEPS)
        for step, wanted in enumerate(alone):
            np.testing.assert_array_equal(self.kept.read(step, [size]).values, wanted.values)
        self.clock.now += OPENED_S + size * MEMBER_WRITTEN_S
        self.sizes.append(size)
        self.written_at.append(self.clock.now)
        return OPENED_S


FIRST_S = STEPS * STEP_S * 1.05 + OPENED_S + MEMBER_WRITTEN_S + 0.5
"""Until a first member is there, at most."""


@pytest.mark.parametrize("seed", range(20))
def test_no_random_deadline_is_missed_by_a_step_and_no_member_is_half(tmp_path: Path, seed: int):
    at = np.random.default_rng(seed).uniform(FIRST_S, 1000)
    slower_from = [None, 30][seed % 2]
    done = Grown(tmp_path, at, seed, per_group=1 + seed % 3, slower_from=slower_from)
    assert done.sizes == sorted({done.sizes[0], done.size})
    assert done.sizes[0] == 1 + seed % 3
    if done.size == done.sizes[0]:
        # Nothing else could be.
        assert done.clock.now < at + done.engine.longest_s
        return
    assert done.written_at[-1] <= at + done.engine.longest_s
    if slower_from is None and done.size < MOST:
        assert done.written_at[-1] <= at
        # It is not idle either: what is left would not have been enough for two more groups, and margins.
        group = 1.1 * STEPS * STEP_S * 1.05
        assert at - done.written_at[-1] < 2 * group + 0.3 * (OPENED_S + done.size * MEMBER_WRITTEN_S) + 4


def test_members_that_become_slower_are_dropped_and_those_before_are_written_in_time(tmp_path: Path, caplog):
    done = Grown(tmp_path, 160.0, slower_from=10)
    # Three are whole after some 95 s, and of the fourth, two steps are four times as long.
    assert (done.size, done.sizes) == (3, [1, 3])
    assert done.written_at[-1] < 160
    assert "members 4 to 4 are slower than those before: they are dropped at step 2" in caplog.text


def test_without_a_deadline_all_members_are_made(tmp_path: Path):
    done = Grown(tmp_path, None, per_group=16)
    assert (done.size, done.sizes) == (MOST, [16, MOST])


def test_one_group_is_made_whatever_the_time_and_written_once(tmp_path: Path):
    done = Grown(tmp_path, 1.0, per_group=2)
    assert (done.size, done.sizes) == (2, [2])


@pytest.mark.parametrize(
    ("complete", "sizes", "said"),
    [
        (0, [], r"stopped by a signal after step 1 \(\+24 h\), as asked; nothing was kept$"),
        (1, [1], "^stopped by a signal, as asked, with 1 member written; --extend adds more$"),
        (6, [1, 6], "^stopped by a signal, as asked, with 6 members written; --extend adds more$"),
    ],
)
def test_a_signal_has_all_written_that_is_complete_and_says_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complete: int, sizes: list[int], said: str
):
    calls = [0]

    def advance(watch: Watch, _: object) -> None:
        calls[0] += 1
        watch.stopping = calls[0] > complete * (STEPS + 1) + 1

    monkeypatch.setattr(Watch, "advance", advance)
    with pytest.raises(TerminatedError, match=said):
        Grown(tmp_path, 1000.0)
    assert Grown.sizes == sizes


def test_a_member_that_fails_leaves_all_written_that_are_complete_before_it(tmp_path: Path, caplog):
    with pytest.raises(ForecastError, match="the toy broke"):
        Grown(tmp_path, None, per_group=2, fails_at=3 * STEPS + 2)
    assert Grown.sizes == [2, 6]
    assert "The run fails, with 6 members written; --extend adds more" in caplog.text


def test_an_error_of_writing_does_not_hide_why_the_run_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    write = Grown.write

    def full(grown: Grown, size: int, for_now: bool) -> float:
        if size > 1:
            raise OutputError("the disk is full")
        return write(grown, size, for_now)

    monkeypatch.setattr(Grown, "write", full)
    with pytest.raises(ForecastError, match="the toy broke"):
        Grown(tmp_path, None, fails_at=3 * STEPS + 1)
    assert "3 members complete, but not all could be written: the disk is full" in caplog.text
    assert "The run fails, with 1 member written; --extend adds more" in caplog.text


@pytest.mark.parametrize("per_batch", [1, 2])
def test_a_device_that_lends_its_buffers_gets_them_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_batch: int
):
    # More steps than the device has buffers: one that is not given back would be waited for without end.
    steps, members = 26, tuple(range(1, 2 * per_batch + 1))
    monkeypatch.setattr(ring, "PATIENCE_S", 10.0)
    monkeypatch.setattr(ring.LOG, "warning", pytest.fail)
    network, values = made_network(), physical_inputs(1)[0][0]
    start = InitialState(tiny.ARCHITECTURE.grid, (START - timedelta(hours=24), START), values)
    starts = dict.fromkeys(members, start)

    def job(some: Sequence[int]) -> EnsembleJob:
        return EnsembleJob(starts, Ensemble(5, tuple(some), per_batch), 24, steps)

    written = []
    with KeptSteps(tmp_path, range(steps + 1), range(5)) as kept:
        bounds, engine = Bounds(len(members), Budget(None)), LateEngine(network, STATISTICS, CPU)
        grow = GrowingRun(job, engine, SingleRank(), Watch(), bounds, kept, lambda size, _: written.append(size) or 0.0)
        assert grow(per_batch) == len(members)
        assert written == [per_batch, len(members)]
        ordinary = rollout(TorchEngine(network, STATISTICS, CPU), starts, Ensemble(5, members, per_batch), 24, steps)
        for wanted in ordinary:
            np.testing.assert_array_equal(kept.read(wanted.step, wanted.members).values, wanted.values)


def test_what_a_group_takes_is_known_from_those_before_but_for_the_first():
    clock = Clock()
    budget = Budget(100.0, clock)
    budget.took(80.0)
    budget.wrote(2, 1.0, 4.0)
    assert budget.writing_s(10) == 1.25 * (1.0 + 10 * 2.0) + 0.5
    assert budget.fits(3)
    clock.now = 5.0
    assert not budget.fits(3)
    for seconds in (10.0, 12.0, 11.0):
        budget.took(seconds)
    assert budget.writing_s(3) == pytest.approx(9.25)
    clock.now = 100 - 1.1 * 12 - 9.25 - 0.01
    assert budget.fits(3)
    clock.now += 0.02
    assert not budget.fits(3)
    assert not budget.is_spent(3)
    assert budget.is_spent(3, 13.5)
    clock.now = 91.0
    assert budget.is_spent(3)
    assert budget.late_s == 0
    clock.now = 103.0
    assert budget.late_s == 3.0


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("60s", "12:01:00"),
        ("0.5s", "12:00:00.5"),
        ("5m", "12:05:00"),
        ("1.5h", "13:30:00"),
        ("12:01", "12:01:00"),
        ("23:59", "23:59:00"),
    ],
)
def test_a_deadline_counts_from_the_start_of_the_process_or_is_a_time_of_day_utc(text: str, at: str):
    start = datetime(2026, 11, 26, 12, tzinfo=timezone.utc)
    wanted = datetime.fromisoformat(f"2026-11-26T{at.ljust(12, '0') if '.' in at else at}+00:00")
    assert parse_deadline(text).at(start.timestamp()) == wanted.timestamp()


def test_a_time_of_day_that_is_past_is_that_of_tomorrow():
    start = datetime(2026, 12, 31, 12, tzinfo=timezone.utc).timestamp()
    for text in ("06:00", "6:00"):
        assert parse_deadline(text).at(start) == datetime(2027, 1, 1, 6, tzinfo=timezone.utc).timestamp()
    assert parse_deadline("12:00").at(start) == start + 86_400


@pytest.mark.parametrize("text", ["", "60", "s", "0s", "-5s", "1e9s", "8d", "24:00", "06:60", "6", "06:00Z", "169h"])
def test_what_is_no_deadline_is_refused(text: str):
    with pytest.raises(OptionError) as caught:
        parse_deadline(text)
    assert str(caught.value).startswith("--deadline: expected seconds, minutes or hours, such as 60s, 5m or 2h, or a ")


def test_the_process_began_before_it_could_say_so_and_after_it_was_asked_for():
    script = "from ai_models_mosaic.forecast.deadline import process_start; print(process_start())"
    before = time.time()
    began = float(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)
    # The system counts in hundredths of a second.
    assert before - 0.1 < began < time.time()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--deadline=5m",), "--deadline: expected --num-ensemble-members with it, the most that there may be"),
        (("--mc-error=1@mean:2t",), "--mc-error: expected --num-ensemble-members with it"),
        (
            ("--deadline=5m", "--num-ensemble-members=3", "--member-number=1,3"),
            "--deadline makes members in their order, from 1: leave --member-number out",
        ),
        (("--deadline=5m", "--num-ensemble-members=3", "--dates=20200101,20200102"), "leave --dates out"),
        (("--mc-error=1@mean:2t", "--num-ensemble-members=3", "--antithetic"), "with --antithetic they are pairs"),
        (
            ("--mc-error=1@mean:2t", "--num-ensemble-members=3", "--perturbations=off"),
            "leave --perturbations off and --noise-factor 0 out, with which they have none",
        ),
        (
            ("--mc-error=1@mean:2t", "--num-ensemble-members=3", "--noise-factor=0"),
            "leave --perturbations off and --noise-factor 0 out, with which they have none",
        ),
    ],
)
def test_what_does_not_go_with_an_open_size_is_refused(words: Sequence[str], said: str):
    with pytest.raises(OptionError) as caught:
        parse_options(words)
    assert said in str(caught.value)


def test_what_is_kept_is_read_again_and_what_was_not_is_missed(tmp_path: Path):
    (forecast,) = rollout(ToyEngine(), {2: initial_state()}, Ensemble(5, (2,)), 24, 0)
    with KeptSteps(tmp_path, [0, 2], [1, 4]) as kept:
        kept.write(forecast)
        assert kept.steps == (0, 2)
        again = kept.read(0, [2]).values
        np.testing.assert_array_equal(again[..., [1, 4]], forecast.values[..., [1, 4]])
        assert not again[..., [0, 2, 3, 5]].any()
        with pytest.raises(OutputError, match=r"expected member 9 at step 0 in a file in .*, got 0 bytes"):
            kept.read(0, [9])
    assert not list(tmp_path.iterdir())


# The command.

PRODUCTS = ("--path", "out.grib", "--products", "mean,spread", "--zarr", "out.zarr")
HEALTH = ("--health", "health.json")


def growth(folder: Path) -> dict:
    return json.loads((folder / "out.grib.provenance.json").read_text())["growth"]


def test_what_is_made_by_a_deadline_is_what_an_ordinary_run_of_as_many_makes(typed: Typed):  # noqa: F811
    words = ("--num-ensemble-members", 2, *PRODUCTS, *HEALTH)
    assert typed("a", *words, "--deadline", "6h", "--progress-file", "p.jsonl") == typed("b", *words)
    assert growth(typed.folder / "a") == {"members": 2, "most": 2, "deadline": "6h", "mc_error": []}
    noted = [json.loads(line) for line in (typed.folder / "a" / "p.jsonl").read_text().splitlines()]
    assert [line["event"] for line in noted] == ["begin", *["step"] * 6, "end"]
    assert noted[-1]["members"] == 2
    # It is complete for an ordinary run.
    typed("a", *words, "--resume", "--progress-file", "q.jsonl")
    assert json.loads((typed.folder / "a" / "q.jsonl").read_text().splitlines()[0])["done"] == 6


def test_a_deadline_that_is_past_gives_one_member_a_status_and_what_can_be_extended(typed: Typed):  # noqa: F811
    status, said = typed.ended("a", "--num-ensemble-members", 9, *PRODUCTS, "--deadline", "0.01s")
    assert status == 11
    assert "the ensemble of 1 is complete " in said
    assert "after its deadline, 0.01s: expected a time in which one group of members can be made and written" in said
    assert typed.contents("a") == typed("b", "--num-ensemble-members", 1, *PRODUCTS)
    assert typed("a", "--extend", 2, *PRODUCTS) == typed("c", "--num-ensemble-members", 2, *PRODUCTS)


def test_what_is_complete_at_a_signal_is_an_ordinary_ensemble(typed: Typed, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    with monkeypatch.context() as patch:
        # In the fourth member, of two steps each.
        stop_at(patch, 7)
        status, said = typed.ended("a", "--num-ensemble-members", 9, *PRODUCTS, *HEALTH, "--deadline", "6h")
    assert status == 143
    told = "stopped by a signal, as asked, with 3 members written; --extend adds more"
    assert told in said
    there, wanted = typed.contents("a"), typed("b", "--num-ensemble-members", 3, *PRODUCTS, *HEALTH)
    *record, last = there.pop("health.json").splitlines()
    assert record == wanted.pop("health.json").splitlines()[:-1]
    assert json.loads(last) == {"event": "failed", "exit_status": 143, "message": told}
    assert there == wanted


def test_two_processes_end_together_where_one_group_is_all(typed: Typed):  # noqa: F811
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    words = [*WORDS, "--num-threads", 1, "--num-ensemble-members", 2, "--path", "out.grib", *HEALTH]
    alone = typed("alone", *words[len(WORDS) + 2 :])
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "ai_models_mosaic.cli", *map(str, words), "--deadline", "1h"]
    ranks = [
        subprocess.Popen(command, cwd=typed.folder, env={**shared, "RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]
    assert [rank.wait() for rank in ranks] == [0, 0]
    for name in ("out.grib", "health.json"):
        assert (typed.folder / name).read_bytes() == alone[name]


def test_output_that_cannot_be_written_again_is_refused(typed: Typed):  # noqa: F811
    for words in (("--output", "none"), ("--path", "/dev/null")):
        status, said = typed.ended("a", "--num-ensemble-members", 9, *words, "--deadline", "1h")
        assert (status, "--deadline and --mc-error: expected output in files, as it is written again" in said) == (
            2,
            True,
        )


def test_the_commands_of_the_page_run_in_order_and_give_what_it_says(typed: Typed):  # noqa: F811
    text = (ROOT / "docs" / "deadlines.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```sh\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    (typed.folder / "a" / "examples").mkdir(parents=True)
    shutil.copy(SAMPLE, typed.folder / "a" / "examples")
    sizes = []
    for line in block.splitlines():
        words = shlex.split(line)
        assert words[:2] == ["ai-models-mosaic", "forecast"]
        typed("a", *words[2:])
        path = typed.folder / "a" / words[words.index("--path") + 1]
        numbers = {keys(message, "number", "numberOfForecastsInEnsemble") for message in messages(path)}
        sizes.append(len(numbers))
        assert numbers == {(number, len(numbers)) for number in range(1, len(numbers) + 1)}
    assert sizes[:2] == [4, 6]
    assert 1 < sizes[2] <= 8
    assert keys(messages(typed.folder / "a" / "storm-mean.grib")[0], "numberOfForecastsInEnsemble") == (6,)


@pytest.mark.parametrize("options", [{"deadline": "5m"}, {"mc_error": "1@mean:2t"}, {"extend": 3}])
def test_a_program_says_how_many_members_it_wants(options: dict[str, object]):
    model = Model(MINI, LoadedToy(), {})
    with pytest.raises(
        OptionError, match="extend, deadline and mc_error: they are for the command, whose ensembles grow"
    ):
        model.forecast(None, 3, 24, **options)
