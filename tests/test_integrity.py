"""Files are what was fetched, released or pinned, and a check costs a hash only when it must."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from running import MINI, ROOT, Runner

from ai_models_mosaic.checkpoints.files import check_assets, locate, origin
from ai_models_mosaic.checkpoints.integrity import (
    check,
    digest_of,
    read_record,
    read_sums,
    record_path,
    sha256,
    write_record,
)
from ai_models_mosaic.errors import CheckpointError
from ai_models_mosaic.variants import ERA5

NAME = "checkpoints/era5_best.pt"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A checkpoint with a record, in an assets folder."""
    path = tmp_path / NAME
    path.parent.mkdir()
    path.write_bytes(b"weights")
    write_record(path, sha256(path), "https://hub/maxxxzdn/mosaic", "232b632", "CC-BY-NC-4.0")
    return path


def same_size_and_time(path: Path, content: bytes) -> None:
    """Change a file so that only its digest tells."""
    found = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def test_a_file_that_is_as_recorded_passes(weights: Path, tmp_path: Path):
    check(weights, tmp_path)
    check(weights, tmp_path, full=True)


def test_a_file_that_changed_is_refused_naming_both_digests(weights: Path, tmp_path: Path):
    good = sha256(weights)
    weights.write_bytes(b"WEIGHTS")
    with pytest.raises(CheckpointError) as caught:
        check(weights, tmp_path)
    assert str(caught.value) == (
        f"{weights} is not the file that it should be: expected SHA-256 {good} (from {weights}.json), got "
        f"{sha256(weights)}; fetch it again (--download-assets), or, if you changed it yourself, correct or remove "
        f"{weights}.json"
    )


def test_a_change_that_leaves_size_and_time_is_found_when_asked(weights: Path, tmp_path: Path):
    same_size_and_time(weights, b"WEIGHTS")
    check(weights, tmp_path)
    with pytest.raises(CheckpointError, match="is not the file that it should be"):
        check(weights, tmp_path, full=True)


def test_a_copy_with_another_time_is_hashed_once_and_then_known(weights: Path, tmp_path: Path):
    os.utime(weights, (1, 1))
    check(weights, tmp_path)
    record = read_record(weights)
    assert record is not None
    assert record.still_holds(weights)
    assert (record.revision, record.licence) == ("232b632", "CC-BY-NC-4.0")


def test_a_copy_in_a_folder_that_cannot_be_written_passes(weights: Path, tmp_path: Path):
    os.utime(weights, (1, 1))
    # The record of the same name cannot be replaced: its temporary name is too long for the file system.
    long = weights.with_name("w" * 235)
    shutil.move(weights, long)
    shutil.move(record_path(weights), record_path(long))
    check(long, tmp_path)
    record = read_record(long)
    assert record is not None
    assert not record.still_holds(long)


