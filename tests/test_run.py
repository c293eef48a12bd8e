"""A run of many members and steps: its order, its state on disk, and every way to die."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from running import ROOT, keys, messages
from toy_run import FIELDS, GRID, START, DyingEngine, ToyEngine, initial_state, job, toy_run

from ai_models_mosaic.errors import ForecastError, OutputError, ResumeError, TerminatedError
from ai_models_mosaic.forecast.progress import Watch
from ai_models_mosaic.forecast.ranks import SingleRank
from ai_models_mosaic.forecast.record_file import seal, unseal
from ai_models_mosaic.forecast.resume import FORMAT, state_folder
from ai_models_mosaic.forecast.rollout import Ensemble, rollout
from ai_models_mosaic.forecast.run import EnsembleJob, EnsembleRun


class Kept:
    """A writer that remembers."""

    def __init__(self, refuse_after=None):
        self.steps, self.said, self._left = [], [], refuse_after

    def write(self, forecast):
        if self._left is not None and len(self.steps) == self._left:
            raise OutputError("cannot write x: No space left on device")
        self.steps.append(forecast)

    def recall(self, forecast):
        self.said.append((forecast.step, forecast.members))

    def mark(self):
        return dict

    def close(self):
        self.said.append("close")

    def abort(self):
        self.said.append("abort")


def kept(made, engine=None, writer=None, resume_state=None, watch=None):
    writer = writer or Kept()
    EnsembleRun(made, engine or ToyEngine(), SingleRank(), writer, resume_state, watch or Watch())()
    return writer


def test_steps_follow_each_other_and_members_within_a_step_from_step_0_on():
    found = kept(job(3, 2, per_batch=2))
    assert [(made.step, made.lead_time_hours, made.members) for made in found.steps] == [
        (0, 0, (1, 2)),
        (0, 0, (3,)),
        (1, 24, (1, 2)),
        (1, 24, (3,)),
        (2, 48, (1, 2)),
        (2, 48, (3,)),
    ]
    assert found.said == ["close"]


def test_a_run_makes_what_the_plain_generator_makes():
    ensemble = Ensemble(5, (1, 2, 3))
    expected = rollout(ToyEngine(), dict.fromkeys((1, 2, 3), initial_state()), ensemble, 24, 3)
    found = kept(job(3, 3)).steps
    for made, other in zip(found, expected, strict=True):
        assert (made.step, made.members) == (other.step, other.members)
        np.testing.assert_array_equal(made.values, other.values)


def test_every_member_starts_from_its_own_state():
    ensemble = Ensemble(5, (1, 2), noise_factor=0)
    starts = {1: initial_state(7), 2: initial_state(8)}
    found = kept(EnsembleJob(starts, ensemble, 24, 1)).steps
    for made in found[:2]:
        np.testing.assert_array_equal(made.values[0], starts[made.members[0]].values[-1])
    for made in found[2:]:
        values = starts[made.members[0]].values
        np.testing.assert_array_equal(made.values[0], (0.7 * values[-1] + 0.3 * values[0]).astype(np.float32))


def test_rounds_share_out_what_is_left_and_never_two_batches_to_one_rank():
    made = job(5, 2)
    for size in (1, 2, 3, 7):
        for units in range(made.units + 1):
            rounds = list(made.rounds(units, size))
            assert [step * 5 + batch for step, batches in rounds for batch in batches] == list(range(units, made.units))
            for _, batches in rounds:
                owners = [batch % size for batch in batches]
                assert len(set(owners)) == len(owners)


def test_a_step_that_fails_ends_the_run_and_leaves_the_output_as_it_is():
    writer = Kept()
    with pytest.raises(ForecastError, match=r"^the toy broke$"):
        kept(job(2, 3), DyingEngine(3, "fail"), writer)
    assert [(made.step, made.members) for made in writer.steps] == [(0, (1,)), (0, (2,)), (1, (1,)), (1, (2,))]
    assert writer.said == ["abort"]


def test_output_that_cannot_be_written_ends_the_run():
    writer = Kept(refuse_after=3)
    with pytest.raises(OutputError, match="No space left on device"):
        kept(job(2, 3), writer=writer)
    assert writer.said == ["abort"]


# Going on.


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    toy_run(str(folder / "out.grib"), job(3, 4, per_batch=2))
    return folder / "out.grib"


def test_an_undisturbed_run_leaves_its_files_and_nothing_else(whole: Path):
    assert [path.name for path in whole.parent.iterdir()] == ["out.grib"]
    assert len(messages(whole)) == 3 * 5 * FIELDS


@pytest.mark.parametrize("calls", [1, 2, 3, 6, 8])
def test_a_run_that_failed_goes_on_and_its_file_is_the_same_to_the_byte(tmp_path: Path, whole: Path, calls: int):
    path, made = tmp_path / "out.grib", job(3, 4, per_batch=2)
    with pytest.raises(ForecastError):
        toy_run(str(path), made, engine=DyingEngine(calls, "fail"))
    assert not path.exists()
    engine = DyingEngine(100, "")
    toy_run(str(path), made, resume=True, engine=engine)
    assert path.read_bytes() == whole.read_bytes()
    # What was complete one round before the failure was not made again.
    assert 100 - engine.calls <= 8 - (calls - 1) + 1
    assert [path.name for path in tmp_path.iterdir()] == ["out.grib"]


def test_a_signal_to_stop_ends_the_run_after_its_step_and_it_goes_on_from_there(tmp_path: Path, whole: Path):
    path, made, watch = tmp_path / "out.grib", job(3, 4, per_batch=2), Watch()
    with pytest.raises(TerminatedError) as caught, watch.listening():
        toy_run(str(path), made, engine=DyingEngine(5, "stop"), watch=watch)
    assert str(caught.value) == "stopped by a signal after step 3 (+72 h), as asked; run again with --resume to go on"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    engine = DyingEngine(100, "")
    toy_run(str(path), made, resume=True, engine=engine)
    assert 100 - engine.calls == 8 - 5
    assert path.read_bytes() == whole.read_bytes()


def test_the_state_of_a_run_holds_the_history_of_every_member_and_no_more(tmp_path: Path):
    made, state = job(4, 6), GRID.size * FIELDS * 4
    with pytest.raises(ForecastError):
        toy_run(str(tmp_path / "out.grib"), made, engine=DyingEngine(24, "fail"))
    (folder,) = tmp_path.glob("*.state")
    assert folder.name == "out.grib.20200229T1800.state"
    arrays = sorted(path.name for path in folder.glob("*.npy"))
    assert len(arrays) == 4 * 2
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4 * 2 * (state + 200) + 2000


def test_without_resume_the_run_begins_again_and_says_so(tmp_path: Path, whole: Path, caplog):
    path, made = tmp_path / "out.grib", job(3, 4, per_batch=2)
    with pytest.raises(ForecastError):
        toy_run(str(path), made, engine=DyingEngine(6, "fail"))
    toy_run(str(path), made)
    (folder,) = {record.args[0] for record in caplog.records if "Discarding" in record.msg}
    assert folder == tmp_path / "out.grib.20200229T1800.state"
    assert path.read_bytes() == whole.read_bytes()


def test_another_run_is_not_gone_on_with_and_what_differs_is_said(tmp_path: Path):
    path = str(tmp_path / "out.grib")
    with pytest.raises(ForecastError):
        toy_run(path, engine=DyingEngine(4, "fail"), identity={"seed": 5, "members": [1, 2], "input": "ab"})
    before = (tmp_path / "out.grib.partial").read_bytes()
    with pytest.raises(ResumeError) as caught:
        toy_run(path, resume=True, identity={"seed": 6, "members": [1, 2], "input": "cd"})
    assert str(caught.value) == (
        f"the unfinished run in {tmp_path}/out.grib.20200229T1800.state is another than this one:\n"
        "  seed: it began with 5, now 6\n  input: it began with ab, now cd\n"
        "Give the same options, input and weights, or run without --resume to begin again"
    )
    assert (tmp_path / "out.grib.partial").read_bytes() == before


def test_a_state_that_claims_more_than_there_is_to_do_is_refused(tmp_path: Path):
    path = str(tmp_path / "out.grib")
    with pytest.raises(ForecastError):
        toy_run(path, engine=DyingEngine(4, "fail"))
    record = state_folder(path, START) / "run.json"
    record.write_bytes(seal({**unseal(record.read_bytes(), FORMAT), "units": 10, "finished": True}))
    with pytest.raises(ResumeError, match=r"^expected at most 9 batches and steps done, got 10: the state of"):
        toy_run(path, resume=True)
    assert not (tmp_path / "out.grib").exists()


def test_a_file_that_became_shorter_is_not_gone_on_with(tmp_path: Path):
    path = tmp_path / "out.grib"
    with pytest.raises(ForecastError):
        toy_run(str(path), engine=DyingEngine(4, "fail"))
    partial = tmp_path / "out.grib.partial"
    os.truncate(partial, 100)
    with pytest.raises(OutputError, match=r"expected \d+ bytes of an unfinished run in .*, got 100$"):
        toy_run(str(path), resume=True)


def test_a_disk_that_fills_up_is_an_error_and_the_run_goes_on_when_there_is_room(tmp_path: Path):
    toy_run(str(tmp_path / "whole.grib"))
    size = (tmp_path / "whole.grib").stat().st_size
    # The limit is on the size of a file: the system refuses to write on in the midst of a message.
    program = (
        "import resource, signal, sys; from toy_run import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "try: toy_run(sys.argv[1])\n"
        "except MosaicError as error: sys.exit(str(error))\n"
    )
    path = tmp_path / "out.grib"
    words = [sys.executable, "-c", program, path, str(2 * size // 3 + 50)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT / "tests")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"cannot write {path}: ")
    assert not path.exists()
    toy_run(str(path), resume=True)
    assert path.read_bytes() == (tmp_path / "whole.grib").read_bytes()


def test_a_run_killed_anywhere_even_inside_a_write_goes_on_and_its_files_are_the_same_to_the_byte(tmp_path: Path):
    command = [sys.executable, ROOT / "tests" / "faults.py", tmp_path, "10"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("all.grib: 10 runs killed in ")
    assert second.startswith("{number}-{step}.grib: 10 runs killed in ")


def test_output_to_a_file_per_member_goes_on_too(tmp_path: Path):
    for name, engine in (("whole", None), ("cut", DyingEngine(5, "fail"))):
        (tmp_path / name).mkdir()
        path = str(tmp_path / name / "m{number}.grib")
        if engine is None:
            toy_run(path)
        else:
            with pytest.raises(ForecastError):
                toy_run(path, engine=engine)
            toy_run(path, resume=True)
    for member in (1, 2, 3):
        whole, cut = (tmp_path / name / f"m{member}.grib" for name in ("whole", "cut"))
        assert whole.read_bytes() == cut.read_bytes()
        assert {keys(message, "number", "dataDate") for message in messages(cut)} == {(member, int(f"{START:%Y%m%d}"))}
