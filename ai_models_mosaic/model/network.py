"""The Mosaic network: one step of normalised states.

Source: specification of the network, sections 4 – 7 and 9.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from typing import cast

import torch
from torch import Tensor, nn

from ..arrays import Float, Float32
from ..variants import STATIC_FEATURES, Architecture
from .attention import BACKENDS, DEFAULT_BACKEND
from .attention.tilings import Tiling
from .fused import KERNELS, PLAIN, Passes
from .interpolation import CrossGridAttention
from .layers import (
    Attention,
    Block,
    BlockStack,
    FeedForward,
    Linear,
    MemberLinear,
    Noise,
    RMSNorm,
    Rows,
    Shift,
    Stream,
    empty_buffer,
)
from .resampling import Downsample, Resampling, Upsample
from .slices import in_one_go

LAST = "postprocess.3"
"""The layer that makes the output."""

IN_FLOAT32 = ("preprocess.0", LAST)
"""Linear maps from and to the normalised fields: too small to save time, and the last to round."""


class NoiseGenerator(nn.Module):
    """The learned map of ε to the perturbation z that every feed-forward sees (section 7)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_noise = MemberLinear(width, width)

    def forward(self, noise: Noise) -> Noise:
        """ε ``(member, noise)`` to z ``(member, noise)``."""
        return self.to_noise(noise)


