import json
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from steps import forecast_step

from ai_models_mosaic.errors import OutputError, ResumeError
from ai_models_mosaic.forecast.comparison import differences
from ai_models_mosaic.forecast.resume import (
    ResumeRecord,
    ResumeState,
    open_resume_state,
    read_record,
    state_folder,
)

START = datetime(2020, 2, 29, 18)
FRESH = ResumeRecord({"seed": 1}, {"torch": "2"})


class Clock:
    """A clock that every look moves on by `cost`."""

    def __init__(self, cost=0.0):
        self.now, self.cost = 0.0, cost

    def __call__(self):
        self.now += self.cost
        return self.now


def made(step, members=(1,)):
    return forecast_step(step, 24 * step, members, np.full((len(members), 4, 3, 1), step, dtype=np.float32))


def resume_state(folder, batches=1, history=2, **more):
    folder.mkdir(exist_ok=True)
    return ResumeState(folder, FRESH, history, batches, **more)


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("out.grib", "out.grib.20200229T1800.state"),
        ("a/b/out.grib", "a/b/out.grib.20200229T1800.state"),
        ("/a/m{number:03d}.grib", "/a/m{number:03d}.grib.20200229T1800.state"),
        ("a/{number}/{step}.grib", "a/{number}_{step}.grib.20200229T1800.state"),
    ],
)
def test_the_state_is_kept_in_a_folder_that_exists_beside_the_output(path, folder):
    assert state_folder(path, START) == Path(folder)


@pytest.mark.parametrize("history", [1, 2, 4])
@pytest.mark.parametrize("batches", [1, 2, 3])
def test_exactly_the_states_are_kept_that_the_next_steps_start_from(tmp_path, history, batches):
    kept = resume_state(tmp_path / "s", batches, history)
    done = [-1] * batches
    for units in range(1, 6 * batches):
        step, batch = divmod(units - 1, batches)
        done[batch] = step
        kept.note(batch, made(step))
        kept.save(units, {})
        # The last `history` steps of every batch; step 0 and before are the input.
        wanted = [(b, s) for b in range(batches) for s in range(max(1, done[b] - history + 1), done[b] + 1)]
        assert list(kept.kept()) == wanted
        assert len(list(kept.folder.glob("*.npy"))) == len(wanted)
        for b, s in wanted:
            assert (kept.load(b, s) == s).all()


def test_states_that_were_not_due_are_saved_when_their_turn_comes(tmp_path):
    kept = resume_state(tmp_path / "s")
    for step in range(6):
        kept.note(0, made(step))
    kept.save(6, {"out.grib": 17})
    assert [kept.load(*place)[0, 0, 0, 0] for place in kept.kept()] == [4, 5]
    found = read_record(kept.folder)
    names = [f"step-0000{step}-batch-00000.npy" for step in (4, 5)]
    states = {
        name: {"sha256": sha256((kept.folder / name).read_bytes()).hexdigest(), "shape": [1, 4, 3, 1]} for name in names
    }
    assert [np.load(kept.folder / name)[0, 0, 0, 0] for name in names] == [4, 5]
    assert found == ResumeRecord(
        {"seed": 1}, {"torch": "2"}, 6, {"out.grib": 17}, tails={"out.grib": None}, states=states
    )


def test_the_state_is_saved_by_time_and_takes_no_more_than_its_share_of_it(tmp_path):
    clock = Clock()
    kept = resume_state(tmp_path / "s", clock=clock)
    clock.now += 19
    assert not kept.is_due
    clock.now += 2
    assert kept.is_due
    clock.cost = 2.0  # seconds between the start and the end of saving
    kept.save(1, {})
    clock.cost = 0.0
    cost, saved = kept._cost, clock.now
    assert cost > 19 * 0.05
    clock.now = saved + 18 * cost
    assert not kept.is_due
    clock.now = saved + 20 * cost
    assert kept.is_due


def test_without_an_interval_every_step_is_due_whatever_it_takes(tmp_path):
    clock = Clock()
    kept = resume_state(tmp_path / "s", interval_s=0.0, clock=clock)
    clock.cost = 1000.0
    kept.save(1, {})
    assert kept.is_due


