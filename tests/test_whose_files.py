"""Runs that meet the files of others, or their own: nothing is mixed, nothing that is needed is written over."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from running import MINI, ROOT, SAMPLE, Runner, keys, messages

from ai_models_mosaic.cli import main
from ai_models_mosaic.engines.tensor_states import TensorStates
from ai_models_mosaic.engines.torch import TorchEngine
from ai_models_mosaic.errors import OutputError, ResumeError
from ai_models_mosaic.forecast.resume import ResumeRecord, open_resume_state
from ai_models_mosaic.outputs.grib.files import MessageFiles, check_writable, is_stream, tail_digest

SMALL = ("--output-params", "2t,z500", "--num-threads", 1)
DAY = (*MINI, *SMALL, "--lead-time", 24)


@pytest.fixture
def signalled(monkeypatch: pytest.MonkeyPatch):
    """Lets a signal end the next run at its first step; all that follow are left alone."""
    step, waiting = TensorStates.advance, [False]

    def watched(*arguments):
        if waiting[0]:
            waiting[0] = False
            signal.raise_signal(signal.SIGTERM)
        return step(*arguments)

    monkeypatch.setattr(TensorStates, "advance", watched)

    def next_one() -> None:
        waiting[0] = True

    return next_one


# Another initial time, the same name.


@pytest.mark.parametrize(
    ("output", "status", "said"),
    [
        (("--path", "f.grib"), 7, "another run has written to it since"),
        (("--no-grib", "--zarr", "f.zarr"), 6, "got that of another"),
    ],
)
def test_a_run_does_not_go_on_with_what_one_of_another_initial_time_wrote(run: Runner, signalled, output, status, said):
    both = run.path("both.grib")
    both.write_bytes(SAMPLE.read_bytes() + (ROOT / "examples" / "mini-truth.grib").read_bytes())
    words = ("mosaic", "--variant", "mini", "--file", both, *SMALL, "--lead-time", 48, *output)
    for date in ("20080426", "20080427"):
        signalled()
        assert run.refused(*words, "--date", date).status == 143
    refused = run.refused(*words, "--date", "20080426", "--resume")
    assert refused.status == status
    assert said in refused.message
    run(*words, "--date", "20080427", "--resume")
    if "--path" in output:
        assert {keys(message, "dataDate") for message in messages(run.path("f.grib"))} == {(20080427,)}


def test_a_file_that_another_run_is_writing_is_left_alone(tmp_path: Path):
    first, second = MessageFiles(), MessageFiles()
    first.append(tmp_path / "x.grib", b"GRIB first")
    with pytest.raises(OutputError, match=r"^cannot write .*/x\.grib: another run is writing it; wait for that to end"):
        second.append(tmp_path / "x.grib", b"GRIB second")
    first.finish()
    assert (tmp_path / "x.grib").read_bytes() == b"GRIB first"
    second.append(tmp_path / "x.grib", b"GRIB third")
    second.finish()
    assert (tmp_path / "x.grib").read_bytes() == b"GRIB third"


def test_the_end_of_a_file_tells_whose_it_is(tmp_path: Path):
    path = tmp_path / "x.grib"
    assert tail_digest(path, 0) is None
    path.with_name("x.grib.partial").write_bytes(b"a" * 9000 + b"b")
    assert tail_digest(path, 9000) == tail_digest(path, 8999)
    assert tail_digest(path, 9001) != tail_digest(path, 9000)
    assert tail_digest(path, 9002) is None


def test_a_record_of_before_there_were_digests_is_gone_on_with(tmp_path: Path):
    (tmp_path / "x.grib.partial").write_bytes(b"something else")
    for tails, refused in ((None, False), ({str(tmp_path / "x.grib"): "0" * 64}, True)):
        record = ResumeRecord({}, {}, 1, {str(tmp_path / "x.grib"): 5}, tails=tails)
        with open_resume_state(tmp_path / "s", record, 1, 1, resume=False) as resume_state:
            if not refused:
                resume_state.check_output()
                continue
            with pytest.raises(ResumeError, match="another run has written to it since"):
                resume_state.check_output()


# Its own.


def test_an_output_over_the_input_or_over_another_is_refused(run: Runner):
    own = run.path("in.grib")
    own.write_bytes(SAMPLE.read_bytes())
    words = ("mosaic", "--variant", "mini", "--file", "in.grib", *SMALL, "--lead-time", 24)
    refused = run.refused(*words, "--path", run.folder / "." / "in.grib")
    assert refused.status == 6
    assert "expected a file of its own, got that of the input in.grib" in refused.message
    refused = run.refused(*words, "--path", "x.out", "--netcdf", "x.out")
    assert "--netcdf x.out: expected a file of its own, got that of --path x.out" in refused.message
    assert own.read_bytes() == SAMPLE.read_bytes()
    assert sorted(path.name for path in run.folder.iterdir()) == ["in.grib"]
    # Members and products may share a file.
    run(*words, "--path", "y.grib", "--products", "mean@2t", "--products-path", "y.grib")
    assert len(messages(run.path("y.grib"))) == 6


def test_a_replay_writes_neither_over_the_original_nor_over_the_input(run: Runner, capsys: pytest.CaptureFixture[str]):
    run(*DAY, "--path", "f.grib")
    before, card = run.path("f.grib").read_bytes(), str(run.path("f.grib.provenance.json"))
    words = ["replay", card, "--steps", "24", "--params", "2t", "--member"]
    for output in (run.path("f.grib"), card, SAMPLE):
        assert main([*words, "1", "--output", str(output)]) == 6
        assert "expected a new file, got one of the forecast itself or its input" in capsys.readouterr().err
    assert run.path("f.grib").read_bytes() == before
    for member in ("0", "2"):
        assert main([*words, member, "--output", str(run.path("again.grib"))]) == 2
        assert f"--member: expected a number from 1 to 1, got {member}" in capsys.readouterr().err
    found = json.loads(Path(card).read_text())
    for name in ("metadata", "engine", "packages", "ensemble_size"):
        Path(card).write_text(json.dumps({key: value for key, value in found.items() if key != name}))
        assert main([*words, "1", "--output", str(run.path("again.grib"))]) == 3
        assert f"KeyError('{name}')" in capsys.readouterr().err


# Another list of members.


def test_a_loop_over_members_that_was_stopped_goes_on_in_any_order(run: Runner, signalled):
    run(*DAY, "--num-ensemble-members", 2, "--path", "all-{number}.grib")
    words = (*DAY, "--num-ensemble-members", 2, "--path", "m-{number}.grib", "--resume", "--member-number")
    signalled()
    assert run.refused(*words, 1).status == 143
    run(*words, 2)
    assert [path.name for path in run.folder.glob("m-*.grib")] == ["m-2.grib"]
    run(*words, 1)
    for member in (1, 2):
        assert run.path(f"m-{member}.grib").read_bytes() == run.path(f"all-{member}.grib").read_bytes()
    refused = run.refused(*words, "1-2")
    assert refused.status == 7
    assert "is complete, and of another run than this one:\n  --member-number: it was [" in refused.message


# Complete, or not.


def test_what_lacks_a_file_or_has_one_of_another_run_is_not_complete(run: Runner, signalled):
    words = (*DAY, "--num-ensemble-members", 2, "--path", "{dataDate}{dataTime:04d}-{number}.grib")
    words = (*words, "--products", "mean@2t", "--products-path", "mean.grib", "--resume")
    run(*words)
    whole = {path.name: path.read_bytes() for path in run.folder.glob("*.grib")}
    assert sorted(whole) == ["200804260600-1.grib", "200804260600-2.grib", "mean.grib"]
    run.path("mean.grib").unlink()
    run(*words)
    assert {path.name: path.read_bytes() for path in run.folder.glob("*.grib")} == whole
    # A member of another seed beside one of this.
    run(*DAY, "--seed", 7, "--path", "{dataDate}{dataTime:04d}-{number}.grib")
    assert {path.name: path.read_bytes() for path in run.folder.glob("*.grib")} != whole
    refused = run.refused(*words)
    assert "200804260600-1.grib is complete, and of another run than this one:\n" in refused.message
    assert "\n  --seed: it was 7, now 0\n" in refused.message
    run(*words[:-1])
    assert {path.name: path.read_bytes() for path in run.folder.glob("*.grib")} == whole
    # Now there is nothing to do: no step is made that a signal could end.
    signalled()
    run(*words)


def test_a_complete_run_asks_for_its_archiving_again_and_notes_that_it_ended(run: Runner):
    words = (*DAY, "--path", "f.grib", "--resume", "--archive-requests", "f.req", "--progress-file", "f.jsonl")
    run(*words)
    requests = run.path("f.req").read_text()
    assert "param=129/167" in requests
    run(*words)
    assert run.path("f.req").read_text() == requests
    events = [json.loads(line)["event"] for line in run.path("f.jsonl").read_text().splitlines()]
    assert events[-2:] == ["begin", "end"]


def test_progress_is_noted_where_nothing_is_kept_to_go_on_from(run: Runner):
    run(*DAY, "--output", "none", "--progress-file", "f.jsonl")
    events = [json.loads(line)["event"] for line in run.path("f.jsonl").read_text().splitlines()]
    assert events == ["begin", "step", "step", "end"]


def test_a_run_goes_on_with_the_batch_that_was_chosen_for_it(run: Runner, signalled, monkeypatch: pytest.MonkeyPatch):
    words = (*DAY, "--num-ensemble-members", 4, "--path", "f.grib")
    monkeypatch.setattr(TorchEngine, "best_batch", lambda *_: 4)
    signalled()
    assert run.refused(*words).status == 143
    monkeypatch.setattr(TorchEngine, "best_batch", lambda *_: 2)
    run(*words, "--resume")
    assert json.loads(run.path("f.grib.provenance.json").read_text())["members_per_batch"] == 4


# Places.


def test_folders_are_looked_for_before_the_run_for_all_that_will_be_written(run: Runner):
    words = (*DAY, "--path", "{step}/{shortName}.grib")
    refused = run.refused(*words)
    assert "there is no folder 0; create it first" in refused.message
    run.path("0").mkdir()
    refused = run.refused(*words)
    assert "there is no folder 24; create it first" in refused.message
    assert not any(run.path("0").iterdir())
    run.path("24").mkdir()
    run(*words, "--output-steps", 24)
    assert sorted(path.name for path in run.path("24").glob("*.grib")) == ["2t.grib", "z.grib"]


def test_devices_need_no_folder_that_can_be_written_to(monkeypatch: pytest.MonkeyPatch):
    folders = []
    monkeypatch.setattr("ai_models_mosaic.outputs.grib.files.check_folder", folders.append)
    check_writable(Path("/dev/null"))
    assert folders == []
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match=r"^cannot write /dev/null: it is not writable$"):
        check_writable(Path("/dev/null"))


WRITES = """
import sys
from pathlib import Path
from ai_models_mosaic.outputs.grib.files import MessageFiles
files = MessageFiles()
files.append(Path(sys.argv[1]), b"GRIB and more")
files.finish()
"""


def test_a_link_to_standard_output_stays_one_where_that_is_a_file(tmp_path: Path):
    link, target = tmp_path / "out", tmp_path / "redirected"
    link.symlink_to("/proc/self/fd/1")
    for place in (link, Path("/dev/fd/1")):
        with target.open("wb") as file:
            subprocess.run([sys.executable, "-c", WRITES, str(place)], stdout=file, check=True)
        assert target.read_bytes() == b"GRIB and more"
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "redirected"]
    ordinary = tmp_path / "ordinary"
    ordinary.symlink_to(target)
    assert not is_stream(ordinary)
    assert not is_stream(target)
