"""Coasts: Natural Earth 1:110m, which is in the public domain, as ``recipes/coastlines.py`` packed it.

They come with the package, since machines that forecast are often without a network.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np

from ..arrays import FloatArray
from .projections import PlateCarree, Projection

SEAM_DEG = 180.0
"""Where Natural Earth cuts the land that crosses the date line."""

LONGEST_STRIDE = 0.25
"""Of the width of a map: a longer one goes round the globe, and is no coast."""


@cache
def rings() -> tuple[FloatArray, ...]:
    """Outlines of land, each ``(point, 2)``: longitude and latitude, degrees."""
    with (files("ai_models_mosaic.report") / "data" / "coastlines.npz").open("rb") as file, np.load(file) as packed:
        points, ends = packed["hundredths_of_a_degree"].astype(np.float64) / 100, packed["ends"]
    return tuple(np.split(points, ends[:-1]))


@cache
def coast(projection: Projection) -> FloatArray:
    """The coasts on a map as one line ``(point, 2)``, NaN where the pen is lifted."""
    left, right, _, _ = projection.extent
    pieces = []
    for ring in rings():
        seam = (np.abs(ring[:, 0]) >= SEAM_DEG) | (ring[:, 1] <= -90)
        for turn in _turns(projection):
            x, y = projection.forward(np.where(seam, np.nan, ring[:, 0] + turn), ring[:, 1])
            far = np.abs(np.diff(x, append=x[-1:])) > LONGEST_STRIDE * (right - left)
            pieces.append(np.insert(np.column_stack([x, y]), np.flatnonzero(far) + 1, np.nan, axis=0))
            pieces.append(np.full((1, 2), np.nan))
    return np.concatenate(pieces)


@cache
def land(projection: Projection) -> tuple[FloatArray, ...]:
    """The land on a map as polygons ``(point, 2)``."""
    found = []
    for ring in rings():
        for turn in _turns(projection):
            x, y = projection.forward(ring[:, 0] + turn, ring[:, 1])
            inside = np.isfinite(x)
            if inside.sum() > 2:
                found.append(np.column_stack([x, y])[inside])
    return tuple(found)


def _turns(projection: Projection) -> tuple[float, ...]:
    # A region may lie across the seam.
    return (-360.0, 0.0, 360.0) if isinstance(projection, PlateCarree) else (0.0,)
