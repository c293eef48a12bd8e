"""What came of a fit on dates that it did not see: for the file, and for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ...arrays import FloatArray
from ..evaluation import Evaluation, scores_of
from .noise import NoiseFit, interpolated, spread_over_error
from .spectra import Bands
from .spread import Fit

SCORES = ("spread_skill", "crps_fair")
"""Told before and after."""


def spread_scores(before: Evaluation, after: Evaluation, fit: Fit, bands: Bands) -> Iterator[dict[str, Any]]:
    """Scores of every channel and lead time before and after, with intervals: ``[value, low, high]``.

    Parameters
    ----------
    before, after : Evaluation
        Of the same dates, which the fit did not see; with the same draws.
    fit : Fit
    bands : Bands
    """
    sums = after.sums
    scores = {score.name: score for score in scores_of(sums) if score.name in SCORES}
    pairs = {name: (before.replicated(score), after.replicated(score)) for name, score in scores.items()}
    with np.errstate(invalid="ignore", divide="ignore"):
        compared = pairs["crps_fair"][1] / pairs["crps_fair"][0]
    power = [bands.ratio(one.mean(one.sums.spectra_power)) for one in (before, after)]
    for row, channel in enumerate(sums.channels):
        for column, lead in enumerate(sums.lead_hours):
            where = (slice(None), row, column)
            yield {
                "channel": channel.name,
                "lead_hours": lead,
                "factor": float(fit.factors[row, column]),
                "wanted": float(fit.wanted[row, column]),
                "cut_by": fit.cut_by[row][column],
                **{name: _pair(after, values[0][where], values[1][where]) for name, values in pairs.items()},
                "crps_fair_ratio": _interval(after, compared[where]),
                "power_ratio": {
                    name: _pair(after, power[0][(*where, band)], power[1][(*where, band)])
                    for band, name in enumerate(bands.names)
                },
            }


def noise_scores(trials: Mapping[float, Evaluation], fit: NoiseFit) -> Iterator[dict[str, Any]]:
    """Spread over error of every lead time with factor 1, and what interpolation expects of the fitted one.

    Parameters
    ----------
    trials : mapping of float to Evaluation
        By noise factor, of dates that the fit did not see.
    fit : NoiseFit
    """
    spread = {factor: spread_over_error(one) for factor, one in trials.items()}
    any_trial = next(iter(trials.values()))
    usual, expected = interpolated(spread, np.ones_like(fit.factors)), interpolated(spread, fit.factors)
    for column, lead in enumerate(any_trial.sums.lead_hours):
        yield {
            "lead_hours": lead,
            "factor": float(fit.factors[column]),
            "cut_by": fit.cut_by[column],
            "spread_skill": _pair(any_trial, usual[:, column], expected[:, column]),
        }


def spread_lines(rows: list[dict[str, Any]], labels: Mapping[str, str]) -> Iterator[str]:
    """The table as it is printed; fields under their short names."""
    yield (
        f"{'':8}{'lead':>6}{'factor':>8}  {'cut by':8}{'spread/skill before':>26}{'after':>22}{'CRPS after/before':>24}"
        f"{'power/truth before':>20}{'after':>12}"
    )
    for row in rows:
        spread = row["spread_skill"]
        yield (
            f"{labels[row['channel']]:8}{row['lead_hours']:>4} h{row['factor']:>8.3f}  {row['cut_by']:8}"
            f"{_shown(spread['before']):>26}{_shown(spread['after']):>22}{_shown(row['crps_fair_ratio'], 3):>24}"
            f"{_range(row, 'before'):>20}{_range(row, 'after'):>12}"
        )


def noise_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The table as it is printed."""
    yield f"{'lead':>6}{'factor':>8}  {'cut by':8}{'spread/skill with 1':>26}{'expected':>22}"
    for row in rows:
        spread = row["spread_skill"]
        yield (
            f"{row['lead_hours']:>4} h{row['factor']:>8.3f}  {row['cut_by']:8}{_shown(spread['before']):>26}"
            f"{_shown(spread['after']):>22}"
        )


def _range(row: Mapping[str, Any], when: str) -> str:
    values = [pair[when][0] for pair in row["power_ratio"].values() if pair[when][0] is not None]
    return f"{min(values):.2f}–{max(values):.2f}" if values else "–"


def _shown(interval: list[float | None], digits: int = 2) -> str:
    value, low, high = interval
    if value is None:
        return "–"
    ends = "" if low is None or high is None else f" ({low:.{digits}f}–{high:.{digits}f})"
    return f"{value:.{digits}f}{ends}"


def _pair(evaluation: Evaluation, before: FloatArray, after: FloatArray) -> dict[str, list[float | None]]:
    return {"before": _interval(evaluation, before), "after": _interval(evaluation, after)}


def _interval(evaluation: Evaluation, replicated: FloatArray) -> list[float | None]:
    """Value, low and high end; null for what there is not."""
    found = evaluation.bootstrap.interval(replicated[:, None])
    return [float(f"{end[0]:.5g}") if np.isfinite(end[0]) else None for end in found]
