"""A factor on the noise for every lead time, from forecasts that were made with several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...arrays import FloatArray
from ..evaluation import Evaluation
from .spectra import Bands
from .spread import DIGITS

GRID_POINTS = 401
"""Factors that are tried between those of the forecasts."""

TOLERANCE = 0.02
"""Distance of spread over error from 1 at which a factor at the end of those tried is the right one all the same."""


@dataclass(frozen=True)
class NoiseFit:
    """What was fitted.

    Parameters
    ----------
    factors : array (lead,)
    cut_by : list of str
        ``spectra``, or ``range`` where no factor that was tried suffices; empty where nothing cut it.
    """

    factors: FloatArray
    cut_by: list[str]


def spread_over_error(evaluation: Evaluation) -> FloatArray:
    """Spread over error, the geometric mean over channels: the sample's and every draw's, ``(replicate + 1, lead)``."""
    sums = evaluation.sums
    there = np.isfinite(sums.terms["squared_error"]) & np.isfinite(sums.terms["variance"])
    error, variance = (evaluation.mean(sums.terms[name], there) for name in ("squared_error", "variance"))
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithm = np.log((sums.members + 1) / sums.members * variance / error) / 2
    averaged: FloatArray = np.exp(logarithm.mean(axis=1))
    return averaged


def interpolated(values: Mapping[float, FloatArray], factors: FloatArray) -> FloatArray:
    """Positive numbers that forecasts with some noise factors have, at others, ``(…, lead)``: linear in logarithms.

    Parameters
    ----------
    values : mapping of float to array (…, lead)
        By noise factor.
    factors : array (lead,)
        Within the range of those.
    """
    known = np.array(sorted(values))
    logarithm = np.log(np.stack([values[factor] for factor in known]))
    index = np.clip(np.searchsorted(known, factors) - 1, 0, len(known) - 2)
    share = (factors - known[index]) / (known[index + 1] - known[index])
    leads = np.arange(len(factors))
    low, high = logarithm[index, ..., leads], logarithm[index + 1, ..., leads]
    mixed = low + share.reshape(-1, *[1] * (low.ndim - 1)) * (high - low)
    return np.moveaxis(np.exp(mixed), 0, -1)


def fit_noise(evaluations: Mapping[float, Evaluation], bands: Bands) -> NoiseFit:
    """Fit factors to the dates of some evaluations, alike for all.

    For every lead time, the factor for which spread is as large as the error; among those, though, with which members'
    power leaves the bound no farther than without a factor.

    Parameters
    ----------
    evaluations : mapping of float to Evaluation
        By the noise factor that the forecasts were made with; at least two, with 1 among or between them.
    bands : Bands
    """
    spread = {factor: spread_over_error(one)[0] for factor, one in evaluations.items()}
    ratios = {factor: bands.ratio(one.mean(one.sums.spectra_power)[0]) for factor, one in evaluations.items()}
    # Channels and bands stand before lead times, which interpolation goes along.
    ratios = {factor: np.moveaxis(ratio, 1, -1) for factor, ratio in ratios.items()}
    leads = len(next(iter(spread.values())))
    tried = np.linspace(min(spread), max(spread), GRID_POINTS)
    tried = np.unique(np.append(tried, 1.0))
    off = np.stack([_beyond(interpolated(ratios, np.full(leads, factor)), bands.bound) for factor in tried])
    distance = np.stack([abs(np.log(interpolated(spread, np.full(leads, factor)))) for factor in tried])
    usual = off[np.searchsorted(tried, 1.0)]
    allowed = off <= usual + 1e-9
    best = np.where(allowed, distance, np.inf).argmin(axis=0)
    free = distance.argmin(axis=0)
    cut = []
    for lead in range(leads):
        at_end = free[lead] in (0, len(tried) - 1) and distance[free[lead], lead] > TOLERANCE
        cut.append("spectra" if best[lead] != free[lead] else "range" if at_end else "")
    return NoiseFit(tried[best].round(DIGITS), cut)


def _beyond(ratio: FloatArray, bound: float) -> FloatArray:
    """How far the worst band of the worst channel is beyond the bound, ``(lead,)``; 0 within."""
    flat = abs(ratio.reshape(-1, ratio.shape[-1]) - 1) - bound
    return np.maximum(np.nan_to_num(flat, nan=0.0).max(axis=0), 0.0)
