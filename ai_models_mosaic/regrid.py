"""Area-weighted conservative regridding between latitude-longitude grids.

The training data were made this way from 0.25°. Cells are bounded half-way between points, so a
cell's overlap with another is the product of an overlap in longitude and one in the sine of
latitude, and two small sparse matrices do the whole work.
Source: WeatherBench 2, conservative regridding.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from .arrays import FloatArray
from .grid import LatLonGrid, latitude_bounds, longitude_bounds


class ConservativeRegridder:
    """Maps fields of one grid onto another, keeping area means.

    Parameters
    ----------
    source, target : LatLonGrid
        Global grids. Fields on the same points are passed through untouched.
    """

    def __init__(self, source: LatLonGrid, target: LatLonGrid) -> None:
        self.source = source
        self.target = target
        self.is_identity = source.same_points(target)
        if not self.is_identity:
            self._longitude = _mean_weights(longitude_bounds(source), longitude_bounds(target), period=360.0)
            self._latitude = _mean_weights(
                np.sin(np.radians(latitude_bounds(source))), np.sin(np.radians(latitude_bounds(target)))
            )

    def __call__(self, field: FloatArray) -> FloatArray:
        """Means of `field` over the target's cells.

        Parameters
        ----------
        field : array (lon, lat) of the source grid
            Any units.

        Returns
        -------
        array (lon, lat) of the target grid
            In the same units; the same object where the grids have the same points.

        Raises
        ------
        ValueError
            If the field is not on the source grid.
        """
        if field.shape != self.source.shape:
            raise ValueError(f"expected a field of shape {self.source.shape}, got {field.shape}")
        if self.is_identity:
            return field
        along_longitude = self._longitude @ field.astype(np.float64)
        return (self._latitude @ along_longitude.T).T


def _mean_weights(source_bounds: FloatArray, target_bounds: FloatArray, period: float | None = None) -> csr_matrix:
    """Share of each source interval in the mean over each target interval, ``(target, source)``.

    With a period, intervals also meet their neighbours' images.
    """
    shifts = (0.0,) if period is None else (-period, 0.0, period)
    overlap = np.zeros((target_bounds.size - 1, source_bounds.size - 1))
    for shift in shifts:
        upper = np.minimum(target_bounds[1:, None], source_bounds[None, 1:] + shift)
        lower = np.maximum(target_bounds[:-1, None], source_bounds[None, :-1] + shift)
        overlap += np.clip(upper - lower, 0.0, None)
    return csr_matrix(overlap / overlap.sum(axis=1, keepdims=True))
