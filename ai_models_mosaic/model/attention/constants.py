"""What the Triton kernels are compiled for: keywords of their launches."""

from __future__ import annotations

from typing import Any

from .tilings import StageShape, Tiling, power_of_two

MOST_COLUMNS = 1024
"""Blocks that the kernel of the selection takes: the scores of 16 query blocks fill the registers then."""

MEANS_AT_ONCE = 32
"""Mean queries of a program, and mean keys of one turn of its loop."""


def attend_constants(shape: StageShape, tiles: Tiling, *, exact: bool) -> dict[str, Any]:
    """What the kernel of the tokens is compiled for.

    Parameters
    ----------
    shape : StageShape
        The problem.
    tiles : Tiling
        How it is cut.
    exact : bool
        For float32, whose products shall be of float32.

    Returns
    -------
    dict
        Keywords of the launch: constants of `kernel.attend` in capitals, and Triton's own.
    """
    return {
        "SIZE": shape.sparse,
        "LOCAL": shape.local,
        "RATIO": shape.ratio,
        "WIDTH": shape.width,
        "PADDED_WIDTH": max(16, power_of_two(shape.width)),
        "ROWS": tiles.rows,
        "KEYS": tiles.keys,
        "LOCAL_KEYS": tiles.local_keys,
        "PRECISION": "ieee" if exact else "tf32",
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
    }


def means_constants(ratio: int, width: int, *, exact: bool) -> dict[str, Any]:
    """The same of the kernel of the means, `kernel.attend_to_means`.

    Parameters
    ----------
    ratio, width : int
        As of `StageShape`.
    exact : bool
        As of `attend_constants`; without, products round as those of half precision do, to 11 bits.

    Returns
    -------
    dict
        Keywords of the launch.
    """
    return {
        "RATIO": ratio,
        "WIDTH": width,
        "PADDED_WIDTH": max(16, power_of_two(width)),
        "ROWS": MEANS_AT_ONCE,
        "KEYS": MEANS_AT_ONCE,
        "PRECISION": "ieee" if exact else "tf32",
        "num_warps": 4,
        "num_stages": 2,
    }


def select_constants(ratio: int, width: int, blocks: int) -> dict[str, Any]:
    """The same of the kernel of the selection, `kernel.select`.

    Parameters
    ----------
    ratio, width : int
        As of `StageShape`.
    blocks : int
        Of the stage; at most `MOST_COLUMNS`.

    Returns
    -------
    dict
        Keywords of the launch.
    """
    columns = max(16, power_of_two(blocks))
    return {
        "RATIO": ratio,
        "WIDTH": width,
        "PADDED_WIDTH": max(16, power_of_two(width)),
        "ROWS": 16,
        "COLUMNS": columns,
        "CHANNELS": 16,
        # Three products of 11 bits each, which give those of float32: a choice must not depend on half precision.
        "PRECISION": "tf32x3",
        # At most 32 scores a thread, which are integers of 64 bits in the end.
        "num_warps": max(4, columns // 64),
        "num_stages": 2,
    }


def join_constants(size: int, width: int) -> dict[str, Any]:
    """What `kernel.join` is compiled for, for blocks of so many pixels and heads of so many channels."""
    padded = max(16, power_of_two(width))
    return {
        "SIZE": size,
        "WIDTH": width,
        "PADDED_WIDTH": padded,
        "ROWS": 4096 // padded,
        "num_warps": 4,
        "num_stages": 1,
    }
