"""Block-sparse attention: three branches over the tokens of one HEALPix stage.

`block_sparse_attention` is the one call; what varies between backends is only how the softmax
attention inside blocks is computed, so a faster backend is one more entry in `BACKENDS`.
Source: specification of the network, section 8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

DenseAttention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Softmax attention ``(n, query, d), (n, key, d), (n, key, d) -> (n, query, d)``, scale 1/√d."""

SCORES_AT_ONCE = 2**24
"""Scores that a plain softmax holds at a time (64 MiB in float32)."""

GATHERED_AT_ONCE = 2**23
"""Elements of selected keys that are copied at a time (32 MiB in float32)."""


@dataclass(frozen=True)
class BlockLayout:
    """Which tokens attend to which.

    Parameters
    ----------
    local : int
        Tokens per run of the local branch.
    sparse : int
        Tokens per run of the compressed and selected branches.
    selected : int
        Key runs that every query run selects.
    """

    local: int
    sparse: int
    selected: int


def plain_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention written out, the softmax in float32, in slices of bounded memory.

    Parameters
    ----------
    query : Tensor (n, query, d)
    key, value : Tensor (n, key, d)

    Returns
    -------
    Tensor (n, query, d)
        In the dtype of `value`.
    """
    at_once = max(1, SCORES_AT_ONCE // (query.shape[1] * key.shape[1]))
    slices = zip(query.split(at_once), key.split(at_once), value.split(at_once), strict=True)
    return torch.cat([attention_of_slice(q, k, v) for q, k, v in slices])


def attention_of_slice(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """`plain_attention` with all scores at once."""
    # Scaled before the product, which half precision could not hold otherwise.
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(1, 2)
    return torch.softmax(scores.float(), dim=-1).to(value.dtype) @ value


def sdpa_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention by PyTorch's fused kernels, which never hold all scores; shapes as `plain_attention`."""
    # The heads' dimension is what every fused kernel expects, on the CPU as on the GPU.
    fused = functional.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])
    return fused[:, 0]


BACKENDS: Mapping[str, DenseAttention] = MappingProxyType({"reference": plain_attention, "sdpa": sdpa_attention})
"""Backends by name; all agree with `reference` to rounding."""

DEFAULT_BACKEND = "sdpa"


def block_sparse_attention(
    query: Tensor, key: Tensor, value: Tensor, gates: Tensor, layout: BlockLayout, backend: str = DEFAULT_BACKEND
) -> Tensor:
    """Gated sum of the local, compressed and selected branches.

    Parameters
    ----------
    query : Tensor (batch, query head, pixel, d)
        After RoPE.
    key, value : Tensor (batch, key/value head, pixel, d)
        The keys after RoPE. Query head h is served by key/value head h // G.
    gates : Tensor (batch, query head, pixel, 3)
        Weights of the branches in the order local, compressed, selected.
    layout : BlockLayout
        Blocks; both sizes divide the pixels.
    backend : str
        A name in `BACKENDS`.

    Returns
    -------
    Tensor (batch, query head, pixel, d)
        In the dtype of `gates`.
    """
    attend = BACKENDS[backend]
    mean_query, mean_key, mean_value = (_block_means(tensor, layout.sparse) for tensor in (query, key, value))
    local = _local(query, key, value, layout.local, attend)
    combined = gates[..., 0:1] * local
    compressed = _compressed(mean_query, mean_key, mean_value, attend)
    # Every token of a block receives its block's result.
    blocks = (-1, layout.sparse)
    by_block = compressed.unsqueeze(3) * gates[..., 1:2].unflatten(2, blocks)
    combined = combined + by_block.flatten(2, 3)
    lists = select_blocks(mean_query, mean_key, layout.selected)
    return combined + gates[..., 2:3] * _selected(query, key, value, lists, layout.sparse, attend)


