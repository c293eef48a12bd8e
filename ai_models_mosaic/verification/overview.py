"""The numbers that a person looks for first, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..wording.numbers import counted
from .evaluation import Evaluation, scores_of

COLUMNS = {
    "rmse_mean": "RMSE",
    "rmse_persistence": "persistence",
    "rmse_climatology": "climatology",
    "crps_fair": "CRPS",
    "spread_skill": "spread/skill",
}
"""Scores shown, and their headings."""

LEADS_SHOWN = 5
"""Lead times of a table, from the first to the last."""

WIDTH = 13


def overview(evaluation: Evaluation) -> Iterator[str]:
    """Lines for one forecast system: a row per channel and lead time; a dash where there is no such score.

    Parameters
    ----------
    evaluation : Evaluation
        Its scores.
    """
    sums = evaluation.sums
    found = {score.name: evaluation.interval_of(score)[0] for score in scores_of(sums) if score.name in COLUMNS}
    yield f"{evaluation.name}: {counted(len(sums.dates), 'initial date')}, {counted(sums.members, 'member')}"
    yield f"{'':18}{'lead':>6}" + "".join(f"{heading:>{WIDTH}}" for heading in COLUMNS.values())
    last = len(sums.lead_hours) - 1
    for column, channel in enumerate(sums.channels):
        for index in np.unique(np.linspace(0, last, min(LEADS_SHOWN, last + 1)).round().astype(int)):
            numbers = [_number(found[name][column, index]) if name in found else "–" for name in COLUMNS]
            row = "".join(f"{number:>{WIDTH}}" for number in numbers)
            yield f"{channel.label + ', ' + channel.units:18}{sums.lead_hours[index]:>4} h{row}"


def _number(value: float) -> str:
    return f"{value:.4g}" if np.isfinite(value) else "–"
