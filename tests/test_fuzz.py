"""Damaged files of every kind, read by the real command; ``python tests/fuzz.py --many 300`` makes more of them."""

import subprocess
import sys

import pytest
from running import ROOT

CASES = 7


@pytest.mark.parametrize(
    "kinds", [("grib", "zarr", "state", "replay"), ("safetensors", "torch", "npz", "onnx")], ids=" ".join
)
def test_what_is_damaged_is_refused_or_gives_the_same_output_or_is_told_by_a_digest(kinds: tuple[str, ...]):
    command = [sys.executable, str(ROOT / "tests" / "fuzz.py"), "--many", str(CASES), *kinds]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert tuple(figures) == kinds
    assert all("0 TRACEBACK, 0 SILENTLY DIFFERENT, 0 REFUSED WITH ANOTHER STATUS" in text for text in figures.values())
