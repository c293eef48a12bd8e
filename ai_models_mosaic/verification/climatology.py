"""What usually is: the reference that a forecast must beat, learnt from years that it is not verified on.

Mean: for every point and hour of the day, a constant and harmonics of the year, by least squares over all times of a
training period in one pass; unlike means by calendar day it does not follow the weather of a few years. Distribution:
quantiles of the deviations from it, by calendar month together with its two neighbours. A forecast of the climatology
is that distribution, and events are its quantiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Protocol

import numpy as np

from ..arrays import FloatArray
from ..channels import Channel
from ..errors import InputError
from ..geometry.grid import LatLonGrid
from .cases import Truth
from .scores import half_difference

HARMONICS = 2
"""The year and the half year."""

YEAR_DAYS = 365.2425

QUANTILES = 20
"""Equally likely values that stand for the distribution, at (i − ½) / 20."""

SAMPLES = 2000
"""Most times of the training period that the quantiles are taken from, evenly chosen."""

BLOCK = 64
"""Times read at once."""


@dataclass(frozen=True)
class Climate:
    """The climatology of one channel.

    Parameters
    ----------
    coefficients : dict of int to array (coefficient, lon, lat)
        By second of the day.
    quantiles : float32 array (month, quantile, lon, lat)
        Deviations at (i − ½) / QUANTILES.
    thresholds : float32 array (month, event, lon, lat)
        Deviations at the probabilities of events.
    """

    coefficients: dict[int, FloatArray]
    quantiles: FloatArray
    thresholds: FloatArray

    def mean(self, times: Sequence[datetime]) -> FloatArray:
        """Expected values, ``(time, lon, lat)``; NaN at hours of the day that the training period lacks."""
        shape = self.quantiles.shape[-2:]
        fields = np.full((len(times), *shape), np.nan)
        for field, time in zip(fields, times, strict=True):
            fitted = self.coefficients.get(_second(time))
            if fitted is not None:
                field[:] = np.tensordot(_regressors([time])[0], fitted, axes=1)
        return fields

    @cached_property
    def half_difference(self) -> FloatArray:
        """½ E|x − x′| of two draws from the distribution of every month, ``(month, lon, lat)``."""
        count = self.quantiles.shape[1]
        # The values are quantiles of a distribution, no sample of it: pairs of a value with itself count.
        return np.stack([half_difference(values) * (count - 1) / count for values in self.quantiles])

    def crps(self, truth: FloatArray, times: Sequence[datetime]) -> FloatArray:
        """CRPS of the distribution as a forecast of the truth, ``(time, lon, lat)``."""
        months = [time.month - 1 for time in times]
        # Of deviations single precision is enough, and half of the work.
        deviation = (truth - self.mean(times)).astype(np.float32)
        distance = np.abs(self.quantiles[months] - deviation[:, None]).mean(axis=1, dtype=np.float64)
        return distance - self.half_difference[months]

    def events(self, times: Sequence[datetime]) -> FloatArray:
        """Thresholds, ``(event, time, lon, lat)``."""
        deviations = self.thresholds[[time.month - 1 for time in times]]
        return np.swapaxes(self.mean(times)[:, None] + deviations, 0, 1)


class Climatology(Protocol):
    """Gives the climate of a channel."""

    @property
    def grid(self) -> LatLonGrid:
        """Grid of every field."""
        ...

    def of(self, channel: Channel) -> Climate:
        """The climate of one channel."""
        ...


class FittedClimatology:
    """A climatology learnt from a training period, channel by channel when it is first asked for.

    Parameters
    ----------
    source : Truth
        The training period.
    times : sequence of datetime
        Valid times of it, ascending.
    probabilities : sequence of float
        Climatological probabilities at which events have their thresholds.
    """

    def __init__(self, source: Truth, times: Sequence[datetime], probabilities: Sequence[float] = ()) -> None:
        self._source, self._times, self._probabilities = source, tuple(times), tuple(probabilities)
        self._known: dict[str, Climate] = {}

    @property
    def grid(self) -> LatLonGrid:
        """Grid of every field."""
        return self._source.grid

    def of(self, channel: Channel) -> Climate:
        """The climate of one channel.

        Raises
        ------
        InputError
            If the training period is too short to know a year.
        """
        if channel.name not in self._known:
            self._known[channel.name] = fit_climate(self._source, self._times, channel, self._probabilities)
        return self._known[channel.name]


def fit_climate(source: Truth, times: Sequence[datetime], channel: Channel, probabilities: Sequence[float]) -> Climate:
    """Fit mean and quantiles of one channel; memory does not depend on the length of the period.

    Parameters
    ----------
    source : Truth
        The training period.
    times : sequence of datetime
        Valid times of it, ascending.
    channel : Channel
        Which channel.
    probabilities : sequence of float
        Of the thresholds of events.

    Raises
    ------
    InputError
        If the period is shorter than a year.
    """
    days = (times[-1] - times[0]).days if times else 0
    if days < 360:
        raise InputError(
            f"a climatology needs a training period of a year or more; got {len(times)} times over {days} days"
        )
    coefficients = _fit_mean(source, channel, times)
    chosen = _sampled(times)
    fitted = Climate(coefficients, np.zeros((12, 1, *source.grid.shape)), np.zeros((12, 0, *source.grid.shape)))
    deviations = np.concatenate(
        [
            (source.read(channel, part) - fitted.mean(part)).astype(np.float32)
            for part in (chosen[first : first + BLOCK] for first in range(0, len(chosen), BLOCK))
        ]
    )
    levels = [*((np.arange(QUANTILES) + 0.5) / QUANTILES), *probabilities]
    months = np.array([time.month for time in chosen])
    of_month = []
    for month in range(12):
        near = np.isin((months - 1 - month) % 12, (11, 0, 1))
        if near.sum() < 2:
            raise InputError(f"a climatology needs times in all months; the period has none around {month + 1}")
        of_month.append(np.quantile(deviations[near], levels, axis=0).astype(np.float32))
    quantiles = np.stack(of_month)
    return Climate(coefficients, quantiles[:, :QUANTILES], quantiles[:, QUANTILES:])


def _sampled(times: Sequence[datetime]) -> Sequence[datetime]:
    """At most `SAMPLES` of the times, evenly spread over the period and over the hours of the day."""
    hours, first = {_second(time) for time in times}, -(-len(times) // SAMPLES)
    # Every eighth of times that are 6 h apart would be of one hour.
    candidates = (times[::stride] for stride in range(first, first + 25))
    return next((some for some in candidates if {_second(time) for time in some} == hours), times[::first])


def _fit_mean(source: Truth, channel: Channel, times: Sequence[datetime]) -> dict[int, FloatArray]:
    """Normal equations of every hour of the day, summed over the period block by block."""
    width = 1 + 2 * HARMONICS
    squares: dict[int, FloatArray] = {}
    products: dict[int, FloatArray] = {}
    for first in range(0, len(times), BLOCK):
        part = times[first : first + BLOCK]
        fields = source.read(channel, part).astype(np.float64).reshape(len(part), -1)
        if not np.isfinite(fields).all():
            raise InputError(f"the climatology's {channel.name} has values that are not finite near {part[0]} UTC")
        seconds = np.array([_second(time) for time in part])
        regressors = _regressors(part)
        for second in np.unique(seconds).tolist():
            rows = seconds == second
            matrix = regressors[rows]
            squares[second] = squares.get(second, np.zeros((width, width))) + matrix.T @ matrix
            products[second] = products.get(second, np.zeros((width, fields.shape[1]))) + matrix.T @ fields[rows]
    # The pseudo-inverse copes with an hour of the day that occurs on a few days only.
    return {
        second: (np.linalg.pinv(squares[second]) @ products[second]).reshape(width, *source.grid.shape)
        for second in squares
    }


def _second(time: datetime) -> int:
    return time.hour * 3600 + time.minute * 60 + time.second


def _regressors(times: Sequence[datetime]) -> FloatArray:
    """Constant, cosines and sines of the year, ``(time, coefficient)``."""
    days = np.array([(time - datetime(2000, 1, 1)).total_seconds() / 86_400 for time in times])
    angle = 2 * np.pi * np.outer(days / YEAR_DAYS, np.arange(1, HARMONICS + 1))
    return np.concatenate([np.ones((len(times), 1)), np.cos(angle), np.sin(angle)], axis=1)
