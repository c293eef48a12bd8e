"""Block-sparse attention by this project's own Triton kernels; forward only.

Three launches: the selection, attention among block means, and all branches of the tokens. Tensors are read and
written where they lie.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ...arrays import Float32, Int
from ..launches import launch
from .constants import MOST_COLUMNS, attend_constants, join_constants, means_constants, select_constants
from .problem import BlockLayout, ByPixel, Gates, Keys, Lists, MeanKeys, MeanQueries, Means, Problem, Queries
from .selection import select_blocks
from .tilings import StageShape, default_tiling


def triton_attention(problem: Problem) -> Queries:
    """Gated sum of the branches; shapes as `Problem`.

    Parameters
    ----------
    problem : Problem
        What to attend; all on one device.

    Returns
    -------
    Tensor (member, query head, pixel, d)
        The problem's `out`, or else a new one in the dtype of the gates.

    Raises
    ------
    NotImplementedError
        If gradients are wanted: there is no backward kernel.
    ValueError
        If a local run is not of whole sparse blocks.
    """
    refuse_unfit(problem.query, problem.key, problem.value, problem.gates, problem.layout)
    out = room_for_sum(problem.query, problem.gates) if problem.out is None else problem.out
    attend_tokens(problem, attended_means(problem.means, exact=problem.query.dtype == torch.float32), out)
    return out


def refuse_unfit(query: Queries, key: Keys, value: Keys, gates: Gates, layout: BlockLayout) -> None:
    """Refuse what the kernels have no form for.

    Parameters
    ----------
    query, key, value, gates : Tensor
        As of `Problem`.
    layout : BlockLayout
        Blocks.

    Raises
    ------
    NotImplementedError
        If gradients are wanted: there is no backward kernel.
    ValueError
        If a local run is not of whole sparse blocks.
    """
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value, gates)):
        raise NotImplementedError(
            "the attention backend triton has no gradients; train with the backend reference or sdpa, "
            "or wrap a forecast in torch.inference_mode()"
        )
    if layout.local % layout.sparse:
        raise ValueError(
            f"the attention backend triton expected local runs of whole sparse blocks of {layout.sparse} pixels, got "
            f"{layout.local}; take sdpa"
        )


def room_for_sum(query: Queries, gates: Gates) -> Queries:
    """An empty sum in the dtype of the gates, as the next product reads it: the heads of a pixel end to end."""
    batch, heads, pixels, width = query.shape
    return query.new_empty(batch, pixels, heads, width, dtype=gates.dtype).transpose(1, 2)


def shape_of(layout: BlockLayout, ratio: int, width: int) -> StageShape:
    """What the tiling of a stage depends on; arguments as the fields of `Shape`."""
    return StageShape(layout.local, layout.sparse, layout.selected, ratio, width)


def capability_of(device: torch.device) -> tuple[int, int] | None:
    """Compute capability of an NVIDIA GPU; None for any other device."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None


def lists_of(mean_query: MeanQueries, mean_key: MeanKeys, count: int) -> Lists:
    """`select_blocks` by the kernel, where it takes so many blocks and no gradients are on: it refuses none."""
    trains = torch.is_grad_enabled() and (mean_query.requires_grad or mean_key.requires_grad)
    select = select_blocks if trains or mean_key.shape[2] > MOST_COLUMNS else selected_blocks
    return select(mean_query, mean_key, count)


