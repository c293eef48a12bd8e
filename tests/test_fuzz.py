"""Damaged files of every kind, read by the real command; ``make test-long`` reads many more of them."""

import subprocess
import sys

from running import ROOT

KINDS = ("grib", "zarr", "safetensors", "torch", "npz", "onnx", "state", "replay")
CASES = 5
"""Of each kind, a third of a second each."""


def test_what_is_damaged_is_refused_or_gives_the_same_output_or_is_told_by_a_digest():
    command = [sys.executable, str(ROOT / "tests" / "fuzz.py"), "--many", str(CASES), *KINDS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert tuple(figures) == KINDS
    assert all("0 TRACEBACK, 0 SILENTLY DIFFERENT, 0 REFUSED WITH ANOTHER STATUS" in text for text in figures.values())
