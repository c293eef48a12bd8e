"""What usually is, learnt from a training period that is made of a known law."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from statistics import NormalDist

import numpy as np
import pytest
from crps import plain_crps
from miniature_cases import GRID, LEADS, NAMES, World, case, days

from ai_models_mosaic.channels import Channel
from ai_models_mosaic.errors import InputError
from ai_models_mosaic.verification.accumulate import verify
from ai_models_mosaic.verification.bootstrap import Bootstrap
from ai_models_mosaic.verification.climatology import QUANTILES, Climate, FittedClimatology, _sampled, fit_climate
from ai_models_mosaic.verification.evaluation import Evaluation
from ai_models_mosaic.verification.plan import Plan, find_channels
from ai_models_mosaic.verification.probability_tables import rank_rows, reliability_rows
from ai_models_mosaic.verification.scale_tables import spectrum_rows
from ai_models_mosaic.verification.tables import score_rows

CHANNELS = find_channels(NAMES)
T2M = CHANNELS[2]
HALF_DAYS = [datetime(2010, 1, 1) + timedelta(hours=12 * index) for index in range(4 * 730)]


class Seasons:
    """A year of 10 K at every point, days 2 K warmer than nights, and noise of 3 K."""

    grid = GRID

    def __init__(self, noise: float = 3.0) -> None:
        self.noise = noise

    def read(self, channel: Channel, times: Sequence[datetime]) -> np.ndarray:
        noise = [
            np.random.default_rng(int((time - HALF_DAYS[0]).total_seconds())).normal(size=GRID.shape) for time in times
        ]
        return (_usual(times)[:, None, None] + self.noise * np.array(noise)).astype(np.float32)


def _usual(times: Sequence[datetime]) -> np.ndarray:
    days_of = np.array([(time - datetime(2000, 1, 1)).total_seconds() / 86400 for time in times])
    warm = np.array([1.0 if time.hour == 12 else -1.0 for time in times])
    return 280 - 10 * np.cos(2 * np.pi * days_of / 365.2425) + 2 * np.sin(4 * np.pi * days_of / 365.2425) + warm


@pytest.fixture(scope="module")
def climate() -> Climate:
    return fit_climate(Seasons(), HALF_DAYS, T2M, (0.1, 0.9))


def distribution(climate, times):
    """Equally likely values, (quantile, time, lon, lat)."""
    deviations = climate.quantiles[[time.month - 1 for time in times]]
    return np.swapaxes(climate.mean(times)[:, None] + deviations, 0, 1)


def test_quantiles_are_of_all_hours_of_the_day():
    times = [datetime(2000, 1, 1) + timedelta(hours=6 * index) for index in range(16_000)]
    some = _sampled(times)
    assert len(some) == 1778
    assert {time.hour for time in some} == {0, 6, 12, 18}
    assert _sampled(times[:14_000]) == times[:14_000:7]


def test_a_year_without_weather_is_found_to_rounding():
    fitted = fit_climate(Seasons(noise=0.0), HALF_DAYS[:800], T2M, (0.5,))
    times = [datetime(2031, 2, 3), datetime(2031, 2, 3, 12), datetime(2032, 8, 9, 12)]
    expected = np.broadcast_to(_usual(times)[:, None, None], (3, *GRID.shape))
    np.testing.assert_allclose(fitted.mean(times), expected, atol=1e-3)
    np.testing.assert_allclose(
        distribution(fitted, times), np.broadcast_to(expected, (QUANTILES, *expected.shape)), atol=1e-3
    )


def test_the_mean_of_noisy_years_is_close(climate: Climate):
    times = [datetime(2031, month, 15, hour) for month in (1, 4, 7, 10) for hour in (0, 12)]
    error = climate.mean(times) - _usual(times)[:, None, None]
    # 1460 times, 5 coefficients: the standard error of the mean is 3 √(5 / 1460).
    assert np.sqrt((error**2).mean()) == pytest.approx(3 * np.sqrt(5 / 1460), rel=0.25)


def test_the_distribution_is_that_of_the_noise(climate: Climate):
    normal = NormalDist(0.0, 3.0)
    spread = climate.quantiles.mean(axis=(0, 2, 3))
    expected = [normal.inv_cdf((index + 0.5) / QUANTILES) for index in range(QUANTILES)]
    np.testing.assert_allclose(spread, expected, atol=0.12)
    np.testing.assert_allclose(
        climate.thresholds.mean(axis=(0, 2, 3)), [normal.inv_cdf(0.1), normal.inv_cdf(0.9)], atol=0.1
    )


def test_its_crps_is_that_of_its_equally_likely_values(climate: Climate):
    times = [datetime(2031, 1, 15), datetime(2031, 12, 15, 12)]
    truth = Seasons().read(T2M, times).astype(float)
    expected = plain_crps(distribution(climate, times), truth)
    np.testing.assert_allclose(climate.crps(truth, times), expected, rtol=1e-6, atol=1e-6)
    # Of a normal law and its own draws, σ / √π.
    many = [datetime(2031, 1, 1) + timedelta(days=day) for day in range(200)]
    mean = climate.crps(Seasons().read(T2M, many).astype(float), many).mean()
    assert mean == pytest.approx(3 / np.sqrt(np.pi), rel=0.03)


def test_an_hour_that_the_period_lacks_has_no_climatology(climate: Climate):
    assert np.isnan(climate.mean([datetime(2031, 1, 1, 6)])).all()


def test_a_period_that_is_too_short_or_broken_is_refused():
    with pytest.raises(InputError, match="training period of a year or more; got 100 times over 49 days"):
        fit_climate(Seasons(), HALF_DAYS[:100], T2M, ())
    winters = [time for time in HALF_DAYS if time.month in (1, 11, 12)]
    with pytest.raises(InputError, match="needs times in all months; the period has none around 3"):
        fit_climate(Seasons(), winters, T2M, ())

    class Broken(Seasons):
        def read(self, channel: Channel, times: Sequence[datetime]) -> np.ndarray:
            return np.full((len(times), *GRID.shape), np.nan)

    with pytest.raises(
        InputError, match="the climatology's 2m_temperature has values that are not finite near 2010-01-01"
    ):
        fit_climate(Broken(), HALF_DAYS, T2M, ())


class Usual:
    """The climate of `miniature_cases`, whose fields are independent normal draws, as its law says."""

    grid = GRID

    def of(self, channel: Channel) -> Climate:
        mean, scale = {"z500": (55_000.0, 900.0), "t850": (280.0, 8.0), "2t": (285.0, 10.0)}[channel.label]
        normal = NormalDist(0.0, scale)
        levels = [normal.inv_cdf((index + 0.5) / 20) for index in range(20)]
        events = [normal.inv_cdf(0.1), normal.inv_cdf(0.9)]
        coefficients = np.zeros((5, *GRID.shape))
        coefficients[0] = mean

        def everywhere(values: list[float]) -> np.ndarray:
            return np.broadcast_to(np.array(values)[None, :, None, None], (12, len(values), *GRID.shape))

        return Climate({0: coefficients}, everywhere(levels), everywhere(events))


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    dates = days(20)
    sums = verify((case(date) for date in dates), World(days(30)), Plan(CHANNELS, spectra=CHANNELS[:1]), Usual())
    return Evaluation("ours", sums, Bootstrap(40, block_length=2))


def test_skill_against_climatology_is_one_less_the_ratio(evaluation: Evaluation):
    rows = {(row["score"], row["channel"], row["lead_hours"]): row["value"] for row in score_rows(evaluation)}

    def of(score: str) -> float:
        return rows[score, "temperature_850", 48]

    assert of("rmse_climatology") == pytest.approx(8.0, rel=0.05)
    assert of("mae_climatology") == pytest.approx(8.0 * np.sqrt(2 / np.pi), rel=0.05)
    assert of("crps_climatology") == pytest.approx(8.0 / np.sqrt(np.pi), rel=0.05)
    assert of("rmse_skill_climatology") == pytest.approx(1 - of("rmse_mean") / of("rmse_climatology"))
    assert of("crps_skill_climatology") == pytest.approx(1 - of("crps_fair") / of("crps_climatology"))
    # Half truth and half noise, of four members: the mean has a quarter of the noise's variance.
    assert of("anomaly_correlation") == pytest.approx(1 / np.sqrt(1 + 1 / 4), abs=0.03)


def test_brier_scores_follow_from_reliability(evaluation: Evaluation):
    rows = {(row["score"], row["channel"], row["lead_hours"]): row["value"] for row in score_rows(evaluation)}
    bins = [
        row
        for row in reliability_rows(evaluation)
        if (row["channel"], row["lead_hours"], row["event"]) == ("2m_temperature", 24, "above_q90")
    ]
    assert [row["forecast_probability"] for row in bins] == pytest.approx([0, 0.25, 0.5, 0.75, 1][: len(bins)])
    assert sum(row["share"] for row in bins) == pytest.approx(1.0)
    # Of yes and no, the mean of (p − o)² in a bin is o (1 − p)² + (1 − o) p².
    brier = sum(
        row["share"]
        * (
            row["observed_frequency"] * (1 - row["forecast_probability"]) ** 2
            + (1 - row["observed_frequency"]) * row["forecast_probability"] ** 2
        )
        for row in bins
    )
    assert rows["brier_above_q90", "2m_temperature", 24] == pytest.approx(brier)
    happened = sum(row["share"] * row["observed_frequency"] for row in bins)
    assert happened == pytest.approx(0.1, abs=0.03)
    assert rows["brier_fair_above_q90", "2m_temperature", 24] < rows["brier_above_q90", "2m_temperature", 24]


def test_rank_histograms_are_relative_to_a_flat_one(evaluation: Evaluation):
    rows = [row for row in rank_rows(evaluation) if (row["channel"], row["lead_hours"]) == ("2m_temperature", 24)]
    assert [row["rank"] for row in rows] == [0, 1, 2, 3, 4]
    assert np.mean([row["relative_frequency"] for row in rows]) == pytest.approx(1.0)
    assert all(row["low"] <= row["relative_frequency"] <= row["high"] for row in rows)


def test_spectra_have_ratios_of_mean_powers(evaluation: Evaluation):
    rows = list(spectrum_rows(evaluation))
    assert len(rows) == len(LEADS) * 6
    for row in rows:
        assert row["members_ratio"] == pytest.approx(row["members_power"] / row["truth_power"])
        assert row["mean_ratio"] == pytest.approx(row["mean_power"] / row["truth_power"])
        assert row["members_ratio_low"] <= row["members_ratio"] <= row["members_ratio_high"]
    # White noise: half truth and half noise of each member has half the power, their mean 1/4 + 1/16.
    assert np.mean([row["members_ratio"] for row in rows if row["wavenumber"] > 1]) == pytest.approx(0.5, abs=0.1)
    assert np.mean([row["mean_ratio"] for row in rows if row["wavenumber"] > 1]) == pytest.approx(5 / 16, abs=0.08)


def test_the_climate_of_a_channel_is_fitted_once():
    world = World(HALF_DAYS[::2])
    climatology = FittedClimatology(world, HALF_DAYS[:740:2], (0.1,))
    assert climatology.of(T2M) is climatology.of(T2M)
    assert climatology.grid is GRID
    assert climatology.of(T2M).thresholds.shape == (12, 1, *GRID.shape)
