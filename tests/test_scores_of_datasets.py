"""Scores of datasets in memory: the numbers of the command, and those of other libraries on the same fields."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

import numpy as np
import pytest
import xarray
from crps import fair_crps, fair_energy_score
from miniature_cases import GRID, LEADS, NAMES, days, forecast, forecast_dataset, truth_dataset

import ai_models_mosaic as mosaic
from ai_models_mosaic.errors import InputError, OptionError
from ai_models_mosaic.verification.plan import find_channels
from ai_models_mosaic.verification.scores import area_weights, rank_counts

DATES = days(6)
WEIGHTS = area_weights(GRID)


@pytest.fixture(scope="module")
def ensemble() -> xarray.Dataset:
    return forecast_dataset(DATES)


@pytest.fixture(scope="module")
def truth() -> xarray.Dataset:
    return truth_dataset(days(10))


@pytest.fixture(scope="module")
def result(ensemble: xarray.Dataset, truth: xarray.Dataset) -> xarray.Dataset:
    return mosaic.scores(ensemble, truth, channels=NAMES, bootstrap=20, climatology=truth_dataset(days(400)))


def arrays(label: str, lead: int) -> tuple[np.ndarray, np.ndarray]:
    """Members ``(member, date, lon, lat)`` and truth ``(date, lon, lat)``."""
    (channel,) = find_channels([label])
    members = np.stack([forecast(channel, date, 4)[:, LEADS.index(lead)] for date in DATES], axis=1)
    variable = truth_dataset([date + timedelta(hours=lead) for date in DATES])[channel.variable]
    chosen = variable if channel.level_hpa is None else variable.sel(level=channel.level_hpa)
    return members.astype(float), chosen.values.astype(float)


@pytest.mark.parametrize("label", NAMES)
def test_scores_are_those_of_scoringrules(result: xarray.Dataset, label: str):
    members, right = arrays(label, 48)
    found = result.sel(channel=label, lead_time=np.timedelta64(48, "h"))
    crps = (fair_crps(members, right) * WEIGHTS).sum(axis=(-2, -1)).mean()
    assert float(found.crps_fair) == pytest.approx(crps, rel=1e-9)
    assert float(found.energy_score_fair) == pytest.approx(fair_energy_score(members, right, WEIGHTS), rel=1e-9)


@pytest.mark.parametrize("label", NAMES)
def test_scores_are_those_of_the_package_scores(result: xarray.Dataset, label: str):
    probability = pytest.importorskip("scores.probability")
    continuous = pytest.importorskip("scores.continuous")
    members, right = arrays(label, 48)
    axes = ("date", "lon", "lat")
    fields, observed = xarray.DataArray(members, dims=("member", *axes)), xarray.DataArray(right, dims=axes)
    areas = xarray.DataArray(WEIGHTS, dims=axes[1:])
    found = result.sel(channel=label, lead_time=np.timedelta64(48, "h"))
    for name, method in (("crps_fair", "fair"), ("crps_plain", "ecdf")):
        theirs = probability.crps_for_ensemble(fields, observed, "member", method=method, weights=areas)
        assert float(found[name]) == pytest.approx(float(theirs), rel=1e-9)
    theirs = continuous.rmse(fields.mean("member"), observed, weights=areas)
    assert float(found.rmse_mean) == pytest.approx(float(theirs), rel=1e-9)
    theirs = continuous.mae(fields.mean("member"), observed, weights=areas)
    assert float(found.mae_mean) == pytest.approx(float(theirs), rel=1e-9)


def test_ranks_are_those_of_the_package_scores():
    probability = pytest.importorskip("scores.probability")
    members, right = arrays("t850", 24)
    axes = ("date", "lon", "lat")
    fields, observed = xarray.DataArray(members, dims=("member", *axes)), xarray.DataArray(right, dims=axes)
    theirs = probability.rank_histogram(fields, observed, "member")
    areas = np.full(right.size, 1 / right.size)
    ranks = rank_counts((members - right).reshape(4, 1, -1), areas, np.random.default_rng(0))
    np.testing.assert_allclose(ranks[0], theirs.values, rtol=1e-9)


def test_the_numbers_are_those_of_the_command(ensemble: xarray.Dataset, truth: xarray.Dataset, result: xarray.Dataset):
    alone = mosaic.scores(ensemble.isel(time=[0]), truth, channels=["z500"], spectra=False)
    one = mosaic.scores(ensemble.isel(time=0), truth, channels=["z500"], spectra=False)
    xarray.testing.assert_identical(alone, one)
    assert result.attrs == {"members": 4, "dates": 6}
    assert dict(result.sizes) | {"wavenumber": 0} == {
        "channel": 3,
        "lead_time": 3,
        "rank": 5,
        "pit_bin": 10,
        "wavenumber": 0,
        "event": 2,
        "probability_bin": 5,
    }
    assert result.channel.values.tolist() == list(NAMES)
    assert result.units.sel(channel="z500").item() == "m**2 s**-2"
    assert result.spread_skill.attrs == {"units": "1"}
    assert bool((result.crps_fair_low <= result.crps_fair).all())
    np.testing.assert_allclose(result.pit.mean("pit_bin"), 1.0)
    np.testing.assert_allclose(result.rank_histogram.mean("rank"), 1.0)


def test_the_crps_of_a_scale_with_one_coefficient_is_that_of_scoringrules(
    ensemble: xarray.Dataset, truth: xarray.Dataset
):
    # The zonal harmonic of degree 1 is √3 sin φ: of such fields, all of the CRPS is in one coefficient.
    shape = np.sqrt(3) * np.sin(np.radians(truth.latitude))
    sizes = np.random.default_rng(1).normal(size=(len(DATES), 3, 4))
    axes = ("time", "prediction_timedelta", "number")
    waves = (xarray.DataArray(sizes, dims=axes) * shape).broadcast_like(ensemble["2m_temperature"])
    flat = (0 * truth.longitude + shape).broadcast_like(truth["2m_temperature"])
    found = mosaic.scores(
        ensemble[["2m_temperature"]].assign({"2m_temperature": waves}),
        truth[["2m_temperature"]].assign({"2m_temperature": 0.5 * flat}),
    )
    expected = fair_crps(np.moveaxis(sizes, 2, 0), np.full(sizes.shape[:2], 0.5)).mean(axis=0) / np.sqrt(3)
    np.testing.assert_allclose(found.crps_by_scale.sel(channel="2t", wavenumber=1), expected, rtol=1e-6)
    np.testing.assert_allclose(found.crps_by_scale.sel(channel="2t").drop_sel(wavenumber=1), 0, atol=1e-6)
    np.testing.assert_allclose(
        found.error_power_members.sel(channel="2t").isel(wavenumber=1),
        ((sizes - 0.5) ** 2).mean(axis=(0, 2)),
        rtol=1e-5,
    )
    np.testing.assert_allclose(found.saturated_power.sel(channel="2t").isel(wavenumber=1), 0.5, rtol=1e-5)


def test_short_names_are_known(ensemble: xarray.Dataset, truth: xarray.Dataset):
    short = truth.rename({"geopotential": "z", "temperature": "t", "2m_temperature": "t2m"})
    ours = mosaic.scores(ensemble, short, spectra=False)
    assert ours.channel.values.tolist() == ["2t", "z500", "z850", "t500", "t850"]


def test_valid_times_beside_a_reference_time_are_lead_times(ensemble: xarray.Dataset, truth: xarray.Dataset):
    # As --netcdf writes them.
    one = ensemble.isel(time=2, drop=True)
    valid = ensemble.time[2].values + one.prediction_timedelta.values
    one = one.drop_vars("prediction_timedelta").rename(prediction_timedelta="time")
    one = one.assign_coords(time=valid, forecast_reference_time=ensemble.time[2].values)
    expected = mosaic.scores(ensemble.isel(time=[2]), truth)
    xarray.testing.assert_identical(mosaic.scores(one, truth), expected)


def test_what_cannot_be_scored_is_told(ensemble: xarray.Dataset, truth: xarray.Dataset):
    with pytest.raises(InputError, match="expected fields that forecast and truth both have; got 2m_temperature and g"):
        mosaic.scores(ensemble[["2m_temperature"]], truth[["geopotential"]])
    with pytest.raises(InputError, match="the climatology lacks temperature_850"):
        mosaic.scores(ensemble, truth, channels="2t,t850", climatology=truth[["2m_temperature"]])
    with pytest.raises(InputError, match=r"the truth lacks dimensions: expected time \(time or valid_time\)"):
        mosaic.scores(ensemble, truth.rename(time="when"))
    with pytest.raises(OptionError, match="channels: expected some of"):
        mosaic.scores(ensemble, truth, channels=["z501"])
    with pytest.raises(InputError, match="nothing could be verified"):
        mosaic.scores(ensemble, truth.assign_coords(time=truth.time + np.timedelta64(900, "D")))


def test_events_need_no_intervals(ensemble: xarray.Dataset, truth: xarray.Dataset, result: xarray.Dataset):
    training = truth_dataset(days(400))
    ours = mosaic.scores(ensemble, truth, channels="2t", climatology=training)
    expected = result.sel(channel=["2t"])
    np.testing.assert_allclose(ours.brier_below_q10, expected.brier_below_q10)
    np.testing.assert_allclose(ours.observed_frequency, expected.observed_frequency)
    assert "consistency_low" not in ours
    doubled = mosaic.scores(ensemble, truth, channels="2t", climatology=training, events=[0.1, 0.1])
    assert doubled.event.values.tolist() == ["below_q10"]
    one = mosaic.scores(ensemble.isel(time=[0]), truth, channels=["2t"], climatology=training, bootstrap=20)
    assert np.isfinite(one.observed_frequency).any()
    assert np.isnan(one.consistency_high).all()


def test_there_are_no_events_at_hours_that_the_climatology_lacks(ensemble: xarray.Dataset, truth: xarray.Dataset):
    def later(dataset: xarray.Dataset) -> xarray.Dataset:
        return dataset.assign_coords(time=dataset.time + np.timedelta64(6, "h"))

    words = {"channels": ["2t"], "climatology": truth_dataset(days(400)), "bootstrap": 20}
    none = mosaic.scores(later(ensemble), later(truth), **words)
    assert not [name for name in none if "brier" in name or "climatology" in name or "frequency" in name]
    assert none.attrs["skipped fields without climatology at their hour of the day"] == 18
    leads = np.array([24, 54, 72], "timedelta64[h]").astype("timedelta64[ns]")
    both = xarray.concat([truth, later(truth)], "time")
    some = mosaic.scores(ensemble.assign_coords(prediction_timedelta=leads), both, **words).sel(channel="2t")
    for name in ("brier_below_q10", "brier_skill_above_q90", "rmse_climatology", "crps_skill_climatology"):
        assert np.isfinite(some[name]).values.tolist() == [True, False, True], name
    assert np.isfinite(some.observed_frequency).any(["event", "probability_bin"]).values.tolist() == [True, False, True]
    assert some.attrs["skipped fields without climatology at their hour of the day"] == 6


def test_truth_at_other_points_is_refused(ensemble: xarray.Dataset, truth: xarray.Dataset):
    aside = truth.assign_coords(longitude=truth.longitude + 15)
    with pytest.raises(InputError, match=r"the truth is on 12 × 7 points \(30°\), where .*, but elsewhere\)"):
        mosaic.scores(ensemble, aside)


def test_truth_that_is_a_forecast_is_refused(ensemble: xarray.Dataset, truth: xarray.Dataset):
    day = np.timedelta64(24, "h").astype("timedelta64[ns]")
    with pytest.raises(InputError, match=r"expected analyses \(step 0\), got forecasts of \+24 h"):
        mosaic.scores(ensemble, truth.assign_coords(step=day))
    analyses = truth.assign_coords(step=0 * day)
    assert mosaic.scores(ensemble, analyses, channels=["2t"], spectra=False).attrs["dates"] == 6


def test_what_is_there_twice_is_refused(ensemble: xarray.Dataset, truth: xarray.Dataset):
    with pytest.raises(InputError, match="a member stands there more than once: 1, 2, 3, 3"):
        mosaic.scores(ensemble.assign_coords(number=[1, 2, 3, 3]), truth)
    with pytest.raises(InputError, match=r"a lead time stands there more than once.*: \[24, 24, 72\] h"):
        mosaic.scores(ensemble.isel(prediction_timedelta=[0, 0, 2]), truth)


def test_whole_lead_times_have_the_units_that_they_say(ensemble: xarray.Dataset, truth: xarray.Dataset):
    expected = mosaic.scores(ensemble, truth, channels=["2t"], spectra=False)
    for units, hour in {"hours": 1, "seconds": 3600, "nanoseconds": 3_600_000_000_000}.items():
        leads = ("prediction_timedelta", np.array(LEADS) * hour, {"units": units})
        ours = mosaic.scores(ensemble.assign_coords(prediction_timedelta=leads), truth, channels=["2t"], spectra=False)
        xarray.testing.assert_identical(ours, expected)
    leads = ("prediction_timedelta", np.array(LEADS) / 24, {"units": "days"})
    ours = mosaic.scores(ensemble.assign_coords(prediction_timedelta=leads), truth, channels=["2t"], spectra=False)
    xarray.testing.assert_identical(ours, expected)
    leads = ("prediction_timedelta", list(LEADS), {"units": "fortnights"})
    with pytest.raises(InputError, match="expected lead times as durations or whole hours, got int64 in fortnights"):
        mosaic.scores(ensemble.assign_coords(prediction_timedelta=leads), truth)


def test_lead_times_that_are_not_there_are_told(ensemble: xarray.Dataset, truth: xarray.Dataset):
    found = mosaic.scores(ensemble, truth, channels=["2t"], lead_hours=[48, 96], spectra=False)
    assert found.attrs["skipped lead time of 96 h, which was asked for"] == 1
    with pytest.raises(OptionError, match=r"expected lead times of whole hours above 0, got 12\.5, 24"):
        mosaic.scores(ensemble, truth, lead_hours=[12.5, 24])


def test_other_units_are_told(ensemble: xarray.Dataset, truth: xarray.Dataset, caplog: pytest.LogCaptureFixture):
    mosaic.scores(ensemble, truth.assign({"2m_temperature": truth["2m_temperature"] - 273.15}), channels=["2t", "t850"])
    said = truth.copy(deep=True)
    said["2m_temperature"].attrs["units"] = "degC"
    with pytest.raises(InputError, match="the truth: expected fields in SI units, got 2m_temperature in 'degC', not K"):
        mosaic.scores(ensemble, said, channels=["2t"])
    (message,) = caplog.messages
    assert message.startswith("2t of the truth lies within ")
    assert message.endswith(
        ", where K was expected; is it degrees Celsius? Forecast and truth must both be in SI units"
    )


def test_naming_it_costs_no_library():
    program = "import sys, ai_models_mosaic as m; assert 'scores' in dir(m); sys.exit('xarray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
