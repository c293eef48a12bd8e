"""Floating-point operations and bytes of one member-step, counted from the architecture alone.

A multiplication and the addition after it are two operations. Counted are matrix products, those of attention
included; norms, softmax, RoPE and gates are a few operations per number, bound by memory, and left out.
Source: specification of the network, sections 4 - 8; the sections stand beside each formula.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from ai_models_mosaic.variants import Architecture, Stage


@dataclass(frozen=True)
class Work:
    """Operations of one member-step, by part.

    Parameters
    ----------
    linear : int
        Linear maps of blocks, of changes of resolution, and before and after them.
    attention : int
        Products of queries and keys, and of probabilities and values, in the blocks.
    interpolation : int
        Linear maps and weighted sums of the interpolations, folded as the network has them.
    folded_away : int
        What the interpolations would take beyond that if keys and queries were formed.
    """

    linear: int
    attention: int
    interpolation: int
    folded_away: int

    @property
    def total(self) -> int:
        """What is computed."""
        return self.linear + self.attention + self.interpolation


def matmul(rows: int, inner: int, columns: int) -> int:
    """Operations of a product of matrices."""
    return 2 * rows * inner * columns


def block_linear(stage: Stage, noise_width: int) -> int:
    """Linear maps of one transformer block (sections 7 and 8)."""
    tokens, width, hidden = stage.pixels, stage.width, stage.hidden_width
    keys_and_values = 2 * stage.key_value_heads * stage.head_width
    projections = width + keys_and_values + width + 3 * stage.query_heads  # q; k and v; o; gates
    feed_forward = matmul(tokens, width, 2 * hidden) + matmul(tokens, hidden, width)
    return matmul(tokens, width, projections) + feed_forward + matmul(1, noise_width, hidden)


def block_attention(stage: Stage) -> int:
    """The three branches of one block, and the scores of the selection (section 8)."""
    blocks = stage.pixels // stage.sparse_block
    pairs = stage.pixels * (stage.local_block + stage.selected_blocks * stage.sparse_block) + blocks * blocks
    # Scores and weighted sum: twice a product over the head's width, for every query head.
    return 2 * matmul(pairs, stage.head_width, stage.query_heads) + matmul(blocks, stage.width, blocks)


def changes_of_resolution(architecture: Architecture) -> int:
    """Down and up between stages: children of a pixel side by side, and their positions (section 6)."""
    stages = (*architecture.stages, architecture.bottleneck)
    return sum(
        # Down: from (child, channel) and (child, xyz); up: to (child, channel) from channel and (child, xyz).
        matmul(coarse.pixels, 4 * fine.width + 12, coarse.width)
        + matmul(coarse.pixels, coarse.width + 12, 4 * fine.width)
        for fine, coarse in pairwise(stages)
    )


def interpolations(architecture: Architecture) -> tuple[int, int]:
    """Both interpolations, folded, and what folding saves (section 5)."""
    stage, points = architecture.stages[0], architecture.grid.size
    width, heads, neighbours = stage.width, stage.query_heads, architecture.neighbours
    folded = saved = 0
    for sources, targets in ((points, stage.pixels), (stage.pixels, points)):
        values, out = matmul(sources, width, width), matmul(targets, width, width)
        directions, scores = matmul(sources, width, 3 * heads), matmul(targets * neighbours, 3, heads)
        sums = matmul(targets * neighbours, 1, width)
        folded += values + out + directions + scores + sums
        plain_keys, plain_queries = matmul(sources, width, width), matmul(targets * neighbours, 3, width)
        plain_scores = matmul(targets * neighbours, 1, width)
        saved += plain_keys + plain_queries + plain_scores - directions - scores
    return folded, saved


def work(architecture: Architecture) -> Work:
    """Operations of one member-step.

    Parameters
    ----------
    architecture : Architecture
        Of the variant.
    """
    stages = (*architecture.stages, architecture.bottleneck)
    depths = [(stage, stage.encoder_depth + stage.decoder_depth) for stage in stages]
    width, points = architecture.stages[0].width, architecture.grid.size
    # Before: features to width to width; after: width to width to channels (sections 4 and 6).
    ends = matmul(points, width, architecture.features + width) + matmul(points, width, width + architecture.channels)
    linear = sum(depth * block_linear(stage, architecture.noise_width) for stage, depth in depths)
    folded, saved = interpolations(architecture)
    return Work(
        linear=linear + ends + changes_of_resolution(architecture),
        attention=sum(depth * block_attention(stage) for stage, depth in depths),
        interpolation=folded,
        folded_away=saved,
    )


def weight_count(architecture: Architecture) -> int:
    """Parameters, all of which a step reads."""
    import torch

    from ai_models_mosaic.model.network import MosaicNetwork

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in MosaicNetwork(architecture).parameters())


def bytes_moved(architecture: Architecture, element_bytes: int, members: int = 1) -> int:
    """Bytes that a step of some members moves between the device and its memory.

    Every weight is read once, and so are the inputs of every operation, and its result written once: norm, q with k and
    v, rotation, attention with gates, output with the residual sum; norm, first map, gating, second map with the
    residual sum. The residual stream is float32 whatever the precision. Kernels that fuse more move less.

    Parameters
    ----------
    architecture : Architecture
        Of the variant.
    element_bytes : int
        Of what the products take and give.
    members : int
        That share one reading of the weights.
    """
    stages = (*architecture.stages, architecture.bottleneck)
    per_member = 0
    for stage in stages:
        # In units of one field (token, width). Queries, keys and values together:
        heads = 1 + 2 * stage.key_value_heads / stage.query_heads
        hidden = stage.hidden_width / stage.width
        attention = 2 + heads + 2 * heads + heads + 2  # norm to projections, their result, rotation, attention, output
        feed_forward = 2 + 2 * hidden + 3 * hidden + hidden  # norm to first map, its result, gating, second map
        fields = attention + feed_forward
        # Read by a norm, read and written by the sum after it.
        stream = 2 * 3
        field = stage.pixels * stage.width
        per_member += (stage.encoder_depth + stage.decoder_depth) * field * (fields * element_bytes + stream * 4)
    ends = architecture.grid.size * (architecture.features + architecture.channels + 6 * architecture.stages[0].width)
    weights = weight_count(architecture) * element_bytes
    return int(weights + members * (per_member + ends * 4))
