"""The parts that the network is made of.

Parameter and buffer names are those of the released checkpoints. All linear maps are without
bias. Norms and residual sums are in float32 whatever the precision of the products.
Source: specification of the network, sections 5 – 8.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..variants import Stage
from .attention import DEFAULT_BACKEND, BlockLayout, block_sparse_attention

RMS_NORM_EPS = torch.finfo(torch.float32).eps
"""torch's default for float32 inputs, also where the products run in half precision."""

GATHERED_AT_ONCE = 2**22
"""Neighbour × head entries that an interpolation handles at a time."""

TOKENS_AT_ONCE = 8192
"""Tokens per slice of a feed-forward without gradients: the hidden layer is eight times the width."""


class RMSNorm(nn.Module):
    """x / rms(x) over the last dimension, in and out in float32, without learned scale."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(…, width)``."""
        return functional.rms_norm(x.float(), x.shape[-1:], eps=RMS_NORM_EPS)


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear map without bias."""
    return nn.Linear(inputs, outputs, bias=False)


class MemberLinear(nn.Linear):
    """A linear map without bias of one row per member, whose results do not hang on their number.

    A matrix product of one row is another routine than one of several, and rounds in another way: it was all that
    told members in a batch from members alone.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, inputs)`` to ``(batch, outputs)``, in float32."""
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

    cos_freqs: Tensor
    sin_freqs: Tensor

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        for name in ("cos_freqs", "sin_freqs"):
            empty_buffer(self, name, stage.pixels, stage.head_width // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Rotate adjacent pairs of ``(batch, head, pixel, d)`` in float32; the dtype stays."""
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
        self.to_q = linear(stage.width, stage.width)
        self.to_k = linear(stage.width, key_value_width)
        self.to_v = linear(stage.width, key_value_width)
        self.to_o = linear(stage.width, stage.width)
        self.q_rope = RotaryTable(stage)
        self.k_rope = RotaryTable(stage)
        self.to_strategy_combine_mlp = linear(stage.width, 3 * stage.query_heads)
        self.head_width = stage.head_width
        self.layout = BlockLayout(stage.local_block, stage.sparse_block, stage.selected_blocks)
        self.backend = DEFAULT_BACKEND

    def forward(self, x: Tensor) -> Tensor:
        """Attend within ``(batch, pixel, width)``, already normed."""
        query, key, value = (self._heads(project(x)) for project in (self.to_q, self.to_k, self.to_v))
        gates = self.to_strategy_combine_mlp(x).float().unflatten(-1, (-1, 3)).softmax(dim=-1).transpose(1, 2)
        out = block_sparse_attention(self.q_rope(query), self.k_rope(key), value, gates, self.layout, self.backend)
        return self.to_o(out.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
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
        self.w13 = linear(stage.width, 2 * stage.hidden_width)
        self.w2 = linear(stage.hidden_width, stage.width)
        self.noise_bias = MemberLinear(noise_width, stage.hidden_width)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Map ``(batch, pixel, width)`` with z ``(batch, noise)``, the same at every pixel (section 7)."""
        shift = self.noise_bias(noise)[:, None]
        if torch.is_grad_enabled():
            return self._part(x, shift)
        return torch.cat([self._part(tokens, shift) for tokens in x.split(TOKENS_AT_ONCE, dim=1)], dim=1)

    def _part(self, x: Tensor, shift: Tensor) -> Tensor:
        gate, value = self.w13(x).chunk(2, dim=-1)
        return self.w2(functional.silu(gate + shift) * value)


class Block(nn.Module):
    """One transformer block: attention and feed-forward, each on the normed stream (section 7)."""

    def __init__(self, stage: Stage, noise_width: int) -> None:
        super().__init__()
        self.norm = RMSNorm()
        self.attention = Attention(stage)
        self.ffn = FeedForward(stage, noise_width)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Map ``(batch, pixel, width)`` with z ``(batch, noise)``."""
        x = x + self.attention(self.norm(x))
        return x + self.ffn(self.norm(x), noise)


class BlockStack(nn.Module):
    """Blocks of one resolution, in sequence."""

    def __init__(self, stage: Stage, depth: int, noise_width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(stage, noise_width) for _ in range(depth))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Map ``(batch, pixel, width)`` with z ``(batch, noise)``."""
        for block in self.blocks:
            x = block(x, noise)
        return x


class Downsample(nn.Module):
    """From a stage to the next coarser one: the four children of a nested pixel become it (section 6)."""

    rel_pos: Tensor

    def __init__(self, fine: Stage, coarse: Stage) -> None:
        super().__init__()
        empty_buffer(self, "rel_pos", coarse.pixels, 12)
        self.proj_x = linear(4 * fine.width, coarse.width)
        self.proj_pos = linear(12, coarse.width)
        self.norm = RMSNorm()

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, 4·pixel, fine width)`` to ``(batch, pixel, coarse width)``."""
        children = x.unflatten(1, (-1, 4)).flatten(2)
        return self.norm(self.proj_x(children) + self.proj_pos(self.rel_pos))


class Upsample(nn.Module):
    """From a stage to the next finer one, with the skip of the encoder (section 6)."""

    rel_pos: Tensor

    def __init__(self, coarse: Stage, fine: Stage) -> None:
        super().__init__()
        empty_buffer(self, "rel_pos", coarse.pixels, 12)
        self.proj_x = linear(coarse.width, 4 * fine.width)
        self.proj_pos = linear(12, 4 * fine.width)
        self.norm = RMSNorm()

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """``(batch, pixel, coarse width)`` and ``(batch, 4·pixel, fine width)`` to the latter's shape."""
        children = (self.proj_x(x) + self.proj_pos(self.rel_pos)).unflatten(-1, (4, -1)).flatten(1, 2)
        return self.norm(children + skip)


class CrossGridAttention(nn.Module):
    """Interpolation: every target point attends to its nearest source points (section 5).

    Queries depend only on the direction to the neighbour, and linearly so; folding their weights
    into those of the keys leaves three numbers per head and source point, and the
    neighbour × width gather of keys never exists. Values are summed where they lie.

    Parameters
    ----------
    stage : Stage
        Heads and width.
    sources, targets : int
        Points on either side.
    neighbours : int
        Source points per target point.
    """

    neighbors: Tensor
    rel_pos: Tensor

    def __init__(self, stage: Stage, sources: int, targets: int, neighbours: int) -> None:
        super().__init__()
        empty_buffer(self, "neighbors", targets, neighbours, dtype=torch.int64)
        empty_buffer(self, "rel_pos", targets, neighbours, 3)
        self.to_q = linear(3, stage.width)
        self.to_kv = linear(stage.width, 2 * stage.width)
        self.to_o = linear(stage.width, stage.width)
        self.norm = RMSNorm()
        self.heads = stage.query_heads
        self.sources = sources

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, source, width)`` to ``(batch, target, width)``."""
        x = self.norm(x)
        key_weight, value_weight = self.to_kv.weight.chunk(2)
        values = functional.linear(x, value_weight).float()
        with torch.autocast(x.device.type, enabled=False):
            directions = functional.linear(x, self._folded(key_weight)).unflatten(-1, (self.heads, 3))
            gathered = [self._gather(*of_member) for of_member in zip(directions, values, strict=True)]
        return self.to_o(torch.stack(gathered)).float()

    def _folded(self, key_weight: Tensor) -> Tensor:
        """Weights of queries and keys in one, ``(head · 3, width)``, with the scale of the scores."""
        query_by_head, key_by_head = (w.unflatten(0, (self.heads, -1)) for w in (self.to_q.weight, key_weight))
        scale = key_by_head.shape[1] ** -0.5
        return torch.einsum("hdc,hdi->hci", query_by_head * scale, key_by_head).flatten(0, 1)

    def _gather(self, directions: Tensor, values: Tensor) -> Tensor:
        """One member's ``(source, head, 3)`` and ``(source, width)`` to ``(target, width)``."""
        # A head's slice of a source point is one row of the table, so that one call serves all heads.
        table = values.reshape(self.sources * self.heads, -1)
        head = torch.arange(self.heads, device=values.device)[:, None]
        parts = []
        for neighbours, rel_pos in self._slices():
            scores = torch.einsum("tkha,tka->thk", directions[neighbours], rel_pos)
            rows = neighbours[:, None, :] * self.heads + head
            summed = functional.embedding_bag(
                rows.flatten(0, 1), table, mode="sum", per_sample_weights=scores.softmax(dim=-1).flatten(0, 1)
            )
            parts.append(summed.view(neighbours.shape[0], -1))
        return torch.cat(parts)

    def _slices(self) -> Iterator[tuple[Tensor, Tensor]]:
        at_once = max(1, GATHERED_AT_ONCE // (self.neighbors.shape[1] * self.heads))
        return zip(self.neighbors.split(at_once), self.rel_pos.split(at_once), strict=True)
