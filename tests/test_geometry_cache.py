"""Neighbours on disk: those of the search, found again, and never trusted for other points or when damaged."""

import importlib.metadata
import logging
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from ai_models_mosaic.geometry import cache as geometry_cache
from ai_models_mosaic.geometry.cache import kept_neighbours
from ai_models_mosaic.geometry.disk_cache import cached_arrays, digest_of_arrays
from ai_models_mosaic.geometry.grid import LatLonGrid, healpix_centres, nearest_neighbours
from ai_models_mosaic.model.buffers import make_buffers

GRID = LatLonGrid.regular(15.0)
MESH = healpix_centres(4)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AI_MODELS_MOSAIC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Counted:
    """The search, and how often it ran."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, *arguments):
        self.times += 1
        return nearest_neighbours(*arguments)


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Counted:
    counted = Counted()
    monkeypatch.setattr(geometry_cache, "nearest_neighbours", counted)
    return counted


def test_neighbours_from_the_cache_are_those_of_the_search(folder: Path, search: Counted):
    expected = nearest_neighbours(MESH, GRID.points(), 4)
    for _ in range(3):
        found = kept_neighbours(MESH, GRID.points(), 4)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, expected)
    assert search.times == 1
    (path,) = folder.iterdir()
    assert path.name.startswith("geometry-")


def test_other_points_another_direction_and_another_number_are_other_neighbours(folder: Path, search: Counted):
    moved = tuple(angle.copy() for angle in MESH)
    # A unit in the last place may decide a tie.
    moved[1][7] = np.nextafter(moved[1][7], np.float32(90))
    for arguments in (
        (MESH, GRID.points(), 4),
        (MESH, GRID.points(), 3),
        (GRID.points(), MESH, 4),
        (moved, GRID.points(), 4),
        (MESH, LatLonGrid.regular(18.0).points(), 4),
    ):
        np.testing.assert_array_equal(kept_neighbours(*arguments), nearest_neighbours(*arguments))
    assert search.times == 5
    assert len(list(folder.iterdir())) == 5


def test_longitudes_and_latitudes_are_not_taken_for_each_other(folder: Path, search: Counted):
    square = tuple(np.linspace(10, 60, 8, dtype=np.float32) for _ in range(2))
    other = (square[0], square[1][::-1].copy())
    for points in (other, other[::-1]):
        np.testing.assert_array_equal(kept_neighbours(points, square, 2), nearest_neighbours(points, square, 2))
    assert search.times == 2


@pytest.mark.parametrize("changed", ["scikit-learn", "processor", "algorithm"])
def test_another_search_does_not_meet_the_neighbours_of_this_one(
    folder: Path, search: Counted, monkeypatch: pytest.MonkeyPatch, changed: str
):
    kept_neighbours(MESH, GRID.points(), 4)
    if changed == "scikit-learn":
        monkeypatch.setattr(geometry_cache, "version", lambda name: importlib.metadata.version(name) + ".1")
    elif changed == "processor":
        monkeypatch.setattr("platform.machine", lambda: "abacus")
    else:
        monkeypatch.setattr(geometry_cache, "ALGORITHM", "nearest_neighbours 2")
    kept_neighbours(MESH, GRID.points(), 4)
    assert search.times == 2


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_flipped_bit_is_noticed_and_the_file_made_again(
    folder: Path, search: Counted, caplog: pytest.LogCaptureFixture, part: float
):
    expected = kept_neighbours(MESH, GRID.points(), 4)
    (path,) = folder.iterdir()
    good = bytearray(path.read_bytes())
    good[int(part * len(good))] ^= 1
    path.write_bytes(good)
    np.testing.assert_array_equal(kept_neighbours(MESH, GRID.points(), 4), expected)
    assert f"Cannot use {path} (" in caplog.text
    assert "computing the neighbours of the grids' points again" in caplog.text
    assert search.times == 2
    kept_neighbours(MESH, GRID.points(), 4)
    assert search.times == 2


WRONG = {
    "points that there are not": lambda found: np.full_like(found, GRID.size),
    "negative": lambda found: found - GRID.size,
    "another shape": lambda found: found[:, :3],
    "another type": lambda found: found.astype(np.float64),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_file_that_is_whole_but_cannot_be_the_answer_is_not_taken(
    folder: Path, search: Counted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wrong: str
):
    expected = kept_neighbours(MESH, GRID.points(), 4)
    (path,) = folder.iterdir()
    arrays = {"neighbours": WRONG[wrong](expected.astype(np.int32))}
    np.savez(path, digest=np.array(digest_of_arrays(arrays)), **arrays)
    np.testing.assert_array_equal(kept_neighbours(MESH, GRID.points(), 4), expected)
    assert "(expected " in caplog.text
    assert search.times == 2


def test_nothing_is_unpickled(folder: Path, search: Counted, caplog: pytest.LogCaptureFixture):
    expected = kept_neighbours(MESH, GRID.points(), 4)
    (path,) = folder.iterdir()
    np.savez(path, digest=np.array("0" * 64), neighbours=np.array([{}], dtype=object))
    np.testing.assert_array_equal(kept_neighbours(MESH, GRID.points(), 4), expected)
    assert "Object arrays cannot be loaded when allow_pickle=False" in caplog.text


def test_a_folder_that_cannot_be_written_to_is_only_worth_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("AI_MODELS_MOSAIC_CACHE", str(tmp_path / "file" / "cache"))
    found = kept_neighbours(MESH, GRID.points(), 4)
    np.testing.assert_array_equal(found, nearest_neighbours(MESH, GRID.points(), 4))
    assert "Cannot keep the neighbours of the grids' points in" in caplog.text


def test_switched_off_nothing_is_kept_and_nothing_said(search: Counted, caplog: pytest.LogCaptureFixture):
    for _ in range(2):
        kept_neighbours(MESH, GRID.points(), 4)
    assert search.times == 2
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_buffers_are_the_same_to_the_bit_with_a_cold_cache_a_warm_one_and_none(
    folder: Path, search: Counted, monkeypatch: pytest.MonkeyPatch
):
    keys = [f"{group}.{name}" for group in ("interp_to_hp", "interp_to_ll") for name in ("neighbors", "rel_pos")]
    cold, warm = (make_buffers(tiny.ARCHITECTURE, keys, {}) for _ in range(2))
    assert search.times == 2
    monkeypatch.setenv("AI_MODELS_MOSAIC_CACHE", "off")
    none = make_buffers(tiny.ARCHITECTURE, keys, {})
    assert search.times == 4
    for key in keys:
        assert torch.equal(cold[key], warm[key]), key
        assert torch.equal(cold[key], none[key]), key


# The store below.


def test_the_digest_tells_names_types_shapes_and_contents_and_not_the_order():
    one, two = np.arange(6, dtype=np.int32), np.ones(2)
    digest = digest_of_arrays({"a": one, "b": two})
    assert digest == digest_of_arrays({"b": two, "a": one})
    others = (
        {"a": one, "c": two},
        {"a": one.reshape(2, 3), "b": two},
        {"a": one.view(np.uint32), "b": two},
        {"a": one + 1, "b": two},
        {"a": one},
    )
    assert digest not in {digest_of_arrays(other) for other in others}
    # A view that is not contiguous has the digest of its contents.
    assert digest_of_arrays({"a": np.repeat(one, 2)[::2], "b": two}) == digest


def test_files_of_different_kinds_do_not_meet(folder: Path):
    made = [cached_arrays(kind, "key", lambda: {"x": np.arange(3)}, "things") for kind in ("one", "two")]
    assert all((arrays["x"] == np.arange(3)).all() for arrays in made)
    assert sorted(path.name.split("-")[0] for path in folder.iterdir()) == ["one", "two"]