def selected_blocks(
    mean_query: MeanQueries, mean_key: MeanKeys, count: int
) -> Int[Tensor, "member head block {count}"]:
    """`select_blocks` by one launch; equal scores go to the lower block.

    Parameters
    ----------
    mean_query, mean_key : Tensor (member, head, block, d)
        As of `select_blocks`.
    count : int
        Blocks to select.

    Returns
    -------
    Tensor (member, key/value head, block, count) of int32
        Best first.
    """
    query, key = _by_row(mean_query), _by_row(mean_key)
    batch, heads, blocks, width = key.shape
    ratio = query.shape[1] // heads
    lists = torch.empty(batch, heads, blocks, count, dtype=torch.int32, device=key.device)
    fixed = select_constants(ratio, width, blocks)
    launch(
        _kernel("select", query),
        (-(-blocks // fixed["ROWS"]), batch * heads),
        query,
        key,
        lists,
        *query.stride()[:3],
        *key.stride()[:3],
        blocks,
        count,
        heads,
        reads=(query, key),
        writes=(lists,),
        operations=2.0 * query.numel() * blocks,
        name="select",
        **fixed,
    )
    return lists


def attended_means(means: Means, *, exact: bool) -> Float32[Tensor, "member query_head block head_width"]:
    """The compressed branch: attention among block means, by one launch.

    Parameters
    ----------
    means : tuple of Tensor (member, head, block, d)
        Of queries, keys and values.
    exact : bool
        Products of float32.

    Returns
    -------
    Tensor (member, query head, block, d)
        In float32, in one piece.
    """
    query, key, value = (_by_row(mean) for mean in means)
    batch, heads, blocks, width = query.shape
    ratio = heads // key.shape[1]
    out = torch.empty(query.shape, dtype=torch.float32, device=query.device)
    fixed = means_constants(ratio, width, exact=exact)
    launch(
        _kernel("attend_to_means", query),
        (-(-ratio * blocks // fixed["ROWS"]), batch * key.shape[1]),
        query,
        key,
        value,
        out,
        *query.stride()[:3],
        *key.stride()[:3],
        *value.stride()[:3],
        blocks,
        key.shape[1],
        _scale_log2(width),
        reads=(query, key, value),
        writes=(out,),
        operations=4.0 * query.numel() * blocks,
        name="attend_to_means",
        **fixed,
    )
    return out


def attend_tokens(
    problem: Problem, compressed: Float32[Tensor, "member query_head block head_width"], out: Queries
) -> None:
    """All branches of the tokens, by one launch: the part that a tiling is for.

    Parameters
    ----------
    problem : Problem
        What to attend.
    compressed : Tensor (member, query head, block, d)
        As `attended_means` gives it.
    out : Tensor (member, query head, pixel, d)
        Where the gated sum goes.
    """
    query, layout = _by_row(problem.query), problem.layout
    key, value = (_by_row(tensor.to(query.dtype)) for tensor in (problem.key, problem.value))
    exact = query.dtype == torch.float32
    shape = shape_of(layout, problem.ratio, query.shape[-1])
    tiles = layout.tiling or default_tiling(shape, query.element_size(), capability_of(query.device))
    fixed = attend_constants(shape, tiles, exact=exact)
    blocks = query.shape[2] // layout.sparse
    kernel = _kernel("attend", query)
    launch(
        kernel,
        (blocks * -(-layout.sparse * problem.ratio // tiles.rows), key.shape[0] * key.shape[1]),
        query,
        key,
        value,
        problem.gates,
        problem.lists,
        compressed,
        out,
        *query.stride()[:3],
        *key.stride()[:3],
        *value.stride()[:3],
        *problem.gates.stride(),
        *out.stride()[:3],
        blocks,
        layout.selected,
        key.shape[1],
        _scale_log2(query.shape[-1]),
        reads=(query, key, value, problem.gates, problem.lists, compressed),
        writes=(out,),
        operations=4.0 * query.numel() * (layout.local + layout.selected * layout.sparse),
        name="attend",
        UPCAST=query.dtype == torch.bfloat16 and _is_interpreted(kernel),
        **fixed,
    )


def joined(local: ByPixel, selected: ByPixel, problem: Problem) -> Queries:
    """The gated sum of branches made elsewhere and of the compressed one, by two launches.

    Parameters
    ----------
    local, selected : Tensor (member, pixel, query head, d)
        In one piece.
    problem : Problem
        Gives gates and means.

    Returns
    -------
    Tensor (member, query head, pixel, d)
        The problem's `out`, or else a new one in the dtype of the gates.
    """
    out = room_for_sum(problem.query, problem.gates) if problem.out is None else problem.out
    compressed = attended_means(problem.means, exact=local.dtype == torch.float32)
    batch, pixels, heads, width = local.shape
    rows, fixed = batch * pixels * heads, join_constants(problem.layout.sparse, width)
    launch(
        _kernel("join", local),
        (-(-rows // fixed["ROWS"]),),
        local,
        selected,
        problem.gates,
        compressed,
        out,
        *problem.gates.stride(),
        *out.stride()[:3],
        pixels,
        heads,
        rows,
        reads=(local, selected, problem.gates, compressed),
        writes=(out,),
        name="join",
        **fixed,
    )
    return out


def _kernel(name: str, tensor: Tensor) -> Any:
    """One of the kernels; none where nothing is computed, and Triton need not be there."""
    if tensor.is_meta:
        return None
    from . import kernel

    return getattr(kernel, name)


def _is_interpreted(kernel: Any) -> bool:
    if kernel is None:
        return False
    from triton import JITFunction

    return not isinstance(kernel, JITFunction)


def _by_row(tensor: Keys) -> Keys:
    """As the kernels read it: the channels of a row next to one another."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _scale_log2(width: int) -> float:
    """The scale of scores whose exponentials are powers of two."""
    return width**-0.5 * math.log2(math.e)
