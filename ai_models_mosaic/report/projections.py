"""Maps of the globe: where a place lies on paper, and what place a point of the paper is.

Three projections of a few lines each. Drawing needs neither PROJ nor GEOS, and no network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..arrays import FloatArray


class Projection(Protocol):
    """A projection."""

    def __hash__(self) -> int:
        """Projections are values: what is made for one is kept."""

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top of the paper."""

    def forward(self, longitude: FloatArray, latitude: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Where places lie, which are in degrees; NaN if not on the map."""

    def inverse(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Longitude and latitude, degrees, of points; NaN outside the globe."""


@dataclass(frozen=True)
class EqualEarth:
    """The globe, areas true to each other.

    Source: Šavrič, Patterson and Jenny 2019, The Equal Earth map projection, equations 1 to 9.
    """

    coefficients = (1.340264, -0.081106, 0.000893, 0.003796)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top of the paper."""
        (right,), _ = self.forward(np.array([180.0]), np.array([0.0]))
        _, (top,) = self.forward(np.array([0.0]), np.array([90.0]))
        return -float(right), float(right), -float(top), float(top)

    def forward(self, longitude: FloatArray, latitude: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Where places lie, which are in degrees."""
        turned = np.where(np.abs(longitude) > 180, (longitude + 180) % 360 - 180, longitude)
        angle = np.arcsin(math.sqrt(3) / 2 * np.sin(np.radians(latitude)))
        return 2 * math.sqrt(3) / 3 * np.radians(turned) * np.cos(angle) / self._slope(angle), self._height(angle)

    def inverse(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Longitude and latitude, degrees, of points; NaN outside the globe."""
        angle = np.array(y, dtype=np.float64)
        for _ in range(12):
            angle = angle - (self._height(angle) - y) / self._slope(angle)
        sine = 2 / math.sqrt(3) * np.sin(angle)
        inside = np.abs(sine) <= 1
        longitude = np.degrees(math.sqrt(3) / 2 * x * self._slope(angle) / np.cos(angle))
        inside = inside & (np.abs(longitude) <= 180)
        latitude = np.degrees(np.arcsin(np.clip(sine, -1, 1)))
        return np.where(inside, longitude, np.nan), np.where(inside, latitude, np.nan)

    def _height(self, angle: FloatArray) -> FloatArray:
        a, b, c, d = self.coefficients
        return angle * (a + b * angle**2 + angle**6 * (c + d * angle**2))

    def _slope(self, angle: FloatArray) -> FloatArray:
        a, b, c, d = self.coefficients
        return a + 3 * b * angle**2 + angle**6 * (7 * c + 9 * d * angle**2)


@dataclass(frozen=True)
class Polar:
    """A hemisphere around its pole, areas true to each other: Lambert's azimuthal projection.

    Parameters
    ----------
    north : bool
        Which pole.
    edge_deg : float
        Latitude of the rim, towards the equator.
    """

    north: bool = True
    edge_deg: float = 15.0

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top of the paper."""
        radius = 2 * math.sin(math.radians(90 - self.edge_deg) / 2)
        return -radius, radius, -radius, radius

    def forward(self, longitude: FloatArray, latitude: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Where places lie, which are in degrees; NaN beyond the rim."""
        sign = 1 if self.north else -1
        from_pole = np.where(sign * latitude >= self.edge_deg, 90 - sign * latitude, np.nan)
        radius = 2 * np.sin(np.radians(from_pole) / 2)
        return radius * np.sin(np.radians(longitude)), -sign * radius * np.cos(np.radians(longitude))

    def inverse(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Longitude and latitude, degrees, of points; NaN beyond the rim."""
        sign = 1 if self.north else -1
        radius = np.hypot(x, y)
        inside = radius <= self.extent[1]
        latitude = sign * (90 - np.degrees(2 * np.arcsin(np.clip(radius / 2, 0, 1))))
        return np.where(inside, np.degrees(np.arctan2(x, -sign * y)), np.nan), np.where(inside, latitude, np.nan)


@dataclass(frozen=True)
class PlateCarree:
    """A region, degrees of longitude as long as they are at its middle latitude.

    Parameters
    ----------
    north, west, south, east : float
        Degrees; the east lies above the west.
    """

    north: float
    west: float
    south: float
    east: float

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top of the paper."""
        return self.west * self._width, self.east * self._width, self.south, self.north

    def forward(self, longitude: FloatArray, latitude: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Where places lie, which are in degrees, in the turn that they are in."""
        return np.asarray(longitude) * self._width, np.asarray(latitude, dtype=np.float64)

    def inverse(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Longitude and latitude, degrees, of points."""
        return np.asarray(x) / self._width, np.asarray(y, dtype=np.float64)

    @property
    def _width(self) -> float:
        return max(math.cos(math.radians((self.north + self.south) / 2)), 0.2)


def rim(projection: Projection) -> FloatArray:
    """The edge of a map as a line ``(point, 2)``."""
    left, right, bottom, top = projection.extent
    if isinstance(projection, PlateCarree):
        return np.array([(left, bottom), (left, top), (right, top), (right, bottom), (left, bottom)])
    if isinstance(projection, Polar):
        around = np.linspace(0, 2 * math.pi, 181)
        return right * np.column_stack([np.cos(around), np.sin(around)])
    along = np.linspace(-90, 90, 91)
    x, y = projection.forward(np.full_like(along, 180.0), along)
    return np.concatenate([np.column_stack([x, y]), np.column_stack([-x, y])[::-1], [[x[0], y[0]]]])
