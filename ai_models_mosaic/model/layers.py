"""The parts that the network is made of.

Parameter and buffer names are those of the released checkpoints. All linear maps are without
bias. Norms and residual sums are in float32 whatever the precision of the products.
Source: specification of the network, sections 5 – 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..arrays import Float, Float32
from ..variants import Stage
from .attention import DEFAULT_BACKEND, BlockLayout, block_sparse_attention
from .attention.problem import Keys
from .attention.tilings import StageShape
from .fused import PLAIN, RMS_NORM_EPS, Heads, Passes, Summary, Turns, branch_gates
from .slices import in_one_go

Stream = Float[Tensor, "member pixel width"]
"""The residual stream of one stage."""

Noise = Float[Tensor, "member noise"]
"""ε or z."""

Rows = Float[Tensor, "member pixel width"]
"""The stream normed, and rounded to the precision of the products."""

Shift = Float32[Tensor, "member hidden"]
"""What a member's noise adds to the gate of one feed-forward."""

TOKENS_AT_ONCE = 8192
"""Tokens per slice of a feed-forward without gradients: the hidden layer is eight times the width."""


class RMSNorm(nn.Module):
    """x / rms(x) over the last dimension, in and out in float32, without learned scale."""

    def forward(self, x: Float[Tensor, "*rows width"]) -> Float32[Tensor, "*rows width"]:
        """Normalise ``(…, width)``."""
        return functional.rms_norm(x.float(), x.shape[-1:], eps=RMS_NORM_EPS)


