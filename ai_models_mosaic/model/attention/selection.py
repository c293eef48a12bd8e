"""Which blocks every query block attends to, in PyTorch's own operators."""

from __future__ import annotations

import torch
from torch import Tensor

from ...arrays import Float32, Int64
from .problem import Keys, MeanKeys, MeanQueries

SCORES_AT_ONCE = 2**24
"""Scores that are held at a time (64 MiB in float32)."""


def select_blocks(
    mean_query: MeanQueries, mean_key: MeanKeys, count: int
) -> Int64[Tensor, "member head block {count}"]:
    """Key blocks that every query block attends to, ``(member, key/value head, block, count)``.

    Scores are unscaled dot products of block means, head h against the keys of head h // G; the
    score for key/value head j is then the mean over query heads j, j + Hk, j + 2·Hk, … and not over
    the G heads that j serves. The released model was trained with that mismatch.

    Parameters
    ----------
    mean_query : Tensor (member, query head, block, d)
        Queries after RoPE, averaged over every block.
    mean_key : Tensor (member, key/value head, block, d)
        Keys likewise.
    count : int
        Blocks to select, at most as many as there are.

    Returns
    -------
    Tensor (member, key/value head, block, count) of int64
        Key blocks by number, those of one query block in any order, none twice.
    """
    heads = mean_key.shape[1]
    ratio = mean_query.shape[1] // heads
    # The heads of a mean end to end, so that one product gives their sum and no head's scores are held.
    query, served = (
        tensor.float().unflatten(1, (ratio, heads)).permute(0, 2, 3, 1, 4).flatten(3)
        for tensor in (mean_query, mean_key.repeat_interleave(ratio, dim=1))
    )
    at_once = max(1, SCORES_AT_ONCE // (query.shape[0] * heads * served.shape[2]))
    # A graph cannot have slices whose number depends on the batch.
    slices = (query,) if torch.compiler.is_compiling() else query.split(at_once, dim=2)
    # Which blocks are chosen must not depend on half precision.
    with torch.autocast(query.device.type, enabled=False):
        by_slice = [(some @ served.transpose(2, 3)).topk(count, dim=-1, sorted=False).indices for some in slices]
    return torch.cat(by_slice, dim=2)


def block_means(tensor: Keys, size: int) -> Float32[Tensor, "member head pixel//{size} head_width"]:
    """Means over runs of `size` pixels in float32, ``(member, head, block, d)``."""
    return tensor.unflatten(2, (-1, size)).float().mean(dim=3)
