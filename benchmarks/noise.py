"""What the ensemble maker's helpers do: the mean of pairs with opposite noise, and the spread by noise factor.

Errors and spreads are of fields divided by their standard deviation over the globe, root mean square over all
points and channels, at one lead time. Weights and sample are to be given; of the bundled ones by default.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import earthkit.data
import numpy as np
import torch

from ai_models_mosaic.arrays import FloatArray
from ai_models_mosaic.checkpoints.files import locate
from ai_models_mosaic.checkpoints.integrity import digest_of
from ai_models_mosaic.engines import Engine
from ai_models_mosaic.engines.torch import load_engine
from ai_models_mosaic.forecast.rollout import Ensemble, rollout
from ai_models_mosaic.inputs.states import read_initial_state
from ai_models_mosaic.state import InitialState
from ai_models_mosaic.variants import VARIANTS


def fields(engine: Engine, initial: InitialState, ensemble: Ensemble, step_hours: int, steps: int) -> FloatArray:
    """The last step of every member, (member, lon, lat, channel)."""
    made = rollout(engine, dict.fromkeys(ensemble.members, initial), ensemble, step_hours, steps)
    return np.concatenate([step.values for step in made if step.step == steps])


def error_of_means(members: FloatArray, scale: FloatArray, size: int) -> float:
    """Root mean square standard error of the mean of so many members, from the means of groups.

    Opposite noise has the distribution of any other, so pairs have the same mean as independent members, and
    what differs is how far the means of small groups scatter about it.
    """
    groups = members.reshape(-1, size, *members.shape[1:]).mean(axis=1)
    return spread(groups, scale)


def spread(members: FloatArray, scale: FloatArray) -> float:
    """Root mean square standard deviation of the members."""
    return float(np.sqrt(np.mean(members.var(axis=0, ddof=1) / scale**2)))


def measure(
    engine: Engine, initial: InitialState, step_hours: int, steps: int, count: int, factors: Sequence[float]
) -> None:
    """Print both effects."""
    scale = initial.values[-1].std(axis=(0, 1)) + 1e-12
    everyone = tuple(range(1, count + 1))
    usual = fields(engine, initial, Ensemble(0, everyone), step_hours, steps)
    paired = fields(engine, initial, Ensemble(0, everyone, antithetic=True), step_hours, steps)
    for size in (2, 4, 8):
        errors = [error_of_means(members, scale, size) for members in (usual, paired)]
        print(f"mean of {size}: error {errors[0]:.3g} with independent noise, {errors[1]:.3g} in opposite pairs")
    for factor in factors:
        found = usual
        if factor != 1:
            found = fields(engine, initial, Ensemble(0, everyone, noise_factor=factor), step_hours, steps)
        print(f"noise × {factor:g}: spread {spread(found, scale):.3g}", flush=True)


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--variant", choices=sorted(VARIANTS), default="mini")
    made.add_argument("--checkpoint", type=Path)
    made.add_argument("--assets", type=Path, default=Path())
    made.add_argument("--file", default=str(Path(__file__).parent.parent / "examples" / "mini-input.grib"))
    made.add_argument("--steps", type=int, default=1)
    made.add_argument("--members", type=int, default=64, help="a multiple of 8")
    made.add_argument("--factors", type=float, nargs="+", default=[0.5, 1.0, 1.5, 2.0])
    known = made.parse_args()
    variant = VARIANTS[known.variant]
    source = earthkit.data.from_source("file", known.file)
    initial = read_initial_state(source, variant.architecture.grid, variant.lags_hours)
    assets = locate(variant, known.assets, known.checkpoint)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    engine = load_engine(variant, assets, device, "float32")
    weights = f"{assets.checkpoint.name} of SHA-256 {digest_of(assets.checkpoint)[:12]}…"
    print(f"{variant.name}, {weights}, +{known.steps * variant.step_hours} h, {engine.description}")
    measure(engine, initial, variant.step_hours, known.steps, known.members, known.factors)


if __name__ == "__main__":
    main()
