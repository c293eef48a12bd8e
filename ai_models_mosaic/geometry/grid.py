"""Geometry of latitude-longitude grids and of the HEALPix mesh.

The only module that flips, rolls or transposes fields. Inside the package a field is
``(lon, lat)``, longitude from 0 eastwards and latitude from south to north; GRIB files come in
any order and leave from north to south.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays import FloatArray, IntArray

SAME_POINT_DEG = 2e-3
"""Coordinates closer than this are the same: GRIB1 rounds to a thousandth of a degree."""


@dataclass(frozen=True)
class LatLonGrid:
    """A global grid that is the product of its longitudes and latitudes.

    Parameters
    ----------
    longitude_deg : tuple of float
        Ascending, in [0, 360), degrees east.
    latitude_deg : tuple of float
        Ascending, in [-90, 90], degrees north.

    Raises
    ------
    ValueError
        If coordinates are out of range, out of order, or do not go round the globe.
    """

    longitude_deg: tuple[float, ...]
    latitude_deg: tuple[float, ...]

    def __post_init__(self) -> None:
        longitude, latitude = np.array(self.longitude_deg), np.array(self.latitude_deg)
        if longitude.size < 4 or latitude.size < 3:
            raise ValueError(f"expected a global grid, got {longitude.size} longitudes × {latitude.size} latitudes")
        if (np.diff(longitude) <= 0).any() or longitude[0] < 0 or longitude[-1] >= 360:
            raise ValueError("longitudes must ascend within [0, 360)")
        gaps = np.diff(np.append(longitude, longitude[0] + 360))
        if gaps.max() > 1.5 * np.median(gaps):
            raise ValueError(
                f"expected longitudes all round the globe, got a gap of {gaps.max():g}° "
                f"east of {longitude[gaps.argmax()]:g}°"
            )
        _check_latitudes(latitude)

    @classmethod
    def regular(cls, spacing_deg: float) -> LatLonGrid:
        """The grid with pole rows and the first column at Greenwich.

        Parameters
        ----------
        spacing_deg : float
            Degrees between points; must divide 180.

        Raises
        ------
        ValueError
            If the spacing does not divide 180°.
        """
        rows = round(180 / spacing_deg) if spacing_deg > 0 else 0
        if rows < 2 or abs(rows * spacing_deg - 180) > 1e-9:
            raise ValueError(f"a grid spacing of {spacing_deg:g}° does not divide 180°")
        longitude = np.arange(2 * rows) * 180 / rows
        latitude = np.arange(rows + 1) * 180 / rows - 90
        return cls(tuple(longitude.tolist()), tuple(latitude.tolist()))

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_lon, n_lat)``."""
        return len(self.longitude_deg), len(self.latitude_deg)

    @property
    def size(self) -> int:
        """Number of points."""
        return len(self.longitude_deg) * len(self.latitude_deg)

    @property
    def spacing_deg(self) -> float:
        """Degrees between longitudes."""
        return 360 / len(self.longitude_deg)

    def __str__(self) -> str:
        longitude, latitude = self.shape
        return f"{longitude} × {latitude} points ({self.spacing_deg:g}°)"

    def same_points(self, other: LatLonGrid) -> bool:
        """Whether both grids have the same points, to the precision of GRIB."""
        return self.shape == other.shape and all(
            np.allclose(mine, theirs, rtol=0, atol=SAME_POINT_DEG)
            for mine, theirs in (
                (self.longitude_deg, other.longitude_deg),
                (self.latitude_deg, other.latitude_deg),
            )
        )

    def points(self) -> tuple[FloatArray, FloatArray]:
        """Longitude and latitude of every point in token order, float64 degrees, each ``(lon·lat,)``.

        Token order: longitude outermost. Source: specification of the network, section 1.
        """
        longitude, latitude = np.meshgrid(self.longitude_deg, self.latitude_deg, indexing="ij")
        return longitude.ravel(), latitude.ravel()

    def cell_weights(self) -> FloatArray:
        """Share of the sphere's area that belongs to every latitude's cells, ``(lat,)``, sum 1."""
        bounds = np.sin(np.radians(latitude_bounds(self)))
        return np.diff(bounds) / 2


