"""Errors and the CRPS by scale, from coefficients of spherical harmonics."""

from __future__ import annotations

import numpy as np

from ..arrays import FloatArray
from .scores import half_difference
from .spectra import PowerSpectrum, power_of

SPECTRA = ("members", "mean", "truth")
"""Kinds of power that `scale_terms` returns first."""

SCALES = ("distance", "half_difference", "member_error", "mean_error", "reference")
"""What it returns by degree besides."""


def scale_terms(
    transform: PowerSpectrum, error: FloatArray, truth: FloatArray, normal: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    """Power and errors of one channel and date by total wavenumber.

    The CRPS of degree n is that of each of its 2n + 1 real coefficients, summed and divided by √(2n + 1): in the units of
    the field, and for isotropic normal fields the CRPS at points of the field with that degree alone.

    Parameters
    ----------
    transform : PowerSpectrum
        Of the grid.
    error : float64 array (member, lead, lon, lat)
        Member − truth.
    truth : array (lead, lon, lat)
    normal : array (lead, lon, lat) or None
        Climatological mean.

    Returns
    -------
    spectra : array (lead, 3, wavenumber)
        Power, in the order of `SPECTRA`.
    scales : array (lead, 5, wavenumber)
        In the order of `SCALES`: terms of the CRPS, the half difference zero for one member; power of the members' errors
        and of that of their mean; power of the truth less the climatological mean, if there is one.
    """
    spectra, scales = [], []
    # One lead after the other: the coefficients are as many as the fields' points.
    for index, field in enumerate(truth):
        errors, right = transform.coefficients(error[:, index]), transform.coefficients(field)
        mean = errors.mean(axis=0)
        anomaly = right if normal is None else transform.coefficients(field - normal[index])
        spectra.append([power_of(errors + right).mean(axis=0), power_of(mean + right), power_of(right)])
        distance, half = np.abs(errors).mean(axis=0), np.zeros_like(mean)
        if len(errors) > 1:
            half = half_difference(errors)
        scales.append(
            [
                _by_degree(distance),
                _by_degree(half),
                power_of(errors).mean(axis=0),
                power_of(mean),
                power_of(anomaly),
            ]
        )
    return np.array(spectra), np.array(scales)


def _by_degree(values: FloatArray) -> FloatArray:
    """Sum over the coefficients ``(coefficient, degree)`` of every degree, over the root of their number."""
    degrees = np.arange(values.shape[-1])
    return values.sum(axis=0) / np.sqrt(2 * degrees + 1)
