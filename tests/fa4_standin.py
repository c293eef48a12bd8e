"""Stands where FlashAttention-4 does: the same arguments, checked as its source checks them, in PyTorch's operators."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import NamedTuple

import torch


class BlockSparseTensorsTorch(NamedTuple):
    """Fields of flash-attn-4 4.0.0b36 that are for the way forward, in its order."""

    mask_block_cnt: torch.Tensor
    mask_block_idx: torch.Tensor
    full_block_cnt: torch.Tensor | None = None
    full_block_idx: torch.Tensor | None = None
    cu_total_m_blocks: torch.Tensor | None = None
    cu_block_idx_offsets: torch.Tensor | None = None
    block_size: tuple[int, int] | None = None


def flash_attn_func(q, k, v, *, block_sparse_tensors=None):
    """Attention ``(batch, pixel, head, d)``; with lists, each block of queries to its blocks of keys."""
    for tensor in (q, k, v):
        assert tensor.stride(-1) == 1
        assert tensor.dtype in (torch.float16, torch.bfloat16)
    query, key, value = (tensor.float().transpose(1, 2) for tensor in (q, k, v))
    key, value = (tensor.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for tensor in (key, value))
    scores = query @ key.transpose(2, 3) * q.shape[-1] ** -0.5
    if block_sparse_tensors is not None:
        scores = scores.masked_fill(~_allowed(block_sparse_tensors, query.shape), float("-inf"))
    return (scores.softmax(dim=-1) @ value).to(q.dtype).transpose(1, 2).contiguous(), None


def _allowed(lists: BlockSparseTensorsTorch, shape: torch.Size) -> torch.Tensor:
    """Which keys every query may see ``(batch, head, pixel, pixel)``."""
    batch, heads, pixels, _ = shape
    rows, columns = lists.block_size
    assert rows == columns == 128
    expected = (batch, heads, pixels // rows)
    assert lists.mask_block_cnt.shape == lists.full_block_cnt.shape == expected
    assert lists.mask_block_idx.shape[:3] == lists.full_block_idx.shape[:3] == expected
    assert {each.dtype for each in lists[:4]} == {torch.int32}
    assert (lists.mask_block_cnt == 0).all()
    allowed = torch.zeros(*expected, pixels // columns, dtype=torch.bool)
    for place in range(lists.full_block_idx.shape[-1]):
        there = (place < lists.full_block_cnt)[..., None]
        allowed |= (
            there & torch.nn.functional.one_hot(lists.full_block_idx[..., place].long(), pixels // columns).bool()
        )
    return allowed.repeat_interleave(rows, dim=2).repeat_interleave(columns, dim=3)


def install() -> None:
    """Have ``import flash_attn.cute`` find this module."""
    here = sys.modules[__name__]
    sys.modules["flash_attn"] = ModuleType("flash_attn")
    sys.modules["flash_attn.cute"] = sys.modules["flash_attn.cute.block_sparsity"] = here