@dataclass(frozen=True)
class Region:
    """The points of a grid that lie in an area.

    Parameters
    ----------
    grid : LatLonGrid
        The whole grid.
    columns : tuple of int
        Indices of longitudes, from west to east.
    rows : tuple of int
        Indices of latitudes, from south to north.
    longitude_deg : tuple of float
        Of the columns, ascending in (-360, 360): below 0 where the area crosses Greenwich.
    """

    grid: LatLonGrid
    columns: tuple[int, ...]
    rows: tuple[int, ...]
    longitude_deg: tuple[float, ...]

    @classmethod
    def whole(cls, grid: LatLonGrid) -> Region:
        """All of a grid."""
        columns, rows = grid.shape
        return cls(grid, tuple(range(columns)), tuple(range(rows)), grid.longitude_deg)

    @classmethod
    def within(cls, grid: LatLonGrid, north: float, west: float, south: float, east: float) -> Region:
        """The points in an area, bounds included.

        Parameters
        ----------
        grid : LatLonGrid
            The whole grid.
        north, south : float
            Degrees north, -90 … 90.
        west, east : float
            Degrees east, in any turn; the area goes from west eastwards to east.

        Raises
        ------
        ValueError
            If no point lies in it.
        """
        latitude, longitude = np.array(grid.latitude_deg), np.array(grid.longitude_deg)
        rows = np.flatnonzero((latitude >= south - SAME_POINT_DEG) & (latitude <= north + SAME_POINT_DEG))
        width = min(east - west, 360.0) if east >= west else (east - west) % 360
        eastwards = (longitude - west + SAME_POINT_DEG) % 360
        columns = np.argsort(eastwards, kind="stable")
        columns = columns[eastwards[columns] <= width + 2 * SAME_POINT_DEG]
        if not rows.size or not columns.size:
            raise ValueError(f"no point of the grid of {grid} lies within {north:g}/{west:g}/{south:g}/{east:g}")
        turns = np.concatenate([[0], np.cumsum(np.diff(columns) < 0)])
        unrolled = longitude[columns] + 360 * (turns - turns[-1])
        return cls(grid, tuple(columns.tolist()), tuple(rows.tolist()), tuple(unrolled.tolist()))

    @property
    def latitude_deg(self) -> tuple[float, ...]:
        """Latitudes of the rows, ascending, degrees north."""
        return tuple(self.grid.latitude_deg[row] for row in self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_lon, n_lat)``."""
        return len(self.columns), len(self.rows)

    @property
    def size(self) -> int:
        """Number of points."""
        return len(self.columns) * len(self.rows)

    def take(self, fields: FloatArray) -> FloatArray:
        """The region's part of fields on the whole grid.

        Parameters
        ----------
        fields : array (..., lon, lat)
            Fields of the whole grid.

        Returns
        -------
        array (..., region's lon, region's lat)
        """
        if self == Region.whole(self.grid):
            return fields
        return fields[..., np.array(self.columns)[:, None], np.array(self.rows)]


@dataclass(frozen=True)
class ReducedGrid:
    """A global grid whose rows have fewer points towards the poles, such as N320 or O1280.

    Parameters
    ----------
    latitude_deg : tuple of float
        Of every row, ascending, in [-90, 90].
    row_lengths : tuple of int
        Points of every row, evenly spaced.
    row_starts_deg : tuple of float
        Longitude of the first point of every row, in [0, 360).

    Raises
    ------
    ValueError
        If rows are out of order or do not reach the poles.
    """

    latitude_deg: tuple[float, ...]
    row_lengths: tuple[int, ...]
    row_starts_deg: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_latitudes(np.array(self.latitude_deg))
        if not len(self.latitude_deg) == len(self.row_lengths) == len(self.row_starts_deg):
            raise ValueError("expected a length and a start for every row")

    @property
    def shape(self) -> tuple[int]:
        """``(point,)``: row by row from south to north, each eastwards from its start."""
        return (sum(self.row_lengths),)

    def __str__(self) -> str:
        return f"{self.shape[0]} points in {len(self.latitude_deg)} rows of up to {max(self.row_lengths)}"


def _check_latitudes(latitude: FloatArray) -> None:
    if (np.diff(latitude) <= 0).any() or latitude[0] < -90 or latitude[-1] > 90:
        raise ValueError("latitudes must ascend within [-90, 90]")
    step = float(np.median(np.diff(latitude)))
    if np.diff(latitude).max() > 2.5 * step:
        south, north = latitude[np.diff(latitude).argmax() :][:2]
        raise ValueError(f"expected latitudes without gaps, got one from {south:g}° to {north:g}°")
    for name, distance in (("south", latitude[0] + 90), ("north", 90 - latitude[-1])):
        if distance > step + SAME_POINT_DEG:
            raise ValueError(f"expected latitudes up to the {name} pole, got a gap of {distance:g}°")


def latitude_bounds(grid: LatLonGrid | ReducedGrid) -> FloatArray:
    """Cell bounds half-way between latitudes, closed at the poles, ``(lat + 1,)`` degrees.

    A row at a pole so has half a cell, as in the regridding of the training data
    (Source: WeatherBench 2, conservative regridding).
    """
    latitude = np.array(grid.latitude_deg)
    return np.concatenate([[-90.0], (latitude[1:] + latitude[:-1]) / 2, [90.0]])


def longitude_bounds(longitude_deg: FloatArray) -> FloatArray:
    """Cell bounds half-way between ascending longitudes, ``(lon + 1,)`` degrees; the last is the first + 360."""
    middle = (longitude_deg + np.append(longitude_deg[1:], longitude_deg[0] + 360)) / 2
    return np.concatenate([[middle[-1] - 360], middle])


def grid_of_points(longitude_deg: FloatArray, latitude_deg: FloatArray) -> tuple[LatLonGrid | ReducedGrid, IntArray]:
    """The grid that a field's points form, and where in the field each of its points is.

    Parameters
    ----------
    longitude_deg, latitude_deg : array (point,)
        Coordinates of the values of a field, in the field's own order, whatever that is.

    Returns
    -------
    grid : LatLonGrid or ReducedGrid
    order : int array (lon, lat) or (point,)
        ``values[order]`` is the field on `grid`.

    Raises
    ------
    ValueError
        If the points are neither the product of longitudes and latitudes nor rows of evenly spaced
        points, or not global.
    """
    longitude = np.round(np.asarray(longitude_deg, dtype=np.float64), 6) % 360
    latitude = np.round(np.asarray(latitude_deg, dtype=np.float64), 6)
    latitudes, row, lengths = np.unique(latitude, return_inverse=True, return_counts=True)
    if len(set(lengths.tolist())) > 1:
        return _reduced_grid(longitude, latitudes, row, lengths)
    longitudes, column = np.unique(longitude, return_inverse=True)
    order = np.full((longitudes.size, latitudes.size), -1, dtype=np.int64)
    # A column given twice, at 0° and at 360°, is the same column.
    order[column, row] = np.arange(longitude.size)
    if (order < 0).any():
        product = f"{longitudes.size} longitudes × {latitudes.size} latitudes"
        raise ValueError(f"{longitude.size} points do not fill {product}")
    return LatLonGrid(tuple(longitudes.tolist()), tuple(latitudes.tolist())), order


def alternated(longitude_deg: FloatArray, latitude_deg: FloatArray) -> FloatArray:
    """Longitudes of points whose every second row runs the other way than the coordinates given.

    Raises
    ------
    ValueError
        If rows do not run along latitudes.
    """
    length = int((latitude_deg != latitude_deg[0]).argmax())
    if length < 2 or longitude_deg.size % length:
        raise ValueError("expected alternating rows that run along latitudes")
    rows = longitude_deg.reshape(-1, length).copy()
    rows[1::2] = rows[1::2, ::-1]
    return rows.ravel()


def _reduced_grid(
    longitude: FloatArray, latitudes: FloatArray, row: IntArray, lengths: IntArray
) -> tuple[ReducedGrid, IntArray]:
    """Points in rows of different lengths, which must each be evenly spaced round the globe."""
    order = np.lexsort((longitude, row))
    first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    spacing = np.repeat(360 / lengths, lengths)
    start = longitude[order][first]
    even = np.repeat(start, lengths) + spacing * (np.arange(longitude.size) - np.repeat(first, lengths))
    uneven = np.abs(longitude[order] - even) > np.maximum(0.01 * spacing, SAME_POINT_DEG)
    if uneven.any():
        where = latitudes[row[order][uneven.argmax()]]
        raise ValueError(f"expected rows of evenly spaced points all round the globe, got others at {where:g}°")
    return ReducedGrid(tuple(latitudes.tolist()), tuple(lengths.tolist()), tuple(start.tolist())), order


def to_grib_order(field: FloatArray) -> FloatArray:
    """Values of a ``(…, lon, lat)`` field as ``(…, point)``: rows from north to south, each from west to east."""
    rows = np.swapaxes(field, -1, -2)[..., ::-1, :]
    return np.ascontiguousarray(rows).reshape(*field.shape[:-2], -1)


def unit_vectors(longitude_deg: FloatArray, latitude_deg: FloatArray) -> FloatArray:
    """Points on the unit sphere, ``(…, 3)``, float32 and computed in float32 as the released model does.

    Source: specification of the network, section 3.
    """
    longitude, latitude = (np.radians(np.asarray(angle, dtype=np.float32)) for angle in (longitude_deg, latitude_deg))
    return np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=-1
    )


def healpix_centres(nside: int) -> tuple[FloatArray, FloatArray]:
    """Longitude and latitude of the HEALPix centres in nested order, float32 degrees, each ``(pixel,)``.

    Source: specification of the network, section 3.
    """
    import healpix

    # By way of the vectors: the package's own angles round to another float32 at 4 % of the
    # longitudes than those that the model was trained with, and near ties then pick other neighbours.
    x, y, z = healpix.pix2vec(nside, np.arange(12 * nside**2), nest=True)
    longitude, latitude = np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arcsin(z))
    return longitude.astype(np.float32), latitude.astype(np.float32)


def nearest_neighbours(
    target_deg: tuple[FloatArray, FloatArray], source_deg: tuple[FloatArray, FloatArray], count: int
) -> IntArray:
    """The `count` nearest source points of every target point, ``(target, count)``.

    Ties are many and decided by the search itself, so this is the very search that the released
    model was trained with: scikit-learn's ball tree, its default leaf size, float32 radians.
    Source: specification of the network, section 5.

    Parameters
    ----------
    target_deg, source_deg : pair of arrays
        Longitude and latitude, degrees.
    count : int
        Neighbours per target.
    """
    from sklearn.neighbors import BallTree

    def radians(points: tuple[FloatArray, FloatArray]) -> FloatArray:
        longitude, latitude = points
        degrees = np.stack([latitude, longitude], axis=-1).astype(np.float32)
        return np.radians(degrees)

    tree = BallTree(radians(source_deg), metric="haversine")
    return tree.query(radians(target_deg), k=count, return_distance=False).astype(np.int64)
