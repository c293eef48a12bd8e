"""Tidy tables: one line per number, with its interval and what it is of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .evaluation import Evaluation, scores_of

Row = dict[str, Any]
"""One line of a table, by column."""


def score_rows(evaluation: Evaluation) -> Iterator[Row]:
    """Lines of ``scores.csv``: every score of every channel and lead time."""
    sums = evaluation.sums
    for score in scores_of(sums):
        value, low, high = evaluation.interval_of(score)
        dates = evaluation.there(score).sum(axis=0)
        for column, channel in enumerate(sums.channels):
            for index, lead in enumerate(sums.lead_hours):
                if dates[column, index]:
                    yield {
                        "forecast": evaluation.name,
                        "score": score.name,
                        "channel": channel.name,
                        "units": channel.units if score.in_units else "1",
                        "lead_hours": lead,
                        "value": float(value[column, index]),
                        "low": float(low[column, index]),
                        "high": float(high[column, index]),
                        "dates": int(dates[column, index]),
                        "members": sums.members,
                    }
