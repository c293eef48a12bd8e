"""Operations and weights of one member-step, counted from the architecture: what a time is compared with.

Products only, a multiplication and an addition counting as two. Norms, rotations, softmax and gates
are left out: they are bound by memory, and a thousandth of the sum.
Source: specification of the network, sections 4 – 8 and 11.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise

from ..variants import Architecture, Stage


@dataclass(frozen=True)
class StepFlops:
    """Floating-point operations of one member and step, by part of the network.

    Parameters
    ----------
    linear : int
        Linear maps of the blocks, and from and to the fields.
    local, compressed, selected : int
        Branches of the attention, the scores of the selection counting to the last.
    interpolation : int
        Both ways between grid and mesh.
    sampling : int
        Changes of resolution.
    """

    linear: int
    local: int
    compressed: int
    selected: int
    interpolation: int
    sampling: int

    @property
    def attention(self) -> int:
        """All three branches."""
        return self.local + self.compressed + self.selected

    @property
    def total(self) -> int:
        """All parts."""
        return sum(getattr(self, part.name) for part in fields(self))


def step_flops(architecture: Architecture, *, folded: bool = True) -> StepFlops:
    """Count one member-step.

    Parameters
    ----------
    architecture : Architecture
        Shapes.
    folded : bool
        The queries of the interpolations are folded into the keys, as this package has it; False
        counts the released form.

    Returns
    -------
    StepFlops
        Operations by part.
    """
    blocks = [(stage, stage.encoder_depth + stage.decoder_depth) for stage in architecture.stages]
    blocks.append((architecture.bottleneck, architecture.bottleneck.encoder_depth))
    points, width = architecture.grid.size, architecture.stages[0].width
    outside = points * width * (architecture.features + 2 * width + architecture.channels)
    return StepFlops(
        linear=2 * (outside + sum(depth * _maps(stage) for stage, depth in blocks)),
        local=sum(depth * 4 * stage.pixels * stage.local_block * stage.width for stage, depth in blocks),
        compressed=sum(depth * 4 * _block_pairs(stage) * stage.width for stage, depth in blocks),
        selected=sum(depth * _selected(stage) for stage, depth in blocks),
        interpolation=_interpolations(architecture, folded=folded),
        sampling=2 * _sampling(architecture),
    )


def _maps(stage: Stage) -> int:
    """Multiplications of the linear maps of one block: queries to gates, output, and the three of the feed-forward."""
    key_value_width = stage.key_value_heads * stage.head_width
    attention = stage.width * (stage.width + 2 * key_value_width + 3 * stage.query_heads) + stage.width**2
    return stage.pixels * (attention + 3 * stage.width * stage.hidden_width)


def _block_pairs(stage: Stage) -> int:
    return (stage.pixels // stage.sparse_block) ** 2


def _selected(stage: Stage) -> int:
    """Scores between block means, then scores and sums over the pixels of the selected blocks."""
    keys = stage.selected_blocks * stage.sparse_block
    return 2 * _block_pairs(stage) * stage.width + 4 * stage.pixels * keys * stage.width


def _interpolations(architecture: Architecture, *, folded: bool) -> int:
    stage, points, count = architecture.stages[0], architecture.grid.size, architecture.neighbours
    width, heads = stage.width, stage.query_heads
    operations = 0
    for sources, targets in ((points, stage.pixels), (stage.pixels, points)):
        gathered = targets * count
        values_and_output = sources * width**2 + targets * width**2 + gathered * width
        if folded:
            scores = sources * width * 3 * heads + gathered * 3 * heads
        else:
            scores = sources * width**2 + gathered * (3 * width + width)
        operations += 2 * (values_and_output + scores)
    return operations


def _sampling(architecture: Architecture) -> int:
    """Multiplications of both ways between stages, positions included."""
    stages = (*architecture.stages, architecture.bottleneck)
    return sum(
        2 * coarse.pixels * 4 * fine.width * coarse.width + coarse.pixels * 12 * (coarse.width + 4 * fine.width)
        for fine, coarse in pairwise(stages)
    )


def weight_count(architecture: Architecture) -> int:
    """Parameters, all of which a step reads."""
    import torch

    from .network import MosaicNetwork

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in MosaicNetwork(architecture).parameters())
