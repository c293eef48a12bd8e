"""How often events happen that were forecast with a probability, and would happen if the forecasts were right."""

from __future__ import annotations

import numpy as np

from ..arrays import FloatArray
from .bootstrap import Bootstrap

RELIABILITY_BINS = 11
"""Most bins of forecast probability; ensembles of fewer than 10 members have one per possible value."""


def bin_areas(probability: FloatArray, members: int, weights: FloatArray) -> FloatArray:
    """Area of every point in the bin of its probability, ``(lead, bin, point)``; zero in other bins.

    Parameters
    ----------
    probability : array (lead, point)
        Share of members for which the event happens.
    members : int
        Size of the ensemble.
    weights : array (point,)
        Sum 1.
    """
    bins = min(members + 1, RELIABILITY_BINS)
    # The nudge keeps the halves, which are exact in tenths only by luck, on one side.
    index = np.rint(probability * (bins - 1) - 1e-9)
    return np.where(index[:, None] == np.arange(bins)[:, None], weights, 0.0)


def reliability_counts(areas: FloatArray, probability: FloatArray, happened: FloatArray) -> FloatArray:
    """Area share, and sums of forecast probability and of events, by bin of probability, ``(lead, bin, 3)``.

    Parameters
    ----------
    areas : array (lead, bin, point)
        As `bin_areas` gives them.
    probability : array (lead, point)
        Share of members for which the event happens.
    happened : array (lead, point)
        1 where it did, else 0.
    """
    return areas @ np.stack([np.ones_like(probability), probability, happened], axis=-1)


def member_counts(areas: FloatArray, happens: FloatArray) -> FloatArray:
    """Sums of events of every member in the place of the truth, ``(lead, bin, member)``.

    Parameters
    ----------
    areas : array (lead, bin, point)
        As `bin_areas` gives them.
    happens : array (member, lead, point)
        1 where the event does, else 0.
    """
    return areas @ np.moveaxis(happens, 0, -1)


def consistency_interval(
    bootstrap: Bootstrap, block: int, area: FloatArray, of_members: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Between what ends observed frequencies would lie if forecasts were reliable, each ``(…, bin)``.

    Dates are drawn as for intervals, and for every date drawn one member, of all alike, is the truth: the event then
    happens at every place with the probability that was forecast there, and near places are as alike as they are in
    the forecasts, which independent draws at every point would not have.
    Source: Bröcker and Smith, Weather and Forecasting 22 (2007), consistency resampling.

    Parameters
    ----------
    bootstrap : Bootstrap
        Number of draws, seed and confidence.
    block : int
        Dates drawn together.
    area : array (date, …, bin)
        Area shares; NaN where there is nothing.
    of_members : array (date, …, bin, member)
        As `member_counts` gives them.
    """
    dates, members = len(area), of_members.shape[-1]
    counts = bootstrap.counts(dates, block)[1:]
    generator = np.random.Generator(np.random.Philox(key=np.array([bootstrap.seed, dates], dtype=np.uint64), counter=1))
    drawn = generator.multinomial(counts.astype(np.int64), np.full(members, 1 / members)).astype(np.float64)
    flat = np.moveaxis(np.nan_to_num(of_members), -1, 1).reshape(dates * members, -1)
    happened = drawn.reshape(len(drawn), dates * members) @ flat
    places = counts @ np.nan_to_num(area).reshape(dates, -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        frequency = (happened / places).reshape(len(counts), *area.shape[1:])
    # There may be no draws at all; the ends are then unknown, as those of intervals are.
    value = np.full((1, *area.shape[1:]), np.nan)
    _, low, high = bootstrap.interval(np.concatenate([value, frequency]))
    return low, high
