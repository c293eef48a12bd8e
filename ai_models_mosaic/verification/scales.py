"""Errors and the CRPS by scale, from coefficients of spherical harmonics."""

from __future__ import annotations

import numpy as np

from ..arrays import FloatArray
from .scores import half_difference
from .spectra import PowerSpectrum, power_of

DISTANCE, HALF_DIFFERENCE, MEMBER_ERROR, MEAN_ERROR, REFERENCE = range(5)
"""What `scale_terms` keeps by degree: the terms of the CRPS, then power."""


def scale_terms(
    transform: PowerSpectrum, error: FloatArray, truth: FloatArray, normal: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    """Power and errors of one channel and date by total wavenumber.

    The CRPS of degree n is that of each of its 2n + 1 real coefficients, summed and divided by √(2n + 1): in the units
    of the field, and for isotropic normal fields the CRPS at points of the field with that degree alone.

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
        Power of the members on average, of their mean, and of the truth.
    scales : array (lead, 5, wavenumber)
        Mean distance and half difference, which is zero for one member; power of the members' errors on average, and of
        that of their mean; power of the truth less the climatological mean, if there is one.
    """
    spectra, scales = [], []
    # One lead after the other: the coefficients are as many as the fields' points.
    for index, field in enumerate(truth):
        errors, right = transform.coefficients(error[:, index]), transform.coefficients(field)
        mean = errors.mean(axis=0)
        anomaly = right if normal is None else transform.coefficients(field - normal[index])
        spectra.append([power_of(errors + right).mean(axis=0), power_of(mean + right), power_of(right)])
        half = half_difference(errors) if len(errors) > 1 else np.zeros_like(mean)
        crps = [_by_degree(np.abs(errors).mean(axis=0)), _by_degree(half)]
        scales.append([*crps, power_of(errors).mean(axis=0), power_of(mean), power_of(anomaly)])
    return np.array(spectra), np.array(scales)


def _by_degree(values: FloatArray) -> FloatArray:
    """Sum over the coefficients ``(coefficient, degree)`` of every degree, over the root of their number."""
    degrees = np.arange(values.shape[-1])
    return values.sum(axis=0) / np.sqrt(2 * degrees + 1)
