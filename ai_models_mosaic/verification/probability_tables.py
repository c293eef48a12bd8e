"""Tables of probabilities: ranks, the integral transform, reliability."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..arrays import FloatArray
from .evaluation import Evaluation
from .reliability import consistency_interval
from .tables import Row

PIT_BINS = 10
"""Of histograms of the integral transform, whatever the size of the ensemble."""


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


def pit_histogram(evaluation: Evaluation) -> FloatArray:
    """Density of the integral transform in `PIT_BINS`, of the sample and every replicate, ``(replicate + 1, …, bin)``.

    Every rank is spread over its interval (`scores.pit_terms`).
    """
    count = evaluation.sums.members + 1
    edges, steps = np.linspace(0, 1, PIT_BINS + 1), np.arange(count + 1) / count
    overlap = np.minimum(edges[1:], steps[1:, None]) - np.maximum(edges[:-1], steps[:-1, None])
    return evaluation.mean(evaluation.sums.ranks) @ (np.maximum(overlap, 0.0) * count * PIT_BINS)


def pit_rows(evaluation: Evaluation) -> Iterator[Row]:
    """Lines of ``pit.csv``: density of the probability integral transform of the truth; 1 if it is like a member."""
    sums = evaluation.sums
    if not sums.ranks.shape[-1]:
        return
    value, low, high = evaluation.bootstrap.interval(pit_histogram(evaluation))
    dates = np.isfinite(sums.ranks[..., 0]).sum(axis=0)
    for column, channel in enumerate(sums.channels):
        for index, lead in enumerate(sums.lead_hours):
            for bin_ in range(PIT_BINS) if dates[column, index] else ():
                yield {
                    "forecast": evaluation.name,
                    "channel": channel.name,
                    "lead_hours": lead,
                    "from": bin_ / PIT_BINS,
                    "to": (bin_ + 1) / PIT_BINS,
                    "density": float(value[column, index, bin_]),
                    "low": float(low[column, index, bin_]),
                    "high": float(high[column, index, bin_]),
                    "dates": int(dates[column, index]),
                    "members": sums.members,
                }


@dataclass(frozen=True)
class Reliability:
    """What happened by what was forecast, arrays ``(channel, lead, event, bin)``; NaN in bins without forecasts.

    Parameters
    ----------
    forecast, observed, share : array
        Mean forecast probability, frequency of the event, and share of all forecasts.
    low, high : array
        Interval of the frequency.
    consistent_low, consistent_high : array
        Between which it would lie if the forecasts were reliable.
    """

    forecast: FloatArray
    observed: FloatArray
    share: FloatArray
    low: FloatArray
    high: FloatArray
    consistent_low: FloatArray
    consistent_high: FloatArray


def reliability_of(evaluation: Evaluation) -> Reliability:
    """The reliability of all events, with intervals and bars of consistency.

    Parameters
    ----------
    evaluation : Evaluation
        With events.
    """
    sums = evaluation.sums
    mean = evaluation.mean(sums.reliability)
    with np.errstate(invalid="ignore", divide="ignore"):
        happened = mean[..., 2] / mean[..., 0]
        forecast = mean[0, ..., 1] / mean[0, ..., 0]
    ends = evaluation.bootstrap.interval(happened)
    bars = consistency_interval(evaluation.bootstrap, evaluation.block, sums.reliability[..., 0], sums.consistency)
    return Reliability(forecast, ends[0], mean[0, ..., 0], *ends[1:], *bars)


def reliability_rows(evaluation: Evaluation) -> Iterator[Row]:
    """Lines of ``reliability.csv``: how often events happened that were forecast with a probability."""
    sums = evaluation.sums
    if not sums.events:
        return
    reliability = reliability_of(evaluation)
    dates = np.isfinite(sums.reliability[:, :, :, 0, 0, 0]).sum(axis=0)
    for where in np.argwhere(reliability.share > 0).tolist():
        column, index, number, _ = where
        place = tuple(where)
        yield {
            "forecast": evaluation.name,
            "channel": sums.channels[column].name,
            "lead_hours": sums.lead_hours[index],
            "event": sums.events[number].name,
            "forecast_probability": float(reliability.forecast[place]),
            "observed_frequency": float(reliability.observed[place]),
            "low": float(reliability.low[place]),
            "high": float(reliability.high[place]),
            "consistency_low": float(reliability.consistent_low[place]),
            "consistency_high": float(reliability.consistent_high[place]),
            "share": float(reliability.share[place]),
            "dates": int(dates[column, index]),
            "members": sums.members,
        }
