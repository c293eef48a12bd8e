"""The doctor finds what would go wrong."""

import re
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hub_standin import Hub
from running import BIN, ROOT

from ai_models_mosaic.checkpoints.files import Assets
from ai_models_mosaic.cli import main
from ai_models_mosaic.commands.checks import FAILURE, IDENTITY_MODEL, OK, WARNING, IntendedForecast, examine
from ai_models_mosaic.engines.torch import load_engine
from ai_models_mosaic.variants import ERA5, MINI


def findings(variant=MINI, assets=Path(), members=1, output=Path()) -> dict[str, tuple[str, str]]:
    plan = IntendedForecast(variant, Path(assets), members, 10, Path(output))
    return {finding.what: (finding.level, finding.detail) for finding in examine(plan)}


def test_a_good_installation_has_no_failure(tmp_path: Path):
    found = findings(output=tmp_path)
    assert {level for level, _ in found.values()} == {OK, WARNING}
    assert found["attention backend reference"] == (OK, "differs from the reference by 0e+00 on cpu")
    level, detail = found["attention backend sdpa"]
    assert level == OK
    assert detail.startswith("differs from the reference by ")
    assert "weights" not in found, "only those that are untrained are spoken of"
    assert found["numpy"][0] == OK


def test_every_requirement_of_the_package_is_looked_at():
    from importlib.metadata import requires

    names = {
        line.split(">")[0].split("<")[0].split(";")[0].strip()
        for line in requires("ai-models-mosaic")
        if "extra" not in line and "python_version" not in line
    }
    assert names <= set(findings())


def test_providers_of_onnx_runtime_are_those_of_a_session(tmp_path: Path):
    import onnxruntime

    level, detail = findings(output=tmp_path)["ONNX Runtime"]
    # That of Azure, which every build has, runs no graph on this machine.
    useful = [name for name in onnxruntime.get_available_providers() if name != "AzureExecutionProvider"]
    session = onnxruntime.InferenceSession(IDENTITY_MODEL, providers=useful)
    runs = session.get_providers()
    absent = sorted(set(useful) - set(runs))
    expected = f"{onnxruntime.__version__}, a session runs on {', '.join(runs)}"
    assert (level, detail) == ((WARNING, f"{expected}, not on {', '.join(absent)}") if absent else (OK, expected))
    assert runs[-1] == "CPUExecutionProvider"


def test_absent_weights_are_a_failure_that_says_where_they_come_from_and_memory_and_time_are_told(tmp_path: Path):
    found = findings(ERA5, assets=tmp_path, members=24)
    level, detail = found["weights"]
    assert level == FAILURE
    assert "variant era5 needs checkpoints/era5_best.pt" in detail
    assert found["memory"][1].startswith("about 4.3 GB for 24 members on the CPU, ")
    level, detail = found["time"]
    assert level == OK
    each, whole = re.fullmatch(
        r"roughly (.+) per member and step on the .PU, (.+) for 24 members × 10 steps, "
        r"reckoned from \d+ GFLOP/s in products of matrices",
        detail,
    ).groups()
    assert each != whole


def test_the_memory_is_what_the_engine_itself_expects(tmp_path: Path):
    assets = Assets(ROOT / "weights" / MINI.checkpoint, None, None, ROOT / "weights")
    engine = load_engine(MINI, assets, torch.device("cpu"), "float32")
    needed = engine.memory_bytes(1) + MINI.architecture.history * MINI.architecture.grid.size * 82 * 4
    told = re.match(r"about (\S+) GB for 1 member on the CPU, ", findings(output=tmp_path)["memory"][1])
    # The engine counts a few tables beside the weights.
    assert float(told[1]) == pytest.approx(needed / 1e9, rel=0.1)


def test_untrained_weights_are_a_warning(tmp_path: Path):
    sample = str(ROOT / "examples" / "mini-input.grib")
    made = str(tmp_path / "mini.safetensors")
    assert main(["random-checkpoint", "--variant", "mini", "--sample", sample, "--output", made]) == 0
    found = findings(replace(MINI, bundled=False), assets=tmp_path)
    assert found["weights"] == (WARNING, "untrained: forecasts made with them mean nothing")


def test_an_absent_output_folder_is_a_failure(tmp_path: Path):
    level, detail = findings(output=tmp_path / "absent")["output"]
    assert (level, detail) == (FAILURE, f"{tmp_path / 'absent'} is not a folder that can be written to")


def test_too_many_members_for_the_memory_are_a_failure(tmp_path: Path):
    assert findings(members=10)["memory"][0] == OK
    level, detail = findings(members=1_000_000)["memory"]
    assert level == FAILURE
    assert "for 1000000 members on the CPU" in detail


def test_too_many_fields_for_the_disk_are_a_failure(tmp_path: Path):
    level, detail = findings(members=100_000_000, output=tmp_path)["disk"]
    assert level == FAILURE
    assert "for 90200000000 fields" in detail


def test_the_exit_status_tells_scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "--output", str(tmp_path)]) == 0
    assert main(["doctor", "--output", str(tmp_path / "absent")]) == 1
    assert "1 of these checks failed: a forecast with variant mini would not work" in capsys.readouterr().err


def test_it_is_a_command(tmp_path: Path):
    done = subprocess.run(
        [BIN / "ai-models-mosaic", "doctor"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("ok       Python: 3.1")


def test_accounts_are_looked_for_and_their_keys_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("CDSAPI_URL", "CDSAPI_KEY", "CDSAPI_RC"):
        monkeypatch.delenv(name, raising=False)
    level, detail = findings(output=tmp_path)["account cds"]
    assert level == WARNING
    assert f"or the file {tmp_path}/.cdsapirc, which is not there" in detail
    (tmp_path / ".cdsapirc").write_text(f"url: {hub.address}/api\nkey: a-very-secret-key\n")
    found = findings(output=tmp_path)
    assert found["account cds"] == (OK, f"{hub.address}/api with {tmp_path}/.cdsapirc")
    assert "secret" not in str(found)


def test_a_service_that_does_not_answer_is_not_ok(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        level, detail = findings(output=tmp_path)["account opendata"]
    assert level == WARNING
    assert detail.startswith("ECMWF open data at https://data.ecmwf.int/forecasts does not answer: ")
    assert detail.endswith(
        "(1 try). Check the network and the proxy (https_proxy, no_proxy), or run the same command later"
    )


def test_a_check_that_breaks_is_a_finding_and_the_next_one_is_made(tmp_path: Path):
    found = findings(replace(MINI, architecture=None), output=tmp_path)
    assert found["disk"] == (
        FAILURE,
        "the check broke: AttributeError: 'NoneType' object has no attribute 'grid'",
    )
    assert found["ONNX Runtime"][0] in (OK, WARNING)


def test_weights_that_were_changed_are_a_failure(tmp_path: Path):
    changed = bytearray((ROOT / "weights" / MINI.checkpoint).read_bytes())
    changed[-1] ^= 1
    (tmp_path / MINI.checkpoint).write_bytes(changed)
    digest = (ROOT / "weights" / "SHA256SUMS").read_text()
    (tmp_path / "SHA256SUMS").write_text(digest)
    own = replace(MINI, bundled=False)
    level, detail = findings(own, assets=tmp_path)["weights"]
    assert level == FAILURE
    assert f"is not the file that it should be: expected SHA-256 {digest.split()[0]}" in detail
