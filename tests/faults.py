"""Kills toy runs at chosen or random places, goes on with them, and compares bytes.

``faults.py FOLDER COUNT [SEED]`` for runs of one process, ``faults.py FOLDER COUNT SEED RANKS`` for one of several ranks.
"""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path

import numpy as np
from toy_run import FIELDS, GRID, START, Fault, fork, job, several, toy_run

from ai_models_mosaic.outputs.grib.output import GribEncoder, Labels

PATHS = ("all.grib", "{number}-{step}.grib")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run_with_fault(path: str, encoder: GribEncoder, *, resume: bool, at: int | None, counts: Path | None = None) -> int:
    def what() -> None:
        fault = Fault(at)
        fault.install()
        toy_run(path, job(2, 3), resume=resume, encoder=encoder)
        if counts is not None:
            counts.write_text(str(fault.count))

    return fork(what)


def main(folder: Path, count: int, seed: int) -> None:
    # Made once, and not in every child: it takes longer than the run.
    encoder = GribEncoder(GRID, Labels(START, 2, {}), range(FIELDS))
    encoder.first_message(1)
    random = np.random.default_rng(seed)
    for name in PATHS:
        whole = folder / "whole"
        whole.mkdir(parents=True)
        if run_with_fault(str(whole / name), encoder, resume=False, at=None, counts=folder / "count") != 0:
            raise SystemExit("the undisturbed run failed")
        expected, operations = contents(whole), int((folder / "count").read_text())
        shutil.rmtree(whole)
        for trial in range(count):
            place = folder / "killed"
            place.mkdir()
            # The first and the last operations are where beginnings and ends can go wrong.
            corners = [1, 2, operations - 1, operations, operations - int(random.integers(12))]
            at = corners[trial] if trial < len(corners) else int(random.integers(operations)) + 1
            deaths = 0
            while (status := run_with_fault(str(place / name), encoder, resume=deaths > 0, at=at)) != 0:
                deaths += 1
                if status != -signal.SIGKILL:
                    raise SystemExit(f"{name}, trial {trial}, death {deaths} at {at}: ended with {status}")
                # Sometimes it dies again while it goes on.
                at = int(random.integers(operations)) + 1 if random.random() < 0.3 else None
            found = contents(place)
            if found != expected:
                differing = sorted(n for n in {*found, *expected} if found.get(n) != expected.get(n))
                raise SystemExit(f"{name}, trial {trial}: {differing} differ after {deaths} deaths, the last at {at}")
            shutil.rmtree(place)
        print(f"{name}: {count} runs killed in {operations} operations, all the same to the byte")


def main_of_ranks(folder: Path, count: int, seed: int, size: int) -> None:
    """One rank after the other is lost: the first within what it does to files, the others within a step."""
    encoder = GribEncoder(GRID, Labels(START, 5, {}), range(FIELDS))
    random, (whole, place) = np.random.default_rng(seed), (folder / "whole", folder / "killed")
    whole.mkdir(parents=True)
    fault = Fault(None)

    def undisturbed() -> None:
        fault.install()
        toy_run(str(whole / "out.grib"), job(5, 2), encoder=encoder)
        (folder / "count").write_text(str(fault.count))

    if fork(undisturbed) != 0:
        raise SystemExit("the undisturbed run failed")
    expected, operations = contents(whole), int((folder / "count").read_text())
    lost = 0
    for trial in range(count):
        place.mkdir()
        path, rank = place / "out.grib", trial % size
        calls = int(random.integers(operations if rank == 0 else 2)) + 1
        words = [str(path), "--rank", str(rank), "--calls", str(calls), "--how", "die" if rank else "fault"]
        statuses = several(size, words)
        # What dies at the very end may leave others that are done.
        if any(status not in (0, 8, -signal.SIGKILL) for status in statuses):
            raise SystemExit(f"trial {trial}, rank {rank} at {calls}: ended with {statuses}")
        lost += statuses[rank] == -signal.SIGKILL
        again = random.random() < 0.5
        done = several(size, [str(path), "--resume"]) if again else [
            fork(lambda path=path: toy_run(str(path), job(5, 2), resume=True, encoder=encoder))
        ]  # fmt: skip
        if any(done) or contents(place) != expected:
            raise SystemExit(f"trial {trial}, rank {rank} at {calls}: other bytes, or {done} after {statuses}")
        shutil.rmtree(place)
    print(f"{count} runs of {size} ranks, {lost} of which lost one, all the same to the byte")


if __name__ == "__main__":
    first, more = Path(sys.argv[1]), [int(word) for word in sys.argv[2:]]
    if len(more) == 3:
        main_of_ranks(first, *more)
    else:
        main(first, more[0], more[1] if len(more) > 1 else 0)