class MosaicNetwork(nn.Module):
    """A U-Net of block-sparse transformers between two interpolations.

    Parameters
    ----------
    architecture : Architecture
        Shapes. Construct it under ``torch.device("meta")`` and load a checkpoint with
        ``assign=True`` to hold the weights once, without making random ones first.
    """

    static_vars: Float32[Tensor, "point 1 feature"]

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.backend = DEFAULT_BACKEND
        self.passes: Passes = PLAIN
        self.noise_maps: Tensor | None = None
        stages, bottleneck, noise = architecture.stages, architecture.bottleneck, architecture.noise_width
        points, width, pixels = architecture.grid.size, stages[0].width, stages[0].pixels
        coarser = (*stages[1:], bottleneck)
        empty_buffer(self, "static_vars", points, 1, STATIC_FEATURES)
        self.noise_generator = NoiseGenerator(noise)
        self.preprocess = nn.Sequential(
            Linear(architecture.features, width), RMSNorm(), nn.SiLU(), Linear(width, width), RMSNorm()
        )
        self.interp_to_hp = CrossGridAttention(stages[0], points, pixels, architecture.neighbours)
        self.interp_to_ll = CrossGridAttention(stages[0], pixels, points, architecture.neighbours)
        self.encoder_stages = nn.ModuleList(BlockStack(stage, stage.encoder_depth, noise) for stage in stages)
        self.downsample_layers = nn.ModuleList(Downsample(*pair) for pair in zip(stages, coarser, strict=True))
        self.bottleneck = BlockStack(bottleneck, bottleneck.encoder_depth, noise)
        # Decoder lists run from coarse to fine.
        self.upsample_layers = nn.ModuleList(
            Upsample(coarse, fine) for fine, coarse in reversed(list(zip(stages, coarser, strict=True)))
        )
        self.decoder_stages = nn.ModuleList(BlockStack(stage, stage.decoder_depth, noise) for stage in reversed(stages))
        self.norm = RMSNorm()
        self.postprocess = nn.Sequential(
            RMSNorm(), Linear(width, width), nn.SiLU(), Linear(width, architecture.channels)
        )

    def forward(
        self,
        state: Float[Tensor, "member history lon lat channel"],
        progress: Float[Tensor, "*member 2"],
        noise: Noise,
        started: Stream | None = None,
    ) -> Float32[Tensor, "member lon lat channel"]:
        """Predict the normalised next state.

        Parameters
        ----------
        state : Tensor (member, history, lon, lat, channel)
            Normalised, oldest state first.
        progress : Tensor (2,) or (member, 2)
            Day and year progress of the newest state, in days and years.
        noise : Tensor (member, noise)
            ε ~ N(0, I), one per member and step.
        started : Tensor (member, pixel, width) or None
            What `start` makes of state and progress; without gradients, it is used up.

        Returns
        -------
        Tensor (member, lon, lat, channel)
            Normalised, float32.
        """
        perturbation = self.noise_generator(noise)
        shifts = self._shifts(perturbation)
        x = self.start(state, progress) if started is None else started
        rows: Rows | None = None
        skips: list[Tensor] = []
        for stage, down in zip(self.encoder_stages, self.downsample_layers, strict=True):
            x = stage(x, perturbation, attended=not skips, shifts=next(shifts), rows=rows)
            skips.append(x)
            rows = cast(Downsample, down).room(x)
            x = down(x, rows)
        x = self.bottleneck(x, perturbation, shifts=next(shifts), rows=rows)
        for up, stage in zip(self.upsample_layers, self.decoder_stages, strict=True):
            rows = cast(Upsample, up).room(x)
            x = stage(up(x, skips.pop(), rows), perturbation, shifts=next(shifts), rows=rows)
        x = self._to_grid(x).unflatten(1, self.architecture.grid.shape)
        return state[:, -1] + x if self.architecture.increment else x

    def start(
        self, state: Float[Tensor, "member history lon lat channel"], progress: Float[Tensor, "*member 2"]
    ) -> Stream:
        """All that comes before the first noise, ``(member, pixel, width)``: the same for members of one history.

        Parameters
        ----------
        state : Tensor (member, history, lon, lat, channel)
            As in `forward`; one member serves all that start from it.
        progress : Tensor (2,) or (member, 2)
            As in `forward`.

        Returns
        -------
        Tensor (member, pixel, width)
            The stream of the finest stage, float32.
        """
        x = self._to_mesh(self._features(state, progress))
        return cast(BlockStack, self.encoder_stages[0]).attend(x)

    def use_passes(self, passes: Passes) -> None:
        """Go through memory by kernels, or in plain PyTorch; before `prepare`, which makes ready for either.

        Parameters
        ----------
        passes : Passes
            As `fused.choice.choose_passes` gives it.
        """
        self.passes = passes
        for module in self.modules():
            if isinstance(module, (Attention, FeedForward, CrossGridAttention, Resampling)):
                module.passes = passes

    def prepare(self, dtype: torch.dtype = torch.float32) -> None:
        """Make ready for steps without gradients, on the device of the weights: what never changes is done once.

        The weights stay under their names, some as parts of larger matrices; for another dtype than
        float32, they are rounded for good.

        Parameters
        ----------
        dtype : torch.dtype
            Precision of the matrix products. Norms, softmax, residual sums, the scores of the
            interpolations and the choice of blocks stay in float32, and so do the products of `IN_FLOAT32`.
        """
        if self.static_vars.is_meta:
            # Nothing is computed there: it stands for a GPU, whose work is counted.
            self.use_passes(KERNELS)
        kept = [self.get_submodule(path) for path in IN_FLOAT32]
        for module in self.modules():
            if isinstance(module, CrossGridAttention):
                module.fold()
        for module in self.modules():
            if isinstance(module, nn.Linear) and not any(module is each for each in kept):
                module.weight = nn.Parameter(module.weight.to(dtype), requires_grad=False)
        for module in self.modules():
            if isinstance(module, Attention):
                module.join()
            if self.passes.by_kernels and isinstance(module, Resampling):
                module.place()
        if self.passes.by_kernels:
            self.noise_maps = torch.cat([noise_map.weight for stack in self._noise_maps() for noise_map in stack])

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Have the blocks compiled when they are first called; PyTorch keeps what it made on disk.

        Parameters
        ----------
        backend : str
            Of ``torch.compile``.
        """
        for module in self.modules():
            if isinstance(module, Block):
                # Shapes never change within a run, and code for all of them would be slower.
                module.compile(dynamic=False, backend=backend)

    @property
    def tilings(self) -> dict[str, Tiling]:
        """How the Triton kernel cuts the work, by shape of a stage; nothing where another backend runs."""
        if self.backend != "triton":
            return {}
        return {str(each.shape): each.layout.tiling for each in self._attentions() if each.layout.tiling is not None}

    def use_tilings(self, tilings: Mapping[str, Tiling]) -> None:
        """Cut the work of the Triton kernel in every block; shapes that are not named go by the table of the package.

        Parameters
        ----------
        tilings : mapping of str to Tiling
            By the text of a stage's `StageShape`.
        """
        for each in self._attentions():
            each.layout = replace(each.layout, tiling=tilings.get(str(each.shape)))

    def _attentions(self) -> list[Attention]:
        return [module for module in self.modules() if isinstance(module, Attention)]

    def close_selected(self) -> None:
        """Shut the gate of the selected branch in every block: an ablation."""
        for module in self.modules():
            if isinstance(module, Attention):
                module.without_selected = True

    def use_backend(self, name: str) -> None:
        """Compute the attention of every block with one of `attention.BACKENDS`.

        Raises
        ------
        ValueError
            If there is no such backend.
        """
        if name not in BACKENDS:
            raise ValueError(f"expected an attention backend of {', '.join(BACKENDS)}, got {name!r}")
        self.backend = name
        for module in self.modules():
            if isinstance(module, Attention):
                module.backend = name

    def _noise_maps(self) -> list[list[Linear]]:
        """The maps of the noise of each stack's blocks, in the order in which the stacks run."""
        stacks = (*self.encoder_stages, self.bottleneck, *self.decoder_stages)
        return [[cast(Block, block).ffn.noise_bias for block in cast(BlockStack, stack).blocks] for stack in stacks]

    def _shifts(self, noise: Noise) -> Iterator[Sequence[Shift] | None]:
        """What the noise adds to the gates of each stack's blocks, all by one map where kernels run; None elsewhere."""
        if self.noise_maps is None or in_one_go():
            yield from repeat(None)
            return
        shifts = self.passes.map_members(noise, self.noise_maps)
        for stack in self._noise_maps():
            widths = [noise_map.out_features for noise_map in stack]
            yield shifts[:, : sum(widths)].split(widths, dim=1)
            shifts = shifts[:, sum(widths) :]

    def _to_mesh(self, features: Float[Tensor, "member point feature"]) -> Stream:
        """Features of the grid to the stream of the finest stage (sections 4 and 5)."""
        if in_one_go() or not self.passes.by_kernels:
            return cast(Tensor, self.interp_to_hp(self.preprocess(features)))
        first, second = (cast(Linear, self.preprocess[index]) for index in (0, 3))
        rows = self.passes.norm_to(first(features), second.weight.dtype, silu=True)
        return cast(Tensor, self.interp_to_hp(self.passes.product(rows, second.weight), norms=2))

    def _to_grid(self, x: Stream) -> Float32[Tensor, "member point channel"]:
        """The stream of the finest stage to the fields on the grid (sections 5 and 6)."""
        if in_one_go() or not self.passes.by_kernels:
            return cast(Tensor, self.postprocess(self.interp_to_ll(self.norm(x)))).float()
        first, last = (cast(Linear, self.postprocess[index]) for index in (1, 3))
        rows = first(self.passes.norm_to(self.interp_to_ll(x, norms=2, precise=False), first.weight.dtype))
        return cast(Tensor, last(self.passes.norm_to(rows, last.weight.dtype, norms=0, silu=True)))

    def _features(
        self, state: Float[Tensor, "member history lon lat channel"], progress: Float[Tensor, "*member 2"]
    ) -> Float[Tensor, "member lon*lat feature"]:
        """Input features of every grid point, ``(member, point, feature)`` (section 4)."""
        batch, points = state.shape[0], self.architecture.grid.size
        history = state.flatten(2, 3).unbind(1)
        angle = 2 * math.pi * progress
        clock = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2).expand(batch, -1)
        fixed = self.static_vars[:, 0].expand(batch, -1, -1)
        return torch.cat([*history, fixed, clock[:, None].expand(-1, points, -1)], dim=-1)


def initialise(network: MosaicNetwork, generator: torch.Generator) -> None:
    """Draw all weights afresh, as for training.

    Source: specification of the network, section 9.

    Parameters
    ----------
    network : MosaicNetwork
        On the device of `generator`.
    generator : torch.Generator
        The only source of randomness.
    """
    small = (".attention.to_o", ".ffn.w2", ".ffn.noise_bias", "noise_generator.to_noise")
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            inputs, outputs = module.in_features, module.out_features
            deviation = min(1.0, math.sqrt(outputs / inputs)) / math.sqrt(inputs)
            if name.endswith(small) or name.startswith("upsample_layers"):
                deviation = 0.01
            if name == LAST and network.architecture.increment:
                # So that training starts from persistence.
                deviation = 0.01
            nn.init.normal_(module.weight, std=deviation, generator=generator)
