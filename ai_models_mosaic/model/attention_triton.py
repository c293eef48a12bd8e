"""The local and selected branches by this project's own Triton kernel; forward only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .attention_problem import DenseAttention, Problem, compressed_branch


@dataclass(frozen=True)
class Tiling:
    """How the kernel cuts its work, chosen so that nothing spills; see ``benchmarks/kernel_resources.py``.

    Parameters
    ----------
    rows, keys : int
        Queries of a program, and keys of one turn of its loop: powers of two from 16.
    warps, stages : int
        Warps of a program, and turns whose loads are under way.
    """

    rows: int
    keys: int
    warps: int
    stages: int


def tiling(layout_size: int, ratio: int, width: int, element_bytes: int) -> Tiling:
    """The tiling of a problem.

    Parameters
    ----------
    layout_size : int
        Pixels per block.
    ratio : int
        Query heads per key/value head.
    width : int
        Channels per head, d.
    element_bytes : int
        Bytes of an element of the keys.
    """
    rows = min(128, max(16, power_of_two(layout_size * ratio)))
    keys = min(64, max(16, power_of_two(layout_size)))
    if element_bytes > 2:
        rows, keys = min(rows, 64), min(keys, 32)
    return Tiling(rows, keys, warps=4 if rows * width <= 128 * 64 else 8, stages=2 if element_bytes > 2 else 3)


def power_of_two(number: int) -> int:
    """The smallest power of two that is not below."""
    return 1 << (number - 1).bit_length()


def triton_attention(problem: Problem, attend: DenseAttention) -> Tensor:
    """Gated sum of the branches; shapes as `Problem`.

    Parameters
    ----------
    problem : Problem
        What to attend; all on one device.
    attend : DenseAttention
        Attention among block means.

    Raises
    ------
    NotImplementedError
        If gradients are wanted: there is no backward kernel.
    """
    if problem.trains:
        raise NotImplementedError(
            "the attention backend triton has no gradients; train with the backend reference or sdpa, "
            "or wrap a forecast in torch.inference_mode()"
        )
    out = torch.empty(problem.query.shape, dtype=problem.gates.dtype, device=problem.query.device)
    compressed = compressed_branch(problem, attend).to(out.dtype).contiguous()
    _launch(problem, out, compressed, listed=False)
    _launch(problem, out, compressed, listed=True)
    return out


def constants(problem: Problem, *, listed: bool) -> dict[str, Any]:
    """What the kernel is compiled for.

    Parameters
    ----------
    problem : Problem
        What to attend.
    listed : bool
        The selected branch, or else the local one.
    """
    size = problem.layout.sparse if listed else problem.layout.local
    width, element_bytes = problem.query.shape[-1], problem.key.element_size()
    tiles = tiling(size, problem.ratio, width, element_bytes)
    return {
        "SIZE": size,
        "COUNT": problem.layout.selected if listed else 1,
        "RATIO": problem.ratio,
        "WIDTH": width,
        "PADDED_WIDTH": max(16, power_of_two(width)),
        "ROWS": tiles.rows,
        "KEYS": tiles.keys,
        "LISTED": listed,
        # Half precision knows no other; float32 is for those who ask for it.
        "DOT": "ieee",
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
    }


def _launch(problem: Problem, out: Tensor, compressed: Tensor, *, listed: bool) -> None:
    """Let the kernel add one branch to `out`, or begin it."""
    from .attention_kernel import attend_to_lists

    query, key, value = (_rows(tensor) for tensor in (problem.query, problem.key, problem.value))
    gates = problem.gates
    fixed = constants(problem, listed=listed)
    blocks = query.shape[2] // fixed["SIZE"]
    tiles = -(-fixed["SIZE"] * fixed["RATIO"] // fixed["ROWS"])
    attend_to_lists[(blocks * tiles, key.shape[0] * key.shape[1])](
        query,
        key.to(query.dtype),
        value.to(query.dtype),
        gates[..., 2 if listed else 0],
        problem.lists.to(torch.int32),
        compressed,
        gates[..., 1],
        out,
        *query.stride()[:3],
        *key.stride()[:3],
        *value.stride()[:3],
        *gates.stride()[:3],
        *out.stride()[:3],
        blocks,
        key.shape[1],
        query.shape[-1] ** -0.5 * math.log2(math.e),
        **fixed,
    )


def _rows(tensor: Tensor) -> Tensor:
    """As the kernel reads it: the channels of a pixel next to one another."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
