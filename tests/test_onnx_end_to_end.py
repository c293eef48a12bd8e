"""A forecast with ONNX Runtime, through the runner."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exporting import exported
from running import MINI, ROOT, Runner, keys, messages, of_member, values

ENSEMBLE = (*MINI, "--lead-time", 48, "--num-ensemble-members", 2)

PROGRAM = """
import sys
from ai_models.__main__ import _main
sys.argv = ["ai-models", *sys.argv[1:]]
try:
    _main(sys.argv[1:])
except SystemExit as error:
    assert error.code in (0, None), error.code
assert "onnxruntime" in sys.modules
assert "torch" not in sys.modules, "torch was imported"
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory, "mini")


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """Two members, two steps, made by a process that must not import PyTorch."""
    folder = tmp_path_factory.mktemp("onnx-ensemble")
    words = [*ENSEMBLE, "--engine", "onnx", "--onnx-model", model, "--path", "out.grib"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, words)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Running on CPUExecutionProvider, float32, ONNX Runtime " in done.stderr
    return folder / "out.grib"


def test_a_run_makes_the_members_of_the_torch_engine_without_importing_it(ensemble: Path, run: Runner):
    run(*ENSEMBLE, "--path", "torch.grib")
    pairs = list(zip(messages(ensemble), messages(run.path("torch.grib")), strict=True))
    assert len(pairs) == 2 * 3 * 82
    for ours, theirs in pairs:
        names = ("number", "step", "shortName", "level", "type", "numberOfForecastsInEnsemble")
        assert keys(ours, *names) == keys(theirs, *names)
        # Two units of the 16-bit packing, each at most twice the range over 65 535.
        assert np.abs(values(ours) - values(theirs)).max() <= 4 * np.ptp(values(theirs)) / 65_535


def test_a_member_alone_is_the_same_to_the_byte(ensemble: Path, run: Runner, model: Path):
    run(*ENSEMBLE, "--engine", "onnx", "--onnx-model", model, "--member-number", 2, "--path", "again.grib")
    assert of_member(run.path("again.grib"), 2) == of_member(ensemble, 2)


def test_members_are_the_same_to_the_byte_in_batches(ensemble: Path, run: Runner, model: Path):
    run(*ENSEMBLE, "--engine", "onnx", "--onnx-model", model, "--members-per-batch", 2, "--path", "both.grib")
    assert run.path("both.grib").read_bytes() == ensemble.read_bytes()


def test_provenance_names_graph_weights_and_provider(ensemble: Path, model: Path):
    found = json.loads(Path(f"{ensemble}.provenance.json").read_text())
    assert found["engine"].startswith("CPUExecutionProvider")
    assert found["weights"]["file"] == str(model)
    assert found["weights"]["providers"] == ["CPUExecutionProvider"]
    card = found["weights"]
    sums = (ROOT / "weights" / "SHA256SUMS").read_text().split()
    assert card["exported_from_sha256"] == sums[sums.index("mini.safetensors") - 1]
    assert found["options"]["engine"] == "onnx"


def test_only_gpu_is_refused_before_the_input_is_read(run: Runner, model: Path):
    import onnxruntime

    if onnxruntime.get_available_providers()[0] != "CPUExecutionProvider" and "CUDAExecutionProvider" in str(
        onnxruntime.get_available_providers()
    ):
        pytest.skip("needs an ONNX Runtime without GPU")
    refused = run.refused(*ENSEMBLE, "--engine", "onnx", "--onnx-model", model, "--only-gpu")
    assert refused.status == 2
    assert "--only-gpu: expected a provider for a GPU, got " in refused.message
    assert not run.path("mosaic.grib").exists()


def test_a_graph_of_another_variant_is_refused(run: Runner, model: Path):
    words = ["mosaic", *("--variant", "era5"), *MINI[3:], "--lead-time", 24, "--engine", "onnx", "--onnx-model", model]
    refused = run.refused(*words)
    assert refused.status == 2
    assert "is of variant mini, and the forecast of era5; give --variant mini" in refused.message
