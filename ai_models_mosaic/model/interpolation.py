"""The interpolations between the latitude-longitude grid and the HEALPix mesh, which are learned.

Source: specification of the network, section 5.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..arrays import Float, Float32, Int64
from ..variants import Stage
from .layers import Linear, RMSNorm, empty_buffer

GATHERED_AT_ONCE = 2**22
"""Neighbour × head entries that an interpolation handles at a time."""


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

    neighbors: Int64[Tensor, "target neighbour"]
    rel_pos: Float[Tensor, "target neighbour 3"]

    def __init__(self, stage: Stage, sources: int, targets: int, neighbours: int) -> None:
        super().__init__()
        empty_buffer(self, "neighbors", targets, neighbours, dtype=torch.int64)
        empty_buffer(self, "rel_pos", targets, neighbours, 3)
        self.to_q = Linear(3, stage.width)
        self.to_kv = Linear(stage.width, 2 * stage.width)
        self.to_o = Linear(stage.width, stage.width)
        self.norm = RMSNorm()
        self.heads = stage.query_heads
        self.sources = sources
        self.folded: Tensor | None = None

    def fold(self) -> None:
        """Hold the folded weights, in the precision of scores: those they are made of may be rounded afterwards."""
        self.folded = self._folded(self.to_kv.weight.detach().chunk(2)[0])

    def forward(self, x: Float[Tensor, "member source width"]) -> Float32[Tensor, "member target width"]:
        """``(member, source, width)`` to ``(member, target, width)``."""
        x = self.norm(x)
        key_weight, value_weight = self.to_kv.weight.chunk(2)
        values = functional.linear(x.to(value_weight.dtype), value_weight).float()
        with torch.autocast(x.device.type, enabled=False):
            folded = self._folded(key_weight) if self.folded is None else self.folded
            directions = functional.linear(x, folded).unflatten(-1, (self.heads, 3))
            gathered = [self._gather(*of_member) for of_member in zip(directions, values, strict=True)]
        return self.to_o(torch.stack(gathered)).float()

    def _folded(self, key_weight: Float[Tensor, "width inputs"]) -> Float[Tensor, "{3*self.heads} inputs"]:
        """Weights of queries and keys in one, ``(head · 3, width)``, with the scale of the scores."""
        query_by_head, key_by_head = (w.unflatten(0, (self.heads, -1)) for w in (self.to_q.weight, key_weight))
        scale = key_by_head.shape[1] ** -0.5
        return torch.einsum("hdc,hdi->hci", query_by_head * scale, key_by_head).flatten(0, 1)

    def _gather(
        self, directions: Float[Tensor, "source head 3"], values: Float[Tensor, "source width"]
    ) -> Float[Tensor, "target width"]:
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

    def _slices(self) -> Iterator[tuple[Int64[Tensor, "target neighbour"], Float[Tensor, "target neighbour 3"]]]:
        at_once = max(1, GATHERED_AT_ONCE // (self.neighbors.shape[1] * self.heads))
        return zip(self.neighbors.split(at_once), self.rel_pos.split(at_once), strict=True)
