"""What every attention backend is given, and the shapes that they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...arrays import Float, Float32, Int
from .tilings import Tiling

Queries = Float[Tensor, "member query_head pixel head_width"]
Keys = Float[Tensor, "member head pixel head_width"]
"""Keys and values: query head h is served by head h // G."""

ByPixel = Float[Tensor, "member pixel head head_width"]
"""Heads of a pixel end to end, as FlashAttention has them."""

Gates = Float[Tensor, "member query_head pixel 3"]
MeanQueries = Float32[Tensor, "member query_head block head_width"]
MeanKeys = Float32[Tensor, "member head block head_width"]
Lists = Int[Tensor, "member head block selected"]
Means = tuple[MeanQueries, MeanKeys, MeanKeys]
"""Query, key and value averaged over the sparse blocks."""

RunQueries = Float[Tensor, "run query head_width"]
RunKeys = Float[Tensor, "run key head_width"]


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
    tiling : Tiling or None
        How the Triton kernel cuts its work; None: `tilings.default_tiling`.
    """

    local: int
    sparse: int
    selected: int
    tiling: Tiling | None = None


@dataclass(frozen=True)
class Problem:
    """One call of block-sparse attention, with its selection made.

    Parameters
    ----------
    query : Tensor (member, query head, pixel, d)
        After RoPE.
    key, value : Tensor (member, key/value head, pixel, d)
        The keys after RoPE. Query head h is served by key/value head h // G.
    gates : Tensor (member, query head, pixel, 3)
        Weights of the branches in the order local, compressed, selected.
    means : tuple of Tensor (member, head, block, d)
        Query, key and value averaged over the sparse blocks, in float32.
    lists : Tensor (member, key/value head, block, selected) of int64 or int32
        Key blocks of every query block, each once, in any order.
    layout : BlockLayout
        Blocks; both sizes divide the pixels.
    out : Tensor (member, query head, pixel, d) or None
        Where the sum goes, of a backend that writes into given memory; a view with any strides between pixels.
    """

    query: Queries
    key: Keys
    value: Keys
    gates: Gates
    means: Means
    lists: Lists
    layout: BlockLayout
    out: Queries | None = None

    @property
    def ratio(self) -> int:
        """Query heads per key/value head: G."""
        return self.query.shape[1] // self.key.shape[1]

    def of(self, member: int, head: int) -> Problem:
        """The part of one member and one key/value head, with batch and group of one."""
        queries = slice(head * self.ratio, (head + 1) * self.ratio)
        mean_query, mean_key, mean_value = (mean[member : member + 1] for mean in self.means)
        means = (mean_query[:, queries], mean_key[:, head : head + 1], mean_value[:, head : head + 1])
        query, gates = (tensor[member : member + 1, queries] for tensor in (self.query, self.gates))
        key, value, lists = (
            tensor[member : member + 1, head : head + 1] for tensor in (self.key, self.value, self.lists)
        )
        return Problem(query, key, value, gates, means, lists, self.layout)

    @property
    def trains(self) -> bool:
        """Whether a gradient will be asked for."""
        return torch.is_grad_enabled() and any(
            tensor.requires_grad for tensor in (self.query, self.key, self.value, self.gates)
        )


Backend = Callable[[Problem], Queries]
"""The gated sum of the three branches, ``(member, query head, pixel, d)`` in the dtype of the gates."""

DenseAttention = Callable[[RunQueries, RunKeys, RunKeys], RunQueries]
"""Softmax attention ``(n, query, d), (n, key, d), (n, key, d) -> (n, query, d)``, scale 1/√d."""


def grouped(query: Queries, ratio: int, size: int) -> Float[Tensor, "run {ratio*size} head_width"]:
    """The queries that share keys under one another: ``(member · key/value head · run, ratio · size, d)``.

    Parameters
    ----------
    query : Tensor (member, query head, pixel, d)
        A multiple of `ratio` heads, a multiple of `size` pixels.
    ratio : int
        Query heads per key/value head.
    size : int
        Pixels per run.

    Returns
    -------
    Tensor (member · key/value head · run, ratio · size, d)
        In the dtype of `query`.
    """
    by_run = query.unflatten(1, (-1, ratio)).unflatten(3, (-1, size)).transpose(2, 3)
    return by_run.flatten(3, 4).flatten(0, 2)


def ungrouped(out: Float[Tensor, "run rows head_width"], query: Queries, ratio: int) -> Queries:
    """`grouped` undone, to the shape of `query`."""
    batch, heads, _, width = query.shape
    by_head = out.view(batch, heads // ratio, -1, ratio, out.shape[1] // ratio, width).transpose(2, 3)
    return by_head.reshape(query.shape)


def runs(tensor: Keys, size: int) -> Float[Tensor, "run {size} head_width"]:
    """Keys or values by run, ``(member · key/value head · run, size, d)``."""
    return tensor.unflatten(2, (-1, size)).flatten(0, 2)


def accumulated(
    total: Float[Tensor, "*rows head_width"], gate: Float[Tensor, "*rows 1"], branch: Float[Tensor, "*#rows head_width"]
) -> Float[Tensor, "*rows head_width"]:
    """``total + gate · branch`` in one pass, in the place of `total` where no gradient needs it."""
    if torch.is_grad_enabled():
        return torch.addcmul(total, gate, branch.to(total.dtype))
    return total.addcmul_(gate, branch.to(total.dtype))


def compressed_branch(problem: Problem, attend: DenseAttention) -> Float[Tensor, "member query_head block head_width"]:
    """Attention among block means, ``(member, query head, block, d)``."""
    query, key, value = problem.means
    heads = query.unflatten(1, (-1, problem.ratio)).flatten(2, 3).flatten(0, 1)
    out = attend(heads, key.flatten(0, 1), value.flatten(0, 1))
    return out.unflatten(1, (problem.ratio, -1)).reshape(query.shape)


def local_branch(problem: Problem, attend: DenseAttention) -> Queries:
    """Attention inside every run of `layout.local` pixels, in the shape of the queries."""
    size = problem.layout.local
    heads = grouped(problem.query, problem.ratio, size)
    out = attend(heads, runs(problem.key, size), runs(problem.value, size))
    return ungrouped(out, problem.query, problem.ratio)


def gated_sum(
    problem: Problem,
    attend: DenseAttention,
    selected: Callable[[], Queries],
) -> Queries:
    """The three branches, local and compressed by `attend`.

    Parameters
    ----------
    problem : Problem
        What to attend.
    attend : DenseAttention
        Attention inside runs and among block means.
    selected : callable
        Makes the selected branch, when the others have given back what they needed.

    Returns
    -------
    Tensor (member, query head, pixel, d)
        In the dtype of the gates.
    """
    gates, blocks = problem.gates, (-1, problem.layout.sparse)
    total = gates[..., 0:1] * local_branch(problem, attend)
    # Every token of a block receives its block's result.
    by_block = compressed_branch(problem, attend).unsqueeze(3)
    total = accumulated(total.unflatten(2, blocks), gates[..., 1:2].unflatten(2, blocks), by_block).flatten(2, 3)
    return accumulated(total, gates[..., 2:3], selected())
