"""Forecasts of `mini` against random deadlines, each in a process of its own: how many members, and when.

The processes are forked off one that has made its imports, whose time on a busy machine is longer than all the rest.

Deadlines and times count from the start of the process. Every file is
counted: it must hold all lead times of every member, and say how many there are.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import eccodes
import numpy as np

import ai_models_mosaic.engines.torch  # noqa: F401 - once, and not in every child
from ai_models_mosaic import cli

SAMPLE = Path(__file__).parent.parent / "examples" / "mini-input.grib"
FIELDS = "2t,z500"
STEP_HOURS = 24


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    deadline_s: float
    status: int
    seconds: float
    members: int
    step_s: float
    first_s: float
    complete_s: float

    @property
    def late_s(self) -> float:
        """Below 0 where all files had their names in time."""
        return self.complete_s - self.deadline_s


def run(deadline_s: float, most: int, steps: int) -> Ended:
    """One forecast, looked at."""
    words = ["--variant", "mini", "--file", str(SAMPLE), "--lead-time", str(STEP_HOURS * steps), "--path", "out.grib"]
    words += ["--num-ensemble-members", str(most), "--output-params", FIELDS, "--products", "mean,spread", "--quiet"]
    words += ["--num-threads", "1", "--progress-file", "steps.jsonl", "--deadline", f"{deadline_s:.2f}s"]
    with tempfile.TemporaryDirectory() as folder:
        began, wall = time.monotonic(), time.time()
        status = in_a_child(Path(folder), ["forecast", *words])
        seconds = time.monotonic() - began
        members = whole_members(Path(folder) / "out.grib", steps)
        noted = [json.loads(line) for line in (Path(folder) / "steps.jsonl").read_text().splitlines()]
    times = [
        np.datetime64(line["time"].removesuffix("+00:00")).astype("datetime64[ms]").astype(float) for line in noted
    ]
    # The first member is written behind its last step, before the step 0 of the second.
    gaps = [1e-3 * (later - earlier) for earlier, later in pairwise(times)]
    made = [gap for gap, line in zip(gaps, noted[1:], strict=True) if line["event"] == "step" and line["step"] > 0]
    second = next((at for at, line in zip(times, noted, strict=True) if line.get("members") == [2]), times[-1])
    first_s, complete_s = 1e-3 * second - wall, 1e-3 * times[-1] - wall
    return Ended(deadline_s, status, seconds, members, max(made), first_s, complete_s)


def in_a_child(folder: Path, words: Sequence[str]) -> int:
    """Run the command in a process that has its imports already; returns the exit status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.chdir(folder)
            status = cli.main(list(words)) or 0
        except SystemExit as error:
            status = int(str(error.code))
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def whole_members(path: Path, steps: int) -> int:
    """How many there are in a file, all of them complete and labelled with their number.

    Raises
    ------
    ValueError
        If one is not.
    """
    seen: dict[tuple[int, int], int] = {}
    sizes = set()
    with path.open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            key = eccodes.codes_get_long(handle, "number"), eccodes.codes_get_long(handle, "endStep")
            seen[key] = seen.get(key, 0) + 1
            sizes.add(eccodes.codes_get_long(handle, "numberOfForecastsInEnsemble"))
            eccodes.codes_release(handle)
    members = max(number for number, _ in seen)
    wanted = {(member, STEP_HOURS * step) for member in range(1, members + 1) for step in range(steps + 1)}
    if seen.keys() != wanted or set(seen.values()) != {len(FIELDS.split(","))} or sizes != {members}:
        raise ValueError(f"expected {members} whole members in {path}, got {sorted(seen)} of {sizes}")
    return members


def main(words: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--runs", type=int, default=20)
    made.add_argument("--least", type=float, default=4.0, help="shortest deadline, s")
    made.add_argument("--longest", type=float, default=20.0, help="longest deadline, s")
    made.add_argument("--most", type=int, default=200, help="members")
    made.add_argument("--steps", type=int, default=3)
    made.add_argument("--seed", type=int, default=0)
    known = made.parse_args(words)
    deadlines = np.random.default_rng(known.seed).uniform(known.least, known.longest, known.runs)
    columns = ("deadline, s", "members", "first ensemble after, s", "complete after, s", "late by, s")
    columns += ("longest step, s", "process ended after, s")
    print(f"| {' | '.join(columns)} |")
    print("|---|---|---|---|---|---|---|")
    ends = []
    for deadline_s in deadlines:
        one = run(float(deadline_s), known.most, known.steps)
        ends.append(one)
        print(
            f"| {one.deadline_s:.2f} | {one.members} | {one.first_s:.1f} | {one.complete_s:.2f} | {one.late_s:+.2f} | "
            f"{one.step_s:.2f} | {one.seconds:.2f} |",
            flush=True,
        )
    late = [one for one in ends if one.late_s > 0]
    beyond = [one for one in late if one.late_s > one.step_s]
    print(f"{len(ends)} runs: {len(late)} late, {len(beyond)} by more than a step, none with half a member")


if __name__ == "__main__":
    main()