def test_a_run_that_is_finished_keeps_no_states(tmp_path):
    kept = resume_state(tmp_path / "s")
    for step in (1, 2):
        kept.note(0, made(step))
    kept.save(3, {})
    kept.note(0, made(3))
    kept.save(4, {"out.grib": 17}, finished=True)
    assert list(kept.kept()) == []
    assert [path.name for path in kept.folder.iterdir()] == ["run.json"]
    assert read_record(kept.folder).finished


def test_steps_that_are_noted_while_a_state_is_saved_are_of_the_next(tmp_path):
    kept = resume_state(tmp_path / "s")
    for step in (1, 2):
        kept.note(0, made(step))
    noted = kept.noted()
    kept.note(0, made(3))
    kept.save(3, {}, noted=noted)
    assert list(kept.kept()) == [(0, 1), (0, 2)]
    kept.save(4, {})
    assert [kept.load(*place)[0, 0, 0, 0] for place in kept.kept()] == [2, 3]


def test_a_disk_without_room_leaves_the_record_before_it(tmp_path):
    kept = resume_state(tmp_path / "s")
    kept.note(0, made(1))
    kept.save(2, {"out.grib": 10})
    kept.note(0, made(2))
    # A folder in the place of the file, which even root cannot write to.
    (kept.folder / "step-00002-batch-00000.npy.partial").mkdir()
    with pytest.raises(
        OutputError, match=r"^cannot write .*step-00002-batch-00000.npy: .*partial is a folder; expected"
    ):
        kept.save(3, {"out.grib": 20})
    found = read_record(kept.folder)
    assert (found.units, found.positions) == (2, {"out.grib": 10})
    assert (kept.load(0, 1) == 1).all()


def test_two_runs_do_not_share_a_state(tmp_path):
    folder = tmp_path / "s"
    with open_resume_state(folder, FRESH, 2, 1, resume=False) as first:
        first.save(1, {})
        for resume in (False, True):
            with (
                pytest.raises(
                    ResumeError, match="is in use by another run: wait for it to end, or choose another --path"
                ),
                open_resume_state(folder, FRESH, 2, 1, resume=resume),
            ):
                pass
    assert read_record(folder).units == 1


def test_a_run_that_kept_nothing_leaves_nothing(tmp_path):
    with open_resume_state(tmp_path / "s", FRESH, 2, 1, resume=True) as kept:
        assert kept.record == FRESH
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    with (
        pytest.raises(OutputError, match=r"^cannot write .*/absent/s: No such file or directory$"),
        open_resume_state(tmp_path / "absent" / "s", FRESH, 2, 1, resume=False),
    ):
        pass


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"run.json cannot be used: Expecting value.*\. Run without --resume$"),
        ("{}", r"run.json cannot be used: expected format 2, got None: it is of another version of this package\. Run"),
        (json.dumps({"format": 99}), r"run.json cannot be used: expected format 2, got 99: it is of another version"),
    ],
)
def test_a_damaged_record_is_refused(tmp_path, text, message):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ResumeError, match=message):
        read_record(tmp_path)


def test_a_damaged_state_is_refused(tmp_path):
    kept = resume_state(tmp_path / "s")
    kept.note(0, made(1))
    kept.save(2, {})
    (kept.folder / "step-00001-batch-00000.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ResumeError, match="the state of the unfinished run is damaged"):
        kept.load(0, 1)


def test_another_machine_is_warned_of_and_not_refused(tmp_path, caplog):
    with open_resume_state(tmp_path / "s", FRESH, 2, 1, resume=False) as kept:
        kept.save(1, {})
    with open_resume_state(tmp_path / "s", ResumeRecord({"seed": 1}, {"torch": "3"}), 2, 1, resume=True) as kept:
        assert kept.record.units == 1
    assert "The run began with torch 2 and goes on with 3: fields may differ in the last bits" in caplog.text


def test_what_one_side_lacks_differs():
    assert differences({"a": 1, "b": 2, "c": 3}, {"a": 1, "c": 4, "d": 5}) == [
        ("b", 2, None),
        ("c", 3, 4),
        ("d", None, 5),
    ]


def test_names_of_one_section_do_not_meet_those_of_another():
    first = {"run": {"members": [1]}, "output": {"members": True}}
    assert differences(first, {"run": {"members": [2]}, "output": {"members": True}}) == [("members", [1], [2])]
    assert differences(first, {"run": {"members": [1]}}) == [("output", {"members": True}, None)]
