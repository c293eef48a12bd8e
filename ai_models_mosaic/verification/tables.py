"""Tidy tables: one line per number, with its interval and what it is of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .evaluation import Evaluation, scores_of

Row = dict[str, Any]
"""One line of a table, by column."""


def score_rows(evaluation: Evaluation) -> Iterator[Row]:
    """Lines of ``scores.csv``: every score of every channel and lead time."""
    sums = evaluation.sums
    for score in scores_of(sums):
        value, low, high = evaluation.bootstrap.interval(evaluation.replicated(score))
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


def spectrum_rows(evaluation: Evaluation) -> Iterator[Row]:
    """Lines of ``spectra.csv``: power by wavenumber of members, mean and truth, and the former over the latter."""
    sums = evaluation.sums
    if not sums.spectra:
        return
    mean = evaluation.mean(sums.spectra_power)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = [evaluation.bootstrap.interval(mean[:, :, :, kind] / mean[:, :, :, 2]) for kind in (0, 1)]
    dates = np.isfinite(sums.spectra_power[:, :, :, 2, 0]).sum(axis=0)
    for row, channel in enumerate(sums.spectra):
        for index, lead in enumerate(sums.lead_hours):
            if not dates[row, index]:
                continue
            for wavenumber in range(mean.shape[-1]):
                where = (row, index, wavenumber)
                line: Row = {
                    "forecast": evaluation.name,
                    "channel": channel.name,
                    "units": f"({channel.units})**2",
                    "lead_hours": lead,
                    "wavenumber": wavenumber,
                }
                for kind, name in enumerate(("members", "mean", "truth")):
                    line[f"{name}_power"] = float(mean[0, row, index, kind, wavenumber])
                for name, ends in zip(("members", "mean"), ratios, strict=True):
                    for end, values in zip(("", "_low", "_high"), ends, strict=True):
                        line[f"{name}_ratio{end}"] = float(values[where])
                yield line | {"dates": int(dates[row, index]), "members": sums.members}


def rank_rows(evaluation: Evaluation) -> Iterator[Row]:
    """Lines of ``rank_histogram.csv``: area share of every rank, over that of a flat histogram."""
    sums = evaluation.sums
    if not sums.ranks.shape[-1]:
        return
    value, low, high = evaluation.bootstrap.interval(evaluation.mean(sums.ranks) * (sums.members + 1))
    dates = np.isfinite(sums.ranks[..., 0]).sum(axis=0)
    for column, channel in enumerate(sums.channels):
        for index, lead in enumerate(sums.lead_hours):
            for rank in range(sums.members + 1) if dates[column, index] else ():
                yield {
                    "forecast": evaluation.name,
                    "channel": channel.name,
                    "lead_hours": lead,
                    "rank": rank,
                    "relative_frequency": float(value[column, index, rank]),
                    "low": float(low[column, index, rank]),
                    "high": float(high[column, index, rank]),
                    "dates": int(dates[column, index]),
                    "members": sums.members,
                }


def reliability_rows(evaluation: Evaluation) -> Iterator[Row]:
    """Lines of ``reliability.csv``: how often events happened that were forecast with a probability."""
    sums = evaluation.sums
    if not sums.events:
        return
    mean = evaluation.mean(sums.reliability)
    with np.errstate(invalid="ignore", divide="ignore"):
        happened = mean[..., 2] / mean[..., 0]
        forecast = mean[0, ..., 1] / mean[0, ..., 0]
    value, low, high = evaluation.bootstrap.interval(happened)
    dates = np.isfinite(sums.reliability[:, :, :, 0, 0, 0]).sum(axis=0)
    for column, channel in enumerate(sums.channels):
        for index, lead in enumerate(sums.lead_hours):
            for number, event in enumerate(sums.events if dates[column, index] else ()):
                for bin_ in range(mean.shape[-2]):
                    where = (column, index, number, bin_)
                    share = float(mean[(0, *where, 0)])
                    if not share:
                        continue
                    yield {
                        "forecast": evaluation.name,
                        "channel": channel.name,
                        "lead_hours": lead,
                        "event": event.name,
                        "forecast_probability": float(forecast[where]),
                        "observed_frequency": float(value[where]),
                        "low": float(low[where]),
                        "high": float(high[where]),
                        "share": share,
                        "dates": int(dates[column, index]),
                        "members": sums.members,
                    }


COMPARED = ("rmse_mean", "crps_fair", "rmse_members")
"""Scores whose ratios between forecasts are made; of one member, the CRPS is its mean absolute error."""


def comparison_rows(evaluation: Evaluation, reference: Evaluation) -> Iterator[Row]:
    """Lines of ``comparison.csv``: a forecast's score over another's, on the dates, channels and leads of both.

    The same dates are drawn for both, so the interval is of the ratio, not of two unrelated scores.
    """
    dates = sorted(set(evaluation.sums.dates) & set(reference.sums.dates))
    leads = sorted(set(evaluation.sums.lead_hours) & set(reference.sums.lead_hours))
    if not dates or not leads or evaluation.sums.channels != reference.sums.channels:
        return
    block = evaluation.bootstrap.block_of(dates, leads[-1])
    mine, other = evaluation.on(dates, block), reference.on(dates, block)
    columns = [[each.sums.lead_hours.index(lead) for lead in leads] for each in (mine, other)]
    others = {score.name: score for score in scores_of(other.sums)}
    for score in scores_of(mine.sums):
        if score.name not in COMPARED:
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = mine.replicated(score)[..., columns[0]] / other.replicated(others[score.name])[..., columns[1]]
        value, low, high = mine.bootstrap.interval(ratio)
        for column, channel in enumerate(mine.sums.channels):
            for index, lead in enumerate(leads):
                if np.isfinite(value[column, index]):
                    yield {
                        "forecast": mine.name,
                        "reference": other.name,
                        "score": score.name,
                        "channel": channel.name,
                        "lead_hours": lead,
                        "ratio": float(value[column, index]),
                        "low": float(low[column, index]),
                        "high": float(high[column, index]),
                        "dates": len(dates),
                    }
