"""What a part of the network is worth: short trainings without it, several seeds each, verified side by side.

``python benchmarks/ablations.py --data WORLD --start CHECKPOINT --output FOLDER``

Every run goes on from one deterministic network (``recipes/mini-start.toml``) with the score of
``recipes/mini-finer.toml``, and differs from the others in what it leaves out and in its seed, which decides the order
of samples and the noise. Verified on the validation run; the table is written to ``FOLDER/ablations.md``. Trainings
that are complete are not made again, and others go on.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from claims_table import FIELDS, Results

from ai_models_mosaic.training.recipe import Phase, Recipe, read_recipe
from ai_models_mosaic.training.run import TrainingFolders, train

HERE = Path(__file__).parent
BASE = HERE.parent / "recipes" / "mini-finer.toml"
VARIATIONS: dict[str, dict[str, object]] = {
    "nothing left out": {},
    "perturbations in the bottleneck alone": {"quiet": ("encoder_stages", "decoder_stages")},
    "no perturbations": {"quiet": ("encoder_stages", "bottleneck", "decoder_stages")},
}
SHOWN_HOURS = (24, 72, 120)
MEDIUM_SCALES = range(10, 16)
MEMORY_BYTES = 6 * 10**9


def main() -> None:
    known = arguments()
    runs = {
        (name, seed): known.output / f"{name.replace(' ', '-')}-{seed}" for name in VARIATIONS for seed in known.seeds
    }
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(known.jobs, mp_context=spawning) as pool:
        started = [
            pool.submit(train_one, varied(name, seed, known), known.data, folder)
            for (name, seed), folder in runs.items()
        ]
        for training in started:
            training.result()
    checkpoints = {f"{name} {seed}": folder / "checkpoint.safetensors" for (name, seed), folder in runs.items()}
    if not (known.output / "verification" / "scores.csv").exists():
        verify(checkpoints, known)
    written = known.output / "ablations.md"
    written.write_text(table(Results.read(known.output / "verification"), known.seeds), encoding="utf-8")
    print(written.read_text(encoding="utf-8"))


def varied(name: str, seed: int, known: argparse.Namespace) -> Recipe:
    """The recipe of a run."""
    phase = Phase(known.updates, known.batch, 4e-3, warm_up=min(15, known.updates - 1), rollout=2)
    start = str(known.start.resolve())
    base = replace(read_recipe(BASE), start_from=start, phases=(phase,), seed=seed)
    return replace(base, **VARIATIONS[name])


def train_one(recipe: Recipe, data: Path, folder: Path) -> None:
    """To the end, or go on to it."""
    if (folder / "checkpoint.safetensors").exists():
        return
    torch.set_num_threads(1)
    if train(recipe, TrainingFolders(data, folder, MEMORY_BYTES)) is None:
        sys.exit(f"{folder} was told to stop; the same command goes on")


def verify(checkpoints: dict[str, Path], known: argparse.Namespace) -> None:
    """All of them in one run, on the same dates."""
    named = [word for name, path in checkpoints.items() for word in ("--checkpoint", f"{name}={path}")]
    more = ["--world", known.data, "--run", "validation", "--output", known.output / "verification", "--no-pictures"]
    sizes = ["--dates", known.dates, "--members", known.members, "--days", max(SHOWN_HOURS) // 24]
    program = [sys.executable, HERE / "miniature_world.py"]
    subprocess.run([*map(str, [*program, *more, *sizes, *named])], check=True)  # noqa: S603


def table(results: Results, seeds: Sequence[int]) -> str:
    """Means over the seeds, with the least and the greatest of them in brackets."""
    days = ", ".join(str(hours // 24) for hours in SHOWN_HOURS)
    lines = [
        f"| days {days} | CRPS over climatology's | spread/skill | power of members over truth's |",
        "|---|---|---|---|",
    ]
    for name in VARIATIONS:
        columns = [
            ", ".join(spread_of([measure(results, f"{name} {seed}", hours) for seed in seeds]) for hours in SHOWN_HOURS)
            for measure in MEASURES
        ]
        lines.append(f"| {name} | " + " | ".join(columns) + " |")
    return "\n".join(lines) + "\n"


def spread_of(values: Sequence[float]) -> str:
    """Of one number of several seeds."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{np.mean(values):.2f} ({min(values):.2f} – {max(values):.2f})"


def crps(results: Results, forecast: str, hours: int) -> float:
    """Fair CRPS over that of climatology, mean over the fields."""
    return float(
        np.mean([1 - results.score("crps_skill_climatology", field, hours, forecast).value for field in FIELDS])
    )


def spread_skill(results: Results, forecast: str, hours: int) -> float:
    """Mean over the fields."""
    return float(np.mean([results.score("spread_skill", field, hours, forecast).value for field in FIELDS]))


def power(results: Results, forecast: str, hours: int) -> float:
    """Of single members at medium scales over the truth's, mean over fields and wavenumbers."""
    ratios = [results.power_ratio(field, hours, degree, forecast).value for field in FIELDS for degree in MEDIUM_SCALES]
    return float(np.mean(ratios))


MEASURES: tuple[Callable[[Results, str, int], float], ...] = (crps, spread_skill, power)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the recipes' stores, and validation.zarr")
    parser.add_argument("--start", type=Path, required=True, help="the deterministic network that all go on from")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--dates", type=int, default=12)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once, of one thread each")
    return parser.parse_args()


if __name__ == "__main__":
    main()
