"""The interpolations between the latitude-longitude grid and the HEALPix mesh, which are learned.

Source: specification of the network, section 5.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..arrays import Float, Int64
from ..variants import Stage
from .fused import PLAIN, Passes
from .layers import Linear, empty_buffer
from .slices import in_one_go


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
        self.heads = stage.query_heads
        self.sources = sources
        self.passes: Passes = PLAIN
        self.folded: Tensor | None = None

    def fold(self) -> None:
        """Hold the folded weights, in the precision of scores: those they are made of may be rounded afterwards."""
        self.folded = self._folded(self.to_kv.weight.detach().chunk(2)[0])

    def forward(
        self, x: Float[Tensor, "member source width"], *, norms: int = 1, precise: bool = True
    ) -> Float[Tensor, "member target width"]:
        """``(member, source, width)`` to ``(member, target, width)``.

        Parameters
        ----------
        x : Tensor (member, source, width)
            Rows that are normed here.
        norms : int
            How often: one more, where the layer before ends with a norm and leaves it to this one.
        precise : bool
            In float32 also where products are not.

        Returns
        -------
        Tensor (member, target, width)
            What the last product gives.
        """
        passes, dtype = PLAIN if in_one_go() else self.passes, self.to_o.weight.dtype
        key_weight, value_weight = self.to_kv.weight.chunk(2)
        # Scores decide between neighbours, and are three numbers per head: in float32 under autocast, too.
        exact = nullcontext if passes.by_kernels else partial(torch.autocast, x.device.type, enabled=False)
        with exact():
            folded = self._folded(key_weight) if self.folded is None else self.folded
            rows, mapped, factor = passes.norm_and_map(x, value_weight.dtype, folded, norms=norms)
        values = functional.linear(rows, value_weight)
        with exact():
            directions = mapped.unflatten(-1, (self.heads, 3))
            gathered = passes.interpolate(directions, values, self.neighbors, self.rel_pos, dtype, factor)
        return passes.product(gathered, self.to_o.weight) if precise else self.to_o(gathered)

    def _folded(self, key_weight: Float[Tensor, "width inputs"]) -> Float[Tensor, "{3*self.heads} inputs"]:
        """Weights of queries and keys in one, ``(head · 3, width)``, with the scale of the scores."""
        query_by_head, key_by_head = (w.unflatten(0, (self.heads, -1)) for w in (self.to_q.weight, key_weight))
        scale = key_by_head.shape[1] ** -0.5
        return torch.einsum("hdc,hdi->hci", query_by_head * scale, key_by_head).flatten(0, 1)
