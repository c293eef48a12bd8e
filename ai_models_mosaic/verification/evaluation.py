"""Scores as functions of means over dates, of the sample and of every draw of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from ..arrays import BoolArray, FloatArray
from .accumulate import Sums
from .bootstrap import Bootstrap

Interval = tuple[FloatArray, FloatArray, FloatArray]
"""Value, low and high end."""

Means = Mapping[str, FloatArray]
"""Means over dates, by term."""


@dataclass(frozen=True)
class Score:
    """A score as a function of the means of terms over dates.

    Parameters
    ----------
    name : str
    terms : tuple of str
        All that it needs; dates that lack one do not count.
    formula : callable
        From the means of the terms, and the number of members.
    in_units : bool
        Whether it has the channel's units; else it has none.
    least_members : int
        Smaller ensembles have no such score.
    """

    name: str
    terms: tuple[str, ...]
    formula: Callable[[Means, int], FloatArray]
    in_units: bool = True
    least_members: int = 1


def _crps(means: Means, members: int) -> FloatArray:
    """Fair CRPS; of one member the mean absolute error."""
    return means["member_absolute_error"] - (means["half_difference"] if members > 1 else 0.0)


def _energy(means: Means, members: int) -> FloatArray:
    """Fair energy score; of one member the mean distance."""
    return means["field_distance"] - (means["field_half_difference"] if members > 1 else 0.0)


def _pit_spread(means: Means, _: int) -> FloatArray:
    """Variance over that of a uniform distribution."""
    spread: FloatArray = 12.0 * (means["pit_squared"] - means["pit"] ** 2)
    return spread


def _spread_skill(means: Means, members: int) -> FloatArray:
    """Source: Fortin et al., J. Hydrometeorol. 15 (2014): the mean of M members errs by (M + 1) / M of the variance."""
    return np.sqrt((members + 1) / members * means["variance"] / means["squared_error"])


def scores_of(sums: Sums) -> list[Score]:
    """The scores that an ensemble of this size, with this climatology, can have."""
    distance = ("member_absolute_error", *(("half_difference",) if sums.members > 1 else ()))
    whole = ("field_distance", *(("field_half_difference",) if sums.members > 1 else ()))
    scores = [
        Score("rmse_mean", ("squared_error",), lambda m, _: np.sqrt(m["squared_error"])),
        Score("bias", ("error",), lambda m, _: m["error"]),
        Score("mae_mean", ("absolute_error",), lambda m, _: m["absolute_error"]),
        Score("rmse_members", ("member_squared_error",), lambda m, _: np.sqrt(m["member_squared_error"])),
        Score("mae_members", ("member_absolute_error",), lambda m, _: m["member_absolute_error"]),
        Score("crps_fair", distance, _crps),
        Score(
            "crps_plain",
            distance,
            lambda m, n: m["member_absolute_error"] - m["half_difference"] * (n - 1) / n,
            least_members=2,
        ),
        Score("energy_score_fair", whole, _energy),
        Score("spread", ("variance",), lambda m, _: np.sqrt(m["variance"]), least_members=2),
        Score("spread_skill", ("variance", "squared_error"), _spread_skill, in_units=False, least_members=2),
        Score("pit_mean", ("pit",), lambda m, _: m["pit"], in_units=False, least_members=2),
        Score("pit_spread", ("pit", "pit_squared"), _pit_spread, in_units=False, least_members=2),
    ]
    for name in ("persistence", "climatology"):
        scores += _reference_scores(name, distance)
    scores += [
        Score(
            "anomaly_correlation",
            ("anomaly_product", "anomaly_forecast", "anomaly_truth"),
            lambda m, _: m["anomaly_product"] / np.sqrt(m["anomaly_forecast"] * m["anomaly_truth"]),
            in_units=False,
        ),
        Score("crps_climatology", ("climatology_crps",), lambda m, _: m["climatology_crps"]),
        Score(
            "crps_skill_climatology",
            (*distance, "climatology_crps"),
            lambda m, n: 1 - _crps(m, n) / m["climatology_crps"],
            in_units=False,
        ),
    ]
    for event in sums.events:
        scores += _event_scores(event.name)
    return [
        score
        for score in scores
        if sums.members >= score.least_members and all(term in sums.terms for term in score.terms)
    ]


def _reference_scores(name: str, distance: tuple[str, ...]) -> list[Score]:
    """Errors of a single reference forecast, of which the absolute error is the CRPS, and skill over them."""
    squared, absolute = f"{name}_squared_error", f"{name}_absolute_error"
    scores = [
        Score(f"rmse_{name}", (squared,), lambda m, _: np.sqrt(m[squared])),
        Score(f"mae_{name}", (absolute,), lambda m, _: m[absolute]),
        Score(
            f"rmse_skill_{name}",
            ("squared_error", squared),
            lambda m, _: 1 - np.sqrt(m["squared_error"] / m[squared]),
            in_units=False,
        ),
    ]
    if name == "persistence":
        scores.append(
            Score(
                f"crps_skill_{name}",
                (*distance, absolute),
                lambda m, n: 1 - _crps(m, n) / m[absolute],
                in_units=False,
            )
        )
    return scores


def _event_scores(event: str) -> list[Score]:
    brier, usual, sampling = f"{event}_brier", f"{event}_climatology_brier", f"{event}_sampling"
    return [
        Score(f"brier_{event}", (brier,), lambda m, _: m[brier], in_units=False),
        Score(
            f"brier_fair_{event}",
            (brier, sampling),
            lambda m, _: m[brier] - m[sampling],
            in_units=False,
            least_members=2,
        ),
        Score(f"brier_skill_{event}", (brier, usual), lambda m, _: 1 - m[brier] / m[usual], in_units=False),
    ]


class Evaluation:
    """One forecast system's sums, with the draws that its intervals are made of.

    Parameters
    ----------
    name : str
        Of the forecasts.
    sums : Sums
        What was kept.
    bootstrap : Bootstrap
        How intervals are made.
    block : int or None
        Dates that are drawn together; None for what the bootstrap takes.

    Raises
    ------
    OptionError
        If blocks of dates are longer than all dates.
    """

    def __init__(self, name: str, sums: Sums, bootstrap: Bootstrap, block: int | None = None) -> None:
        self.name, self.sums, self.bootstrap = name, sums, bootstrap
        self.block = block or bootstrap.block_of(sums.dates, sums.lead_hours[-1])
        self._intervals: dict[str, Interval] = {}
        self._counts = bootstrap.counts(len(sums.dates), self.block)

    def mean(self, values: FloatArray, there: BoolArray | None = None) -> FloatArray:
        """Means over dates, of the sample and of every replicate, ``(replicate + 1, …)``.

        Parameters
        ----------
        values : array (date, …)
        there : bool array (date, …) or None
            Which of them count; None for those that are not NaN.
        """
        there = np.isfinite(values) if there is None else there
        shape = values.shape[1:]
        total = self._counts @ np.where(there, values, 0.0).reshape(len(values), -1)
        number = self._counts @ there.reshape(len(values), -1).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (total / number).reshape(len(total), *shape)

    def interval_of(self, score: Score) -> Interval:
        """Value, low and high end of a score, ``(channel, lead)`` each; worked out once for tables and pictures."""
        if score.name not in self._intervals:
            self._intervals[score.name] = self.bootstrap.interval(self.replicated(score))
        return self._intervals[score.name]

    def replicated(
        self, score: Score, leads: Sequence[int] | slice = slice(None), there: BoolArray | None = None
    ) -> FloatArray:
        """The score of the sample and of every replicate, ``(replicate + 1, channel, lead)``.

        Parameters
        ----------
        score : Score
        leads : sequence of int or slice
            Indices of the lead times.
        there : bool array (date, channel, lead) or None
            Which dates count at them; None for those that have all terms of the score.
        """
        there = self.there(score)[..., leads] if there is None else there
        means = {term: self.mean(self.sums.terms[term][..., leads], there) for term in score.terms}
        with np.errstate(invalid="ignore", divide="ignore"):
            return score.formula(means, self.sums.members)

    def there(self, score: Score) -> BoolArray:
        """Where all terms of a score are, ``(date, channel, lead)``."""
        return np.all([np.isfinite(self.sums.terms[term]) for term in score.terms], axis=0)

    def on(self, dates: Sequence[datetime], block: int) -> Evaluation:
        """The same forecasts on some of the dates only.

        Two of these with the same number of dates and the same block draw alike, so their scores can be compared
        draw by draw.
        """
        chosen = [self.sums.dates.index(date) for date in dates]
        sums = replace(
            self.sums,
            dates=tuple(dates),
            terms={name: values[chosen] for name, values in self.sums.terms.items()},
            ranks=self.sums.ranks[chosen],
            reliability=self.sums.reliability[chosen],
            consistency=self.sums.consistency[chosen],
            spectra_power=self.sums.spectra_power[chosen],
            scales=self.sums.scales[chosen],
        )
        return Evaluation(self.name, sums, self.bootstrap, block)
