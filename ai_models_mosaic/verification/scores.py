"""Area means of one forecast's errors: the terms that every score is made of.

A score over many dates is a function of the means of these terms over dates, so they are all that needs to be
kept: one number per date, channel, lead time and term. Everything works on errors (member − truth), in which
large constants such as the geopotential's have cancelled.
"""

from __future__ import annotations

import numpy as np

from ..arrays import FloatArray
from ..geometry.grid import LatLonGrid


def area_weights(grid: LatLonGrid) -> FloatArray:
    """Share of the sphere's area of every point, ``(lon, lat)``, sum 1; rows at the poles have half a cell."""
    columns, _ = grid.shape
    return np.broadcast_to(grid.cell_weights() / columns, grid.shape).copy()


def error_terms(error: FloatArray, weights: FloatArray) -> dict[str, FloatArray]:
    """Area means of an ensemble's errors.

    Source for the fair CRPS: Ferro, Q. J. R. Meteorol. Soc. 140 (2014); for the sum over sorted members:
    Hersbach, Weather and Forecasting 15 (2000).

    Parameters
    ----------
    error : float64 array (member, lead, point)
        Member − truth.
    weights : array (point,)
        Sum 1.

    Returns
    -------
    dict of str to array (lead,)
        ``error`` and ``squared_error``, ``absolute_error`` of the mean; ``member_squared_error`` and
        ``member_absolute_error``, averaged over members; ``half_difference``, the mean of ½|xᵢ − xⱼ| over pairs of
        *different* members; ``variance``, over members with M − 1. The last two are absent for one member.
    """
    members = error.shape[0]
    mean = error.mean(axis=0)
    terms = {
        "error": mean @ weights,
        "squared_error": mean**2 @ weights,
        "absolute_error": np.abs(mean) @ weights,
        "member_squared_error": (error**2).mean(axis=0) @ weights,
        "member_absolute_error": np.abs(error).mean(axis=0) @ weights,
    }
    if members > 1:
        terms["half_difference"] = half_difference(error) @ weights
        squares = terms["member_squared_error"] - terms["squared_error"]
        # Rounding alone can make the variance of equal members negative.
        terms["variance"] = np.maximum(squares, 0.0) * members / (members - 1)
    return terms


def half_difference(values: FloatArray) -> FloatArray:
    """½ E|xᵢ − xⱼ| over pairs of different members, of the first axis, ``(…)``."""
    members = values.shape[0]
    # The sum of |xᵢ − xⱼ| over pairs counts the k-th smallest (2k − M − 1) times.
    factors = (2.0 * np.arange(1, members + 1) - members - 1) / (members * (members - 1))
    return np.tensordot(factors, np.sort(values, axis=0), axes=1)


def reference_terms(name: str, error: FloatArray, weights: FloatArray) -> dict[str, FloatArray]:
    """Area means of the errors of a single reference forecast, ``(lead,)``.

    Parameters
    ----------
    name : str
        What the terms begin with.
    error : array (lead, point)
        Reference − truth; NaN where there is no reference.
    weights : array (point,)
        Sum 1.
    """
    return {f"{name}_squared_error": error**2 @ weights, f"{name}_absolute_error": np.abs(error) @ weights}


def anomaly_terms(forecast: FloatArray, truth: FloatArray, weights: FloatArray) -> dict[str, FloatArray]:
    """Area means of products of anomalies, for the anomaly correlation, ``(lead,)``.

    Parameters
    ----------
    forecast, truth : array (lead, point)
        Ensemble mean and truth, less the climatology.
    weights : array (point,)
        Sum 1.
    """
    return {
        "anomaly_product": (forecast * truth) @ weights,
        "anomaly_forecast": forecast**2 @ weights,
        "anomaly_truth": truth**2 @ weights,
    }