def test_a_file_of_which_nothing_is_known_passes_and_that_is_said(
    weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    record_path(weights).unlink()
    check(weights, tmp_path)
    assert f"{weights}: no digest is known, so it was not checked" in caplog.text


@pytest.mark.parametrize("content", ["", "{", "[]", '{"sha256": "a"}'])
def test_a_record_that_cannot_be_read_is_ignored_and_that_is_said(
    weights: Path, tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
):
    record_path(weights).write_text(content)
    check(weights, tmp_path)
    assert f"{weights}.json cannot be read as a record of era5_best.pt, and is ignored: " in caplog.text


def test_what_sha256sum_writes_is_read(weights: Path, tmp_path: Path):
    for option in ("--text", "--binary"):
        done = subprocess.run(
            ["sha256sum", option, NAME, f"./{NAME}.json"], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        (tmp_path / "SHA256SUMS").write_text("# pinned\n\n" + done.stdout)
        assert read_sums(tmp_path) == {NAME: sha256(weights), f"{NAME}.json": sha256(record_path(weights))}


def test_a_line_that_sha256sum_does_not_write_is_refused(tmp_path: Path):
    (tmp_path / "SHA256SUMS").write_text(f"abc  {NAME}\n")
    with pytest.raises(CheckpointError, match=r"SHA256SUMS, line 1: expected 64 hexadecimal digits, two blanks and a"):
        read_sums(tmp_path)


def test_the_operators_digest_wins_over_record_and_release(weights: Path, tmp_path: Path):
    (tmp_path / "SHA256SUMS").write_text(f"{'A' * 64} *{NAME}\n")
    expected = re.escape(f"expected SHA-256 {'a' * 64} (from {tmp_path}/SHA256SUMS), got {sha256(weights)}; ")
    with pytest.raises(CheckpointError, match=expected):
        check(weights, tmp_path, pinned=sha256(weights))
    (tmp_path / "SHA256SUMS").write_text(f"{sha256(weights)}  {NAME}\n")
    check(weights, tmp_path, pinned="b" * 64)


def test_without_the_operators_word_the_releases_counts(weights: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match=re.escape("(from the release)")):
        check(weights, tmp_path, pinned="b" * 64)


def test_a_file_that_the_operator_left_out_is_used_with_a_warning(
    weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "SHA256SUMS").write_text(f"{'a' * 64}  another\n")
    check_assets(ERA5, locate(ERA5, tmp_path), full=True)
    assert f"{tmp_path}/SHA256SUMS does not list {NAME}" in caplog.text


def test_weights_elsewhere_are_not_the_operators_business(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "SHA256SUMS").write_text(f"{'a' * 64}  another\n")
    own = tmp_path / "own.pt"
    own.write_bytes(b"weights")
    check_assets(ERA5, locate(ERA5, tmp_path / "assets", own), full=True)
    assert "does not list" not in caplog.text


def test_a_statistics_file_that_is_not_the_released_one_is_refused(weights: Path, tmp_path: Path):
    (tmp_path / "norm_stats_era5.npz").write_bytes(b"other")
    with pytest.raises(CheckpointError, match=r"norm_stats_era5\.npz is not the file .* 9d6aae592f.* \(from the rel"):
        check_assets(ERA5, locate(ERA5, tmp_path), full=False)


def test_missing_weights_say_how_to_fetch_them(tmp_path: Path):
    with pytest.raises(CheckpointError) as caught:
        locate(ERA5, tmp_path)
    assert str(caught.value) == (
        "variant era5 needs checkpoints/era5_best.pt, data/norm_stats_era5.npz, data/static_vars.npz in the assets "
        f"folder {tmp_path}: fetch them with --download-assets, or from https://huggingface.co/maxxxzdn/mosaic "
        "(CC-BY-NC-4.0) and pass --assets FOLDER, or give --checkpoint FILE"
    )


def test_the_origin_of_weights_is_that_of_their_record_or_what_they_say(weights: Path):
    assert origin(weights) == {
        "licence": "CC-BY-NC-4.0",
        "source": "https://hub/maxxxzdn/mosaic",
        "revision": "232b632",
    }
    record_path(weights).unlink()
    assert origin(weights) == {"licence": None, "source": None, "revision": None}
    assert origin(ROOT / "weights" / "mini.safetensors")["licence"] == "Apache-2.0"


def test_the_plugin_refuses_changed_weights_before_it_reads_the_input(run: Runner):
    own = run.path("own.safetensors")
    shutil.copy(ROOT / "weights" / "mini.safetensors", own)
    write_record(own, sha256(own), "somewhere", None, "MIT")
    same_size_and_time(own, own.read_bytes()[:-1] + b"x")
    refused = run.refused(*MINI, "--lead-time", 24, "--checkpoint", own, "--verify-assets")
    assert refused.status == 4
    listed = (ROOT / "weights" / "SHA256SUMS").read_text().split()[0]
    assert f"{own} is not the file that it should be: expected SHA-256 {listed}" in refused.message
    assert not run.path("mosaic.grib").exists()


def test_provenance_names_licence_and_origin_of_the_weights(run: Runner):
    run(*MINI, "--lead-time", 24, "--verify-assets", "--output", "none", "--dump-provenance", "p.json")
    assert json.loads(run.path("p.json").read_text())["weights"]["licence"] == "Apache-2.0"
    own = run.path("own.safetensors")
    shutil.copy(ROOT / "weights" / "mini.safetensors", own)
    write_record(own, sha256(own), "https://hub/maxxxzdn/mosaic", "232b632", "CC-BY-NC-4.0")
    run(*MINI, "--lead-time", 24, "--checkpoint", own, "--output", "none", "--dump-provenance", "p.json")
    found = json.loads(run.path("p.json").read_text())["weights"]
    assert (found["licence"], found["revision"]) == ("CC-BY-NC-4.0", "232b632")
    assert found["source"] == "https://hub/maxxxzdn/mosaic"


def test_the_digest_in_provenance_is_the_recorded_one_while_the_record_holds(weights: Path):
    recorded = sha256(weights)
    changed = bytes([weights.read_bytes()[0] ^ 1]) + weights.read_bytes()[1:]
    same_size_and_time(weights, changed)
    assert digest_of(weights) == recorded
    os.utime(weights, ns=(1, 1))
    assert digest_of(weights) == sha256(weights) != recorded
