"""The selected branch on a CPU, in tiles of scores that stay in the processor's cache.

PyTorch's fused kernel cuts the 512 queries of a group into pieces of 64 and packs all keys anew for
each. Here the products are as large as the cache allows, and the softmax needs no maximum, where no
score can be large: neither search for one nor subtraction.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from .problem import Problem, Queries, runs

SCORES_AT_ONCE = 2**19
"""Scores of a tile that one thread works on (2 MiB in float32)."""

LARGEST_SCORE = 60.0
"""Scores up to which exponentials need no maximum taken off: e⁶⁰ and its inverse are far inside float32, also
times any value and summed over all keys."""

Selected = Callable[[Problem], Queries]


def tiled_selected(problem: Problem, otherwise: Selected) -> Queries:
    """Attention of every query block to the pixels of its selected key blocks, in the shape of the queries.

    Member by member and head by head, so that what a member is given does not depend on its neighbours in the batch.

    Parameters
    ----------
    problem : Problem
        On a CPU, in float32.
    otherwise : callable
        The selected branch of one member and key/value head whose scores may be large, or whose blocks cannot be
        dealt out to the threads evenly: a product that threads share rounds differently for each number of them.

    Returns
    -------
    Tensor (member, query head, pixel, d)
        In float32, before the gate.
    """
    lanes = even_lanes(problem)
    out = torch.empty(problem.query.shape)
    for member in range(problem.query.shape[0]):
        for head in range(problem.key.shape[1]):
            part = problem.of(member, head)
            into = out[member : member + 1, head * problem.ratio : (head + 1) * problem.ratio]
            if lanes is None or largest_score(part) > LARGEST_SCORE:
                into.copy_(otherwise(part))
            else:
                _in_tiles(part, lanes, into)
    return out


def even_lanes(problem: Problem) -> int | None:
    """How many blocks to attend at once: a divisor of their number, and one or more for every thread; None if none."""
    blocks, keys = problem.lists.shape[2], problem.lists.shape[3] * problem.layout.sparse
    threads = torch.get_num_threads()
    wanted = threads * max(1, SCORES_AT_ONCE // (keys * problem.layout.sparse))
    dividing = [lanes for lanes in range(threads, blocks + 1) if blocks % lanes == 0]
    return min(dividing, key=lambda lanes: abs(lanes - wanted), default=None)


def largest_score(problem: Problem) -> float:
    """A bound of |q·k|/√d over all pairs, by the lengths of both."""
    query, key = (float(tensor.norm(dim=-1).max()) for tensor in (problem.query, problem.key))
    return query * key * problem.query.shape[-1] ** -0.5


def _in_tiles(problem: Problem, lanes: int, out: Queries) -> None:
    """The branch of one member and one key/value head, into `out`, which has the shape of the queries."""
    lists, size, width = problem.lists[0, 0], problem.layout.sparse, problem.query.shape[-1]
    queries, made = (tensor[0].unflatten(1, (-1, size)) for tensor in (problem.query, out))
    key_blocks, value_blocks = (runs(tensor, size).flatten(1) for tensor in (problem.key, problem.value))
    chosen, keys = lanes * lists.shape[1], lists.shape[1] * size
    key, value = (key_blocks.new_empty(chosen, size * width) for _ in range(2))
    scores, summed = queries.new_empty(lanes, keys, size), queries.new_empty(lanes, size, width)
    for first in range(0, lists.shape[0], lanes):
        some = slice(first, first + lanes)
        torch.index_select(key_blocks, 0, lists[some].flatten(), out=key)
        torch.index_select(value_blocks, 0, lists[some].flatten(), out=value)
        of_key, of_value = (copied.view(lanes, keys, width) for copied in (key, value))
        for head in range(problem.ratio):
            # Keys by queries, and not the other way round: a sum of rows is faster than one along them.
            across = queries[head, some].transpose(1, 2)
            torch.baddbmm(scores, of_key, across, beta=0, alpha=width**-0.5, out=scores).exp_()
            torch.bmm(scores.transpose(1, 2), of_value, out=summed)
            torch.div(summed, scores.sum(dim=1).unsqueeze(-1), out=made[head, some])
