"""Kills of the real command; ``make test-long`` makes more of them, of several ranks, and from the start of Python on."""

import re
import subprocess
import sys

from running import ROOT

COUNTS = {"single": 1, "double": 1, "device": 1, "interleaved": 1}


def test_runs_that_are_killed_or_share_their_output_end_with_all_bytes_of_one_run_or_are_refused():
    words = [word for name, count in COUNTS.items() for word in (f"--{name}", str(count))]
    command = [sys.executable, str(ROOT / "tests" / "kills.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.findall(r"^(\w+): (\d+) trials, \d+ deaths, 0 faults", done.stdout, re.M)
    assert {name: int(count) for name, count in said} == COUNTS
