"""Longitudes go round: the axis of a grid, and the weights by which a point lies between its columns."""

from __future__ import annotations

import numpy as np

from ..arrays import FloatArray, IntArray

FULL_CIRCLE = 360.0

TOLERANCE_DEG = 1e-3
"""Error of coordinates that were kept as 32-bit numbers, or rounded."""


def axis_of_angles(longitude: FloatArray) -> tuple[FloatArray, IntArray]:
    """Longitudes without repetition from west to east, begun after the widest gap, and where each point lies.

    Parameters
    ----------
    longitude : array (point,)
        Degrees, in any turn.

    Returns
    -------
    axis : array (column,)
        Ascending, degrees; the first lies between −180 and 180.
    columns : array (point,)
        Column of each point.
    """
    turned, columns = np.unique(np.round(longitude % FULL_CIRCLE, 6) % FULL_CIRCLE, return_inverse=True)
    gaps = np.diff(turned, append=turned[0] + FULL_CIRCLE)
    if goes_round(turned):
        return turned, columns
    first = (int(np.argmax(gaps)) + 1) % len(turned)
    axis = np.roll(turned, -first)
    axis = np.where(axis < axis[0], axis + FULL_CIRCLE, axis)
    return axis - FULL_CIRCLE * (axis[0] >= FULL_CIRCLE / 2), (columns - first) % len(turned)


def goes_round(longitude: FloatArray) -> bool:
    """Whether ascending longitudes reach round the globe: no gap is wider than one and a half of the others."""
    gaps = np.diff(longitude, append=longitude[0] + FULL_CIRCLE)
    return len(longitude) > 2 and bool(gaps.max() <= 1.5 * np.median(gaps) + TOLERANCE_DEG)


def between_columns(longitude: FloatArray, wanted: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """The columns on either side of points, and the weight of the eastern one; NaN outside.

    Parameters
    ----------
    longitude : array (column,)
        As `axis_of_angles` returns them, degrees.
    wanted : array
        Any shape, degrees in any turn; NaN is outside.
    """
    axis = np.append(longitude, longitude[0] + FULL_CIRCLE) if goes_round(longitude) else longitude
    turned = (wanted - axis[0] + TOLERANCE_DEG) % FULL_CIRCLE + axis[0] - TOLERANCE_DEG
    west, weight = between(axis, turned)
    return west, (west + 1) % len(longitude), weight


def between(axis: FloatArray, wanted: FloatArray, slack: float = TOLERANCE_DEG) -> tuple[IntArray, FloatArray]:
    """The place in an ascending axis before each value, and the weight of the place after it; NaN outside.

    Parameters
    ----------
    axis : array (place,)
        Ascending.
    wanted : array
        Any shape.
    slack : float
        How far outside a value may lie and is taken for the end.
    """
    inside = (wanted >= axis[0] - slack) & (wanted <= axis[-1] + slack)
    clipped = np.clip(np.where(inside, wanted, axis[0]), axis[0], axis[-1])
    before = np.clip(np.searchsorted(axis, clipped, side="right") - 1, 0, max(len(axis) - 2, 0))
    width = axis[np.minimum(before + 1, len(axis) - 1)] - axis[before]
    weight = np.divide(clipped - axis[before], width, out=np.zeros(np.shape(wanted)), where=width > 0)
    return before, np.where(inside, weight, np.nan)
