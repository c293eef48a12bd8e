"""The benchmark of one member-step runs, and its figures hang together."""

import json
import subprocess
import sys

import pytest
from running import ROOT


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Raw figures, and what was printed."""
    raw = tmp_path_factory.mktemp("step") / "raw.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "member_step.py"), "--threads", "1", "--json", str(raw)]
    ran = subprocess.run([*command, "--members", "1", "2"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(raw.read_text()), ran.stdout


def test_every_case_has_its_figures(found):
    cases, _ = found
    assert [(case["variant"], case["backend"], case["precision"], case["members"]) for case in cases] == [
        ("mini", "sdpa", "float32", 1),
        ("mini", "sdpa", "float32", 2),
    ]
    for case in cases:
        assert case["threads"] == 1
        assert 0.05 < case["peak_gb"] < 4
        assert case["step_s"] > 0
        assert len(case["times"]) == 1


def test_rates_are_operations_over_time(found):
    for case in found[0]:
        assert case["gflops"] * case["step_s"] == pytest.approx(1000 * case["tflop"])
        assert case["of_gemm"] == pytest.approx(case["gflops"] / case["gemm_gflops"])
        # Of one thread, which is at work all the time, unless the machine has others.
        assert case["cpu_s"] <= case["step_s"] * 1.05


def test_the_parts_are_a_step_and_the_products_that_it_is_compared_with(found):
    for case in found[0]:
        assert sum(share[1] for share in case["parts"].values()) == pytest.approx(1)
        expected = {"linear maps", "norms", "local branch", "selected branch", "interpolation", "(samples)"}
        assert expected <= case["parts"].keys()
        assert all(share[1] > 0 for share in case["parts"].values())


def test_a_table_is_printed_with_a_row_for_every_case(found):
    lines = found[1].splitlines()
    assert lines[0].startswith("mini, 0.002648 TFLOP per member-step; CPU (1 threads), float32, attention backend sdpa")
    rows = [line.split("|")[1:-1] for line in lines if line.startswith("|")]
    assert {len(row) for row in rows} == {10}
    assert [row[2].strip() for row in rows] == ["members", "---", "1", "2"]
