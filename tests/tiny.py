"""The smallest network that has every part: for tests that need many, or files of them."""

from __future__ import annotations

import numpy as np
import torch

from ai_models_mosaic.checkpoints.format import Checkpoint
from ai_models_mosaic.geometry.grid import LatLonGrid
from ai_models_mosaic.model.network import MosaicNetwork, initialise
from ai_models_mosaic.variants import Architecture, Stage, Variant

ARCHITECTURE = Architecture(
    grid=LatLonGrid.regular(30.0),
    stages=(Stage(4, 32, 4, 64, 16, 3, encoder_depth=2, decoder_depth=1, mlp_ratio=2.0, gqa_ratio=2),),
    bottleneck=Stage(2, 48, 4, 24, 8, 2, encoder_depth=1, mlp_ratio=2.0, gqa_ratio=2),
    neighbours=4,
    history=2,
    channels=5,
    noise_width=6,
)

VARIANT = Variant(
    name="tiny",
    architecture=ARCHITECTURE,
    step_hours=24,
    checkpoint="checkpoints/tiny_best.pt",
    statistics="data/norm_stats_tiny.npz",
    statics="data/static_vars.npz",
)

STATICS = np.random.default_rng(0).normal(size=(*ARCHITECTURE.grid.shape, 3)).astype(np.float32)


def parameters(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights by key, without the leading ``model.``."""
    network = MosaicNetwork(ARCHITECTURE)
    initialise(network, torch.Generator().manual_seed(seed))
    return {key: value.detach() for key, value in network.named_parameters()}


def inputs(members: int = 1, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normalised state, progress and ε."""
    generator = torch.Generator().manual_seed(seed)
    state = torch.randn(members, ARCHITECTURE.history, *ARCHITECTURE.grid.shape, 5, generator=generator)
    return state, torch.tensor([0.25, 0.7]), torch.randn(members, ARCHITECTURE.noise_width, generator=generator)


def checkpoint_of(state: dict[str, torch.Tensor], path: str = "tiny.pt") -> Checkpoint:
    from pathlib import Path

    return Checkpoint(Path(path), state)
