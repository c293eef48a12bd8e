"""The frozen table of variants: the only place where they differ.

Source: specification of the network, sections 2 and 10. ``mini`` is this project's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from .channels import CHANNELS, STATIC_FIELDS
from .geometry.grid import LatLonGrid

TIME_FEATURES = 4
"""Sine and cosine of the day and of the year."""

STATIC_FEATURES = len(STATIC_FIELDS) + 3
"""The static fields and x, y, z of the grid point."""


@dataclass(frozen=True)
class Stage:
    """One resolution of the U-Net.

    Parameters
    ----------
    nside : int
        HEALPix resolution; the stage has 12·nside² tokens.
    width : int
        Channels per token.
    query_heads : int
        Query heads; must divide `width`.
    local_block, sparse_block : int
        Tokens per block of the local branch, and of the compressed and selected branches.
    selected_blocks : int
        Key blocks that every query block selects.
    encoder_depth, decoder_depth : int
        Transformer blocks on the way down and up; the bottleneck has only the former.
    mlp_ratio : float
        Hidden width of the feed-forward over `width`.
    gqa_ratio : int
        Query heads per key/value head.

    Raises
    ------
    ValueError
        If blocks do not tile the tokens, or heads do not tile the width.
    """

    nside: int
    width: int
    query_heads: int
    local_block: int
    sparse_block: int
    selected_blocks: int
    encoder_depth: int
    decoder_depth: int = 0
    mlp_ratio: float = 4.0
    gqa_ratio: int = 4

    def __post_init__(self) -> None:
        if self.width % self.query_heads or self.head_width % 4:
            raise ValueError(f"{self.query_heads} heads do not divide width {self.width} into multiples of 4")
        if self.query_heads % self.gqa_ratio:
            raise ValueError(f"{self.query_heads} query heads are not a multiple of the ratio {self.gqa_ratio}")
        for block in (self.local_block, self.sparse_block):
            if self.pixels % block:
                raise ValueError(f"blocks of {block} do not tile the {self.pixels} tokens of nside {self.nside}")
        if not 0 < self.selected_blocks <= self.pixels // self.sparse_block:
            raise ValueError(f"cannot select {self.selected_blocks} of {self.pixels // self.sparse_block} blocks")

    @property
    def pixels(self) -> int:
        """Tokens of the stage."""
        return 12 * self.nside**2

    @property
    def head_width(self) -> int:
        """Channels per head."""
        return self.width // self.query_heads

    @property
    def key_value_heads(self) -> int:
        """Heads of keys and values."""
        return self.query_heads // self.gqa_ratio

    @property
    def hidden_width(self) -> int:
        """Hidden width of the feed-forward."""
        return int(self.width * self.mlp_ratio)


@dataclass(frozen=True)
class Architecture:
    """Everything that fixes the shapes of a network's parameters and buffers.

    Parameters
    ----------
    grid : LatLonGrid
        Grid of the state.
    stages : tuple of Stage
        From the finest to the coarsest, without the bottleneck; nside halves each time.
    bottleneck : Stage
        The coarsest stage.
    neighbours : int
        Source points per target point of the interpolations.
    history : int
        Input states.
    channels : int
        Channels of a state.
    noise_width : int
        Width of ε.
    increment : bool
        The network predicts what to add to the newest state, and not the next state as the released
        ones do: a small network need not learn first to hand its input through.

    Raises
    ------
    ValueError
        If the stages do not halve in resolution.
    """

    grid: LatLonGrid
    stages: tuple[Stage, ...]
    bottleneck: Stage
    neighbours: int
    history: int
    channels: int = len(CHANNELS)
    noise_width: int = 32
    increment: bool = False

    def __post_init__(self) -> None:
        sides = [stage.nside for stage in (*self.stages, self.bottleneck)]
        if any(fine != 2 * coarse for fine, coarse in pairwise(sides)):
            raise ValueError(f"expected every stage at half the nside of the one before, got {sides}")

    @property
    def features(self) -> int:
        """Input features per grid point (section 4)."""
        return self.history * self.channels + STATIC_FEATURES + TIME_FEATURES


@dataclass(frozen=True)
class Variant:
    """One released (or bundled) form of the model.

    Parameters
    ----------
    name : str
        What `--variant` takes.
    architecture : Architecture
        Shapes.
    step_hours : int
        One model call, h.
    checkpoint, statistics, statics : str or None
        Files below the assets folder. None: the checkpoint carries it.
    bundled : bool
        The checkpoint comes with the package.
    sha256 : tuple of (str, str)
        Digests of the files that are pinned.
    """

    name: str
    architecture: Architecture
    step_hours: int
    checkpoint: str
    statistics: str | None = None
    statics: str | None = None
    bundled: bool = False
    sha256: tuple[tuple[str, str], ...] = ()

    @property
    def lags_hours(self) -> tuple[int, ...]:
        """Hours of the input states relative to the initial time, oldest first."""
        return tuple(-self.step_hours * back for back in reversed(range(self.architecture.history)))

    @property
    def asset_files(self) -> tuple[str, ...]:
        """Files to fetch before this variant can run."""
        if self.bundled:
            return ()
        return tuple(name for name in (self.checkpoint, self.statistics, self.statics) if name)


_RELEASED_STAGES = (
    Stage(64, 768, 12, 1024, 128, 24, encoder_depth=4, decoder_depth=2),
    Stage(32, 1024, 16, 1024, 128, 12, encoder_depth=4, decoder_depth=2),
)
_RELEASED_BOTTLENECK = Stage(16, 1280, 20, 1024, 128, 4, encoder_depth=2)
_RELEASED_GRID = LatLonGrid.regular(1.5)
_STATICS_SHA256 = ("data/static_vars.npz", "436b690edaf359ac333b6ab49cac3c59f350c2ad887a69c70e98ebda6258c637")

ERA5 = Variant(
    name="era5",
    architecture=Architecture(_RELEASED_GRID, _RELEASED_STAGES, _RELEASED_BOTTLENECK, neighbours=24, history=2),
    step_hours=24,
    checkpoint="checkpoints/era5_best.pt",
    statistics="data/norm_stats_era5.npz",
    statics="data/static_vars.npz",
    sha256=(
        ("data/norm_stats_era5.npz", "9d6aae592fdc1a35a918c4663d1ee80670ef1bd6f958f3a4dfeb743ac865beaf"),
        _STATICS_SHA256,
    ),
)

HRES = Variant(
    name="hres",
    architecture=Architecture(_RELEASED_GRID, _RELEASED_STAGES, _RELEASED_BOTTLENECK, neighbours=20, history=4),
    step_hours=6,
    checkpoint="checkpoints/hres_best.pt",
    statistics="data/norm_stats_hres.npz",
    statics="data/static_vars.npz",
    sha256=(
        ("data/norm_stats_hres.npz", "3cf454aa84cbbdcf0b27455e3fbf1c47627363c373b290e81b038ee8e69f79d6"),
        _STATICS_SHA256,
    ),
)

MINI = Variant(
    name="mini",
    architecture=Architecture(
        grid=LatLonGrid.regular(6.0),
        stages=(
            Stage(16, 64, 4, 64, 32, 4, encoder_depth=1, decoder_depth=1, mlp_ratio=2.0),
            Stage(8, 160, 4, 64, 16, 4, encoder_depth=2, decoder_depth=1, mlp_ratio=2.0),
        ),
        bottleneck=Stage(4, 192, 4, 64, 16, 4, encoder_depth=2, mlp_ratio=2.0),
        # Weights go by direction alone, so that more neighbours are a wider, smoother footprint.
        neighbours=4,
        history=2,
        increment=True,
    ),
    step_hours=24,
    checkpoint="mini.safetensors",
    bundled=True,
)

AUTO = "auto"
"""In place of a name where something is to be chosen: a variant, or a backend of attention."""

VARIANTS = {variant.name: variant for variant in (ERA5, HRES, MINI)}
"""All variants by name."""
