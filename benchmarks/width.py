"""What limits ``mini``: its size? A short recipe for a network of some times its width.

``python benchmarks/width.py --data WORLD --output FOLDER --factor 2``, and the same with ``--factor 1``

It learns from the beginning by ``recipes/mini-start.toml``, cut short: the squared error of a step, the same samples in
the same order whatever the width. Told are what the validation gives at the end, and the processor time of it all. A
training that is complete is not made again, and another goes on.
"""

from __future__ import annotations

import argparse
import csv
import time
from dataclasses import replace
from pathlib import Path

import torch

from ai_models_mosaic.training.recipe import Phase, read_recipe
from ai_models_mosaic.training.run import TrainingFolders, train
from ai_models_mosaic.variants import MINI, VARIANTS, Stage, Variant

BASE = Path(__file__).parent.parent / "recipes" / "mini-start.toml"
MEMORY_BYTES = 6 * 10**9


def main() -> None:
    known = arguments()
    torch.set_num_threads(1)
    variant = widened(known.factor)
    VARIANTS[variant.name] = variant
    phase = Phase(known.updates, 4, 8e-3, warm_up=min(40, known.updates - 1))
    whole = replace(read_recipe(BASE), variant=variant.name, phases=(phase,), validate_every=known.updates)
    began = time.process_time()
    train(whole, TrainingFolders(known.data, known.output / variant.name, MEMORY_BYTES))
    with (known.output / variant.name / "validation.csv").open(encoding="utf-8", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    errors = ", ".join(f"{float(last[f'rmse_{day}']):.3f}" for day in (1, 3, 5))
    print(
        f"{variant.name}, {known.updates} updates: RMSE at days 1, 3 and 5 {errors} standard deviations of the state; "
        f"{time.process_time() - began:.0f} s of the processor in this run"
    )


def widened(factor: int) -> Variant:
    """`mini` with so many times the width and the heads everywhere."""
    architecture = MINI.architecture

    def wider(stage: Stage) -> Stage:
        return replace(stage, width=factor * stage.width, query_heads=factor * stage.query_heads)

    stages = tuple(wider(stage) for stage in architecture.stages)
    wide = replace(architecture, stages=stages, bottleneck=wider(architecture.bottleneck))
    return replace(MINI, name=f"mini-width-{factor}", architecture=wide)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the recipe's stores")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--factor", type=int, default=2, help="1 is mini itself")
    parser.add_argument("--updates", type=int, default=300)
    return parser.parse_args()


if __name__ == "__main__":
    main()
