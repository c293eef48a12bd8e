"""Scores of forecasts that are in memory, as one dataset of xarray."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import FloatArray
from ..channels import CHANNELS, Channel
from ..errors import InputError
from ..inputs.netcdf import with_levels, with_steps
from .accumulate import require_grid, verify
from .bootstrap import Bootstrap
from .climatology import Climatology, FittedClimatology
from .evaluation import Evaluation, Interval, scores_of
from .plan import EVENT_PROBABILITIES, Event, Plan, find_channels
from .probability_tables import PIT_BINS, pit_histogram, reliability_of
from .scale_tables import crps_by_degree
from .scales import MEAN_ERROR, MEMBER_ERROR, REFERENCE
from .zarr_stores import FORECAST_DIMENSIONS, TRUTH_DIMENSIONS, StoreDimensions, ZarrForecasts, ZarrTruth

if TYPE_CHECKING:
    import xarray

PLACE = ("channel", "lead_time")

ENDS = ("", "_low", "_high")
"""Of the names of a value and of the ends of its interval."""

Variables = dict[str, tuple[tuple[str, ...], FloatArray]]
"""Variables of the result by name: dimensions and values."""


def scores(
    forecast: xarray.Dataset,
    truth: xarray.Dataset,
    *,
    climatology: xarray.Dataset | None = None,
    channels: Iterable[str] | None = None,
    lead_hours: Sequence[int] = (),
    events: Sequence[float] = EVENT_PROBABILITIES,
    spectra: bool = True,
    bootstrap: int = 0,
    block_length: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> xarray.Dataset:
    """Score a forecast against truth, as the command ``verify`` does.

    Parameters
    ----------
    forecast : xarray.Dataset
        Initial and lead time, perhaps members, level, latitude and longitude, under usual names, in any order; names of
        variables are those of WeatherBench 2, ECMWF's short ones, or cfgrib's; SI units. The initial time may be one.
    truth : xarray.Dataset
        The same fields by valid time, on the same grid.
    climatology : xarray.Dataset or None
        The same of a training period of a year or more. Without it there is no skill against it, and no events.
    channels : iterable of str or None
        Such as ``["z500", "2t"]``, or ``"z500,2t"``; None for all that forecast and truth have.
    lead_hours : sequence of int
        Lead times; all that the forecast has if empty. Lead 0 is not verified.
    events : sequence of float
        Climatological quantiles below or above which events lie.
    spectra : bool
        Whether to make power spectra, and CRPS and errors by scale, of all channels.
    bootstrap : int
        Replicates that intervals are made of; 0 for none.
    block_length : int or None
        Dates drawn together; None for as many as lie within the longest lead time.
    confidence : float
        Probability of the intervals.
    seed : int
        Of intervals and of the order of equal values.

    Returns
    -------
    xarray.Dataset
        A variable per score, ``(channel, lead_time)``, and where there are replicates the ends of its interval,
        ``…_low`` and ``…_high``; ``rank_histogram``, ``pit`` (both 1 if flat), spectra by ``wavenumber``, and
        reliability by ``event`` and ``probability_bin``.

    Raises
    ------
    InputError
        If the datasets cannot be used, or nothing could be verified.
    OptionError
        If an argument is out of range.
    """
    forecast, ends = _with_dates(forecast), tuple(map(Event, dict.fromkeys(events)))
    channels = channels.split(",") if isinstance(channels, str) else channels
    chosen = _common(forecast, truth) if channels is None else find_channels(channels, "channels")
    plan = Plan(chosen, chosen if spectra else (), tuple(lead_hours), ends, seed)
    usual: Climatology | None = None
    if climatology is not None:
        period = ZarrTruth([climatology], chosen, "the climatology")
        usual = FittedClimatology(period, period.times, [event.probability for event in ends])
    forecasts, right = ZarrForecasts(forecast, chosen, plan.lead_hours), ZarrTruth([truth], chosen)
    require_grid("the truth", right.grid, forecasts.grid)
    sums = verify(forecasts.cases(), right, plan, usual)
    return _dataset(Evaluation("forecast", sums, Bootstrap(bootstrap, block_length, confidence, seed)))


def _with_dates(forecast: xarray.Dataset) -> xarray.Dataset:
    """A forecast of one date, or of one lead time, with dimensions for them; valid times made lead times."""
    forecast = with_steps(with_levels(forecast))
    for key in ("init_time", "lead_time"):
        names = FORECAST_DIMENSIONS[key]
        single = [name for name in names if name in forecast.coords and not forecast[name].dims]
        if single and not any(name in forecast.dims for name in names):
            forecast = forecast.expand_dims(single[0])
    return forecast


def _common(forecast: xarray.Dataset, truth: xarray.Dataset) -> tuple[Channel, ...]:
    """The channels that both have."""
    layouts = [
        StoreDimensions(forecast, FORECAST_DIMENSIONS, ("member",), "the forecast"),
        StoreDimensions(truth, TRUTH_DIMENSIONS, name="the truth"),
    ]
    both = tuple(channel for channel in CHANNELS if all(layout.has(channel) for layout in layouts))
    if not both:
        names = [", ".join(sorted(map(str, layout.dataset.data_vars))) for layout in layouts]
        raise InputError(f"expected fields that forecast and truth both have; got {names[0]} and {names[1]}")
    return both


def _dataset(evaluation: Evaluation) -> xarray.Dataset:
    import xarray

    sums = evaluation.sums
    found = [score for score in scores_of(sums) if evaluation.there(score).any()]
    variables: Variables = {}
    for score in found:
        variables |= _named(score.name, PLACE, evaluation.interval_of(score))
    for part in (_of_ranks, _of_scales, _of_events):
        variables |= part(evaluation)
    attributes: dict[str, Any] = {"members": sums.members, "dates": len(sums.dates)}
    attributes |= {f"skipped {reason}": count for reason, count in sums.skipped.items()}
    if not evaluation.bootstrap.replicates:
        variables = {name: of for name, of in variables.items() if not name.endswith(("_low", "_high"))}
    dataset = xarray.Dataset(variables, _coordinates(evaluation, variables), attributes)
    for score in found:
        dataset[score.name].attrs["units"] = "those of the channel" if score.in_units else "1"
    return dataset


def _coordinates(evaluation: Evaluation, variables: Variables) -> dict[str, Any]:
    sums = evaluation.sums
    coordinates = {
        "channel": [channel.label for channel in sums.channels],
        "units": ("channel", [channel.units for channel in sums.channels]),
        "lead_time": np.array(sums.lead_hours, dtype="timedelta64[h]").astype("timedelta64[ns]"),
    }
    if sums.spectra:
        coordinates["wavenumber"] = np.arange(sums.scales.shape[-1])
    if "pit" in variables:
        coordinates["rank"] = np.arange(sums.members + 1)
        coordinates["pit_bin"] = (np.arange(PIT_BINS) + 0.5) / PIT_BINS
    if sums.events:
        coordinates["event"] = [event.name for event in sums.events]
    return coordinates


def _named(name: str, dimensions: tuple[str, ...], ends: Interval) -> Variables:
    return {f"{name}{end}": (dimensions, values) for end, values in zip(ENDS, ends, strict=True)}


def _of_ranks(evaluation: Evaluation) -> Variables:
    sums, interval = evaluation.sums, evaluation.bootstrap.interval
    if not sums.ranks.shape[-1]:
        return {}
    ranks = interval(evaluation.mean(sums.ranks) * (sums.members + 1))
    return _named("rank_histogram", (*PLACE, "rank"), ranks) | _named(
        "pit", (*PLACE, "pit_bin"), interval(pit_histogram(evaluation))
    )


def _of_scales(evaluation: Evaluation) -> Variables:
    sums, place = evaluation.sums, (*PLACE, "wavenumber")
    if not sums.spectra:
        return {}
    power = evaluation.mean(sums.spectra_power)[0]
    scales = evaluation.mean(sums.scales)[0]
    return {
        **{f"power_{name}": (place, power[:, :, kind]) for kind, name in enumerate(("members", "mean", "truth"))},
        "error_power_members": (place, scales[:, :, MEMBER_ERROR]),
        "error_power_mean": (place, scales[:, :, MEAN_ERROR]),
        "saturated_power": (place, 2 * scales[:, :, REFERENCE]),
        **_named("crps_by_scale", place, evaluation.bootstrap.interval(crps_by_degree(evaluation))),
    }


def _of_events(evaluation: Evaluation) -> Variables:
    if not evaluation.sums.events:
        return {}
    place, found = (*PLACE, "event", "probability_bin"), reliability_of(evaluation)
    return {
        "forecast_probability": (place, found.forecast),
        "forecast_share": (place, found.share),
        **_named("observed_frequency", place, (found.observed, found.low, found.high)),
        "consistency_low": (place, found.consistent_low),
        "consistency_high": (place, found.consistent_high),
    }
