"""Block-sparse attention: three branches over the tokens of one HEALPix stage.

`block_sparse_attention` is the one call. What is selected is decided here, once; what varies
between backends is only how the softmax attention to it is computed.
Source: specification of the network, section 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

import torch
from torch.nn import functional

from .fa4 import fa4_attention
from .flex import flex_attention
from .operator import attention_in_graph
from .problem import (
    Backend,
    DenseAttention,
    Gates,
    Keys,
    Means,
    Problem,
    Queries,
    RunKeys,
    RunQueries,
    gated_sum,
    grouped,
    runs,
    ungrouped,
)
from .problem import BlockLayout as BlockLayout
from .problem import (
    MeanKeys as MeanKeys,
)
from .problem import (
    MeanQueries as MeanQueries,
)
from .selection import block_means as block_means
from .selection import select_blocks as select_blocks
from .tiles import tiled_selected
from .triton import lists_of, triton_attention

SCORES_AT_ONCE = 2**24
"""Scores that a plain softmax holds at a time (64 MiB in float32)."""

GATHERED_AT_ONCE = 2**23
"""Elements of selected keys that are copied at a time (32 MiB in float32)."""


def plain_attention(query: RunQueries, key: RunKeys, value: RunKeys) -> RunQueries:
    """Softmax attention written out, the softmax in float32, in slices of bounded memory.

    Parameters
    ----------
    query : Tensor (n, query, d)
        n runs, each attending to its own keys alone.
    key, value : Tensor (n, key, d)
        One value per key; of any number of keys.

    Returns
    -------
    Tensor (n, query, d)
        In the dtype of `value`.
    """
    at_once = max(1, SCORES_AT_ONCE // (query.shape[1] * key.shape[1]))
    slices = zip(query.split(at_once), key.split(at_once), value.split(at_once), strict=True)
    return torch.cat([attention_of_slice(q, k, v) for q, k, v in slices])


def attention_of_slice(query: RunQueries, key: RunKeys, value: RunKeys) -> RunQueries:
    """`plain_attention` with all scores at once."""
    # Scaled before the product, which half precision could not hold otherwise.
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(1, 2)
    return torch.softmax(scores.float(), dim=-1).to(value.dtype) @ value


def sdpa_attention(query: RunQueries, key: RunKeys, value: RunKeys) -> RunQueries:
    """Softmax attention by PyTorch's fused kernels, which never hold all scores; shapes as `plain_attention`."""
    # The heads' dimension is what every fused kernel expects, on the CPU as on the GPU.
    fused = functional.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])
    return fused[:, 0]


def gathering(attend: DenseAttention) -> Backend:
    """A backend of dense attention: the selected keys and values are copied together, a few blocks at a time."""
    return lambda problem: gated_sum(problem, attend, lambda: _selected(problem, attend))


def tiled_attention(problem: Problem) -> Queries:
    """`sdpa`, but for the selected branch in float32 on a CPU, which `attention_tiles` computes.

    Returns
    -------
    Tensor (member, query head, pixel, d)
        In the dtype of the gates: float32.

    Raises
    ------
    ValueError
        If gradients are asked for, or the tensors are not in float32 on a CPU.
    """
    found = f"{problem.query.device.type} in {str(problem.query.dtype).removeprefix('torch.')}"
    if problem.trains:
        raise ValueError("the attention backend tiled has no gradients; train with the backend reference or sdpa")
    if found != "cpu in float32":
        raise ValueError(f"the attention backend tiled expected tensors on cpu in float32, got {found}; take sdpa")
    copied = partial(_selected, attend=sdpa_attention)
    # A graph cannot ask how large the scores are.
    selected = copied if torch.compiler.is_compiling() else partial(tiled_selected, otherwise=copied)
    return gated_sum(problem, sdpa_attention, lambda: selected(problem))


BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {
        "reference": gathering(plain_attention),
        "sdpa": gathering(sdpa_attention),
        "tiled": tiled_attention,
        "flex": lambda problem: flex_attention(problem, sdpa_attention),
        "triton": triton_attention,
        "fa4": fa4_attention,
    }
)
"""Backends by name; all agree with `reference` to rounding."""

PORTABLE = ("reference", "sdpa")
"""Backends for every device, shape and precision, with gradients."""

DEFAULT_BACKEND = "sdpa"


def block_sparse_attention(
    query: Queries,
    key: Keys,
    value: Keys,
    gates: Gates,
    layout: BlockLayout,
    backend: str = DEFAULT_BACKEND,
    *,
    means: Means | None = None,
    out: Queries | None = None,
) -> Queries:
    """Gated sum of the local, compressed and selected branches.

    Parameters
    ----------
    query : Tensor (member, query head, pixel, d)
        After RoPE; like all that follows, a view with any strides between pixels, heads and members.
    key, value : Tensor (member, key/value head, pixel, d)
        The keys after RoPE. Query head h is served by key/value head h // G.
    gates : Tensor (member, query head, pixel, 3)
        Weights of the branches in the order local, compressed, selected.
    layout : BlockLayout
        Blocks; both sizes divide the pixels.
    backend : str
        A name in `BACKENDS`.
    means : tuple of Tensor (member, head, block, d) or None
        Query, key and value averaged over the sparse blocks, in float32, where they are known already.
    out : Tensor (member, query head, pixel, d) or None
        Where the sum goes, rounded to its precision; with the backend ``triton`` without a copy.

    Returns
    -------
    Tensor (member, query head, pixel, d)
        `out`, or else a new one in the dtype of `gates`.
    """
    if means is None:
        means = (block_means(query, layout.sparse), block_means(key, layout.sparse), block_means(value, layout.sparse))
    if backend == "triton" and torch.compiler.is_compiling():
        return attention_in_graph(query, key, value, gates, means, layout, out)
    lists = (lists_of if backend == "triton" else select_blocks)(means[0], means[1], layout.selected)
    result = BACKENDS[backend](Problem(query, key, value, gates, means, lists, layout, out))
    return result if out is None or result is out else out.copy_(result)


def _selected(problem: Problem, attend: DenseAttention) -> Queries:
    """Attention of every query block to the pixels of its selected key blocks."""
    lists, size = problem.lists, problem.layout.sparse
    queries = grouped(problem.query, problem.ratio, size)
    key_blocks, value_blocks = runs(problem.key, size), runs(problem.value, size)
    count, blocks = lists.shape[-1], lists.shape[2]
    first = torch.arange(lists.shape[0] * lists.shape[1], device=lists.device).view(*lists.shape[:2], 1, 1) * blocks
    rows = (lists + first).flatten(0, 2)
    at_once = max(1, GATHERED_AT_ONCE // (count * size * key_blocks.shape[-1]))
    out = torch.cat(
        [
            attend(some, key_blocks[chosen].flatten(1, 2), value_blocks[chosen].flatten(1, 2))
            for some, chosen in zip(queries.split(at_once), rows.split(at_once), strict=True)
        ]
    )
    return ungrouped(out, problem.query, problem.ratio)
