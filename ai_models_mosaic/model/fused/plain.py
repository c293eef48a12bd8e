"""What a step without gradients does between its products, in plain PyTorch: each method is a pass over memory.

So it runs on a CPU, in slices whose numbers are still in the cache, and wherever the kernels do not. `KernelPasses`
does the same in one launch each; tests and the trial at the start of a run compare the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ...arrays import Float, Float32, Int64
from ..attention.problem import BlockLayout, Keys, Means, Queries
from ..slices import add_product, row_slices

RMS_NORM_EPS = torch.finfo(torch.float32).eps
"""torch's default for float32 inputs, also where the products run in half precision."""

GATHERED_AT_ONCE = 2**22
"""Neighbour × head entries that an interpolation handles at a time."""

Rows = Float[Tensor, "*rows width"]
GateRows = Float32[Tensor, "member pixel query_head 3"]


@dataclass(frozen=True)
class Heads:
    """How the columns of a joined map are dealt out: queries, keys, values, gates, then what pads it.

    Parameters
    ----------
    queries, keys : int
        Query heads; key/value heads.
    width : int
        Channels per head, d.
    layout : BlockLayout
        Blocks of the stage.
    """

    queries: int
    keys: int
    width: int
    layout: BlockLayout

    @property
    def columns(self) -> tuple[int, int, int, int]:
        """Of queries, keys, values and gates."""
        return self.queries * self.width, self.keys * self.width, self.keys * self.width, 3 * self.queries

    def dealt(self, joined: Float[Tensor, "member pixel columns"]) -> tuple[Queries, Keys, Keys]:
        """Queries, keys and values ``(member, head, pixel, d)`` where they lie in a joined result."""
        parts = joined[..., : sum(self.columns[:3])].split(self.columns[:3], dim=-1)
        query, key, value = (part.unflatten(-1, (-1, self.width)).transpose(1, 2) for part in parts)
        return query, key, value


@dataclass(frozen=True)
class Turns:
    """Cosines and sines of the rotation of pixels, each ``(pixel, d/2)`` in float32.

    Parameters
    ----------
    query_cosine, query_sine, key_cosine, key_sine : Tensor (pixel, d/2)
        Of queries and of keys.
    """

    query_cosine: Float32[Tensor, "pixel half_width"]
    query_sine: Float32[Tensor, "pixel half_width"]
    key_cosine: Float32[Tensor, "pixel half_width"]
    key_sine: Float32[Tensor, "pixel half_width"]

    def of(self, pixels: slice) -> Turns:
        """Of some pixels."""
        return Turns(self.query_cosine[pixels], self.query_sine[pixels], self.key_cosine[pixels], self.key_sine[pixels])


@dataclass(frozen=True)
class Summary:
    """Memory for what a rotation leaves beside the rotated heads.

    Parameters
    ----------
    gates : Tensor (member, pixel, query head, 3)
        Weights of the branches.
    means : tuple of Tensor (member, head, block, d) or None
        Of queries, keys and values; None where they are left to the attention.
    """

    gates: GateRows
    means: Means | None = None

    def of(self, part: tuple[slice, slice]) -> Summary:
        """Of some members, and of some of their pixels where means are left to the attention."""
        if self.means is None:
            return Summary(self.gates[part])
        query, key, value = (mean[part[0]] for mean in self.means)
        return Summary(self.gates[part], (query, key, value))


