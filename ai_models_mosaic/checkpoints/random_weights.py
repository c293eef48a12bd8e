"""Checkpoints with random weights: to try an installation, or a machine's memory, without the released ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..channels import STATIC_FIELDS
from ..model.buffers import CARRIED_BUFFERS, make_buffers
from ..model.network import MosaicNetwork, initialise
from ..state import InitialState
from ..variants import Variant
from .format import Statistics, save_checkpoint


def make_random_checkpoint(variant: Variant, sample: InitialState, path: Path, seed: int) -> None:
    """Write a self-contained checkpoint that says of itself that it is untrained.

    Parameters
    ----------
    variant : Variant
        Shapes.
    sample : InitialState
        States on the variant's grid, whose mean and spread become the normalisation.
    path : Path
        Where to; ends in ``.safetensors``.
    seed : int
        Seed of the weights.
    """
    network = MosaicNetwork(variant.architecture)
    initialise(network, torch.Generator().manual_seed(seed))
    state: dict[str, Tensor] = dict(network.named_parameters())
    # A planet without land: the real static fields are not ours to pass on.
    statics = np.zeros((*variant.architecture.grid.shape, len(STATIC_FIELDS)), dtype=np.float32)
    state |= make_buffers(variant.architecture, CARRIED_BUFFERS, {}, statics)
    metadata = {"variant": variant.name, "untrained": "true", "seed": str(seed), "licence": "Apache-2.0"}
    save_checkpoint(path, {key: tensor.detach() for key, tensor in state.items()}, sample_statistics(sample), metadata)


def sample_statistics(sample: InitialState) -> Statistics:
    """Area-weighted mean and standard deviation of every channel over the states of a sample."""
    rows = sample.grid.cell_weights()
    weights = np.broadcast_to(rows, sample.grid.shape) / sample.grid.shape[0] / len(sample.times)
    values = sample.values.astype(np.float64)
    mean = np.einsum("hxyc,xy->c", values, weights)
    std = np.sqrt(np.einsum("hxyc,xy->c", (values - mean) ** 2, weights))
    return Statistics(mean, np.where(np.ptp(values, axis=(0, 1, 2)) > 0, std, 1.0))
