"""A factor on the spread for every channel and lead time, such that members are as far from their mean as it errs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...arrays import FloatArray
from ...outputs.calibration import LIMITS
from ..evaluation import Evaluation
from .spectra import Bands

DIGITS = 4
"""Of a factor in a file: more are of the sample."""


@dataclass(frozen=True)
class Fit:
    """What was fitted.

    Parameters
    ----------
    factors : array (channel, lead)
    wanted : array (channel, lead)
        What spread alone asked for.
    cut_by : list of list of str
        What cut a factor, ``spectra`` or ``limits``; empty where nothing did.
    """

    factors: FloatArray
    wanted: FloatArray
    cut_by: list[list[str]]


def fit_spread(evaluation: Evaluation, bands: Bands) -> Fit:
    """Fit factors to the dates of an evaluation.

    Members that are M exchangeable draws, like the truth, have a mean whose squared error is (M + 1) / M of their
    variance (Fortin et al., J. Hydrometeorol. 15, 2014): the factor is what makes it so, means over points weighed by
    area, and over dates.

    Parameters
    ----------
    evaluation : Evaluation
        With spectra of all its channels.
    bands : Bands
        In which members' power may not leave the truth's.
    """
    sums = evaluation.sums
    there = np.isfinite(sums.terms["squared_error"]) & np.isfinite(sums.terms["variance"])
    error, variance = (evaluation.mean(sums.terms[name], there)[0] for name in ("squared_error", "variance"))
    share = sums.members / (sums.members + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        wanted = np.sqrt(share * error / variance)
    # No error and no spread: there is nothing to move.
    wanted = np.where(np.isnan(wanted), 1.0, wanted)
    low, high = bands.limits(evaluation.mean(sums.spectra_power)[0])
    kept = np.clip(wanted, low, high)
    factors = np.clip(kept, *LIMITS).round(DIGITS)
    return Fit(
        factors=factors,
        wanted=np.clip(wanted, 0.0, 1e6).round(DIGITS),
        cut_by=[
            [_cut_by(*values) for values in zip(*rows, strict=True)]
            for rows in zip(wanted, kept, np.clip(kept, *LIMITS), strict=True)
        ],
    )


def _cut_by(wanted: float, kept: float, factor: float) -> str:
    if factor != kept:
        return "limits"
    return "spectra" if kept != wanted else ""
