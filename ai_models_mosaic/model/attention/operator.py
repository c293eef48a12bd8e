"""Attention by the Triton kernels as one operator, which ``torch.compile`` takes as it is.

Without it the compiler takes the kernels apart and compiles them in its own way.
"""

from __future__ import annotations

from dataclasses import astuple

import torch
from torch import Tensor

from .problem import BlockLayout, Gates, Keys, Means, Problem, Queries
from .tilings import Tiling
from .triton import lists_of, refuse_unfit, room_for_sum, triton_attention


@torch.library.custom_op(
    "ai_models_mosaic::attention",
    mutates_args=("out",),
    schema="(Tensor query, Tensor key, Tensor value, Tensor gates, Tensor mean_query, Tensor mean_key, "
    "Tensor mean_value, Tensor(a!) out, int[] blocks, int[] tiling) -> ()",
)
def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gates: Tensor,
    mean_query: Tensor,
    mean_key: Tensor,
    mean_value: Tensor,
    out: Tensor,
    blocks: list[int],
    tiling: list[int],
) -> None:
    local, sparse, selected = blocks
    layout = BlockLayout(local, sparse, selected, Tiling(*tiling) if tiling else None)
    means = (mean_query, mean_key, mean_value)
    lists = lists_of(mean_query, mean_key, layout.selected)
    triton_attention(Problem(query, key, value, gates, means, lists, layout, out))


@_attention.register_fake
def _(*_: object) -> None:
    """It makes nothing new."""


def attention_in_graph(
    query: Queries, key: Keys, value: Keys, gates: Gates, means: Means, layout: BlockLayout, out: Queries | None
) -> Queries:
    """The gated sum as one node of a graph; arguments as of `block_sparse_attention`.

    Parameters
    ----------
    query, key, value, gates : Tensor
        What to attend.
    means : tuple of Tensor
        Block means.
    layout : BlockLayout
        Blocks and tiling.
    out : Tensor or None
        Where the sum goes.

    Returns
    -------
    Tensor (member, query head, pixel, d)
        `out`, or else a new one in the dtype of `gates`.
    """
    refuse_unfit(query, key, value, gates, layout)
    out = room_for_sum(query, gates) if out is None else out
    tiling = [] if layout.tiling is None else list(astuple(layout.tiling))
    blocks = [layout.local, layout.sparse, layout.selected]
    torch.ops.ai_models_mosaic.attention(query, key, value, gates, *means, out, blocks, tiling)
    return out
