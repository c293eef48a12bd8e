"""Names that can be guessed, in folders where others may write: never followed, and only what a run made is removed."""

import os
from pathlib import Path

import pytest
from steps import forecast_step
from test_writer import plan, write

from ai_models_mosaic.errors import OutputError
from ai_models_mosaic.files import claim, claim_lock, claim_new, create, place_of, read_own, write_whole
from ai_models_mosaic.forecast.provenance import write_beside
from ai_models_mosaic.forecast.resume import ResumeRecord, open_resume_state
from ai_models_mosaic.outputs.grib.files import MessageFiles, check_writable

FRESH = ResumeRecord({"seed": 1}, {"torch": "2"})
SOMEBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs to give files to somebody else")


@pytest.fixture
def own(tmp_path):
    """A file of the user's that must stay as it is."""
    made = tmp_path / "own.txt"
    made.write_text("years of work")
    yield made
    assert made.read_text() == "years of work"


def messages(path: Path) -> None:
    files = MessageFiles()
    try:
        files.append(path, b"GRIB")
    finally:
        files.abandon()


def card(path: Path) -> None:
    path.touch()
    write_beside(path, {"run": "aa"})


def netcdf(path: Path) -> None:
    write(plan(path.parent, path=None, grib=False, netcdf=str(path), steps=0))


def store(path: Path) -> None:
    write(plan(path.parent, path=None, grib=False, zarr=str(path), steps=0))


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (messages, "x.partial"),
        (check_writable, "x.partial"),
        (card, "x.provenance.json.partial"),
        (netcdf, "x.partial"),
        (netcdf, "x.scratch.partial"),
        (store, "x.partial"),
    ],
)
def test_a_link_in_the_place_of_an_unfinished_file_is_refused(tmp_path, own, write, name):
    (tmp_path / name).symlink_to(own)
    with pytest.raises(
        OutputError, match=rf"^cannot write .*: .*{name} is a symbolic link; expected nothing there, or"
    ):
        write(tmp_path / "x")
    assert (tmp_path / name).is_symlink()


def test_another_name_of_a_file_is_not_written_to(tmp_path, own):
    os.link(own, tmp_path / "x.partial")
    files = MessageFiles()
    files.append(tmp_path / "x", b"GRIB")
    files.finish()
    os.link(own, tmp_path / "y.partial")
    with pytest.raises(OutputError, match=r"y.partial has 2 names; expected a file of this run alone"):
        files.resume({str(tmp_path / "y"): 3})
    files.abandon()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_in_the_place_of_an_unfinished_one_is_refused_and_not_waited_for(tmp_path, make):
    make(tmp_path / "x.partial")
    for use in (claim, claim_new, claim_lock, create, read_own):
        with pytest.raises(
            OSError, match=r"x.partial is (no file|a folder); expected nothing there, or what a run left"
        ):
            use(tmp_path / "x.partial")


def test_what_has_the_name_of_a_card_is_replaced_and_not_followed(tmp_path, own):
    (tmp_path / "x.provenance.json").symlink_to(own)
    card(tmp_path / "x")
    assert not (tmp_path / "x.provenance.json").is_symlink()


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    def parts():
        yield b"new"
        assert (tmp_path / "x").read_bytes() == b"old"
        assert (tmp_path / "x.partial").exists()
        yield memoryview(b" and whole")

    (tmp_path / "x").write_bytes(b"old")
    (tmp_path / "x.partial").write_bytes(b"left by a run that died, and longer than this")
    write_whole(tmp_path / "x", parts())
    assert (tmp_path / "x").read_bytes() == b"new and whole"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_two_that_write_the_same_file_do_not_mix(tmp_path):
    def parts():
        write_whole(tmp_path / "x", [b"second"])
        yield b"first"

    with pytest.raises(OutputError, match="another run is writing it"):
        write_whole(tmp_path / "x", parts())
    assert (tmp_path / "x").read_bytes() == b"second"


# The state of a run.


def save(folder: Path) -> None:
    with open_resume_state(folder, FRESH, 2, 1, resume=False) as resume_state:
        resume_state.note(0, forecast_step(1, 24, (1,)))
        resume_state.save(2, {})
        resume_state.remove()


def test_a_link_in_the_place_of_the_state_is_refused(tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    (target / "step-00001-batch-00000.npy").write_text("years of work")
    (tmp_path / "s").symlink_to(target)
    with pytest.raises(
        OutputError, match=r"^cannot write .*/s: it is a symbolic link, where the state of a run is to be"
    ):
        save(tmp_path / "s")
    assert [path.name for path in target.iterdir()] == ["step-00001-batch-00000.npy"]


@pytest.mark.parametrize("name", ["lock", "run.json.partial", "step-00001-batch-00000.npy.partial"])
def test_links_within_the_state_are_refused(tmp_path, own, name):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / name).symlink_to(own)
    with pytest.raises(OutputError, match=rf"{name} is a symbolic link"):
        save(tmp_path / "s")


def test_only_what_a_run_made_is_removed_from_the_folder_of_its_state(tmp_path, own):
    folder = tmp_path / "s"
    folder.mkdir()
    for name in ("observations.npy", "step-1.npy", "notes.txt"):
        (folder / name).write_text("years of work")
    (folder / "step-00009-batch-00000.npy").write_text("left by a run that died")
    (folder / "step-00008-batch-00000.npy").symlink_to(own)
    save(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", "observations.npy", "step-1.npy"]
    assert {path.read_text() for path in folder.iterdir()} == {"years of work"}


def test_a_run_that_begins_while_another_ends_keeps_its_state(tmp_path):
    folder = tmp_path / "s"
    with open_resume_state(folder, FRESH, 2, 1, resume=False) as first:
        first.save(1, {})
        first.remove()
        with open_resume_state(folder, FRESH, 2, 1, resume=False) as second:
            first_still_open = folder / "lock"
            assert first_still_open.exists()
            second.save(1, {})
    assert (folder / "run.json").exists()


# Folders where all may write.


@pytest.fixture
def shared(tmp_path):
    made = tmp_path / "shared"
    made.mkdir()
    made.chmod(0o1777)
    return made


@as_root
def test_links_and_states_that_somebody_else_put_into_a_shared_folder_are_not_used(shared, own):
    link = shared / "x.grib"
    link.symlink_to(own)
    assert place_of(link) == own
    os.chown(link, SOMEBODY, SOMEBODY, follow_symlinks=False)
    said = "was put there by somebody else, in a folder where all may write: not used"
    with pytest.raises(OutputError, match=said):
        check_writable(link)
    with pytest.raises(OutputError, match=said):
        messages(link)
    (shared / "s").mkdir()
    os.chown(shared / "s", SOMEBODY, SOMEBODY)
    with pytest.raises(OutputError, match=said):
        save(shared / "s")
    # In a folder of one's own, all is one's own doing.
    shared.chmod(0o755)
    save(shared / "s")
    assert place_of(link) == own
