"""Fields on the paper of a map: every pixel has a place, and a value between those of the grid, bilinearly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import xarray

from ..arrays import BoolArray, FloatArray
from .angles import FULL_CIRCLE, between, between_columns, goes_round
from .projections import EqualEarth, PlateCarree, Projection


class Sampler:
    """Takes values of a grid at places.

    Parameters
    ----------
    latitude, longitude : arrays
        Of the grid: ascending, degrees.
    wanted_longitude, wanted_latitude : arrays
        Of the places, of one shape, degrees; NaN for none.
    """

    def __init__(
        self,
        latitude: FloatArray,
        longitude: FloatArray,
        wanted_longitude: FloatArray,
        wanted_latitude: FloatArray,
    ) -> None:
        # Beyond the last rows of a global grid lie the caps, whose values are those of the rows.
        spacing = float(np.diff(latitude).max()) if len(latitude) > 1 else 0.0
        cap = spacing if goes_round(longitude) else spacing / 2
        south, north = between(latitude, wanted_latitude, slack=cap)
        west, east, weight = between_columns(longitude, wanted_longitude)
        self.outside: BoolArray = np.isnan(north) | np.isnan(weight)
        north, weight = (np.where(self.outside, 0, part).astype(np.float32) for part in (north, weight))
        upper = np.minimum(south + 1, len(latitude) - 1)
        columns = len(longitude)
        self._corners = tuple(
            (row * columns + column, share)
            for row, column, share in (
                (south, west, (1 - north) * (1 - weight)),
                (south, east, (1 - north) * weight),
                (upper, west, north * (1 - weight)),
                (upper, east, north * weight),
            )
        )

    def __call__(self, values: FloatArray) -> FloatArray:
        """Values ``(…, latitude, longitude)`` at the places: ``(…, *places)``, NaN outside."""
        flat = values.reshape(*values.shape[:-2], -1)
        found = sum(np.take(flat, place, axis=-1) * share for place, share in self._corners)
        return np.where(self.outside, np.float32(np.nan), found)


@dataclass(frozen=True)
class Paper:
    """A map's paper: its projection and its pixels.

    Parameters
    ----------
    projection : Projection
        Where places lie.
    width : int
        Pixels.
    """

    projection: Projection
    width: int

    @property
    def height(self) -> int:
        """Pixels, which are squares."""
        left, right, bottom, top = self.projection.extent
        return max(round(self.width * (top - bottom) / (right - left)), 1)

    @cached_property
    def axes(self) -> tuple[FloatArray, FloatArray]:
        """The x of the columns and y of the rows, from the top."""
        left, right, bottom, top = self.projection.extent
        columns, rows = (np.arange(count) + 0.5 for count in (self.width, self.height))
        return left + columns * (right - left) / self.width, top - rows * (top - bottom) / self.height

    def sampler(self, dataset: xarray.Dataset) -> Sampler:
        """What puts fields of an ensemble on this paper."""
        return _sampler(self, tuple(dataset["latitude"].values.tolist()), tuple(dataset["longitude"].values.tolist()))


@lru_cache(maxsize=8)
def _sampler(paper: Paper, latitude: tuple[float, ...], longitude: tuple[float, ...]) -> Sampler:
    columns, rows = paper.axes
    places = np.broadcast_arrays(*paper.projection.inverse(columns[None], rows[:, None]))
    return Sampler(np.array(latitude), np.array(longitude), *places)


def projection_for(dataset: xarray.Dataset) -> Projection:
    """The globe for what reaches round it, else the region that the grid covers."""
    latitude, longitude = dataset["latitude"].values, dataset["longitude"].values
    if goes_round(longitude) and latitude[-1] - latitude[0] > FULL_CIRCLE / 4:
        return EqualEarth()
    if goes_round(longitude):
        return PlateCarree(float(latitude[-1]), -180.0, float(latitude[0]), 180.0)
    return PlateCarree(float(latitude[-1]), float(longitude[0]), float(latitude[0]), float(longitude[-1]))