def select_blocks(mean_query: Tensor, mean_key: Tensor, count: int) -> Tensor:
    """Key blocks that every query block attends to, ``(batch, key/value head, block, count)``.

    Scores are unscaled dot products of block means, head h against the keys of head h // G; the
    score for key/value head j is then the mean over query heads j, j + Hk, j + 2·Hk, … and not over
    the G heads that j serves. The released model was trained with that mismatch.

    Parameters
    ----------
    mean_query : Tensor (batch, query head, block, d)
    mean_key : Tensor (batch, key/value head, block, d)
    count : int
        Blocks to select.
    """
    heads = mean_key.shape[1]
    ratio = mean_query.shape[1] // heads
    # Which blocks are chosen must not hang on half precision.
    with torch.autocast(mean_query.device.type, enabled=False):
        scores = mean_query.float() @ mean_key.float().repeat_interleave(ratio, dim=1).transpose(2, 3)
    per_key_head = scores.unflatten(1, (ratio, heads)).mean(dim=1)
    return per_key_head.topk(count, dim=-1, sorted=False).indices


def _block_means(tensor: Tensor, size: int) -> Tensor:
    """Means over runs of `size` pixels in float32, ``(batch, head, block, d)``."""
    return tensor.unflatten(2, (-1, size)).float().mean(dim=3)


def _local(query: Tensor, key: Tensor, value: Tensor, size: int, attend: DenseAttention) -> Tensor:
    """Attention inside every run of `size` pixels."""
    ratio = query.shape[1] // key.shape[1]
    # The query heads of a group stand under one another: they share keys and values.
    grouped = query.unflatten(1, (-1, ratio)).unflatten(3, (-1, size)).transpose(2, 3)
    runs = (tensor.unflatten(2, (-1, size)).flatten(0, 2) for tensor in (key, value))
    out = attend(grouped.flatten(3, 4).flatten(0, 2), *runs)
    return _ungroup(out.unflatten(1, (ratio, size)), query)


def _compressed(mean_query: Tensor, mean_key: Tensor, mean_value: Tensor, attend: DenseAttention) -> Tensor:
    """Attention among block means, ``(batch, query head, block, d)``."""
    ratio = mean_query.shape[1] // mean_key.shape[1]
    grouped = mean_query.unflatten(1, (-1, ratio)).flatten(2, 3).flatten(0, 1)
    out = attend(grouped, mean_key.flatten(0, 1), mean_value.flatten(0, 1))
    return out.unflatten(1, (ratio, -1)).reshape(mean_query.shape)


def _selected(query: Tensor, key: Tensor, value: Tensor, lists: Tensor, size: int, attend: DenseAttention) -> Tensor:
    """Attention of every query block to the pixels of its selected key blocks."""
    ratio = query.shape[1] // key.shape[1]
    grouped = query.unflatten(1, (-1, ratio)).unflatten(3, (-1, size)).transpose(2, 3)
    queries = grouped.flatten(3, 4).flatten(0, 2)
    count, blocks = lists.shape[-1], lists.shape[2]
    key_blocks, value_blocks = (tensor.unflatten(2, (-1, size)).flatten(0, 2) for tensor in (key, value))
    first = torch.arange(lists.shape[0] * lists.shape[1], device=lists.device).view(*lists.shape[:2], 1, 1) * blocks
    rows = (lists + first).flatten(0, 2)
    at_once = max(1, GATHERED_AT_ONCE // (count * size * key.shape[-1]))
    out = torch.cat(
        [
            attend(some, key_blocks[chosen].flatten(1, 2), value_blocks[chosen].flatten(1, 2))
            for some, chosen in zip(queries.split(at_once), rows.split(at_once), strict=True)
        ]
    )
    return _ungroup(out.unflatten(1, (ratio, size)), query)


def _ungroup(out: Tensor, query: Tensor) -> Tensor:
    """``(batch · key/value head · block, ratio, size, d)`` back to the layout of `query`."""
    batch, heads, _, _ = query.shape
    ratio = out.shape[1]
    by_head = out.view(batch, heads // ratio, -1, *out.shape[1:]).transpose(2, 3)
    return by_head.reshape(query.shape)
