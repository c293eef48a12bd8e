"""A file is whole when it is there under its name; what was there before stays until then."""

from pathlib import Path

import pytest

import ai_models_mosaic
from ai_models_mosaic.files import TakenError, whole_file, whole_path

PACKAGE = Path(ai_models_mosaic.__file__).parent


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fail(writing):
    with writing as file:
        if isinstance(file, Path):
            file.write_bytes(b"ne")
        else:
            file.write(b"ne")
        raise KeyError


def two_at_once(path, *, shared):
    with whole_file(path, shared=shared) as first:
        first.write(b"first")
        with whole_file(path, shared=shared) as second:
            second.write(b"second")


@pytest.mark.parametrize("shared", [False, True])
def test_it_has_its_name_at_the_end_only(tmp_path, shared):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with whole_file(path, shared=shared) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
        (partial,) = set(names(tmp_path)) - {"x"}
        assert (partial == "x.partial") != shared
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize("shared", [False, True])
def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path, shared):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(KeyError):
        fail(whole_file(path, shared=shared))
    assert (names(tmp_path), path.read_bytes()) == (["x"], b"old")


def test_of_two_at_once_the_later_has_the_name_and_the_other_is_told(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(TakenError):
        two_at_once(path, shared=False)
    assert (names(tmp_path), path.read_bytes()) == (["x"], b"second")


def test_of_two_that_are_shared_the_last_stays(tmp_path):
    path = tmp_path / "x"
    two_at_once(path, shared=True)
    assert (names(tmp_path), path.read_bytes()) == (["x"], b"first")


def test_a_library_that_writes_by_a_name_may_make_the_file_anew(tmp_path):
    path = tmp_path / "x"
    usual = tmp_path / "usual"
    usual.touch()
    with whole_path(path) as partial:
        partial.unlink()
        partial.touch(mode=0o600)
        partial.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode == usual.stat().st_mode
    with pytest.raises(KeyError):
        fail(whole_path(path))
    assert (names(tmp_path), path.read_bytes()) == (["usual", "x"], b"new")


def test_nobody_else_makes_a_partial_file_by_hand():
    # A program of another environment; what is resumed by its digest; a folder for two files.
    own = {"files.py", "simulator.py", "hub.py", "onnx_export.py"}
    found = {path.name for path in PACKAGE.rglob("*.py") if '.partial"' in path.read_text(encoding="utf-8")}
    assert found <= own, found - own
