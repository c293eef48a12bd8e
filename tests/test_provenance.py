import hashlib
import json
import platform
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ai_models_mosaic import __version__
from ai_models_mosaic.checkpoints.integrity import digest_of
from ai_models_mosaic.forecast.options import parse_options
from ai_models_mosaic.forecast.provenance import PACKAGES, complete_files, gather, write_beside
from ai_models_mosaic.geometry.grid import LatLonGrid
from ai_models_mosaic.state import InitialState

GRID = LatLonGrid.regular(60.0)
OPTIONS = parse_options(
    ["--member-number", "9,3", "--num-ensemble-members", "12", "--seed", str(2**64 - 1), "--members-per-batch", "1"]
)


@dataclass
class LoadedEngine:
    """As much of an engine as provenance looks at."""

    checkpoint: Path | None
    untrained: bool = False
    origin: None = None
    data: tuple = ()
    description: str = "toy on paper"
    precision: str = "float32"

    @property
    def checkpoint_sha256(self) -> str | None:
        return digest_of(self.checkpoint) if self.checkpoint else None


def provenance(**changed):
    keywords = {"variant": "hres", "options": OPTIONS, "steps": 40, "initial": None, "engine": None, "metadata": {}}
    return gather(**keywords | changed)


def initial_state():
    times = (datetime(2020, 2, 28, 18), datetime(2020, 2, 29, 18))
    return InitialState(GRID, times, np.zeros((2, *GRID.shape, 1), dtype=np.float32), digest="ab" * 32)


def test_a_run_can_be_repeated_from_what_it_notes():
    found = provenance(metadata={"expver": "0007"})
    assert {
        key: found[key] for key in ("variant", "seed", "members", "ensemble_size", "members_per_batch", "steps")
    } == {
        "variant": "hres",
        "seed": 18446744073709551615,
        "members": [9, 3],
        "ensemble_size": 12,
        "members_per_batch": 1,
        "steps": 40,
    }
    assert found["metadata"] == {"expver": "0007"}


def test_json_holds_all_of_it(tmp_path):
    weights = tmp_path / "w.pt"
    weights.write_bytes(b"weights")
    found = provenance(initial=initial_state(), engine=LoadedEngine(weights))
    assert json.loads(json.dumps(found)) == found


def test_versions_are_those_of_the_packages_that_are_installed():
    found = provenance()
    assert found["ai-models-mosaic"] == __version__ == version("ai-models-mosaic")
    assert found["python"] == platform.python_version()
    assert {"ai-models", "earthkit-data", "eccodes", "numpy", "torch"} <= set(PACKAGES)
    assert found["packages"] == {name: version(name) for name in PACKAGES}


def test_the_time_of_writing_is_in_utc_and_now():
    written = datetime.fromisoformat(provenance()["written"])
    assert written.utcoffset() == timedelta(0)
    assert abs(datetime.now(timezone.utc) - written) < timedelta(minutes=5)


def test_the_input_is_told_by_its_times_and_digest():
    assert provenance(initial=initial_state())["input"] == {
        "initial_time": "2020-02-29T18:00:00",
        "states": ["2020-02-28T18:00:00", "2020-02-29T18:00:00"],
        "sha256": "ab" * 32,
    }


@pytest.mark.parametrize("untrained", [True, False])
def test_the_weights_are_told_by_the_digest_of_their_file(tmp_path, untrained):
    weights = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(100)}, weights)
    found = provenance(engine=LoadedEngine(weights, untrained))
    assert found["engine"] == "toy on paper"
    # A variant's own weights that say nothing of their licence are the released ones.
    assert found["weights"] == {
        "file": str(weights),
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "untrained": untrained,
        "licence": "CC-BY-NC-4.0",
        "source": None,
        "revision": None,
        "data": {},
    }


def test_weights_without_a_file_have_no_digest():
    assert provenance(engine=LoadedEngine(None))["weights"]["sha256"] is None


def test_a_run_that_never_came_to_its_input_notes_the_rest():
    assert provenance().keys().isdisjoint({"input", "engine", "weights"})


def test_the_users_keys_are_copied_and_one_run_leaves_nothing_to_the_next():
    metadata = {"expver": "0007"}
    found = provenance(metadata=metadata)
    metadata["class"] = "rd"
    assert found["metadata"] == {"expver": "0007"}
    assert provenance()["metadata"] == {}


def test_a_run_is_complete_if_all_its_files_are_there_with_its_cards(tmp_path):
    for names, run in ((("m1.grib", "m2.grib"), "aa"), (("other.grib",), "bb"), (("[m].grib",), "cc")):
        files = [tmp_path / name for name in names]
        for file in files:
            file.write_bytes(b"")
            write_beside(file, {"run": run, "files": [str(each) for each in files]})
    (tmp_path / "m4.grib").write_bytes(b"")
    (tmp_path / "m4.grib.provenance.json").write_text("no card")
    members = [tmp_path / "m1.grib", tmp_path / "m2.grib"]
    # Placeholders that touch are not the pattern of all folders below.
    for path in ("m{number}.grib", "{dataDate}{dataTime:04d}.grib"):
        assert complete_files(f"{tmp_path}/{path}", "aa") == members
    assert complete_files(f"{tmp_path}/m{{number}}.grib", "bb") is None
    assert complete_files(f"{tmp_path}/other.grib", "bb") == [tmp_path / "other.grib"]
    assert complete_files(f"{tmp_path}/[m].grib", "cc") == [tmp_path / "[m].grib"]
    assert complete_files(f"{tmp_path}/absent.grib", "aa") is None
    write_beside(members[1], {"run": "of another seed", "files": [str(members[1])]})
    assert complete_files(f"{tmp_path}/m{{number}}.grib", "aa") is None
    write_beside(members[1], {"run": "aa", "files": [str(each) for each in members]})
    members[1].unlink()
    assert complete_files(f"{tmp_path}/m{{number}}.grib", "aa") is None
