"""Verify networks on a run of the miniature world, the test run unless told otherwise.

``python benchmarks/miniature_world.py --world FOLDER --output FOLDER``

Every checkpoint makes forecasts from the same initial dates, which are scored against the run itself,
persistence and the climatology of the training runs (docs/verification.md). A checkpoint whose recipe
says ``mse`` is run as one member. Times and sizes of what was run are written beside the scores.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import torch

from ai_models_mosaic.checkpoints.files import Assets
from ai_models_mosaic.checkpoints.tensor_files import read_metadata
from ai_models_mosaic.engines.torch import load_engine
from ai_models_mosaic.forecast.rollout import Ensemble, rollout
from ai_models_mosaic.state import InitialState
from ai_models_mosaic.training.archive import Archive
from ai_models_mosaic.variants import MINI
from ai_models_mosaic.verification.accumulate import verify
from ai_models_mosaic.verification.bootstrap import Bootstrap
from ai_models_mosaic.verification.cases import Case, case_of_rollout
from ai_models_mosaic.verification.climatology import FittedClimatology
from ai_models_mosaic.verification.evaluation import Evaluation
from ai_models_mosaic.verification.plan import Plan, find_channels
from ai_models_mosaic.verification.report import Report
from ai_models_mosaic.verification.zarr_stores import ZarrTruth

CHANNELS = ("z500", "t850", "2t", "10u", "q700", "u250", "v850")
BUNDLED = Path(__file__).parent.parent / "weights" / "mini.safetensors"


def main() -> None:
    known = arguments()
    torch.set_num_threads(known.threads)
    started = time.monotonic()
    verified = known.world / f"{known.run}.zarr"
    archive = Archive(str(verified), MINI.architecture.grid)
    steps = known.days
    leads = [24 * step for step in range(1, steps + 1)]
    starts = [start for start in archive.starts(MINI.lags_hours, leads) if start.hour == 0]
    dates = [starts[index] for index in np.linspace(0, len(starts) - 1, known.dates).round().astype(int)]
    channels = find_channels(CHANNELS)
    plan = Plan(channels=channels, spectra=channels, lead_hours=tuple(leads), illustrated=dates[len(dates) // 2])
    truth = ZarrTruth([str(verified)], channels)
    training = ZarrTruth([str(path) for path in sorted(known.world.glob("train*.zarr"))], channels)
    climatology = FittedClimatology(training, training.times, [event.probability for event in plan.events])
    evaluations = []
    for name, path in (text.split("=", 1) for text in known.checkpoint):
        sums = verify(cases(Path(path), archive, dates, steps, known.members, plan), truth, plan, climatology)
        evaluations.append(Evaluation(name, sums, Bootstrap()))
        passed = time.monotonic() - started
        print(f"{name}: {len(sums.dates)} dates, {sums.members} members, after {passed:.0f} s", flush=True)
    sources = {
        "forecasts": dict(text.split("=", 1) for text in known.checkpoint),
        "truth": [verified.name],
        "climatology": sorted(path.name for path in known.world.glob("train*.zarr")),
    }
    Report(tuple(evaluations), sources, pictures=not known.no_pictures).write(known.output)
    about = {"seconds": round(time.monotonic() - started), "threads": known.threads}
    (known.output / "run.json").write_text(json.dumps(about))


def cases(
    checkpoint: Path, archive: Archive, dates: list[datetime], steps: int, members: int, plan: Plan
) -> Iterator[Case]:
    """A forecast from every date, made when it is asked for."""
    engine = load_engine(MINI, Assets(checkpoint, None, None, checkpoint.parent), torch.device("cpu"), "float32")
    recipe = json.loads(read_metadata(checkpoint).get("recipe", "{}"))
    count = 1 if recipe.get("kind") == "mse" else members
    for date in dates:
        times = tuple(date + timedelta(hours=lag) for lag in MINI.lags_hours)
        initial = InitialState(archive.grid, times, np.stack([archive.state(when) for when in times]))
        ensemble = Ensemble(seed=1, members=tuple(range(1, count + 1)), per_batch=count)
        run = rollout(engine, dict.fromkeys(ensemble.members, initial), ensemble, MINI.step_hours, steps)
        yield case_of_rollout(date, (made for made in run if made.step > 0), plan.channels)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=Path, required=True, help="folder with the stores")
    parser.add_argument("--run", default="test", help="which store is verified; try things on validation")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--checkpoint", action="append", metavar="NAME=FILE", help="default: the bundled weights")
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--dates", type=int, default=70)
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-pictures", action="store_true")
    known = parser.parse_args()
    known.checkpoint = known.checkpoint or [f"mini={BUNDLED}"]
    return known


if __name__ == "__main__":
    main()
