"""Files of weights that are held as they were read."""

import hashlib
import os
import re
import threading

import pytest

from ai_models_mosaic.checkpoints import held_file
from ai_models_mosaic.checkpoints.held_file import HeldAhead, held, held_bytes
from ai_models_mosaic.checkpoints.integrity import sha256
from ai_models_mosaic.errors import CheckpointError


@pytest.fixture(params=["a sealed descriptor", "a temporary file"])
def room(request, monkeypatch, tmp_path):
    """Where copies are: on Linux, and elsewhere."""
    if request.param == "a temporary file":
        monkeypatch.setattr(held_file, "DESCRIPTORS", tmp_path / "absent")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(bytes(range(256)) * 9000)
    return path


@pytest.mark.usefixtures("room")
@pytest.mark.parametrize("harm", [lambda path: os.truncate(path, 0), lambda path: path.write_bytes(b"other")])
def test_a_copy_and_its_digest_are_those_of_the_file_when_it_was_read(path, harm):
    content, digest = path.read_bytes(), sha256(path)
    with held(path) as copy:
        harm(path)
        assert copy.place.read_bytes() == content
    assert copy.digest() == copy.digest() == digest
    assert not copy.place.exists()


@pytest.mark.skipif(not held_file.DESCRIPTORS.is_dir(), reason="needs Linux")
def test_a_copy_cannot_be_written_to_nor_cut_by_anybody(path):
    with held(path) as copy, copy.place.open("r+b", buffering=0) as file:
        with pytest.raises(PermissionError):
            file.write(b"other")
        with pytest.raises(PermissionError):
            file.truncate(0)


@pytest.mark.usefixtures("room")
@pytest.mark.parametrize("read", [lambda path: held(path).__enter__(), lambda path: held_bytes(path, 10**7)])
def test_a_file_that_is_being_written_to_is_refused(path, read, monkeypatch):
    stamp = held_file._stamp

    def written_to(file):
        found = stamp(file)
        with path.open("ab") as other:
            other.write(b"more")
        return found

    monkeypatch.setattr(held_file, "_stamp", written_to)
    message = (
        f"{path} changed while it was read: expected 2304000 bytes that nobody writes to, got 2304004; wait until the "
        "file is complete, and run the same command again"
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        read(path)


@pytest.mark.parametrize("read", [lambda path: held(path).__enter__(), lambda path: held_bytes(path, 10)])
def test_a_file_that_is_not_there_is_refused(tmp_path, read):
    message = f"{tmp_path / 'absent'} cannot be read: No such file or directory"
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        read(tmp_path / "absent")


def test_a_small_file_that_is_large_is_refused(path):
    message = f"{path}: expected a file of at most 1000 bytes, got 2304000"
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        held_bytes(path, 1000)
    assert held_bytes(path, 2304000) == path.read_bytes()


def test_nothing_is_left_open(path):
    before = open_files()
    with held(path) as copy:
        pass
    copy.digest()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("SHA-256")]
    assert open_files() == before


def open_files():
    return len(list(held_file.DESCRIPTORS.iterdir())) if held_file.DESCRIPTORS.is_dir() else 0


# A copy that is made ahead.


@pytest.mark.usefixtures("room")
def test_a_copy_made_ahead_is_of_the_file_as_it_was_then_and_a_second_one_of_the_file_as_it_is(path):
    content, ahead = path.read_bytes(), HeldAhead(path)
    with ahead() as copy:
        path.write_bytes(b"other")
        assert copy.place.read_bytes() == content
    assert copy.digest() == hashlib.sha256(content).hexdigest()
    with ahead() as another:
        assert another.place.read_bytes() == b"other"


def test_what_is_wrong_with_a_file_is_said_where_its_copy_is_asked_for(tmp_path):
    ahead = HeldAhead(tmp_path / "absent")
    message = f"{tmp_path / 'absent'} cannot be read: No such file or directory"
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"), ahead():
        pass