def rank_counts(error: FloatArray, weights: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Area share of every rank of the truth among the members, ``(lead, member + 1)``.

    Equal values, frequent in packed fields and in humidity, are put in an order drawn at random: otherwise they
    would pile up in a rank of their own making (Hamill, Mon. Weather Rev. 129, 2001).

    Parameters
    ----------
    error : array (member, lead, point)
        Member − truth.
    weights : array (point,)
        Sum 1.
    generator : numpy.random.Generator
        Used for ties only.
    """
    members, leads, _ = error.shape
    rank = np.count_nonzero(error < 0, axis=0)
    ties = np.count_nonzero(error == 0, axis=0)
    tied = ties > 0
    if tied.any():
        rank[tied] += generator.integers(0, ties[tied] + 1)
    flat = rank + (members + 1) * np.arange(leads)[:, None]
    area = np.broadcast_to(weights, flat.shape)
    shares: FloatArray = np.bincount(flat.ravel(), area.ravel(), minlength=leads * (members + 1)).astype(np.float64)
    return shares.reshape(leads, members + 1)


def pit_terms(ranks: FloatArray) -> dict[str, FloatArray]:
    """Area means of the probability integral transform of the truth and of its square, ``(lead,)``.

    Of a truth with k of M members below it the transform lies anywhere between k / (M + 1) and (k + 1) / (M + 1) alike,
    so it is uniform, whatever M, where the truth is like a further member. The mean over that interval is taken, not a
    draw from it.
    Source: Czado, Gneiting and Held, Biometrics 65 (2009), for the transform that is not randomised.

    Parameters
    ----------
    ranks : array (lead, member + 1)
        Area shares, as `rank_counts` gives them.
    """
    count = ranks.shape[-1]
    middle = (np.arange(count) + 0.5) / count
    return {"pit": ranks @ middle, "pit_squared": ranks @ (middle**2 + 1 / (12 * count**2))}


def energy_terms(error: FloatArray, weights: FloatArray) -> dict[str, FloatArray]:
    """Distances of whole fields, ``(lead,)``, of which the energy score is made.

    Source: Gneiting and Raftery, J. Am. Stat. Assoc. 102 (2007); the distance is the root of the area mean of the
    squared difference.

    Parameters
    ----------
    error : float64 array (member, lead, point)
        Member − truth.
    weights : array (point,)
        Sum 1.

    Returns
    -------
    dict of str to array (lead,)
        ``field_distance`` of members from the truth, on average; ``field_half_difference``, half the mean distance of
        pairs of *different* members, absent for one member.
    """
    members = error.shape[0]
    rooted = (error * np.sqrt(weights)).swapaxes(0, 1)
    products = rooted @ rooted.swapaxes(1, 2)
    squares = np.diagonal(products, axis1=1, axis2=2)
    terms = {"field_distance": np.sqrt(squares).mean(axis=1)}
    if members > 1:
        # Rounding alone can make the distance of equal members negative.
        apart = np.sqrt(np.maximum(squares[:, :, None] + squares[:, None] - 2 * products, 0.0))
        terms["field_half_difference"] = apart.sum(axis=(1, 2)) / (2 * members * (members - 1))
    return terms


def event_terms(
    name: str, chance: float, probability: FloatArray, happened: FloatArray, members: int, weights: FloatArray
) -> dict[str, FloatArray]:
    """Area means for the Brier score of an event, ``(lead,)``.

    Source for the fair score: Ferro, Q. J. R. Meteorol. Soc. 140 (2014): less p (1 − p) / (M − 1).

    Parameters
    ----------
    name : str
        What the terms begin with.
    chance : float
        Climatological probability of the event.
    probability : array (lead, point)
        Share of members for which it happens.
    happened : array (lead, point)
        1 where it did, else 0.
    members : int
        Size of the ensemble.
    weights : array (point,)
        Sum 1.
    """
    terms = {
        f"{name}_brier": (probability - happened) ** 2 @ weights,
        f"{name}_climatology_brier": (chance - happened) ** 2 @ weights,
    }
    if members > 1:
        terms[f"{name}_sampling"] = (probability * (1 - probability)) @ weights / (members - 1)
    return terms
