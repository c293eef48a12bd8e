"""Area-weighted conservative regridding onto latitude-longitude grids.

The training data were made this way from 0.25°. Cells are bounded half-way between points, so a
cell's overlap with another is the product of an overlap in longitude and one in the sine of
latitude: sparse matrices along each of them do the whole work, for rows of different lengths too.
Source: WeatherBench 2, conservative regridding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..arrays import FloatArray, IntArray
from .grid import LatLonGrid, ReducedGrid, latitude_bounds, longitude_bounds
from .weights_cache import cached

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class ConservativeRegridder:
    """Maps fields of one grid onto another, keeping area means.

    Weights are computed once; those of reduced grids, which take seconds for the largest, are kept
    on disk between runs (`weights_cache`).

    Parameters
    ----------
    source : LatLonGrid or ReducedGrid
        Global grid of the fields.
    target : LatLonGrid
        Global grid to map to. Fields on the same points are passed through untouched.
    """

    def __init__(self, source: LatLonGrid | ReducedGrid, target: LatLonGrid) -> None:
        self.source = source
        self.target = target
        self.is_identity = isinstance(source, LatLonGrid) and source.same_points(target)
        if self.is_identity:
            return
        sines = (np.sin(np.radians(latitude_bounds(grid))) for grid in (source, target))
        self._latitude = _weights(*_overlaps(*sines), shape=(len(target.latitude_deg), len(source.latitude_deg)))
        longitudes = np.array(target.longitude_deg)
        if isinstance(source, LatLonGrid):
            overlaps = _circular_overlaps(np.array(source.longitude_deg), longitudes)
            self._longitude = _weights(*overlaps, shape=(longitudes.size, len(source.longitude_deg)))
        else:
            key = (source.row_lengths, source.row_starts_deg, target.longitude_deg)
            shape = (len(source.row_lengths) * longitudes.size, sum(source.row_lengths))
            self._longitude = cached(key, shape, lambda: _row_weights(source, longitudes))

    def __call__(self, field: FloatArray) -> FloatArray:
        """Means of `field` over the target's cells.

        Parameters
        ----------
        field : array (lon, lat) or (point,) of the source grid
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
        if isinstance(self.source, ReducedGrid):
            rows = along_longitude.reshape(len(self.source.latitude_deg), -1)
        else:
            rows = along_longitude.T
        return (self._latitude @ rows).T


def _overlaps(source: FloatArray, target: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """Pieces into which both ascending bounds cut a line: index of target and of source cell, and length.

    Pieces outside of either are left out.
    """
    cuts = np.sort(np.concatenate([source, target]))
    middle, length = (cuts[1:] + cuts[:-1]) / 2, np.diff(cuts)
    of_source = np.searchsorted(source, middle) - 1
    of_target = np.searchsorted(target, middle) - 1
    inside = (of_source >= 0) & (of_source < source.size - 1) & (of_target >= 0) & (of_target < target.size - 1)
    kept = inside & (length > 0)
    return of_target[kept], of_source[kept], length[kept]


def _circular_overlaps(source_deg: FloatArray, target_deg: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """As `_overlaps`, of the cells round the globe of ascending longitudes."""
    bounds = longitude_bounds(source_deg)
    # Two turns: the target's cells begin and end elsewhere than the source's.
    turns = np.concatenate([bounds[:-1] - 360, bounds[:-1], bounds + 360])
    of_target, of_source, length = _overlaps(turns, longitude_bounds(target_deg))
    return of_target, of_source % source_deg.size, length


def _weights(rows: IntArray, columns: IntArray, lengths: FloatArray, shape: tuple[int, int]) -> csr_matrix:
    """The matrix of means over target cells, from overlaps of them with source cells."""
    # Only where grids differ: a forecast from its own grid does without.
    from scipy.sparse import csr_matrix

    total = np.bincount(rows, weights=lengths, minlength=shape[0])
    return csr_matrix((lengths / total[rows], (rows, columns)), shape=shape)


def _row_weights(source: ReducedGrid, target_deg: FloatArray) -> csr_matrix:
    """Means along every row of a reduced grid, ``(row · lon, point)``."""
    parts = []
    first = 0
    for index, (length, start) in enumerate(zip(source.row_lengths, source.row_starts_deg, strict=True)):
        longitudes = start + np.arange(length) * 360 / length
        of_target, of_source, lengths = _circular_overlaps(longitudes, target_deg)
        parts.append((of_target + index * target_deg.size, of_source + first, lengths))
        first += length
    rows, columns, lengths = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return _weights(rows, columns, lengths, shape=(len(source.row_lengths) * target_deg.size, first))
