"""Kills toy runs at chosen or random places, goes on with them, and compares bytes: ``faults.py FOLDER COUNT [SEED]``."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path

import numpy as np
from toy_run import FIELDS, GRID, START, Fault, fork, job, toy_run

from ai_models_mosaic.outputs.grib import GribEncoder, Labels

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


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
