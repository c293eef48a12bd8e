"""Weights on disk: found again, never trusted when damaged, never in the way."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix, random

from ai_models_mosaic.geometry.disk_cache import cache_folder, digest_of_arrays
from ai_models_mosaic.geometry.grid import LatLonGrid, ReducedGrid
from ai_models_mosaic.geometry.regrid import ConservativeRegridder
from ai_models_mosaic.geometry.weights_cache import cached

MATRIX = csr_matrix(random(30, 40, density=0.2, random_state=0))
REDUCED = ReducedGrid((-80.0, -30.0, 30.0, 80.0), (8, 16, 16, 8), (0.0, 0.0, 0.0, 0.0))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AI_MODELS_MOSAIC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Counted:
    """Computes the matrix, and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> csr_matrix:
        self.times += 1
        return MATRIX


def same(one: csr_matrix, other: csr_matrix) -> bool:
    return one.shape == other.shape and (one != other).nnz == 0


def test_what_was_computed_is_found_again(folder: Path):
    compute = Counted()
    for _ in range(3):
        assert same(cached(("key", 1.0), MATRIX.shape, compute), MATRIX)
    assert compute.times == 1
    assert [path.suffix for path in folder.iterdir()] == [".npz"]


def test_another_key_is_another_matrix(folder: Path):
    compute = Counted()
    cached("one", MATRIX.shape, compute)
    cached("two", MATRIX.shape, compute)
    assert compute.times == 2


DAMAGE = {
    "cut short": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "another kind": lambda content: b"not an npz at all" * 50,
    "a flipped bit": lambda content: content[:1500] + bytes([content[1500] ^ 4]) + content[1501:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_computed_and_written_again(folder: Path, damage: str, caplog: pytest.LogCaptureFixture):
    compute = Counted()
    cached("key", MATRIX.shape, compute)
    (path,) = folder.iterdir()
    good = path.read_bytes()
    path.write_bytes(DAMAGE[damage](good))
    assert same(cached("key", MATRIX.shape, compute), MATRIX)
    assert compute.times == 2
    assert f"Cannot use {path} (" in caplog.text
    assert same(cached("key", MATRIX.shape, compute), MATRIX)
    assert compute.times == 2


WRONG = {
    "a column beyond": {"indices": lambda found: np.full_like(found, 40)},
    "a column before": {"indices": lambda found: found - 1},
    "a column far beyond": {"indices": lambda found: found + 2**30},
    "other rows": {"indptr": lambda found: found[:-1]},
    "a row beyond": {"indptr": lambda found: found + 2**20},
    "rows that go back": {"indptr": lambda found: np.concatenate([found[:1], found[-1:1:-1], found[-1:]])},
    "another shape": {"shape": lambda found: found[::-1]},
    "fewer weights": {"data": lambda found: found[:-1]},
    "no numbers": {"data": lambda found: found * np.nan},
    "another type": {"indices": lambda found: found.astype(np.float64)},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_file_that_is_whole_but_cannot_be_the_answer_is_not_taken(folder: Path, wrong: str, caplog):
    compute = Counted()
    cached("key", MATRIX.shape, compute)
    (path,) = folder.iterdir()
    with np.load(path) as data:
        arrays = {name: data[name] for name in data.files if name != "digest"}
    for name, change in WRONG[wrong].items():
        arrays[name] = change(arrays[name])
    np.savez(path, digest=np.array(digest_of_arrays(arrays)), **arrays)
    assert same(cached("key", MATRIX.shape, compute), MATRIX)
    assert f"Cannot use {path} (expected " in caplog.text
    assert compute.times == 2


def test_a_file_that_grows_when_it_is_read_is_not_taken(folder: Path, caplog):
    compute = Counted()
    cached("key", MATRIX.shape, compute)
    (path,) = folder.iterdir()
    arrays = {"data": np.zeros(10**6)}
    np.savez_compressed(path, digest=np.array(digest_of_arrays(arrays)), **arrays)
    assert same(cached("key", MATRIX.shape, compute), MATRIX)
    assert f"Cannot use {path} (its content is larger than the file)" in caplog.text


def test_a_folder_that_cannot_be_made_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("AI_MODELS_MOSAIC_CACHE", str(tmp_path / "file" / "cache"))
    assert same(cached("key", MATRIX.shape, Counted()), MATRIX)
    assert "Cannot keep the weights of this regridding in" in caplog.text


def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AI_MODELS_MOSAIC_CACHE", "off")
    assert cache_folder() is None
    compute = Counted()
    cached("key", MATRIX.shape, compute)
    cached("key", MATRIX.shape, compute)
    assert compute.times == 2


def test_it_is_in_the_users_cache_folder_unless_said_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("AI_MODELS_MOSAIC_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "ai-models-mosaic"


def test_runs_at_the_same_time_do_not_hurt_each_other(folder: Path):
    program = (
        "import numpy as np; from scipy.sparse import random, csr_matrix\n"
        "from ai_models_mosaic.geometry.weights_cache import cached\n"
        "m = csr_matrix(random(300, 400, density=0.5, random_state=0))\n"
        "for turn in range(20):\n"
        "    found = cached(('key', turn % 3), m.shape, lambda: m)\n"
        "    assert (found != m).nnz == 0"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program], env=os.environ, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")
    assert {path.suffix for path in folder.iterdir()} == {".npz"}


def test_a_reduced_grid_is_mapped_the_same_from_the_cache(folder: Path):
    target = LatLonGrid.regular(30.0)
    field = np.random.default_rng(0).normal(size=REDUCED.shape)
    first, again = (ConservativeRegridder(REDUCED, target)(field) for _ in range(2))
    assert len(list(folder.iterdir())) == 1
    assert (first == again).all()
