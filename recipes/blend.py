"""The mean of the weights of several checkpoints, with its noise made louder or softer.

``python recipes/blend.py --noise 1.2 --output OUTPUT CHECKPOINT…``

Weights that went on from one another, or from the same start, lie close enough for their mean to be a network. The
factor multiplies the map that all perturbations come from: what ``--noise-factor`` does at run time, for good.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ai_models_mosaic.checkpoints.format import Checkpoint, read_checkpoint, save_checkpoint
from ai_models_mosaic.errors import CheckpointError

NOISE = "noise_generator.to_noise.weight"


def blend(paths: Sequence[Path], noise: float, output: Path) -> None:
    """Write the mean of some checkpoints of one architecture and one normalisation.

    The file says of itself what the last of them does, and what it is a blend of.

    Raises
    ------
    CheckpointError
        If they differ in names, shapes or normalisation.
    """
    parts = [read_checkpoint(path) for path in paths]
    last = parts[-1]
    for part in parts:
        if shapes(part) != shapes(last) or not same_normalisation(part, last):
            raise CheckpointError(f"{part.path} has other weights or another normalisation than {last.path}")
    state = {name: mean([part.state[name] for part in parts]) for name in last.state}
    state[NOISE] = state[NOISE] * noise
    recipes = [json.loads(part.metadata.get("recipe", "{}")) for part in parts]
    about = {"noise_factor": noise, "recipes": recipes}
    save_checkpoint(output, state, last.statistics, {**last.metadata, "blend": json.dumps(about, sort_keys=True)})


def shapes(checkpoint: Checkpoint) -> dict[str, torch.Size]:
    """Of every tensor, by its name."""
    return {name: tensor.shape for name, tensor in checkpoint.state.items()}


def same_normalisation(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether both carry it, and the same to the bit."""
    if one.statistics is None or other.statistics is None:
        return False
    return np.array_equal(one.statistics.mean, other.statistics.mean) and np.array_equal(
        one.statistics.std, other.statistics.std
    )


def mean(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """In float64 and back; of integers, which are indices, the last."""
    if not tensors[-1].is_floating_point():
        return tensors[-1]
    return torch.stack([tensor.double() for tensor in tensors]).mean(dim=0).to(tensors[-1].dtype)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, nargs="+")
    parser.add_argument("--noise", type=float, default=1.0, metavar="FACTOR")
    parser.add_argument("--output", type=Path, required=True)
    known = parser.parse_args()
    blend(known.checkpoint, known.noise, known.output)
