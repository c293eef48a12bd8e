"""The optimisers of a training run."""

from __future__ import annotations

import torch
from torch import nn

from ..errors import OptionError
from ..model.interpolation import CrossGridAttention
from ..model.layers import BlockStack
from ..model.resampling import Downsample, Upsample
from .recipe import Recipe

BESIDE = ("to_strategy_combine_mlp", "noise_bias")
"""Maps inside the network whose outputs stand for themselves: gates, the perturbation."""

NARROW = 16
"""Maps of fewer inputs are those of positions."""


def make_optimisers(network: nn.Module, recipe: Recipe) -> tuple[torch.optim.Optimizer, ...]:
    """AdamW for all weights that are trained, or Muon for the inner matrices and AdamW for the others.

    Muon orthogonalises the momentum of a matrix, so that a step is as long in its weak directions as in
    its strong ones. It is meant for hidden matrices; input, output and whatever is no map of features to
    features stay with AdamW. Its steps are scaled to the size of AdamW's, so that one learning rate serves both.
    Source: Jordan et al., 2024 (Muon); Liu et al., arXiv:2502.16982, section 2.2 (the scale).

    Parameters
    ----------
    network : Module
        Its weights.
    recipe : Recipe
        Gives the optimiser, the betas and the weight decay.

    Raises
    ------
    OptionError
        If this PyTorch has no Muon.
    """
    trained = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    inner = _inner(network) & trained.keys() if recipe.optimiser == "muon" else set()
    others = [weight for name, weight in trained.items() if name not in inner]
    # Fused: one pass over each tensor; the weights are many and small.
    adamw = torch.optim.AdamW(others, lr=0.0, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True)
    if not inner:
        return (adamw,)
    if not hasattr(torch.optim, "Muon"):
        raise OptionError(
            f"recipe: expected PyTorch 2.9 or later for optimiser 'muon', got {torch.__version__}; "
            "update it, or choose 'adamw'"
        )
    muon = torch.optim.Muon(
        [trained[name] for name in sorted(inner)],
        lr=0.0,
        weight_decay=recipe.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return (muon, adamw)


def _inner(network: nn.Module) -> set[str]:
    """Names of the matrices between features and features."""
    return {
        f"{place}.{name}"
        for place, module in network.named_modules()
        if isinstance(module, BlockStack | CrossGridAttention | Downsample | Upsample)
        for name, weight in module.named_parameters()
        if name.split(".")[-2] not in BESIDE and weight.shape[1] >= NARROW
    }
