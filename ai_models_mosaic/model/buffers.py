"""The derived buffers of a network: geometry, rotary tables and standardised static fields.

A released checkpoint may or may not carry them; where it does, they win. Only what is missing is
computed, and the neighbour search, which takes seconds at full size, only where the cache lacks it.
Source: specification of the network, sections 4 – 6 and 8.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..arrays import Float, Float32, FloatArray, Int64
from ..geometry.cache import kept_neighbours
from ..geometry.grid import LatLonGrid, healpix_centres, unit_vectors
from ..variants import Architecture, Stage

Points = tuple[Float[FloatArray, " _"], Float[FloatArray, " _"]]
"""Longitudes and latitudes, degrees."""

CARRIED_BUFFERS = ("static_vars", "interp_to_hp.neighbors", "interp_to_ll.neighbors")
"""Buffers that are written too: the rest follows from them and the architecture alone."""

ROPE_BASE = 10_000.0
STANDARDISE_EPS = 1e-6
"""Two columns of the relative positions are constant zero, so this is essential, not cosmetic."""


_centres = lru_cache(maxsize=8)(healpix_centres)
"""Of a resolution, which several buffers need; as long as the package is in use."""


def make_buffers(
    architecture: Architecture,
    keys: Iterable[str],
    known: Mapping[str, Tensor],
    static_fields: Float[FloatArray, "lon lat 3"] | None = None,
) -> dict[str, Tensor]:
    """Compute derived buffers by key, such as ``encoder_stages.0.blocks.1.attention.q_rope.cos_freqs``.

    Parameters
    ----------
    architecture : Architecture
        Shapes and grid.
    keys : iterable of str
        The buffers to compute.
    known : mapping of str to Tensor
        Those that a checkpoint carries: directions follow from its neighbours.
    static_fields : array (lon, lat, 3) or None
        Raw static fields; needed only for ``static_vars``.

    Returns
    -------
    dict of str to Tensor
        Those of `keys`, float32, neighbours int64; what is the same in several places shares its memory.

    Raises
    ------
    LookupError
        If static fields are needed and were not given.
    """
    # Blocks of one stage share their tables: a copy each would be seven times the memory. Both ways between two stages
    # share the offsets of the children.
    table, children = (lru_cache(maxsize=None)(function) for function in (rotary_table, _children))
    made: dict[str, Tensor] = {}
    # Neighbours come first, for the directions follow from them.
    for key in sorted(keys, key=lambda key: (not key.endswith("neighbors"), key)):
        group, *_, name = key.split(".") if "." in key else ("", key)
        if name == "static_vars":
            made[key] = _static_variables(architecture.grid, static_fields)
        elif name == "neighbors":
            target, source = _sides(architecture, group)
            made[key] = torch.from_numpy(kept_neighbours(target, source, architecture.neighbours))
        elif group.startswith("interp"):
            neighbours = {**known, **made}[f"{group}.neighbors"]
            made[key] = _directions(*_sides(architecture, group), neighbours)
        elif name == "rel_pos":
            made[key] = children(_stage(architecture, key).nside)
        else:
            stage = _stage(architecture, key)
            made[key] = table(stage.nside, stage.head_width, cosine=name == "cos_freqs")
    return made


def _stage(architecture: Architecture, key: str) -> Stage:
    """The stage that a key belongs to; for a change of resolution, the coarser of the two."""
    group, index, *_ = key.split(".")
    coarser = (*architecture.stages[1:], architecture.bottleneck)
    if group == "bottleneck":
        return architecture.bottleneck
    stages = {
        "encoder_stages": architecture.stages,
        "decoder_stages": architecture.stages[::-1],
        "downsample_layers": coarser,
        "upsample_layers": coarser[::-1],
    }
    return stages[group][int(index)]


def _static_variables(
    grid: LatLonGrid, static_fields: Float[FloatArray, "lon lat 3"] | None
) -> Float32[Tensor, "point 1 6"]:
    """Standardised static fields and point vectors, ``(point, 1, 6)`` (section 4)."""
    if static_fields is None:
        raise LookupError("the static fields are needed, and were not given")
    fields = static_fields.reshape(grid.size, -1).astype(np.float32)
    columns = np.concatenate([fields, unit_vectors(*grid.points())], axis=-1)
    return standardise(columns)[:, None]


def _sides(architecture: Architecture, group: str) -> tuple[Points, Points]:
    """Target and source points of an interpolation."""
    mesh, points = _centres(architecture.stages[0].nside), architecture.grid.points()
    return (mesh, points) if group == "interp_to_hp" else (points, mesh)


def _directions(
    target: Points, source: Points, neighbours: Int64[Tensor, "target neighbour"]
) -> Float[Tensor, "target neighbour 3"]:
    """Unit vectors from neighbours to targets, ``(target, neighbour, 3)``; zero where they coincide (section 5)."""
    to, origin = (torch.from_numpy(unit_vectors(*side)) for side in (target, source))
    return functional.normalize(to[:, None] - origin[neighbours], dim=-1)


def _children(nside: int) -> Float32[Tensor, "{12*nside**2} 12"]:
    """Standardised offsets of the four children of every pixel, ``(pixel, 12)`` (section 6)."""
    parent = unit_vectors(*_centres(nside))
    children = unit_vectors(*_centres(2 * nside)).reshape(-1, 4, 3)
    return standardise((children - parent[:, None]).reshape(-1, 12))


def rotary_table(nside: int, head_width: int, *, cosine: bool) -> Float32[Tensor, "{12*nside**2} {head_width//2}"]:
    """Cosines or sines of the rotary angles, ``(pixel, head_width / 2)`` (section 8).

    Parameters
    ----------
    nside : int
        HEALPix resolution.
    head_width : int
        d; the first d/4 angles turn with longitude, the rest with latitude.
    cosine : bool
        Cosines, or sines.

    Returns
    -------
    Tensor (pixel, head_width / 2)
        float32, without dimension.
    """
    exponent = torch.arange(0, head_width // 2, 2, dtype=torch.float32) / (head_width // 2)
    frequency = ROPE_BASE**-exponent
    longitude, latitude = (torch.deg2rad(torch.from_numpy(degrees)) for degrees in _centres(nside))
    angle = torch.cat([longitude[:, None] * frequency, latitude[:, None] * frequency], dim=-1)
    return angle.cos() if cosine else angle.sin()


def standardise(columns: Float[FloatArray, "row column"]) -> Float32[Tensor, "row column"]:
    """(v − mean) / (std + 1e-6) of every column of ``(row, column)``, unweighted, std unbiased, float32."""
    values = torch.from_numpy(np.ascontiguousarray(columns)).float()
    return (values - values.mean(dim=0)) / (values.std(dim=0) + STANDARDISE_EPS)
