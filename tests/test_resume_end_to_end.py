"""What an operator types after a kill, and to have fields again, with products, packing and a region in play."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from running import MINI, Runner, keys, messages, of_member

from ai_models_mosaic.cli import main

ENSEMBLE = (*MINI, "--lead-time", 72, "--num-ensemble-members", 2, "--num-threads", 1, "--path", "out.grib")
PRODUCTS = ("--products", "mean,spread,quantile:90@2t,probability:10ws>5")
FORM = ("--packing", "ccsds", "--bits-per-value", "14,z=18", "--output-area", "72/-12/36/42")

KILLED = """
import os, signal, sys
from ai_models.__main__ import _main
from ai_models_mosaic.engines.tensor_states import TensorStates
step, calls = TensorStates.advance, int(sys.argv.pop(1))
def dying(*arguments):
    global calls
    calls -= 1
    if calls == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(*arguments)
TensorStates.advance = dying
sys.argv[0] = "ai-models"
_main(sys.argv[1:])
"""


def contents(folder: Path) -> dict[str, bytes]:
    """All that a run left, but for what says when it ran."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(".provenance.json")
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything of an undisturbed run."""
    from running import elsewhere

    folder = tmp_path_factory.mktemp("whole")
    done = elsewhere(folder, *ENSEMBLE, *PRODUCTS, *FORM, "--zarr", "out.zarr")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("calls", [2, 5])
def test_a_run_killed_within_a_step_is_gone_on_with_to_the_same_members_products_and_store(
    whole: Path, run: Runner, calls: int
):
    words = [str(word) for word in (*ENSEMBLE, *PRODUCTS, *FORM, "--zarr", "out.zarr")]
    done = subprocess.run([sys.executable, "-c", KILLED, str(calls), *words], cwd=run.folder, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not run.path("out.grib").exists()
    run(*words, "--resume")
    assert contents(run.folder) == contents(whole)
    assert {"out.grib", "out-mean.grib", "out.zarr/.zmetadata"} <= contents(whole).keys()


def test_fields_of_a_packed_region_are_made_again_to_the_byte(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "again.grib"
    words = ("--member", "2", "--steps", "24-48", "--params", "2t,z500,q", "--output", str(output))
    assert main(["replay", str(whole / "out.grib.provenance.json"), *words]) == 0
    assert capsys.readouterr().out == f"{output}: 30 fields made again, 30 of 30 identical to the original's\n"
    wanted = [
        message
        for message in of_member(whole / "out.grib", 2)
        if keys(message, "step")[0] in (24, 48)
        and (keys(message, "shortName")[0] in ("2t", "q") or keys(message, "shortName", "level") == ("z", 500))
    ]
    assert messages(output) == wanted
    bits = {keys(message, "shortName", "bitsPerValue", "packingType", "Ni", "Nj") for message in wanted}
    assert bits == {(name, 18 if name == "z" else 14, "grid_ccsds", 10, 7) for name in ("2t", "z", "q")}


def test_a_member_of_a_batch_is_made_again_with_its_company(run: Runner, capsys: pytest.CaptureFixture[str]):
    run(*MINI, "--lead-time", 24, "--num-ensemble-members", 3, "--members-per-batch", 2, *FORM, "--path", "out.grib")
    card = run.path("out.grib.provenance.json")
    assert json.loads(card.read_text())["members_per_batch"] == 2
    assert main(["replay", str(card), "--member", "2", "--steps", "0-24", "--output", str(run.path("again.grib"))]) == 0
    assert "164 fields made again, 164 of 164 identical to the original's" in capsys.readouterr().out
