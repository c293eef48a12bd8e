"""How the Triton kernel cuts its work: from a table of measured devices, or by a rule that fits any.

The order of sums, and so the last bits of a member, depend on it: what ran is part of what a run records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Tiling:
    """One way to cut the work.

    Parameters
    ----------
    rows : int
        Queries of a program.
    keys, local_keys : int
        Keys of one turn of its loops: over the selected blocks, and over the local run.
    warps, stages : int
        Warps of a program, and turns whose loads are under way.

    Raises
    ------
    ValueError
        If one is no power of two, or outside of `BOUNDS`.
    """

    rows: int
    keys: int
    local_keys: int
    warps: int
    stages: int

    def __post_init__(self) -> None:
        for (name, (least, most)), number in zip(BOUNDS.items(), astuple(self), strict=True):
            whole = type(number) is int and least <= number <= most
            if not whole or (name != "stages" and number & (number - 1)):
                kind = "a whole number" if name == "stages" else "a power of two"
                raise ValueError(f"expected {name} to be {kind} from {least} to {most}, got {number!r}")

    def __str__(self) -> str:
        return f"{self.rows} × {self.keys}/{self.local_keys}, {self.warps} warps, {self.stages} stages"


BOUNDS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"rows": (16, 512), "keys": (16, 256), "local_keys": (16, 256), "warps": (1, 16), "stages": (1, 8)}
)
"""The least and the most of every number of a `Tiling`, in its order."""

TABLE: Mapping[tuple[int, int], Tiling] = MappingProxyType(
    {
        # By resources: nothing spills, and keys are read half as often as with 64 rows. Not measured.
        (8, 0): Tiling(128, 64, 64, warps=8, stages=3),
        # Selected keys 128 at a time were the fastest on an H100, and fewer in the local run; branch by branch.
        (9, 0): Tiling(64, 128, 64, warps=4, stages=3),
    }
)
"""For half precision and heads of 64 channels, by compute capability."""

TABLE_WIDTH, TABLE_BLOCK = 64, 128
"""Channels per head, and pixels of a block, that the entries of `TABLE` are for."""


@dataclass(frozen=True)
class StageShape:
    """What of a stage its tiling depends on.

    Parameters
    ----------
    local, sparse, selected : int
        Its blocks, as of `BlockLayout`.
    ratio : int
        Query heads per key/value head.
    width : int
        Channels per head, d.
    """

    local: int
    sparse: int
    selected: int
    ratio: int
    width: int

    def __str__(self) -> str:
        return f"{self.local}/{self.sparse}x{self.selected}/{self.ratio}x{self.width}"


def default_tiling(shape: StageShape, element_bytes: int, capability: tuple[int, int] | None) -> Tiling:
    """The tiling of a stage where none was tuned: that of the table, or of the rule.

    Parameters
    ----------
    shape : StageShape
        The problem.
    element_bytes : int
        Bytes of an element of the keys.
    capability : (int, int) or None
        Compute capability of the device; None for what is no NVIDIA GPU.

    Returns
    -------
    Tiling
        One that fits the device.
    """
    known = TABLE.get(capability) if capability is not None else None
    fits = shape.sparse % TABLE_BLOCK == 0 and shape.local % TABLE_BLOCK == 0
    if known is not None and element_bytes == 2 and shape.width == TABLE_WIDTH and fits:
        return known
    return tiling_by_rule(shape, element_bytes)


def tiling_by_rule(shape: StageShape, element_bytes: int) -> Tiling:
    """A tiling whose sums fit a chip's registers, and whose keys fit 99 KiB of shared memory; arguments as above.

    Parameters
    ----------
    shape : StageShape
        The problem.
    element_bytes : int
        Bytes of an element of the keys.

    Returns
    -------
    Tiling
        Not measured on any device.
    """
    padded = max(16, power_of_two(shape.width))
    # Two sums of rows × width in float32, of the branches and of the loop, fill a quarter of a chip's registers.
    rows = max(16, min(128, 2**13 // padded, power_of_two(shape.sparse * shape.ratio)))
    keys, local_keys = (max(16, min(64, power_of_two(size))) for size in (shape.sparse, shape.local))
    if element_bytes > 2:
        rows, keys, local_keys = min(rows, 64), min(keys, 32), min(local_keys, 32)
    warps = 8 if rows * padded > 2**12 else 4
    return Tiling(rows, keys, local_keys, warps, stages=3 if element_bytes == 2 else 2)


def power_of_two(number: int) -> int:
    """The smallest power of two that is not below."""
    return 1 << (number - 1).bit_length()
