"""The passes of `plain.Passes`, each as one launch of a Triton kernel; forward only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...arrays import Float, Float32, Int64
from ..launches import launch
from .plain import RMS_NORM_EPS, Heads, Passes, Rows, Summary, Turns

ELEMENTS = 4096
"""Elements of a program's tile: sixteen to a thread of eight warps, enough loads under way to keep memory busy."""

HELD_AT_ONCE = 2**31
"""Elements of the widest tensor that is made of several members (4 GiB in half precision, seven members at full size):
memory stays bounded, and no part is too small for a GPU."""

TARGETS_AT_ONCE, NEIGHBOURS_AT_ONCE = 4, 2
"""Points of a program of an interpolation, and neighbours whose values it loads side by side. One warp has whole rows:
four warps, one point and four neighbours took 3.7 times as long on an H100."""


class KernelPasses(Passes):
    """The passes by kernels, on a GPU, on the device ``meta``, where they are only counted, or under the interpreter.

    Parameters
    ----------
    adds_within : bool
        Products in half precision add to float32 themselves: PyTorch can from 2.8 on, for some sums from later on.
    """

    by_kernels = True

    columns_of = 64

    def __init__(self, *, adds_within: bool = True) -> None:
        self.adds_within = adds_within

    def slices(self, batch: int, rows: int, widest: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
        """Whole members, as many as memory is to hold."""
        members = max(1, HELD_AT_ONCE // max(1, widest * rows))
        for member in range(0, batch, members):
            yield slice(member, member + members), slice(0, rows)

    def norm_to(self, x: Rows, dtype: torch.dtype, *, norms: int = 1, silu: bool = False) -> Rows:
        """See `Passes.norm_to`."""
        out = torch.empty(x.shape, dtype=dtype, device=x.device)
        _normalise(x, out, norms=norms, silu=silu)
        return out

    def norm_and_map(
        self,
        x: Float[Tensor, "*rows inputs"],
        dtype: torch.dtype,
        weight: Float32[Tensor, "outputs inputs"],
        *,
        norms: int = 1,
    ) -> tuple[Float[Tensor, "*rows inputs"], Float32[Tensor, "*rows outputs"], Float32[Tensor, "*rows"] | None]:
        """See `Passes.norm_and_map`; the map is of the rows as they were, whose norm is then not written in float32."""
        out = torch.empty(x.shape, dtype=dtype, device=x.device)
        factor = torch.empty(x.shape[:-1], device=x.device)
        _normalise(x, out, norms=norms, factor=factor)
        return out, functional.linear(x.float(), weight), factor

    def norm_of_sum(
        self,
        x: Float[Tensor, "member row width"],
        positions: Float[Tensor, "row width"],
        out: Float32[Tensor, "member row width"],
        skip: Float[Tensor, "member row width"] | None = None,
        again: Float[Tensor, "member row width"] | None = None,
    ) -> None:
        """See `Passes.norm_of_sum`."""
        _normalise(x, out, positions=positions, skip=skip, again=again)

    def summary(self, batch: int, pixels: int, heads: Heads, device: torch.device) -> Summary:
        """See `Passes.summary`; a branch's gates of a head are next to one another, as threads take them."""
        gates = torch.empty(batch, heads.queries, 3, pixels, device=device).permute(0, 3, 1, 2)
        blocks = pixels // heads.layout.sparse
        query, key, value = (
            torch.empty(batch, count, blocks, heads.width, device=device)
            for count in (heads.queries, heads.keys, heads.keys)
        )
        return Summary(gates, (query, key, value))

    def rotate(
        self,
        joined: Float[Tensor, "member pixel columns"],
        heads: Heads,
        turns: Turns,
        summary: Summary,
        *,
        without_selected: bool = False,
    ) -> None:
        """See `Passes.rotate`; of all pixels."""
        if summary.means is None:
            super().rotate(joined, heads, turns, summary, without_selected=without_selected)
            return
        members, pixels, columns = joined.shape
        turned = members * pixels * joined.element_size() * sum(heads.columns[:2])
        beside = members * pixels * joined.element_size() * sum(heads.columns[2:])
        tables = (turns.query_cosine, turns.query_sine, turns.key_cosine, turns.key_sine)
        size = heads.layout.sparse
        launch(
            _kernel("rotate", joined),
            (pixels // size, members * heads.keys),
            joined,
            *(table.contiguous() for table in tables),
            summary.gates,
            *summary.means,
            pixels,
            columns,
            reads=(turned, beside, *tables),
            writes=(turned, summary.gates, *summary.means),
            name="rotate",
            **rotation_constants(heads, without_selected=without_selected),
        )

    def gated_product(
        self, mapped: Float[Tensor, "member row both"], shift: Float32[Tensor, "member hidden"]
    ) -> Float[Tensor, "member row hidden"]:
        """See `Passes.gated_product`."""
        members, rows, both = mapped.shape
        fixed = gate_constants(both // 2)
        gate = mapped[..., : both // 2]
        launch(
            _kernel("gate_in_place", mapped),
            (-(-rows // fixed["ROWS"]) * -(-fixed["HIDDEN"] // fixed["COLUMNS"]), members),
            mapped,
            shift,
            rows,
            shift.stride(0),
            reads=(mapped, shift),
            writes=(gate,),
            name="gate_in_place",
            **fixed,
        )
        return gate

    def interpolate(
        self,
        directions: Float32[Tensor, "member source head 3"],
        values: Float[Tensor, "member source width"],
        neighbours: Int64[Tensor, "target neighbour"],
        toward: Float32[Tensor, "target neighbour 3"],
        dtype: torch.dtype,
        factor: Float32[Tensor, "member source"] | None = None,
    ) -> Float[Tensor, "member target width"]:
        """See `Passes.interpolate`; the result is in `dtype`."""
        members, sources, heads = directions.shape[:3]
        targets, count = neighbours.shape
        out = torch.empty(members, targets, values.shape[2], dtype=dtype, device=values.device)
        fixed = interpolation_constants(heads, values.shape[2] // heads, count)
        launch(
            _kernel("interpolate", values),
            (-(-targets // fixed["TARGETS"]), members),
            directions.contiguous(),
            # What the kernel does not touch stands for what there is not.
            directions if factor is None else factor,
            values.contiguous(),
            neighbours,
            toward,
            out,
            sources,
            targets,
            reads=(directions, values, neighbours, toward, 0 if factor is None else factor),
            writes=(out,),
            name="interpolate",
            MULTIPLIES=factor is not None,
            **fixed,
        )
        return out

    def product(
        self, rows: Float[Tensor, "*rows inputs"], weight: Float[Tensor, "width inputs"]
    ) -> Float32[Tensor, "*rows width"]:
        """See `Passes.product`; it leaves the library in float32, if that can."""
        if weight.dtype == torch.float32 or not self.adds_within:
            return super().product(rows, weight)
        flat = rows.to(weight.dtype).flatten(0, -2)
        return torch.mm(flat, weight.t(), out_dtype=torch.float32).unflatten(0, rows.shape[:-1])

    def add_product(
        self,
        to: Float32[Tensor, "member row width"],
        rows: Float[Tensor, "member row inputs"],
        weight: Float[Tensor, "width inputs"],
        out: Float32[Tensor, "member row width"] | None = None,
    ) -> None:
        """See `Passes.add_product`; also of products in half precision, if the library can."""
        if weight.dtype == torch.float32 or not self.adds_within:
            super().add_product(to, rows, weight, out)
            return
        # One tensor for both, or it would first be copied.
        summand = to.flatten(0, 1)
        total = summand if out is None or out is to else out.flatten(0, 1)
        flat = rows.to(weight.dtype).flatten(0, 1)
        torch.addmm(summand, flat, weight.t(), out_dtype=torch.float32, out=total)

    def map_members(
        self, x: Float[Tensor, "member inputs"], weight: Float[Tensor, "outputs inputs"]
    ) -> Float32[Tensor, "member outputs"]:
        """See `Passes.map_members`."""
        members, outputs = x.shape[0], weight.shape[0]
        out = torch.empty(members, outputs, device=x.device)
        fixed = map_constants(weight.shape[1])
        launch(
            _kernel("map_members", x),
            (-(-outputs // fixed["OUTPUTS"]), members),
            x.contiguous(),
            weight,
            out,
            outputs,
            reads=(x, weight),
            writes=(out,),
            name="map_members",
            **fixed,
        )
        return out


KERNELS = KernelPasses()


def _kernel(name: str, tensor: Tensor) -> Any:
    """A kernel, which nobody needs to have where it is only counted."""
    if tensor.is_meta:
        return None
    from . import kernel

    return getattr(kernel, name)


def _padded(number: int) -> int:
    """The smallest power of two that is not below: tiles have no other sizes."""
    return 1 << max(0, number - 1).bit_length()


def _normalise(
    x: Tensor,
    out: Tensor,
    *,
    norms: int = 1,
    silu: bool = False,
    positions: Tensor | None = None,
    skip: Tensor | None = None,
    again: Tensor | None = None,
    factor: Tensor | None = None,
) -> None:
    """Launch `kernel.normalise`."""
    width = x.shape[-1]
    rows = x.numel() // width
    fixed = norm_constants(width)
    addends = [tensor for tensor in (positions, skip) if tensor is not None]
    results = [tensor for tensor in (out, again, factor) if tensor is not None]
    launch(
        _kernel("normalise", x),
        (-(-rows // fixed["ROWS"]),),
        x.contiguous(),
        # What the kernel does not touch stands for what there is not.
        x if positions is None else positions.contiguous(),
        x if skip is None else skip.contiguous(),
        out,
        out if again is None else again,
        out if factor is None else factor,
        rows,
        rows if positions is None else positions.numel() // width,
        RMS_NORM_EPS,
        reads=(x, *addends),
        writes=results,
        name="normalise",
        NORMS=norms,
        SILU=silu,
        ADDS_POSITIONS=positions is not None,
        ADDS_SKIP=skip is not None,
        LEAVES_AGAIN=again is not None,
        LEAVES_FACTOR=factor is not None,
        **fixed,
    )


def norm_constants(width: int) -> dict[str, Any]:
    """What `kernel.normalise` is compiled for, for rows of a width."""
    padded = _padded(width)
    return {"WIDTH": width, "PADDED_WIDTH": padded, "ROWS": max(1, ELEMENTS // padded), "num_warps": 8}


def rotation_constants(heads: Heads, *, without_selected: bool) -> dict[str, Any]:
    """What `kernel.rotate` is compiled for."""
    padded_size, padded_width = _padded(heads.layout.sparse), _padded(heads.width)
    ratio = heads.queries // heads.keys
    return {
        "SIZE": heads.layout.sparse,
        "PADDED_SIZE": padded_size,
        "HEADS": heads.keys,
        "RATIO": ratio,
        "PADDED_RATIO": _padded(ratio),
        "WIDTH": heads.width,
        "PADDED_WIDTH": padded_width,
        "WITHOUT_SELECTED": without_selected,
        "num_warps": 8 if padded_size * padded_width >= 2**12 else 4,
    }


def gate_constants(hidden: int) -> dict[str, Any]:
    """What `kernel.gate_in_place` is compiled for, for half of its columns."""
    columns = min(1024, _padded(hidden))
    return {"HIDDEN": hidden, "ROWS": max(1, ELEMENTS // columns), "COLUMNS": columns, "num_warps": 8}


def interpolation_constants(heads: int, width: int, count: int) -> dict[str, Any]:
    """What `kernel.interpolate` is compiled for, for heads of a width and a count of neighbours."""
    padded_heads, padded_width = _padded(heads), _padded(width)
    return {
        "COUNT": count,
        "HEADS": heads,
        "PADDED_HEADS": padded_heads,
        "WIDTH": width,
        "PADDED_WIDTH": padded_width,
        "TARGETS": max(1, min(TARGETS_AT_ONCE, ELEMENTS // (padded_heads * padded_width))),
        "AT_ONCE": NEIGHBOURS_AT_ONCE,
        "num_warps": 1,
    }


def map_constants(inputs: int) -> dict[str, Any]:
    """What `kernel.map_members` is compiled for."""
    padded = _padded(inputs)
    return {"INPUTS": inputs, "PADDED_INPUTS": padded, "OUTPUTS": max(1, ELEMENTS // padded), "num_warps": 4}
