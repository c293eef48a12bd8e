"""The network against outputs of the released model, which judge every sentence of the specification."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import parity
import pytest
import torch

from ai_models_mosaic.model.attention import PORTABLE
from ai_models_mosaic.variants import ERA5, HRES

DATA = Path(__file__).parent / "data"
FILES = [DATA / "era5_tiny.npz", DATA / "hres_tiny.npz"]

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@pytest.fixture
def shifted(tmp_path):
    """A parity file whose output is wrong by a thousandth."""
    with np.load(FILES[1]) as data:
        arrays = {name: data[name] for name in data.files}
    path = tmp_path / "shifted.npz"
    np.savez(path, **{**arrays, "output": arrays["output"] + np.float32(1e-3)})
    return path


@each_file
@pytest.mark.parametrize("backend", PORTABLE)
@pytest.mark.parametrize("with_buffers", [True, False], ids=["as stored", "computed"])
def test_the_network_gives_the_output_of_the_released_model(path, backend, with_buffers):
    assert parity.difference(path, backend, with_buffers=with_buffers) <= 1e-5


def test_one_of_the_files_carries_its_buffers_and_the_other_does_not():
    counts = [len(parity.tensors_of(np.load(path), "buffer/")) for path in FILES]
    assert counts == [33, 0]


@pytest.mark.parametrize(("path", "variant"), list(zip(FILES, (ERA5, HRES), strict=True)), ids=["era5", "hres"])
def test_the_files_have_the_history_of_their_variant(path, variant):
    data = np.load(path)
    assert parity.architecture_of(data).history == variant.architecture.history == data["state"].shape[0]
    assert len(json.loads(str(data["config_json"]))["stages"]) == len(variant.architecture.stages)


@pytest.mark.parametrize("name", ["state", "day_year", "noise"])
def test_the_output_hangs_on_every_input_beyond_the_tolerance(name):
    network, case = parity.load(FILES[0])
    changed = parity.predict(network, {**case, name: case[name] + 0.1})
    assert (changed - case["output"]).abs().max() > 100 * parity.TOLERANCE


@pytest.mark.parametrize(
    "key",
    [
        "static_vars",
        "interp_to_hp.rel_pos",
        "interp_to_ll.rel_pos",
        "downsample_layers.1.rel_pos",
        "upsample_layers.0.rel_pos",
        "bottleneck.blocks.0.attention.q_rope.cos_freqs",
        "decoder_stages.1.blocks.0.attention.k_rope.sin_freqs",
    ],
)
def test_the_output_hangs_on_every_kind_of_buffer_beyond_the_tolerance(key):
    network, case = parity.load(FILES[0])
    buffer = dict(network.named_buffers())[key]
    buffer.copy_(torch.roll(buffer, 1, dims=0))
    assert (parity.predict(network, case) - case["output"]).abs().max() > 10 * parity.TOLERANCE


def test_the_command_passes_on_the_released_outputs(capsys):
    assert parity.main([str(path) for path in FILES]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.rsplit(" ", 1)[0] for line in lines] == [f"{path}: largest absolute difference" for path in FILES]
    assert all(float(line.rsplit(" ", 1)[1]) <= 1e-5 for line in lines)


def test_the_command_fails_on_any_wrong_output_and_still_reports_all(shifted):
    environment = {**os.environ, "PYTHONPATH": str(DATA.parent.parent)}
    done = subprocess.run(
        [sys.executable, DATA.parent / "parity.py", shifted, FILES[0]],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 1
    wrong, right = done.stdout.splitlines()
    assert wrong == f"{shifted}: largest absolute difference 1.0e-03"
    assert right.startswith(f"{FILES[0]}: largest absolute difference ")


def test_the_command_without_files_says_how_to_use_it(capsys):
    assert parity.main([]) == 2
    assert "python tests/parity.py FILE…" in capsys.readouterr().err
