"""The changes between the resolutions of the mesh.

Source: specification of the network, section 6.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..arrays import Float, Float32
from ..variants import Stage
from .fused import PLAIN, Passes
from .layers import Linear, RMSNorm, Rows, Stream, empty_buffer
from .slices import by_row, in_one_go


class Resampling(nn.Module):
    """A map between a stage and the next finer one, of pixels and of where their four children lie (section 6).

    Parameters
    ----------
    pixels : int
        Of the coarser stage.
    inputs, outputs : int
        Widths of the map of a coarse pixel.
    rows : int
        Pixels that a coarse one becomes.
    """

    rel_pos: Float32[Tensor, "pixel 12"]

    def __init__(self, pixels: int, inputs: int, outputs: int, rows: int) -> None:
        super().__init__()
        empty_buffer(self, "rel_pos", pixels, 12)
        self.proj_x = Linear(inputs, outputs)
        self.proj_pos = Linear(12, outputs)
        self.norm = RMSNorm()
        self.passes: Passes = PLAIN
        self.positions: Tensor | None = None
        self.shape = pixels * rows, outputs // rows

    def place(self) -> None:
        """Hold the map of where the children lie, which never changes."""
        self.positions = self.proj_pos(self.rel_pos)

    def placed(self, pixels: slice) -> Float[Tensor, "pixel outputs"]:
        """The map of where the children of some pixels lie."""
        return self.proj_pos(self.rel_pos[pixels]) if self.positions is None else self.positions[pixels]

    def room(self, x: Stream) -> Float[Tensor, "member changed_pixel changed_width"] | None:
        """Memory for the rows of the next stage, where kernels leave them; else None."""
        kernels_run = self.passes.by_kernels and not in_one_go()
        return self.proj_x.weight.new_empty(x.shape[0], *self.shape) if kernels_run else None


class Downsample(Resampling):
    """From a stage to the next coarser one: the four children of a nested pixel become it (section 6)."""

    def __init__(self, fine: Stage, coarse: Stage) -> None:
        super().__init__(coarse.pixels, 4 * fine.width, coarse.width, rows=1)

    def forward(
        self, x: Float[Tensor, "member children fine_width"], rows: Rows | None = None
    ) -> Float[Tensor, "member children//4 width"]:
        """``(member, 4·pixel, fine width)`` to ``(member, pixel, coarse width)``.

        Parameters
        ----------
        x : Tensor (member, 4 · pixel, fine width)
            The finer stream.
        rows : Tensor (member, pixel, coarse width) or None
            Receives the coarser stream, normed and rounded.

        Returns
        -------
        Tensor (member, pixel, coarse width)
            The coarser stream.
        """
        children = x.unflatten(1, (-1, 4)).flatten(2)
        if in_one_go():
            return self.norm(by_row(self.proj_x, children) + self.proj_pos(self.rel_pos))
        made = x.new_empty(x.shape[0], *self.shape)
        for part in self.passes.slices(x.shape[0], children.shape[1], children.shape[2], x.device):
            again = None if rows is None else rows[part]
            mapped = by_row(self.proj_x, children[part])
            self.passes.norm_of_sum(mapped, self.placed(part[1]), made[part], again=again)
        return made


class Upsample(Resampling):
    """From a stage to the next finer one, with the skip of the encoder (section 6)."""

    def __init__(self, coarse: Stage, fine: Stage) -> None:
        super().__init__(coarse.pixels, coarse.width, 4 * fine.width, rows=4)

    def forward(
        self,
        x: Stream,
        skip: Float[Tensor, "member 4*pixel fine_width"],
        rows: Float[Tensor, "member 4*pixel fine_width"] | None = None,
    ) -> Float[Tensor, "member 4*pixel fine_width"]:
        """``(member, pixel, coarse width)`` to ``(member, 4·pixel, fine width)``.

        Parameters
        ----------
        x : Tensor (member, pixel, coarse width)
            The coarser stream.
        skip : Tensor (member, 4 · pixel, fine width)
            What the encoder left.
        rows : Tensor (member, 4 · pixel, fine width) or None
            Receives the finer stream, normed and rounded.

        Returns
        -------
        Tensor (member, 4 · pixel, fine width)
            The finer stream.
        """
        if in_one_go():
            children = by_row(self.proj_x, x) + self.proj_pos(self.rel_pos)
            return self.norm(children.unflatten(-1, (4, -1)) + skip.unflatten(1, (-1, 4))).flatten(1, 2)
        made = torch.empty_like(skip)
        for members, pixels in self.passes.slices(x.shape[0], x.shape[1], self.proj_x.out_features, x.device):
            part = members, slice(4 * pixels.start, 4 * pixels.stop)
            # Child by child they are rows of the finer stage.
            mapped, places = (
                each.unflatten(-1, (4, -1)).flatten(-3, -2)
                for each in (by_row(self.proj_x, x[members, pixels]), self.placed(pixels))
            )
            again = None if rows is None else rows[part]
            self.passes.norm_of_sum(mapped, places, made[part], skip[part], again)
        return made
