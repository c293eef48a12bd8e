"""Real spherical harmonics on a regular grid with pole rows."""

from __future__ import annotations

import numpy as np
from scipy.special import sph_harm_y

from ..arrays import FloatArray, IntArray
from ..errors import OptionError
from .grid import LatLonGrid


def degrees(limit: int) -> IntArray:
    """Degree of every coefficient up to `limit`, ``((limit + 1)²,)``, such as 0, 1, 1, 1, 2."""
    return np.repeat(np.arange(limit + 1), 2 * np.arange(limit + 1) + 1)


def analysis(grid: LatLonGrid, limit: int) -> FloatArray:
    """The matrix from fields to orthonormal real coefficients, float64 ``(coefficient, point)``.

    The least-squares fit under the quadrature of Clenshaw and Curtis in colatitude and the trapezoid in
    longitude: it returns the coefficients of any field of no higher degree exactly, and to twice
    the degree that the quadrature alone would serve.

    Parameters
    ----------
    grid : LatLonGrid
        Regular, with pole rows; points in token order.
    limit : int
        Highest degree.

    Raises
    ------
    OptionError
        If the grid has no pole rows or is too coarse for the degree.
    """
    longitude, latitude = (np.radians(np.array(axis)) for axis in (grid.longitude_deg, grid.latitude_deg))
    rows = latitude.size - 1
    if not np.allclose(latitude, np.linspace(-np.pi / 2, np.pi / 2, rows + 1), atol=1e-4):
        raise OptionError(f"spherical harmonics need a regular grid with pole rows, got {grid}")
    if limit >= rows or 2 * limit >= longitude.size:
        raise OptionError(
            f"expected a degree of at most {min(rows - 1, (longitude.size - 1) // 2)} on {grid}, got {limit}"
        )
    weights = np.repeat(clenshaw_curtis(rows)[None], longitude.size, axis=0) * 2 * np.pi / longitude.size
    basis = synthesis(grid, limit)
    weighted = basis.T * weights.ravel()
    analysed: FloatArray = np.linalg.solve(weighted @ basis, weighted)
    return analysed


def synthesis(grid: LatLonGrid, limit: int) -> FloatArray:
    """The orthonormal real harmonics at every point, float64 ``(point, coefficient)``; degrees as `degrees`."""
    longitude, latitude = (np.radians(axis) for axis in grid.points())
    columns = []
    for degree in range(limit + 1):
        for order in range(-degree, degree + 1):
            harmonic = sph_harm_y(degree, abs(order), np.pi / 2 - latitude, longitude)
            part = harmonic.imag if order < 0 else harmonic.real
            columns.append(part * (np.sqrt(2.0) if order else 1.0))
    return np.stack(columns, axis=-1)


def clenshaw_curtis(intervals: int) -> FloatArray:
    """Weights of ∫ f(θ) sin θ dθ over 0 … π at evenly spaced θ with both ends, ``(intervals + 1,)``.

    Source: Waldvogel, BIT 46, 2006: the cosine series of sin θ integrated term by term.
    """
    theta = np.arange(intervals + 1) * np.pi / intervals
    order = np.arange(0, intervals + 1, 2)
    moments = 2.0 / (1.0 - order**2.0)
    halved = np.where((order == 0) | (order == intervals), 0.5, 1.0)
    weights: FloatArray = (2.0 / intervals) * np.cos(np.outer(theta, order)) @ (moments * halved)
    weights[[0, -1]] /= 2
    return weights
