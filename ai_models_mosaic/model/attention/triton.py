"""The local and selected branches by this project's own Triton kernel; forward only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...arrays import Float
from .problem import DenseAttention, Keys, Problem, Queries, compressed_branch


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


def tiling(size: int, ratio: int, width: int, element_bytes: int) -> Tiling:
    """The tiling of a problem.

    Parameters
    ----------
    size : int
        Pixels per block.
    ratio : int
        Query heads per key/value head.
    width : int
        Channels per head, d.
    element_bytes : int
        Bytes of an element of the keys.

    Returns
    -------
    Tiling
        One that fits a chip's registers and shared memory.
    """
    padded = max(16, power_of_two(width))
    # The sums of a program, rows × width in float32, fill a quarter of a chip's registers.
    rows = max(16, min(256, 2**14 // padded, power_of_two(size * ratio)))
    keys = max(16, min(64, power_of_two(size)))
    if element_bytes > 2:
        rows, keys = min(rows, 64), min(keys, 32)
    return Tiling(rows, keys, warps=8 if rows * padded > 2**13 else 4, stages=3 if element_bytes == 2 else 2)


def power_of_two(number: int) -> int:
    """The smallest power of two that is not below."""
    return 1 << (number - 1).bit_length()


def triton_attention(problem: Problem, attend: DenseAttention) -> Queries:
    """Gated sum of the branches; shapes as `Problem`.

    Parameters
    ----------
    problem : Problem
        What to attend; all on one device.
    attend : DenseAttention
        Attention among block means.

    Returns
    -------
    Tensor (member, query head, pixel, d)
        In the dtype of the gates.

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


def constants(size: int, ratio: int, width: int, element_bytes: int, *, listed: bool) -> dict[str, Any]:
    """What the kernel is compiled for; the first four as `tiling`.

    Parameters
    ----------
    size, ratio, width, element_bytes : int
        The problem.
    listed : bool
        The selected branch, or else the local one.

    Returns
    -------
    dict
        Keywords of the launch: constants of `attend_to_lists` in capitals, and Triton's own.
    """
    tiles = tiling(size, ratio, width, element_bytes)
    return {
        "SIZE": size,
        "RATIO": ratio,
        "WIDTH": width,
        "PADDED_WIDTH": max(16, power_of_two(width)),
        "ROWS": tiles.rows,
        "KEYS": tiles.keys,
        "LISTED": listed,
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
    }


def _launch(
    problem: Problem, out: Queries, compressed: Float[Tensor, "member query_head block head_width"], *, listed: bool
) -> None:
    """Let the kernel add one branch to `out`, or begin it."""
    from triton import JITFunction

    from .kernel import attend_to_lists

    query, key, value = (_rows(tensor) for tensor in (problem.query, problem.key, problem.value))
    gates = problem.gates
    size = problem.layout.sparse if listed else problem.layout.local
    fixed = constants(size, problem.ratio, query.shape[-1], query.element_size(), listed=listed)
    blocks = query.shape[2] // size
    tiles = -(-size * problem.ratio // fixed["ROWS"])
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
        problem.lists.shape[-1] if listed else 1,
        key.shape[1],
        query.shape[-1] ** -0.5 * math.log2(math.e),
        UPCAST=query.dtype == torch.bfloat16 and not isinstance(attend_to_lists, JITFunction),
        **fixed,
    )


def _rows(tensor: Keys) -> Keys:
    """As the kernel reads it: the channels of a pixel next to one another."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
