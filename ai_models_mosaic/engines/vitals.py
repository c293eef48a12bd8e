"""Vital signs of states: a few numbers per member that tell a sound state from a sick one, cheap beside a step.

Computed from NumPy arrays here, and from tensors on their device in `tensor_vitals`; both lay the numbers out alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from ..arrays import Float32, Float32Array, FloatArray, IntArray
from ..channels import CHANNELS, LEVELS_HPA, STANDARD_GRAVITY
from ..geometry.grid import LatLonGrid

POWER_FIELDS = ("z500", "t850", "2t", "10u", "q700")
"""Whose power is taken, as far as a state has them."""

WAVE_LIMITS = (1, 4, 10, 30)
"""Zonal wavenumbers at which groups of waves begin; the last third of what a grid resolves is a group of its own."""

Vitals = Float32[Float32Array, "member number"]
"""As `Probe` lays them out."""


@dataclass(frozen=True)
class Probe:
    """What is measured of states on a grid.

    Parameters
    ----------
    grid : LatLonGrid
        Of the states; evenly spaced in longitude.
    channels : int
        Of a state: the first of `channels.CHANNELS`.
    """

    grid: LatLonGrid
    channels: int

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Labels of the fields whose power is taken."""
        there = [channel.label for channel in CHANNELS[: self.channels]]
        return tuple(label for label in POWER_FIELDS if label in there)

    @cached_property
    def waves(self) -> tuple[tuple[int, int], ...]:
        """First and last zonal wavenumber of every group."""
        highest = self.grid.shape[0] // 2
        third = highest - highest // 3 + 1
        begins = [limit for limit in WAVE_LIMITS if limit < third] + [third, highest + 1]
        return tuple((first, after - 1) for first, after in pairwise(begins))

    @cached_property
    def power_channels(self) -> IntArray:
        """Indices of the channels of `fields`."""
        labels = [channel.label for channel in CHANNELS]
        return np.array([labels.index(field) for field in self.fields], dtype=np.intp)

    @cached_property
    def mean_channels(self) -> IntArray:
        """Indices of the channels whose means are taken: pressure at sea level, and humidity on all levels."""
        names = [channel.param for channel in CHANNELS[: self.channels]]
        return np.array([index for index, name in enumerate(names) if name in ("msl", "q")], dtype=np.intp)

    @cached_property
    def column(self) -> FloatArray:
        """What makes mass and moisture of the means of `mean_channels`, ``(channel, 2)``; zeros for what is not there.

        Moisture is the water in the column, kg m⁻²: humidity between the levels by the trapezoid.
        """
        thickness = np.gradient(np.array(LEVELS_HPA, dtype=np.float64)) * 100 / STANDARD_GRAVITY
        thickness[[0, -1]] /= 2
        weights = np.zeros((len(self.mean_channels), 2))
        for row, index in enumerate(self.mean_channels):
            channel = CHANNELS[index]
            if channel.level_hpa is None:
                weights[row, 0] = 1.0
            else:
                weights[row, 1] = thickness[LEVELS_HPA.index(channel.level_hpa)]
        return weights

    @cached_property
    def area(self) -> FloatArray:
        """Share of the sphere's area of a circle of latitude, ``(lat,)``."""
        return self.grid.cell_weights()

    @cached_property
    def groups(self) -> FloatArray:
        """Sums squared Fourier coefficients to the power of groups of waves, ``(wavenumber, group)``."""
        columns = self.grid.shape[0]
        sums = np.zeros((columns // 2 + 1, len(self.waves)))
        for group, (first, last) in enumerate(self.waves):
            sums[first : last + 1, group] = 2.0 / columns**2
        if columns % 2 == 0:
            # The shortest wave has one coefficient, the others two that are alike.
            sums[-1] /= 2
        return sums

    @property
    def size(self) -> int:
        """Numbers of a member: power of every field by group of waves, mass, moisture, minima, maxima."""
        return len(self.fields) * len(self.waves) + 2 + 2 * self.channels

    def measure(self, values: Float32[Float32Array, "member lon lat channel"]) -> Vitals:
        """Vital signs of states.

        Parameters
        ----------
        values : float32 array (member, lon, lat, channel)
            Physical units.

        Returns
        -------
        float32 array (member, size)
        """
        members = len(values)
        points = values.reshape(members, -1, self.channels)
        # NaN in a field gives NaN here, and says so later.
        with np.errstate(invalid="ignore", over="ignore"):
            fields = np.moveaxis(values[..., self.power_channels], 1, -1).astype(np.float64)
            squared = np.abs(np.fft.rfft(fields)) ** 2
            power = np.einsum("mlfw,l->mfw", squared, self.area) @ self.groups
            zonal = values[..., self.mean_channels].mean(axis=1, dtype=np.float64)
            means = np.einsum("mlc,l->mc", zonal, self.area) @ self.column
            extremes = [points.min(axis=1), points.max(axis=1)]
            parts = [power.reshape(members, -1), means, *extremes]
            return np.concatenate(parts, axis=1, dtype=np.float32, casting="same_kind")

    def power(self, vitals: Vitals) -> Float32[Float32Array, "member field group"]:
        """Power of every field by group of waves, in the field's units squared."""
        return vitals[:, : len(self.fields) * len(self.waves)].reshape(len(vitals), len(self.fields), -1)

    def means(self, vitals: Vitals) -> Float32[Float32Array, "member 2"]:
        """Mean pressure at sea level, Pa, and water in the column, kg m⁻²; 0 where a state has none."""
        first = len(self.fields) * len(self.waves)
        return vitals[:, first : first + 2]

    def extremes(self, vitals: Vitals) -> Float32[Float32Array, "member 2 channel"]:
        """Smallest and largest value of every channel."""
        return vitals[:, -2 * self.channels :].reshape(len(vitals), 2, -1)
