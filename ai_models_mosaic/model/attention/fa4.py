"""The local and the selected branch by FlashAttention-4, an optional package, on GPUs of sm_90.

Written against the source of flash-attn-4 4.0.0b36: with lists, its kernel for sm_90 takes blocks of 128 queries and
128 keys. Never run by this project.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .problem import ByPixel, Problem, Queries
from .triton import capability_of, joined

BLOCK = 128
"""Pixels of a block that the kernel takes a list of."""

WIDTHS = range(8, 97, 8)
"""Channels per head for which its tiles are blocks of 128 by 128."""


def fa4_attention(problem: Problem) -> Queries:
    """Gated sum of the branches; shapes as `Problem`.

    Parameters
    ----------
    problem : Problem
        What to attend.

    Returns
    -------
    Tensor (member, query head, pixel, d)
        The problem's `out`, or else a new one in the dtype of the gates.

    Raises
    ------
    NotImplementedError
        If gradients are wanted.
    ValueError
        If device, precision or blocks are not those that its lists are for.
    """
    if problem.trains:
        raise NotImplementedError(
            "the attention backend fa4 has no gradients; train with the backend reference or sdpa"
        )
    _refuse_others(problem)
    heads = [tensor.transpose(1, 2) for tensor in (problem.query, problem.key, problem.value)]
    by_run = [tensor.unflatten(1, (-1, problem.layout.local)).flatten(0, 1) for tensor in heads]
    local = _attended(*by_run).view(heads[0].shape)
    return joined(local, _attended(*heads, block_sparse_tensors=block_lists(problem)), problem)


def _refuse_others(problem: Problem) -> None:
    device, layout, width = problem.query.device, problem.layout, problem.query.shape[-1]
    capability, dtype = capability_of(device), str(problem.query.dtype).removeprefix("torch.")
    on = device.type if capability is None else f"sm_{capability[0]}{capability[1]}"
    if on != "sm_90" or dtype not in ("float16", "bfloat16"):
        raise ValueError(f"expected a GPU of sm_90 and half precision, got {on} and {dtype}; take triton or sdpa")
    if layout.sparse != BLOCK or width not in WIDTHS:
        raise ValueError(
            f"expected blocks of {BLOCK} pixels and heads of {WIDTHS[0]} to {WIDTHS[-1]} channels, multiples of 8, got "
            f"{layout.sparse} and {width}; take triton or sdpa"
        )


def block_lists(problem: Problem) -> Any:
    """The selection as the kernel takes it: all blocks are whole, none has a mask, and every query head has a list.

    Parameters
    ----------
    problem : Problem
        Gives the lists.

    Returns
    -------
    BlockSparseTensorsTorch
        Of flash-attn-4.
    """
    from flash_attn.cute.block_sparsity import BlockSparseTensorsTorch

    lists = problem.lists.to(torch.int32).repeat_interleave(problem.ratio, dim=1)
    nothing = torch.zeros(lists.shape[:3], dtype=torch.int32, device=lists.device)
    return BlockSparseTensorsTorch(
        mask_block_cnt=nothing,
        mask_block_idx=nothing.unsqueeze(-1),
        full_block_cnt=torch.full_like(nothing, lists.shape[-1]),
        full_block_idx=lists,
        block_size=(BLOCK, BLOCK),
    )


def _attended(query: ByPixel, key: ByPixel, value: ByPixel, **lists: Any) -> ByPixel:
    from flash_attn.cute import flash_attn_func

    made: tuple[Tensor, Tensor | None] = flash_attn_func(query, key, value, **lists)
    return made[0]