class Linear(nn.Linear):
    """A linear map without bias, whose input is rounded to the precision of its weights."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        """Map ``(…, input)`` to ``(…, output)``."""
        # Autocast, in training, rounds both, and what it gave is rounded already.
        if not x.is_meta and torch.is_autocast_enabled(x.device.type):
            return functional.linear(x, self.weight)
        return functional.linear(x.to(self.weight.dtype), self.weight)


class MemberLinear(Linear):
    """A linear map without bias of one row per member, whose results do not depend on their number.

    A matrix product of one row is another routine than one of several, and rounds in another way: it was all that
    told members in a batch from members alone.
    """

    def forward(self, x: Float[Tensor, "member inputs"]) -> Float32[Tensor, "member outputs"]:
        """Map ``(member, inputs)`` to ``(member, outputs)``, in float32."""
        return (x.float()[:, None, :] * self.weight).sum(dim=-1)


def empty_buffer(module: nn.Module, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> None:
    """Declare a derived buffer that is filled when a checkpoint is loaded."""
    module.register_buffer(name, torch.empty(shape, dtype=dtype))


class RotaryTable(nn.Module):
    """Cosines and sines of the rotation of every pixel, from its longitude and latitude.

    Parameters
    ----------
    stage : Stage
        Gives pixels and head width d; the tables are ``(pixel, d/2)``.
    """

    cos_freqs: Float32[Tensor, "pixel half_width"]
    sin_freqs: Float32[Tensor, "pixel half_width"]

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        for name in ("cos_freqs", "sin_freqs"):
            empty_buffer(self, name, stage.pixels, stage.head_width // 2)

    def forward(self, x: Keys) -> Keys:
        """Rotate adjacent pairs of ``(member, head, pixel, d)`` in float32; the dtype stays."""
        even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
        rotated = (even * self.cos_freqs - odd * self.sin_freqs, odd * self.cos_freqs + even * self.sin_freqs)
        return torch.stack(rotated, dim=-1).flatten(-2).to(x.dtype)


class Attention(nn.Module):
    """Gated block-sparse attention with rotary positions (section 8).

    Parameters
    ----------
    stage : Stage
        Widths, heads and blocks.
    """

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        key_value_width = stage.key_value_heads * stage.head_width
        self.to_q = Linear(stage.width, stage.width)
        self.to_k = Linear(stage.width, key_value_width)
        self.to_v = Linear(stage.width, key_value_width)
        self.to_o = Linear(stage.width, stage.width)
        self.q_rope = RotaryTable(stage)
        self.k_rope = RotaryTable(stage)
        self.to_strategy_combine_mlp = Linear(stage.width, 3 * stage.query_heads)
        self.head_width = stage.head_width
        self.layout = BlockLayout(stage.local_block, stage.sparse_block, stage.selected_blocks)
        self.heads = Heads(stage.query_heads, stage.key_value_heads, stage.head_width, self.layout)
        self.backend = DEFAULT_BACKEND
        self.passes: Passes = PLAIN
        self.without_selected = False
        self.joined: Tensor | None = None

    @property
    def shape(self) -> StageShape:
        """What the tiling of a kernel depends on."""
        layout, ratio = self.layout, self.to_q.out_features // self.to_k.out_features
        return StageShape(layout.local, layout.sparse, layout.selected, ratio, self.head_width)

    def join(self) -> None:
        """Hold the maps of queries, keys, values and gates as one matrix, of which each becomes a part."""
        rows = [each.out_features for each in self._maps()]
        padding = -sum(rows) % self.passes.columns_of
        self.joined = functional.pad(torch.cat([each.weight.detach() for each in self._maps()]), (0, 0, 0, padding))
        for each, part in zip(self._maps(), self.joined[: sum(rows)].split(rows), strict=True):
            each.weight = nn.Parameter(part, requires_grad=False)

    def forward(self, x: Stream) -> Stream:
        """Attend within ``(member, pixel, width)``, already normed."""
        query, key, value = (self._heads(project(x)) for project in (self.to_q, self.to_k, self.to_v))
        gates = branch_gates(self.to_strategy_combine_mlp(x), without_selected=self.without_selected).transpose(1, 2)
        out = block_sparse_attention(self.q_rope(query), self.k_rope(key), value, gates, self.layout, self.backend)
        return self.to_o(out.transpose(1, 2).flatten(2))

    def added_to(self, x: Stream, rows: Rows | None = None) -> Stream:
        """The stream ``(member, pixel, width)`` plus the attention of the normed stream.

        Parameters
        ----------
        x : Tensor (member, pixel, width)
            In float32.
        rows : Tensor (member, pixel, width) or None
            The same normed and rounded, where that is known.

        Returns
        -------
        Tensor (member, pixel, width)
            In the place of `x` where kernels run: a sum within a product into other memory would first copy it.
        """
        joined, summary = self._projected(x, rows)
        query, key, value = self.heads.dealt(joined)
        gates = summary.gates.transpose(1, 2)
        # Where the rows of the next product are to be, in its precision.
        to = self._heads(joined.new_empty(x.shape)) if self.passes.by_kernels else None
        out = block_sparse_attention(
            query, key, value, gates, self.layout, self.backend, means=summary.means, out=to
        ).transpose(1, 2)
        made = None if self.passes.by_kernels else torch.empty_like(x)
        for part in self.passes.slices(x.shape[0], x.shape[1], x.shape[2], x.device):
            room = None if made is None else made[part]
            self.passes.add_product(x[part], out[part].flatten(2), self.to_o.weight, room)
        return x if made is None else made

    def _projected(self, x: Stream, rows: Rows | None) -> tuple[Float[Tensor, "member pixel columns"], Summary]:
        """Rotated queries and keys, and values, in the columns of `heads`, of the normed x; gates beside them."""
        weight = torch.cat([each.weight for each in self._maps()]) if self.joined is None else self.joined
        joined = x.new_empty(*x.shape[:2], weight.shape[0], dtype=weight.dtype)
        summary = self.passes.summary(x.shape[0], x.shape[1], self.heads, x.device)
        turns = Turns(self.q_rope.cos_freqs, self.q_rope.sin_freqs, self.k_rope.cos_freqs, self.k_rope.sin_freqs)
        for part in self.passes.slices(x.shape[0], x.shape[1], weight.shape[0], x.device):
            some = self.passes.norm_to(x[part], weight.dtype) if rows is None else rows[part]
            torch.mm(some.flatten(0, 1), weight.t(), out=joined[part].flatten(0, 1))
            self.passes.rotate(
                joined[part], self.heads, turns.of(part[1]), summary.of(part), without_selected=self.without_selected
            )
        return joined, summary

    def _maps(self) -> tuple[nn.Linear, nn.Linear, nn.Linear, nn.Linear]:
        return self.to_q, self.to_k, self.to_v, self.to_strategy_combine_mlp

    def _heads(self, x: Stream) -> Float[Tensor, "member head pixel {self.head_width}"]:
        return x.unflatten(-1, (-1, self.head_width)).transpose(1, 2)


class FeedForward(nn.Module):
    """SwiGLU whose gate is shifted by the member's noise: the learned functional perturbation.

    Parameters
    ----------
    stage : Stage
        Widths.
    noise_width : int
        Width of z.
    """

    def __init__(self, stage: Stage, noise_width: int) -> None:
        super().__init__()
        self.w13 = Linear(stage.width, 2 * stage.hidden_width)
        self.w2 = Linear(stage.hidden_width, stage.width)
        self.noise_bias = MemberLinear(noise_width, stage.hidden_width)
        self.passes: Passes = PLAIN

    def forward(self, x: Stream, noise: Noise) -> Stream:
        """Map ``(member, pixel, width)`` with z ``(member, noise)``, the same at every pixel (section 7)."""
        shift = self.noise_bias(noise)[:, None]
        if torch.is_grad_enabled():
            return self._part(x, shift)
        return torch.cat([self._part(tokens, shift) for tokens in x.split(TOKENS_AT_ONCE, dim=1)], dim=1)

    def _part(self, x: Stream, shift: Float[Tensor, "member 1 hidden"]) -> Stream:
        gate, value = self.w13(x).chunk(2, dim=-1)
        return self.w2(functional.silu(gate + shift) * value)

    def add_to(self, x: Float32[Tensor, "member pixel width"], shift: Shift) -> Float32[Tensor, "member pixel width"]:
        """Add the map of the normed x to x itself, ``(member, pixel, width)`` in float32."""
        weight = self.w13.weight
        parts = list(self.passes.slices(x.shape[0], x.shape[1], weight.shape[0], x.device))
        # So large an array would be fetched from the system, and cleared, for every slice anew. The first is largest.
        hidden = x.new_empty(x[parts[0]].shape[:2].numel(), weight.shape[0], dtype=weight.dtype)
        for part in parts:
            rows = self.passes.norm_to(x[part], weight.dtype).flatten(0, 1)
            mapped = torch.mm(rows, weight.t(), out=hidden[: rows.shape[0]]).unflatten(0, x[part].shape[:2])
            self.passes.add_product(x[part], self.passes.gated_product(mapped, shift[part[0]]), self.w2.weight)
        return x


class Block(nn.Module):
    """One transformer block: attention and feed-forward, each on the normed stream (section 7)."""

    def __init__(self, stage: Stage, noise_width: int) -> None:
        super().__init__()
        self.norm = RMSNorm()
        self.attention = Attention(stage)
        self.ffn = FeedForward(stage, noise_width)
        self.in_slices = True

    def forward(
        self, x: Stream, noise: Noise, *, attended: bool = False, shift: Shift | None = None, rows: Rows | None = None
    ) -> Stream:
        """Map ``(member, pixel, width)`` with z ``(member, noise)``.

        Parameters
        ----------
        x : Tensor (member, pixel, width)
            The stream.
        noise : Tensor (member, noise)
            z.
        attended : bool
            `attend` made x of the stream.
        shift : Tensor (member, hidden) or None
            What `ffn.noise_bias` makes of z, where that is known.
        rows : Tensor (member, pixel, width) or None
            `x` normed and rounded, where that is known.

        Returns
        -------
        Tensor (member, pixel, width)
            Without gradients, it may be where `x` was.
        """
        x = x if attended else self.attend(x, rows)
        if in_one_go() or not self.in_slices:
            return x + self.ffn(self.norm(x), noise)
        return self.ffn.add_to(x, self.ffn.noise_bias(noise) if shift is None else shift)

    def attend(self, x: Stream, rows: Rows | None = None) -> Stream:
        """The part that knows no noise, ``(member, pixel, width)``; `rows` as of `forward`."""
        if in_one_go() or not self.in_slices:
            return x + self.attention(self.norm(x))
        return self.attention.added_to(x, rows)


class BlockStack(nn.Module):
    """Blocks of one resolution, in sequence."""

    def __init__(self, stage: Stage, depth: int, noise_width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(stage, noise_width) for _ in range(depth))

    def forward(
        self,
        x: Stream,
        noise: Noise,
        *,
        attended: bool = False,
        shifts: Sequence[Shift] | None = None,
        rows: Rows | None = None,
    ) -> Stream:
        """Map ``(member, pixel, width)``; arguments as of `Block.forward`, a shift for every block."""
        for index, block in enumerate(self.blocks):
            x = block(x, noise, attended=attended, shift=shifts[index] if shifts else None, rows=rows)
            attended, rows = False, None
        return x

    def attend(self, x: Stream) -> Stream:
        """What the first block does before any noise comes in."""
        return cast(Block, self.blocks[0]).attend(x)
