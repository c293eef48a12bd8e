"""The paper's claims repeated in miniature, by the bundled weights, on one page: ``make claims``.

``python benchmarks/claims.py --output FOLDER [--world FOLDER]``

Simulates a year to verify on and one for the climatology (unless ``--world`` has them), forecasts with the ensemble and
with its deterministic twin, verifies, fits a calibration, and writes ``claims.html``: what the paper says left, what
came of it here right, and where that falls short. Every stage goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import numpy as np
from claims_page import page
from claims_table import Results

from ai_models_mosaic.checkpoints.integrity import digest_of
from ai_models_mosaic.training.archive import Archive
from ai_models_mosaic.variants import MINI

WEIGHTS = Path(__file__).parent.parent / "weights"
BUNDLED, TWIN = WEIGHTS / "mini.safetensors", WEIGHTS / "twin" / "mini-twin.safetensors"
CHANNELS = "z500,t850,2t,10u,q700"
SIMULATED = ("train-1:2001-01-01:365:1", "test:2008-01-01:360:4")
"""As long as they must be: a climatology needs a year."""

FEWEST_TO_FIT = 4
"""Initial dates: two to fit a calibration to, and two to try it on."""


def main() -> None:
    known = arguments()
    known.world = known.world or known.output / "world"
    known.output.mkdir(parents=True, exist_ok=True)
    took: dict[str, float] = {}
    with timed("simulation", took):
        simulate(known.world, known.environment or known.output / "world-env")
    store = known.world / "test.zarr"
    dates = initial_dates(store, known.days, known.dates)
    with timed("forecasts", took):
        forecast(known.output / "mini", store, dates, known.days, "--num-ensemble-members", str(known.members))
        forecast(known.output / "twin", store, dates, known.days, "--checkpoint", str(TWIN), "--perturbations", "off")
    with timed("verification", took):
        pictures = ("--no-pictures",) if known.no_pictures else ()
        verify(known.output, known.world, *pictures)
    calibration = known.output / "calibration.json" if len(dates) >= FEWEST_TO_FIT else None
    if calibration is not None:
        with timed("calibration", took):
            forecasts = ("--forecast", known.output / "mini", "--truth", store, "--channels", CHANNELS)
            ours("calibrate", *forecasts, "--output", calibration)
    facts = {
        "weights": f"mini, SHA-256 {digest_of(BUNDLED)[:12]}…",
        "twin": f"{TWIN.stem}, SHA-256 {digest_of(TWIN)[:12]}…",
        "truth": f"{store.name}, a simulated atmosphere, not the Earth",
        "forecasts": f"{len(dates)} dates from {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}, {known.members} members, "
        f"{known.days} days, 6°, steps of 24 h",
        "took": ", ".join(f"{what} {seconds:.0f} s" for what, seconds in took.items())
        + f" ({os.cpu_count()} processors; what was there from before took nothing)",
    }
    written = known.output / "claims.html"
    written.write_text(page(Results.read(known.output / "verification", calibration), facts), encoding="utf-8")
    print(f"{written}: {facts['took']}")


@contextmanager
def timed(what: str, took: dict[str, float]) -> Iterator[None]:
    started = time.monotonic()
    print(f"== {what}", flush=True)
    yield
    took[what] = time.monotonic() - started


def simulate(world: Path, environment: Path) -> None:
    """Make the runs that the world lacks, two at a time."""
    if (world / "test.zarr").exists() and any(world.glob("train*.zarr")):
        return
    if not (environment / "bin" / "python").exists():
        ours("world", "environment", environment)
    runs = [word for run in SIMULATED for word in ("--run", run)]
    ours("world", "simulate", "--environment", environment, "--output", world, "--jobs", 2, "--spin-up-days", 90, *runs)


def initial_dates(store: Path, days: int, count: int) -> list[datetime]:
    """Dates of one hour of the day, evenly over what can be verified."""
    leads = [MINI.step_hours * step for step in range(1, days + 1)]
    starts = Archive(str(store), MINI.architecture.grid).starts(MINI.lags_hours, leads)
    daily = [start for start in starts if start.hour == starts[0].hour]
    chosen = np.unique(np.linspace(0, len(daily) - 1, count).round().astype(int))
    return [daily[index] for index in chosen]


def forecast(folder: Path, store: Path, dates: Sequence[datetime], days: int, *words: str) -> None:
    """A file for every date, two at a time; those that are complete stay."""
    folder.mkdir(exist_ok=True)
    given = ("--variant", "mini", "--file", store, "--lead-time", MINI.step_hours * days, "--resume", "--quiet")
    more = ("--output-params", CHANNELS, "--members-per-batch", 8, "--num-threads", 1)
    path = folder / "{dataDate}.grib"
    halves = [",".join(f"{date:%Y%m%dT%H}" for date in half) for half in (dates[::2], dates[1::2]) if half]
    together(*(("forecast", *given, *more, "--path", path, "--dates", half, *words) for half in halves))


def verify(output: Path, world: Path, *words: str) -> None:
    forecasts = [word for name in ("mini", "twin") for word in ("--forecast", f"{name}={output / name}")]
    climatology = sorted(world.glob("train*.zarr"))
    more = ("--channels", CHANNELS, "--truth", world / "test.zarr", "--climatology", *climatology)
    ours("verify", *forecasts, *more, "--output", output / "verification", *words)


def ours(*words: object) -> None:
    """Run a command of the package; what it says is shown."""
    together(words)


def together(*commands: Sequence[object]) -> None:
    """Run commands of the package at the same time."""
    program = [sys.executable, "-m", "ai_models_mosaic.cli"]
    processes = [subprocess.Popen([*program, *map(str, words)]) for words in commands]  # noqa: S603
    # All end before one that failed is told of.
    for words, status in zip(commands, [process.wait() for process in processes], strict=True):
        if status:
            sys.exit(f"ai-models-mosaic {words[0]} ended with status {status}; the same command goes on")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("claims"), help="folder of everything (default: claims)")
    parser.add_argument("--world", type=Path, help="folder with test.zarr and train*.zarr (default: simulated)")
    parser.add_argument("--environment", type=Path, help="of the simulator (default: made)")
    parser.add_argument("--dates", type=int, default=30)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--no-pictures", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
