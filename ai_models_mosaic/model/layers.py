"""The parts that the network is made of.

Parameter and buffer names are those of the released checkpoints. All linear maps are without
bias. Norms and residual sums are in float32 whatever the precision of the products.
Source: specification of the network, sections 5 – 8.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..arrays import Float, Float32
from ..variants import Stage
from .attention import DEFAULT_BACKEND, BlockLayout, block_sparse_attention
from .attention.problem import Gates, Keys, Queries
from .attention.tilings import StageShape
from .slices import add_product, by_row, in_one_go, row_slices

Stream = Float[Tensor, "member pixel width"]
"""The residual stream of one stage."""

Noise = Float[Tensor, "member noise"]
"""ε or z."""

RMS_NORM_EPS = torch.finfo(torch.float32).eps
"""torch's default for float32 inputs, also where the products run in half precision."""

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
        if torch.is_autocast_enabled(x.device.type):
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

    def of_rows(self, x: Stream, pixels: slice) -> Stream:
        """The same of some pixels ``(member, pixel, head · d)``, in one pass."""
        turn = torch.complex(self.cos_freqs[pixels], self.sin_freqs[pixels])[:, None]
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
        self.backend = DEFAULT_BACKEND
        self.without_selected = False
        self.joined: Tensor | None = None

    @property
    def shape(self) -> StageShape:
        """What the tiling of a kernel depends on."""
        layout, ratio = self.layout, self.to_q.out_features // self.to_k.out_features
        return StageShape(layout.local, layout.sparse, layout.selected, ratio, self.head_width)

    def join(self) -> None:
        """Hold the maps of queries, keys, values and gates as one matrix, of which each becomes a part."""
        self.joined = torch.cat([each.weight.detach() for each in self._maps()])
        parts = self.joined.split([each.out_features for each in self._maps()])
        for each, part in zip(self._maps(), parts, strict=True):
            each.weight = nn.Parameter(part, requires_grad=False)

    def forward(self, x: Stream) -> Stream:
        """Attend within ``(member, pixel, width)``, already normed."""
        query, key, value = (self._heads(project(x)) for project in (self.to_q, self.to_k, self.to_v))
        gates = branch_gates(self.to_strategy_combine_mlp(x), without_selected=self.without_selected).transpose(1, 2)
        out = block_sparse_attention(self.q_rope(query), self.k_rope(key), value, gates, self.layout, self.backend)
        return self.to_o(out.transpose(1, 2).flatten(2))

    def added_to(self, x: Stream, norm: RMSNorm) -> Stream:
        """The stream ``(member, pixel, width)`` plus the attention of the normed stream."""
        query, key, value, gates = self._projected(x, norm)
        out = block_sparse_attention(query, key, value, gates, self.layout, self.backend).transpose(1, 2)
        made = torch.empty_like(x)
        for part in row_slices(x.shape[0], x.shape[1], x.shape[2], x.device):
            add_product(x[part], out[part].flatten(2), self.to_o.weight, made[part])
        return made

    def _projected(self, x: Stream, norm: RMSNorm) -> tuple[Queries, Keys, Keys, Gates]:
        """Rotated queries and keys, values ``(member, head, pixel, d)``, and gates, of the normed x."""
        joined = torch.cat([each.weight for each in self._maps()]) if self.joined is None else self.joined
        widths = [each.out_features for each in self._maps()]
        heads = x.new_empty(*x.shape[:2], sum(widths[:3]), dtype=joined.dtype)
        gates = x.new_empty(*x.shape[:2], widths[3] // 3, 3)
        for part in row_slices(x.shape[0], x.shape[1], joined.shape[0], x.device):
            mapped = by_row(lambda rows: functional.linear(norm(rows).to(joined.dtype), joined), x[part])
            query, key, value, mixed = mapped.split(widths, dim=-1)
            turned = self.q_rope.of_rows(query, part[1]), self.k_rope.of_rows(key, part[1])
            torch.cat([*turned, value], dim=-1, out=heads[part])
            gates[part] = branch_gates(mixed, without_selected=self.without_selected)
        query, key, value = (self._heads(each) for each in heads.split(widths[:3], dim=-1))
        return query, key, value, gates.transpose(1, 2)

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

    def forward(self, x: Stream, noise: Noise) -> Stream:
        """Map ``(member, pixel, width)`` with z ``(member, noise)``, the same at every pixel (section 7)."""
        shift = self.noise_bias(noise)[:, None]
        if torch.is_grad_enabled():
            return self._part(x, shift)
        return torch.cat([self._part(tokens, shift) for tokens in x.split(TOKENS_AT_ONCE, dim=1)], dim=1)

    def _part(self, x: Stream, shift: Float[Tensor, "member 1 hidden"]) -> Stream:
        gate, value = self.w13(x).chunk(2, dim=-1)
        return self.w2(functional.silu(gate + shift) * value)

    def add_to(
        self, x: Float32[Tensor, "member pixel width"], noise: Noise, norm: RMSNorm
    ) -> Float32[Tensor, "member pixel width"]:
        """Add the map of the normed x to x itself, ``(member, pixel, width)`` in float32."""
        shift = self.noise_bias(noise)[:, None]
        weight = self.w13.weight
        parts = list(row_slices(x.shape[0], x.shape[1], weight.shape[0], x.device))
        # So large an array would be fetched from the system, and cleared, for every slice anew. The first is largest.
        hidden = x.new_empty(x[parts[0]].shape[:2].numel(), weight.shape[0], dtype=weight.dtype)
        for part in parts:
            rows = norm(x[part]).to(weight.dtype).flatten(0, 1)
            mapped = torch.mm(rows, weight.t(), out=hidden[: rows.shape[0]]).unflatten(0, x[part].shape[:2])
            gate, value = mapped.chunk(2, dim=-1)
            add_product(x[part], functional.silu(gate.add_(shift[part[0]]), inplace=True).mul_(value), self.w2.weight)
        return x


class Block(nn.Module):
    """One transformer block: attention and feed-forward, each on the normed stream (section 7)."""

    def __init__(self, stage: Stage, noise_width: int) -> None:
        super().__init__()
        self.norm = RMSNorm()
        self.attention = Attention(stage)
        self.ffn = FeedForward(stage, noise_width)
        self.in_slices = True

    def forward(self, x: Stream, noise: Noise, *, attended: bool = False) -> Stream:
        """Map ``(member, pixel, width)`` with z ``(member, noise)``; `attended` says that `attend` made x of it."""
        x = x if attended else self.attend(x)
        if in_one_go() or not self.in_slices:
            return x + self.ffn(self.norm(x), noise)
        return self.ffn.add_to(x, noise, self.norm)

    def attend(self, x: Stream) -> Stream:
        """The part that knows no noise, ``(member, pixel, width)``."""
        if in_one_go() or not self.in_slices:
            return x + self.attention(self.norm(x))
        return self.attention.added_to(x, self.norm)


class BlockStack(nn.Module):
    """Blocks of one resolution, in sequence."""

    def __init__(self, stage: Stage, depth: int, noise_width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(stage, noise_width) for _ in range(depth))

    def forward(self, x: Stream, noise: Noise, *, attended: bool = False) -> Stream:
        """Map ``(member, pixel, width)`` with z ``(member, noise)``; `attended` says that `attend` made x of it."""
        for index, block in enumerate(self.blocks):
            x = block(x, noise, attended=attended and index == 0)
        return x

    def attend(self, x: Stream) -> Stream:
        """What the first block does before any noise comes in."""
        return cast(Block, self.blocks[0]).attend(x)


class Downsample(nn.Module):
    """From a stage to the next coarser one: the four children of a nested pixel become it (section 6)."""

    rel_pos: Float32[Tensor, "pixel 12"]

    def __init__(self, fine: Stage, coarse: Stage) -> None:
        super().__init__()
        empty_buffer(self, "rel_pos", coarse.pixels, 12)
        self.proj_x = Linear(4 * fine.width, coarse.width)
        self.proj_pos = Linear(12, coarse.width)
        self.norm = RMSNorm()

    def forward(self, x: Float[Tensor, "member children fine_width"]) -> Float[Tensor, "member children//4 width"]:
        """``(member, 4·pixel, fine width)`` to ``(member, pixel, coarse width)``."""
        children = x.unflatten(1, (-1, 4)).flatten(2)
        if in_one_go():
            return self._joined(children, self.rel_pos)
        made = x.new_empty(*children.shape[:2], self.proj_x.out_features)
        for part in row_slices(x.shape[0], children.shape[1], children.shape[2], x.device):
            made[part] = self._joined(children[part], self.rel_pos[part[1]])
        return made

    def _joined(self, children: Float[Tensor, "member pixel fine_width"], rel_pos: Float[Tensor, "pixel 12"]) -> Stream:
        return self.norm(by_row(self.proj_x, children) + self.proj_pos(rel_pos))


class Upsample(nn.Module):
    """From a stage to the next finer one, with the skip of the encoder (section 6)."""

    rel_pos: Float32[Tensor, "pixel 12"]

    def __init__(self, coarse: Stage, fine: Stage) -> None:
        super().__init__()
        empty_buffer(self, "rel_pos", coarse.pixels, 12)
        self.proj_x = Linear(coarse.width, 4 * fine.width)
        self.proj_pos = Linear(12, 4 * fine.width)
        self.norm = RMSNorm()

    def forward(
        self, x: Stream, skip: Float[Tensor, "member 4*pixel fine_width"]
    ) -> Float[Tensor, "member 4*pixel fine_width"]:
        """``(member, pixel, coarse width)`` and ``(member, 4·pixel, fine width)`` to the latter's shape."""
        skip = skip.unflatten(1, (-1, 4))
        if in_one_go():
            return self._dealt_out(x, skip, self.rel_pos).flatten(1, 2)
        made = torch.empty_like(skip)
        for part in row_slices(x.shape[0], x.shape[1], self.proj_x.out_features, x.device):
            made[part] = self._dealt_out(x[part], skip[part], self.rel_pos[part[1]])
        return made.flatten(1, 2)

    def _dealt_out(
        self, x: Stream, skip: Float[Tensor, "member pixel 4 fine_width"], rel_pos: Float[Tensor, "pixel 12"]
    ) -> Float[Tensor, "member pixel 4 fine_width"]:
        """``(member, pixel, 4, fine width)`` of as many pixels as there are of everything."""
        children = by_row(self.proj_x, x) + self.proj_pos(rel_pos)
        return self.norm(children.unflatten(-1, (4, -1)) + skip)
