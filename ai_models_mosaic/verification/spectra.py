"""Spherical-harmonic power spectra of fields on latitude-longitude grids.

The coefficients are those of the field's trigonometric interpolant: a Fourier series along every circle of latitude,
continued over the poles with the parity that smooth fields have, and projected on the associated Legendre functions
with a Gaussian quadrature fine enough to be exact. So every field of total wavenumber up to the limit is analysed to
rounding, which the quadratures on the grid's own points are only to half of it. All of it is linear, and the same for
every field of a grid: one matrix per zonal wavenumber.
Source: Driscoll and Healy, Adv. Appl. Math. 15 (1994), for the problem; Reinecke and Seljebotn, Astron. Astrophys. 554
(2013), and Clenshaw-Curtis quadrature, for the way over the poles.
"""

from __future__ import annotations

import numpy as np
from scipy.special import roots_legendre, sph_legendre_p_all

from ..arrays import FloatArray
from ..errors import InputError
from ..geometry.grid import LatLonGrid

LARGEST_GROWTH = 12.0
"""Of rounding, in the series through the latitudes: 3 to 7 on regular and Gaussian grids."""


class PowerSpectrum:
    """Power by total wavenumber of fields on one grid.

    Parameters
    ----------
    grid : LatLonGrid
        Evenly spaced in longitude, and in latitude nearly so: regular with or without pole rows, or Gaussian.

    Raises
    ------
    InputError
        If longitudes are not evenly spaced, or latitudes so uneven that the analysis would amplify rounding.
    """

    def __init__(self, grid: LatLonGrid) -> None:
        columns, rows = grid.shape
        steps = np.diff(grid.longitude_deg)
        if not np.allclose(steps, 360 / columns, atol=0.01):
            raise InputError(
                f"spectra need evenly spaced longitudes, got steps of {steps.min():g}° to {steps.max():g}°"
            )
        # Towards the south pole the series runs in colatitude, as the Legendre functions do.
        colatitude = np.radians(90 - np.array(grid.latitude_deg))
        poles = int(np.isclose(np.sin(colatitude), 0, atol=1e-6).sum())
        self.maximum = min(rows - (2 if poles else 1), (columns - 1) // 2)
        """Highest total wavenumber."""
        self._matrices = _analysis_matrices(colatitude, poles, self.maximum)
        """``(zonal wavenumber, latitude, total wavenumber)``; zero below the diagonal."""

    def __call__(self, fields: FloatArray) -> FloatArray:
        """Power by total wavenumber, ``(…, wavenumber)``, in the field's units squared.

        The sum over wavenumbers is the area mean of the square of the field, as far as the grid resolves it.

        Parameters
        ----------
        fields : array (…, lon, lat)
        """
        return power_of(self.coefficients(fields))

    def coefficients(self, fields: FloatArray) -> FloatArray:
        """Real coefficients of spherical harmonics, ``(…, coefficient, wavenumber)``, in the field's units.

        Cosines, then sines, of every zonal wavenumber from 0 on; zero where the zonal wavenumber is above the total,
        and for the sine of 0. Their squares sum to the area mean of the square of the field.

        Parameters
        ----------
        fields : array (…, lon, lat)
        """
        columns, rows = fields.shape[-2:]
        flat = np.asarray(fields, dtype=np.float64).reshape(-1, columns, rows)
        waves = np.fft.rfft(flat, axis=1)[:, : self.maximum + 1] / columns
        # Both halves of the spectrum are in one coefficient, but for the zonal mean, which has one half only.
        waves[:, 1:] *= np.sqrt(2)
        # Real and imaginary parts together: real products are half the work.
        parts = np.concatenate([waves.real, waves.imag]).transpose(1, 0, 2)
        products = (parts @ self._matrices).reshape(self.maximum + 1, 2, len(flat), -1)
        return products.transpose(2, 0, 1, 3).reshape(*fields.shape[:-2], 2 * (self.maximum + 1), -1)


def power_of(coefficients: FloatArray) -> FloatArray:
    """Power by total wavenumber, ``(…, wavenumber)``, of coefficients ``(…, coefficient, wavenumber)``."""
    return np.einsum("...cw,...cw->...w", coefficients, coefficients)


def _analysis_matrices(colatitude: FloatArray, poles: int, maximum: int) -> FloatArray:
    """From Fourier coefficients on circles of latitude to coefficients of spherical harmonics.

    Normalised such that the squares sum to the mean square over the sphere.
    """
    count = colatitude.size
    nodes, quadrature = roots_legendre(count + maximum)
    fine = np.arccos(nodes)
    # sph_legendre_p_all is normalised to 1 / 2π over the sines of latitude: (degree, order, node).
    legendre = sph_legendre_p_all(maximum, maximum, fine)[0][:, : maximum + 1]
    matrices = np.zeros((maximum + 1, count, maximum + 1))
    even, odd = np.arange(count), np.arange(1, count + 1 - poles)
    for zonal in range(maximum + 1):
        # Over the pole a wave comes in with the sign (−1)^m: cosines or sines of colatitude.
        function, modes = (np.sin, odd) if zonal % 2 else (np.cos, even)
        onto_fine = _interpolation(function(np.outer(colatitude, modes)), function(np.outer(fine, modes)))
        projection = legendre[:, zonal] * quadrature * np.sqrt(np.pi)
        matrices[zonal] = (projection @ onto_fine).T
    return matrices


def _interpolation(coarse: FloatArray, fine: FloatArray) -> FloatArray:
    """Values at the fine points of the series through those at the coarse ones."""
    inverse = np.linalg.pinv(coarse)
    growth = np.abs(fine @ inverse).sum(axis=1).max()
    if growth > LARGEST_GROWTH:
        raise InputError(
            f"spectra need latitudes that are nearly evenly spaced; the series through {len(coarse)} of these "
            f"amplifies rounding {growth:.3g} times. Regrid to a regular or Gaussian grid"
        )
    return fine @ inverse
