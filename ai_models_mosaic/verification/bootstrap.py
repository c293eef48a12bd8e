"""Intervals by resampling dates in blocks.

Errors of forecasts from neighbouring dates are alike, so dates are drawn in runs of neighbours, and the score is worked
out again from the drawn dates' sums: ratios and square roots included.
Source: Künsch, Ann. Stat. 17 (1989), moving blocks; Politis and Romano (1992), round the circle of dates, which makes
every date as likely as any other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import numpy as np

from ..arrays import FloatArray
from ..errors import OptionError
from .plan import require_seed


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made.

    Parameters
    ----------
    replicates : int
        Times that dates are drawn anew; 0 for no intervals.
    block_length : int or None
        Dates in a block; None for as many as lie within the longest lead time, but at most a quarter of all.
    confidence : float
        Probability that an interval holds, between 0 and 1.
    seed : int
        Of the draws.

    Raises
    ------
    OptionError
        If a number is out of range.
    """

    replicates: int = 1000
    block_length: int | None = None
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.replicates < 0:
            raise OptionError(f"expected bootstrap replicates of 0 or more, got {self.replicates}")
        if self.block_length is not None and self.block_length < 1:
            raise OptionError(f"expected a block length of at least 1 date, got {self.block_length}")
        if not 0 < self.confidence < 1:
            raise OptionError(f"expected a confidence between 0 and 1, got {self.confidence:g}")
        require_seed(self.seed)

    def block_of(self, dates: Sequence[datetime], longest_lead_hours: int) -> int:
        """Dates in a block.

        Raises
        ------
        OptionError
            If a block was asked for that is longer than all dates.
        """
        if self.block_length is not None:
            if self.block_length > len(dates):
                raise OptionError(f"expected blocks of at most all {len(dates)} dates, got {self.block_length}")
            return self.block_length
        if len(dates) < 2:
            return 1
        steps = [(later - earlier).total_seconds() / 3600 for earlier, later in pairwise(dates)]
        overlapping = math.ceil(longest_lead_hours / max(float(np.median(steps)), 1e-9))
        return max(1, min(overlapping, len(dates) // 4))

    def counts(self, dates: int, block: int) -> FloatArray:
        """How often every date is drawn, ``(replicate + 1, date)``; the first row is the sample itself, once each.

        Parameters
        ----------
        dates : int
            Dates there are.
        block : int
            Dates in a block.
        """
        # With a single date there is nothing to draw from: no interval is honest, one of no width is not.
        replicates = self.replicates if dates > 1 else 0
        generator = np.random.Generator(np.random.Philox(key=np.array([self.seed, dates], dtype=np.uint64)))
        blocks = math.ceil(dates / block)
        starts = generator.integers(0, dates, size=(replicates, blocks, 1))
        drawn = ((starts + np.arange(block)) % dates).reshape(replicates, blocks * block)[:, :dates]
        counts = np.ones((replicates + 1, dates))
        for row, chosen in zip(counts[1:], drawn, strict=True):
            row[:] = np.bincount(chosen, minlength=dates)
        return counts

    def interval(self, replicated: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Value, low and high end of what was computed for every row of `counts`, each ``(…)``.

        Parameters
        ----------
        replicated : array (replicate + 1, …)
            The first row is the estimate.

        Returns
        -------
        value, low, high : array (…)
            The ends are NaN where no replicate has the number.
        """
        value, others = replicated[0], replicated[1:]
        # A draw of dates that all lack the number, such as an empty bin, says nothing about it.
        known = np.isfinite(others).any(axis=0)
        if not known.any():
            return value, np.full_like(value, np.nan), np.full_like(value, np.nan)
        tail = (1 - self.confidence) / 2
        filled = np.where(known, others, 0.0)
        # Many times as fast where nothing is to be left out, which is nearly always.
        quantile = np.quantile if np.isfinite(filled).all() else np.nanquantile
        low, high = quantile(filled, [tail, 1 - tail], axis=0)
        return value, np.where(known, low, np.nan), np.where(known, high, np.nan)