class Passes:
    """The passes in plain PyTorch."""

    by_kernels = False
    """Whether a pass over whole tensors is one launch, so that slices would only cost."""

    columns_of = 1
    """Columns of a product are padded to a multiple of this."""

    def slices(self, batch: int, rows: int, widest: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
        """How ``(member, row, …)`` is cut; arguments as of `row_slices`."""
        return row_slices(batch, rows, widest, device)

    def norm_to(self, x: Rows, dtype: torch.dtype, *, norms: int = 1, silu: bool = False) -> Rows:
        """Divide rows by their root mean square, in float32, and round.

        Parameters
        ----------
        x : Tensor (…, width)
            Rows.
        dtype : torch.dtype
            Of the result.
        norms : int
            How often: twice, where two norms follow one another.
        silu : bool
            Through SiLU before rounding.

        Returns
        -------
        Tensor (…, width)
            New, unless nothing was to be done.
        """
        x = x.float()
        for _ in range(norms):
            x = functional.rms_norm(x, x.shape[-1:], eps=RMS_NORM_EPS)
        return (functional.silu(x) if silu else x).to(dtype)

    def norm_and_map(
        self,
        x: Float[Tensor, "*rows inputs"],
        dtype: torch.dtype,
        weight: Float32[Tensor, "outputs inputs"],
        *,
        norms: int = 1,
    ) -> tuple[Float[Tensor, "*rows inputs"], Float32[Tensor, "*rows outputs"], Float32[Tensor, "*rows"] | None]:
        """`norm_to`, and the map of the normed rows by a few columns, in float32.

        Parameters
        ----------
        x : Tensor (…, inputs)
            Rows.
        dtype : torch.dtype
            Of the normed rows that are returned.
        weight : Tensor (outputs, inputs)
            Of the map.
        norms : int
            As of `norm_to`.

        Returns
        -------
        (Tensor (…, inputs), Tensor (…, outputs), Tensor (…,) or None)
            The normed rows, their map, and what is still to be multiplied by the latter.
        """
        precise = self.norm_to(x, torch.float32, norms=norms)
        return precise.to(dtype), functional.linear(precise, weight), None

    def norm_of_sum(
        self,
        x: Float[Tensor, "member row width"],
        positions: Float[Tensor, "row width"],
        out: Float32[Tensor, "member row width"],
        skip: Float[Tensor, "member row width"] | None = None,
        again: Float[Tensor, "member row width"] | None = None,
    ) -> None:
        """Write the norm of ``x + positions + skip``.

        Parameters
        ----------
        x : Tensor (member, row, width)
            What a product gave.
        positions : Tensor (row, width)
            The same for all members.
        out : Tensor (member, row, width)
            Receives the norm of the sum.
        skip : Tensor (member, row, width) or None
            One more summand.
        again : Tensor (member, row, width) or None
            Receives the norm of `out`, rounded: what the next block begins with.
        """
        total = x + positions
        out.copy_(self.norm_to(total if skip is None else total + skip, torch.float32))
        if again is not None:
            again.copy_(self.norm_to(out, again.dtype))

    def summary(self, batch: int, pixels: int, heads: Heads, device: torch.device) -> Summary:
        """Memory for what `rotate` leaves."""
        return Summary(torch.empty(batch, pixels, heads.queries, 3, device=device))

    def rotate(
        self,
        joined: Float[Tensor, "member pixel columns"],
        heads: Heads,
        turns: Turns,
        summary: Summary,
        *,
        without_selected: bool = False,
    ) -> None:
        """Rotate queries and keys where they lie, and leave gates, and block means where there is memory for them.

        Parameters
        ----------
        joined : Tensor (member, pixel, columns)
            Rows of a joined result.
        heads : Heads
            Their columns.
        turns : Turns
            Of these pixels.
        summary : Summary
            Of these members and pixels.
        without_selected : bool
            The third gate is shut: an ablation.
        """
        query, key, _, mixed = joined[..., : sum(heads.columns)].split(heads.columns, dim=-1)
        query.copy_(rotated(query, turns.query_cosine, turns.query_sine))
        key.copy_(rotated(key, turns.key_cosine, turns.key_sine))
        summary.gates.copy_(branch_gates(mixed, without_selected=without_selected))

    def gated_product(
        self, mapped: Float[Tensor, "member row both"], shift: Float32[Tensor, "member hidden"]
    ) -> Float[Tensor, "member row hidden"]:
        """``silu(gate + shift) · value`` in the place of the gate.

        Parameters
        ----------
        mapped : Tensor (member, row, 2 · hidden)
            Gate, then value; used up.
        shift : Tensor (member, hidden)
            Added to the gate of every row.

        Returns
        -------
        Tensor (member, row, hidden)
            A part of `mapped`.
        """
        gate, value = mapped.chunk(2, dim=-1)
        return functional.silu(gate.add_(shift[:, None]), inplace=True).mul_(value)

    def interpolate(
        self,
        directions: Float32[Tensor, "member source head 3"],
        values: Float[Tensor, "member source width"],
        neighbours: Int64[Tensor, "target neighbour"],
        toward: Float32[Tensor, "target neighbour 3"],
        dtype: torch.dtype,
        factor: Float32[Tensor, "member source"] | None = None,
    ) -> Float[Tensor, "member target width"]:
        """Sum the neighbours of every target point, by softmax of directions times the way to them, in float32.

        Parameters
        ----------
        directions : Tensor (member, source, head, 3)
            Scaled.
        values : Tensor (member, source, width)
            A head's channels next to one another.
        neighbours : Tensor (target, neighbour)
            Source points of every target.
        toward : Tensor (target, neighbour, 3)
            From them to it.
        dtype : torch.dtype
            That the result will be rounded to.
        factor : Tensor (member, source) or None
            Multiplied by the directions.

        Returns
        -------
        Tensor (member, target, width)
            In float32 or `dtype`.
        """
        if factor is not None:
            directions = directions * factor[..., None, None]
        tables = zip(directions, values.float(), strict=True)
        return torch.stack([_gathered(*of_member, neighbours, toward) for of_member in tables])

    def product(
        self, rows: Float[Tensor, "*rows inputs"], weight: Float[Tensor, "width inputs"]
    ) -> Float32[Tensor, "*rows width"]:
        """``rows · weightᵀ`` in float32, of rows rounded to the precision of the weights."""
        return functional.linear(rows.to(weight.dtype), weight).float()

    def add_product(
        self,
        to: Float32[Tensor, "member row width"],
        rows: Float[Tensor, "member row inputs"],
        weight: Float[Tensor, "width inputs"],
        out: Float32[Tensor, "member row width"] | None = None,
    ) -> None:
        """``to + rows · weightᵀ`` in the place of `to`, or into `out`; see `slices.add_product`."""
        add_product(to, rows, weight, out)

    def map_members(
        self, x: Float[Tensor, "member inputs"], weight: Float[Tensor, "outputs inputs"]
    ) -> Float32[Tensor, "member outputs"]:
        """A linear map of one row per member, whose results do not depend on their number."""
        return (x.float()[:, None, :] * weight).sum(dim=-1)


PLAIN = Passes()


def rotated(
    x: Float[Tensor, "member pixel width"],
    cosine: Float32[Tensor, "pixel half_width"],
    sine: Float32[Tensor, "pixel half_width"],
) -> Float[Tensor, "member pixel width"]:
    """Adjacent pairs of every head turned, ``(member, pixel, head · d)``, in float32; the dtype stays."""
    turn = torch.complex(cosine, sine)[:, None]
    pairs = x.float().unflatten(-1, (-1, turn.shape[-1], 2)).contiguous()
    return torch.view_as_real(torch.view_as_complex(pairs) * turn).flatten(-3).to(x.dtype)


def branch_gates(
    mixed: Float[Tensor, "member pixel mixed"], *, without_selected: bool
) -> Float32[Tensor, "member pixel mixed//3 3"]:
    """Weights of the branches local, compressed, selected ``(member, pixel, head, 3)`` (section 8).

    Parameters
    ----------
    mixed : Tensor (member, pixel, head · 3)
        What `Attention.to_strategy_combine_mlp` gives.
    without_selected : bool
        The third has none: an ablation.

    Returns
    -------
    Tensor (member, pixel, head, 3)
        float32, of sum 1.
    """
    by_branch = mixed.float().unflatten(-1, (-1, 3))
    if without_selected:
        return functional.pad(by_branch[..., :2].softmax(dim=-1), (0, 1))
    return by_branch.softmax(dim=-1)


def _gathered(
    directions: Float[Tensor, "source head 3"],
    values: Float[Tensor, "source width"],
    neighbours: Int64[Tensor, "target neighbour"],
    toward: Float[Tensor, "target neighbour 3"],
) -> Float[Tensor, "target width"]:
    """One member's ``(source, head, 3)`` and ``(source, width)`` to ``(target, width)``."""
    sources, heads = directions.shape[:2]
    # A head's slice of a source point is one row of the table, so that one call serves all heads.
    table = values.reshape(sources * heads, -1)
    head = torch.arange(heads, device=values.device)[:, None]
    at_once = max(1, GATHERED_AT_ONCE // (neighbours.shape[1] * heads))
    parts = []
    for some, ways in zip(neighbours.split(at_once), toward.split(at_once), strict=True):
        scores = torch.einsum("tkha,tka->thk", directions[some], ways)
        rows = some[:, None, :] * heads + head
        summed = functional.embedding_bag(
            rows.flatten(0, 1), table, mode="sum", per_sample_weights=scores.softmax(dim=-1).flatten(0, 1)
        )
        parts.append(summed.view(some.shape[0], -1))
    return torch.cat(parts)
