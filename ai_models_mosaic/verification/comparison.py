"""Two forecasts on the same dates, draw by draw: ratios and differences of their scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from ..arrays import IntArray
from .evaluation import Evaluation, Interval, scores_of
from .tables import Row

COMPARED = ("rmse_mean", "crps_fair", "energy_score_fair", "rmse_members")
"""Scores that are compared, besides those of events; of one member, CRPS is its mean absolute error. Less is better."""


@dataclass(frozen=True)
class Comparison:
    """One score of a forecast against another's, on the dates, channels and leads of both.

    Parameters
    ----------
    score : str
        Name.
    units : bool
        Whether it has the channel's units.
    lead_hours : tuple of int
        Those of both.
    dates : array (channel, lead)
        How many both have.
    ratio, difference : arrays (channel, lead)
        The forecast's over, and less, the reference's: value, low and high end.
    """

    score: str
    units: bool
    lead_hours: tuple[int, ...]
    dates: IntArray
    ratio: Interval
    difference: Interval


def common(evaluation: Evaluation, reference: Evaluation) -> tuple[list[datetime], list[int]]:
    """Initial dates and lead times that both forecasts have; they can be compared if there are both.

    Parameters
    ----------
    evaluation, reference : Evaluation
        Of the same channels.
    """
    dates = sorted(set(evaluation.sums.dates) & set(reference.sums.dates))
    return dates, sorted(set(evaluation.sums.lead_hours) & set(reference.sums.lead_hours))


def comparisons(evaluation: Evaluation, reference: Evaluation) -> Iterator[Comparison]:
    """All that can be compared; nothing if the forecasts have no dates, leads or channels in common.

    The same dates are drawn for both, so the intervals are of the ratio and of the difference, not of two unrelated
    scores.

    Parameters
    ----------
    evaluation, reference : Evaluation
        Of the same channels.
    """
    dates, leads = common(evaluation, reference)
    if not dates or not leads or evaluation.sums.channels != reference.sums.channels:
        return
    block = evaluation.bootstrap.block_of(dates, leads[-1])
    mine, other = evaluation.on(dates, block), reference.on(dates, block)
    columns = [[each.sums.lead_hours.index(lead) for lead in leads] for each in (mine, other)]
    others = {score.name: score for score in scores_of(other.sums)}
    for score in scores_of(mine.sums):
        if score.name not in others or not _compared(score.name):
            continue
        # A date may lack a lead time or a channel in one of the two.
        both = mine.there(score)[..., columns[0]] & other.there(others[score.name])[..., columns[1]]
        ours = mine.replicated(score, columns[0], both)
        theirs = other.replicated(others[score.name], columns[1], both)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = mine.bootstrap.interval(ours / theirs)
        difference = mine.bootstrap.interval(ours - theirs)
        yield Comparison(score.name, score.in_units, tuple(leads), both.sum(axis=0), ratio, difference)


def _compared(name: str) -> bool:
    return name in COMPARED or (name.startswith("brier_") and not name.startswith("brier_skill_"))


def comparison_rows(evaluation: Evaluation, reference: Evaluation) -> Iterator[Row]:
    """Lines of ``comparison.csv``: a forecast's scores over another's, and less the other's.

    Parameters
    ----------
    evaluation, reference : Evaluation
        Of the same channels.
    """
    for comparison in comparisons(evaluation, reference):
        value, low, high = comparison.ratio
        for column, channel in enumerate(evaluation.sums.channels):
            for index, lead in enumerate(comparison.lead_hours):
                if not np.isfinite(value[column, index]):
                    continue
                difference, least, most = (float(ends[column, index]) for ends in comparison.difference)
                yield {
                    "forecast": evaluation.name,
                    "reference": reference.name,
                    "score": comparison.score,
                    "channel": channel.name,
                    "lead_hours": lead,
                    "ratio": float(value[column, index]),
                    "low": float(low[column, index]),
                    "high": float(high[column, index]),
                    "difference": difference,
                    "difference_low": least,
                    "difference_high": most,
                    "units": channel.units if comparison.units else "1",
                    "significant": "better" if most < 0 else "worse" if least > 0 else "",
                    "dates": int(comparison.dates[column, index]),
                }
