import hashlib
import re
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from ai_models_mosaic.checkpoints.files import (
    Assets,
    bundled_folder,
    locate,
    read_companions,
    read_static_fields,
    read_statistics,
)
from ai_models_mosaic.checkpoints.format import Checkpoint, Statistics
from ai_models_mosaic.errors import CheckpointError
from ai_models_mosaic.variants import ERA5, MINI

HUB = "https://huggingface.co/maxxxzdn/mosaic"
PT, SAFETENSORS = "checkpoints/tiny_best.pt", "checkpoints/tiny_best.safetensors"
FILES = (PT, "data/norm_stats_tiny.npz", "data/static_vars.npz")
LONGITUDE, LATITUDE = (
    np.array(side)
    for side in (tiny.VARIANT.architecture.grid.longitude_deg, tiny.VARIANT.architecture.grid.latitude_deg)
)
EMPTY = Checkpoint(Path("tiny.pt"), {})


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


# Where files are.


@pytest.mark.parametrize("names", [FILES, [Path(name).name for name in FILES]], ids=["as on the hub", "flat"])
def test_files_are_found_as_on_the_hub_or_flat(tmp_path, names):
    touch(tmp_path, *names)
    assert locate(tiny.VARIANT, tmp_path) == Assets(*(tmp_path / name for name in names), tmp_path)


@pytest.mark.parametrize(
    ("present", "found"),
    [
        ([PT, SAFETENSORS], SAFETENSORS),
        ([PT, "tiny_best.safetensors"], "tiny_best.safetensors"),
        (["tiny_best.pt", PT], PT),
        (["tiny_best.pt", "other.safetensors"], "tiny_best.pt"),
    ],
)
def test_safetensors_are_preferred_and_then_the_layout_of_the_hub(tmp_path, present, found):
    touch(tmp_path, *present)
    assert locate(tiny.VARIANT, tmp_path) == Assets(tmp_path / found, None, None, tmp_path)


def test_missing_weights_are_an_error_that_says_where_they_come_from(tmp_path):
    # Folders of that name do not count.
    (tmp_path / "checkpoints" / "era5_best.pt").mkdir(parents=True)
    message = (
        "variant era5 needs checkpoints/era5_best.pt, data/norm_stats_era5.npz, data/static_vars.npz in the assets "
        f"folder {tmp_path}: fetch them with --download-assets, or from {HUB} (CC-BY-NC-4.0) and pass --assets FOLDER, "
        "or give --checkpoint FILE"
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        locate(ERA5, tmp_path)


def test_a_given_checkpoint_wins_and_its_companions_still_come_from_the_folder(tmp_path):
    touch(tmp_path, *FILES, SAFETENSORS)
    touch(tmp_path, "mine.pt")
    assert locate(tiny.VARIANT, tmp_path, tmp_path / "mine.pt") == Assets(
        tmp_path / "mine.pt", *(tmp_path / name for name in FILES[1:]), tmp_path
    )


def test_an_absent_given_checkpoint_is_not_replaced_by_another(tmp_path):
    touch(tmp_path, *FILES)
    message = f"--checkpoint {tmp_path}/mine.pt: there is no such file; expected a .pt or .safetensors file"
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        locate(tiny.VARIANT, tmp_path, tmp_path / "mine.pt")


def test_the_bundled_weights_are_found_whatever_the_assets_folder_holds(tmp_path):
    touch(tmp_path, "mini.safetensors")
    found = locate(MINI, tmp_path)
    assert found == Assets(bundled_folder() / "mini.safetensors", None, None, bundled_folder())
    assert found.checkpoint.stat().st_size > 2**20


def test_files_are_located_without_importing_torch(tmp_path):
    touch(tmp_path, *FILES)
    code = f"""
import sys
from pathlib import Path
from ai_models_mosaic.checkpoints.files import locate
from ai_models_mosaic.variants import MINI
print(locate(MINI, Path({str(tmp_path)!r})).checkpoint.name, "torch" in sys.modules)
"""
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout == "mini.safetensors False\n"


# What is in them.


def save_statistics(folder, **changes):
    path = folder / "norm_stats_tiny.npz"
    arrays = {"state_mean": np.arange(5, dtype=np.float32), "state_std": np.full(5, 2.5), "residual_std": np.ones(5)}
    np.savez(path, **{**arrays, **changes})
    return Assets(folder / "tiny_best.pt", path, None, folder)


def save_statics(folder, **changes):
    path = folder / "static_vars.npz"
    np.savez(path, **{"data": tiny.STATICS, "latitude": LATITUDE, "longitude": LONGITUDE, **changes})
    return Assets(folder / "tiny_best.pt", None, path, folder)


def test_statistics_come_from_the_file_of_the_variant(tmp_path):
    found, _ = read_statistics(tiny.VARIANT, save_statistics(tmp_path), EMPTY)
    assert (found.mean.tolist(), found.std.tolist()) == ([0, 1, 2, 3, 4], [2.5] * 5)
    assert found.mean.dtype == found.std.dtype == np.float64


def test_only_what_a_checkpoint_lacks_is_read_beside_it(tmp_path):
    assets = replace(save_statistics(tmp_path), statics=save_statics(tmp_path).statics)
    both = [("normalisation statistics", assets.statistics), ("static fields", assets.statics)]
    files = read_companions(tiny.VARIANT, assets, EMPTY).files
    assert [(file.what, file.path) for file in files] == both
    assert [file.sha256 for file in files] == [sha256(path.read_bytes()).hexdigest() for _, path in both]
    own = Checkpoint(Path("a.pt"), {"static_vars": torch.zeros(1)}, Statistics(np.zeros(5), np.ones(5)))
    assert read_companions(tiny.VARIANT, assets, own).files == ()


def test_statistics_of_the_checkpoint_win(tmp_path):
    own = Statistics(np.zeros(5), np.ones(5))
    assert read_statistics(tiny.VARIANT, save_statistics(tmp_path), Checkpoint(Path("a.pt"), {}, own))[0] is own


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"state_std": np.zeros(5)}, "expected finite means and positive standard deviations in the statistics"),
        ({"state_mean": np.ones(6)}, "expected 'state_mean' of shape (5,), got (6,)"),
        ({"state_std": np.ones((5, 1))}, "expected 'state_std' of shape (5,), got (5, 1)"),
        ({"state_std": np.array([{}] * 5)}, "Object arrays cannot be loaded when allow_pickle=False"),
    ],
    ids=["zero", "another length", "another shape", "objects"],
)
def test_bad_statistics_are_refused(tmp_path, changes, expected):
    with pytest.raises(CheckpointError, match=f"{re.escape(expected)}$"):
        read_statistics(tiny.VARIANT, save_statistics(tmp_path, **changes), EMPTY)


