"""The selected branch by PyTorch's FlexAttention, which compiles a kernel that reads keys where they lie."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from .problem import DenseAttention, Problem, Queries, gated_sum


def flex_attention(problem: Problem, attend: DenseAttention) -> Queries:
    """Gated sum of the branches, the selected one by FlexAttention; shapes as `Problem`.

    Parameters
    ----------
    problem : Problem
        What to attend.
    attend : DenseAttention
        Attention inside runs and among block means.

    Returns
    -------
    Tensor (member, query head, pixel, d)
        In the dtype of the gates.

    Raises
    ------
    NotImplementedError
        If gradients are wanted on a CPU, for which FlexAttention has none.
    """
    if problem.trains and problem.query.device.type == "cpu":
        raise NotImplementedError(
            "the attention backend flex has no gradients on a CPU; train with the backend reference or sdpa"
        )
    return gated_sum(problem, attend, lambda: _selected(problem))


def block_mask(problem: Problem) -> Any:
    """The selection as FlexAttention's mask of whole blocks.

    Its heads are the query heads: a mask of key/value heads is taken without complaint, and wrongly.

    Parameters
    ----------
    problem : Problem
        Gives lists and block size, and whether a backward pass needs the lists by key block too.

    Returns
    -------
    BlockMask
        Of PyTorch, for batch and query heads of the problem.
    """
    from torch.nn.attention.flex_attention import BlockMask

    pixels, blocks = problem.query.shape[2], problem.lists.shape[2]
    lists = problem.lists.to(torch.int32)
    # Backward needs the lists by key block, which are derived from lists as long as there are blocks;
    # the CPU asks for that length too, and ignores what lies beyond the count.
    if problem.trains or problem.query.device.type == "cpu":
        lists = torch.nn.functional.pad(lists, (0, blocks - lists.shape[-1]))
    lists = lists.repeat_interleave(problem.ratio, dim=1)
    counts = torch.full(lists.shape[:3], problem.lists.shape[-1], dtype=torch.int32, device=lists.device)
    nothing = torch.zeros_like(counts)
    return BlockMask.from_kv_blocks(
        nothing,
        torch.zeros_like(lists),
        counts,
        lists,
        BLOCK_SIZE=problem.layout.sparse,
        seq_lengths=(pixels, pixels),
        compute_q_blocks=problem.trains,
    )


def _selected(problem: Problem) -> Queries:
    """Attention of every query block to the pixels of its selected key blocks."""
    query, key, value = problem.query, problem.key, problem.value
    # Autocast reaches into a compiled kernel on some devices only.
    with torch.autocast(query.device.type, enabled=False):
        return _compiled()(
            query, key.to(query.dtype), value.to(query.dtype), block_mask=block_mask(problem), enable_gqa=True
        )


@lru_cache(maxsize=1)
def _compiled() -> Any:
    """FlexAttention, compiled anew for every shape: uncompiled it holds the scores of all pixels."""
    from torch.nn.attention.flex_attention import flex_attention as uncompiled

    return torch.compile(uncompiled, dynamic=False)