def test_static_fields_come_from_the_file_unless_the_checkpoint_has_their_buffer(tmp_path):
    assets = save_statics(tmp_path)
    np.testing.assert_array_equal(read_static_fields(tiny.VARIANT, assets, EMPTY)[0], tiny.STATICS)
    with_buffer = Checkpoint(Path("a.pt"), {"static_vars": None})
    assert read_static_fields(tiny.VARIANT, assets, with_buffer) == (None, None)
    assert read_static_fields(tiny.VARIANT, Assets(Path("a.pt"), None, None, Path("absent")), with_buffer) == (
        None,
        None,
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"latitude": LATITUDE[::-1]}, ": expected latitudes from south to north, got them from north to south"),
        ({"data": tiny.STATICS.swapaxes(0, 1)}, ": expected 'data' of shape (12, 7, 3), got (7, 12, 3)"),
        ({"longitude": LONGITUDE[1:]}, ": expected 'longitude' of shape (12,), got (11,)"),
        (
            {"data": np.array([{}])},
            " cannot be read as npz: Object arrays cannot be loaded when allow_pickle=False",
        ),
    ],
    ids=["upside down", "transposed", "a column short", "objects"],
)
def test_bad_static_fields_are_refused(tmp_path, changes, expected):
    assets = save_statics(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=f"^{re.escape(f'{assets.statics}{expected}')}$"):
        read_static_fields(tiny.VARIANT, assets, EMPTY)


@pytest.mark.parametrize(
    ("read", "what", "name"),
    [
        (read_statistics, "normalisation statistics", "data/norm_stats_tiny.npz"),
        (read_static_fields, "static fields", "data/static_vars.npz"),
    ],
)
def test_what_is_nowhere_is_an_error(read, what, name):
    nowhere = Assets(Path("a.pt"), None, None, Path("absent"))
    message = f"the checkpoint carries no {what}, and none were found"
    place = f"; expected {name} in the assets folder (--download-assets fetches it from {HUB})"
    with pytest.raises(CheckpointError, match=f"^{re.escape(message + place)}$"):
        read(tiny.VARIANT, nowhere, EMPTY)
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        read(replace(tiny.VARIANT, statistics=None, statics=None), nowhere, EMPTY)


# Pinned digests.


def test_a_pinned_file_is_accepted_and_any_other_refused(tmp_path):
    assets = save_statistics(tmp_path)
    digest = hashlib.sha256(assets.statistics.read_bytes()).hexdigest()
    pinned = replace(tiny.VARIANT, sha256=(("data/norm_stats_tiny.npz", digest), ("data/static_vars.npz", "0" * 64)))
    assert read_statistics(pinned, assets, EMPTY)[0].std.tolist() == [2.5] * 5
    save_statistics(tmp_path, state_std=np.full(5, 2.6))
    got = hashlib.sha256(assets.statistics.read_bytes()).hexdigest()
    says = f"expected SHA-256 {digest} (from the release), got {got}; fetch it again (--download-assets), or, if you changed it yourself, correct or remove it"
    message = f"{assets.statistics} is not the file that it should be: {says}"
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        read_statistics(pinned, assets, EMPTY)


def test_a_pinned_file_is_not_opened_before_its_digest_is_known_to_be_right(tmp_path):
    # What is wrong with it is that it is another file, not that it is no npz.
    path = tmp_path / "static_vars.npz"
    path.write_bytes(b"abc")
    expected = "436b690edaf359ac333b6ab49cac3c59f350c2ad887a69c70e98ebda6258c637"
    got = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    says = f"expected SHA-256 {expected} (from the release), got {got}; fetch it again (--download-assets), or, if you changed it yourself, correct or remove it"
    message = f"{path} is not the file that it should be: {says}"
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        read_static_fields(ERA5, Assets(Path("era5_best.pt"), None, path, path.parent), EMPTY)
