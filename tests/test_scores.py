"""The terms of scores, against closed forms, a library, and recomputation point by point."""

import itertools
import math

import numpy as np
import pytest
import scoringrules
from crps import fair_crps, plain_crps

from ai_models_mosaic.geometry.grid import LatLonGrid
from ai_models_mosaic.verification.bootstrap import Bootstrap
from ai_models_mosaic.verification.reliability import bin_areas, consistency_interval, member_counts, reliability_counts
from ai_models_mosaic.verification.scores import (
    anomaly_terms,
    area_weights,
    energy_terms,
    error_terms,
    event_terms,
    half_difference,
    pit_terms,
    rank_counts,
    reference_terms,
)

WEIGHTS = np.array([0.1, 0.2, 0.3, 0.4])


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(4)


def crps_of_terms(forecast, truth):
    """Fair and plain CRPS at every point, as tables of scores make them of the terms."""
    members = len(forecast)
    terms = error_terms((forecast - truth)[:, :, None], np.ones(1))
    distance = terms["member_absolute_error"]
    if members == 1:
        return distance, distance
    return distance - terms["half_difference"], distance - terms["half_difference"] * (members - 1) / members


@pytest.mark.parametrize("members", [2, 3, 8, 51])
def test_the_fair_crps_is_its_definition(generator: np.random.Generator, members: int):
    forecast, truth = generator.normal(size=(members, 5)), generator.normal(size=5)
    pairs = sum(np.abs(one - other) for one, other in itertools.product(forecast, repeat=2))
    expected = np.abs(forecast - truth).mean(axis=0) - pairs / (2 * members * (members - 1))
    np.testing.assert_allclose(crps_of_terms(forecast, truth)[0], expected, rtol=1e-12)


@pytest.mark.parametrize("members", [2, 8, 20])
def test_both_crps_are_those_of_scoringrules(generator: np.random.Generator, members: int):
    forecast, truth = generator.gamma(2.0, size=(members, 30)), generator.gamma(2.0, size=30)
    for ours, theirs in zip(crps_of_terms(forecast, truth), (fair_crps, plain_crps), strict=True):
        np.testing.assert_allclose(ours, theirs(forecast, truth), rtol=1e-12)


def test_the_fair_crps_of_a_normal_ensemble_is_on_average_the_closed_form_whatever_its_size(
    generator: np.random.Generator,
):
    # Source: Gneiting and Raftery (2007); the mean over truths of the same law is 1 / √π.
    for members in (2, 5, 20):
        forecast, truth = generator.normal(size=(members, 40_000)), generator.normal(size=40_000)
        assert crps_of_terms(forecast, truth)[0].mean() == pytest.approx(1 / math.sqrt(math.pi), abs=0.012)


def test_the_crps_of_one_member_is_its_absolute_error():
    fair, plain = crps_of_terms(np.array([[3.0, -1.0]]), np.array([1.0, 1.0]))
    assert fair.tolist() == plain.tolist() == [2.0, 2.0]


def test_the_crps_of_equal_members_is_their_absolute_error():
    assert crps_of_terms(np.full((4, 1), 3.0), np.array([1.0]))[0] == pytest.approx(2.0)


def test_the_terms_are_area_means_computed_point_by_point(generator: np.random.Generator):
    error = generator.normal(1.0, 2.0, size=(5, 3, 4))
    terms = error_terms(error, WEIGHTS)
    for lead in range(3):
        expected = dict.fromkeys(terms, 0.0)
        for point, weight in enumerate(WEIGHTS):
            values = error[:, lead, point].tolist()
            mean = sum(values) / 5
            expected["error"] += weight * mean
            expected["squared_error"] += weight * mean**2
            expected["absolute_error"] += weight * abs(mean)
            expected["member_squared_error"] += weight * sum(value**2 for value in values) / 5
            expected["member_absolute_error"] += weight * sum(abs(value) for value in values) / 5
            pairs = sum(abs(one - other) for one, other in itertools.combinations(values, 2))
            expected["half_difference"] += weight * pairs / (5 * 4)
            expected["variance"] += weight * sum((value - mean) ** 2 for value in values) / 4
        assert {name: values[lead] for name, values in terms.items()} == pytest.approx(expected, rel=1e-12)


def test_one_member_has_no_spread():
    terms = error_terms(np.ones((1, 2, 4)), WEIGHTS)
    assert not {"variance", "half_difference"} & terms.keys()
    assert terms["squared_error"].tolist() == pytest.approx([1.0, 1.0])


def test_equal_members_have_no_negative_variance():
    assert (error_terms(np.full((3, 1, 4), 0.1), WEIGHTS)["variance"] >= 0).all()


def test_a_large_constant_of_both_does_not_cost_digits(generator: np.random.Generator):
    forecast, truth = generator.normal(size=(4, 1, 4)), generator.normal(size=(1, 4))
    plain = error_terms(forecast - truth, WEIGHTS)
    shifted = error_terms((forecast + 2.0**30) - (truth + 2.0**30), WEIGHTS)
    for name, values in plain.items():
        np.testing.assert_allclose(shifted[name], values, rtol=1e-5)


def test_members_may_come_in_any_order(generator: np.random.Generator):
    error = generator.normal(size=(6, 2, 4))
    for name, values in error_terms(error, WEIGHTS).items():
        np.testing.assert_allclose(error_terms(error[::-1], WEIGHTS)[name], values, rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(half_difference(error[[3, 1, 0, 5, 4, 2]]), half_difference(error), rtol=1e-12)


def test_weights_are_areas_of_cells_with_half_cells_at_the_poles():
    weights = area_weights(LatLonGrid.regular(30))
    assert weights.shape == (12, 7)
    assert weights.sum() == pytest.approx(1.0)
    assert weights[:, 0].sum() == pytest.approx((1 - math.sin(math.radians(75))) / 2)
    assert weights[:, 3].sum() == pytest.approx(math.sin(math.radians(15)))
    assert np.ptp(weights, axis=0) == pytest.approx(0.0)


def test_the_terms_of_a_reference_are_nan_where_there_is_none():
    error = np.array([[1.0, -1.0, 2.0, 0.0], [np.nan] * 4])
    terms = reference_terms("persistence", error, WEIGHTS)
    np.testing.assert_allclose(terms["persistence_squared_error"], [0.1 + 0.2 + 1.2, np.nan])
    np.testing.assert_allclose(terms["persistence_absolute_error"], [0.1 + 0.2 + 0.6, np.nan])


def test_equal_anomalies_correlate_wholly(generator: np.random.Generator):
    anomaly = generator.normal(size=(2, 4))
    terms = anomaly_terms(2 * anomaly, anomaly, WEIGHTS)
    correlation = terms["anomaly_product"] / np.sqrt(terms["anomaly_forecast"] * terms["anomaly_truth"])
    np.testing.assert_allclose(correlation, 1.0)


def test_the_rank_is_the_number_of_members_below_the_truth(generator: np.random.Generator):
    # Errors of three members at four points, one lead: 0, 1, 3 and 2 members are below.
    error = np.array([[[1.0, -1.0, -1.0, -5.0]], [[2.0, 3.0, -2.0, 4.0]], [[3.0, 2.0, -3.0, -1.0]]])
    np.testing.assert_allclose(rank_counts(error, WEIGHTS, generator), [[0.1, 0.2, 0.4, 0.3]])


def test_equal_values_are_ranked_at_random_and_again_alike():
    error, weights = np.zeros((3, 1, 40_000)), np.full(40_000, 1 / 40_000)
    first, again, other = (rank_counts(error, weights, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_allclose(first, 0.25, atol=0.01)
    assert (first == again).all()
    assert (first != other).any()


def test_a_tie_stays_among_the_ranks_that_it_can_have():
    error = np.zeros((3, 1, 1000))
    error[0], error[2] = -1.0, 1.0
    counts = rank_counts(error, np.full(1000, 1e-3), np.random.default_rng(0))
    assert counts[0, [0, 3]].tolist() == [0.0, 0.0]
    assert 0.4 < counts[0, 1] < 0.6


def test_draws_from_one_law_have_a_flat_histogram(generator: np.random.Generator):
    error = generator.normal(size=(4, 1, 50_000)) - generator.normal(size=(1, 50_000))
    np.testing.assert_allclose(rank_counts(error, np.full(50_000, 2e-5), generator), 0.2, atol=0.008)


def test_the_brier_score_is_the_mean_square_of_the_error_in_probability():
    probability, happened = np.array([[0.0, 0.5, 1.0, 0.5]]), np.array([[0.0, 1.0, 1.0, 0.0]])
    terms = event_terms("above_q90", 0.1, probability, happened, 2, WEIGHTS)
    assert terms["above_q90_brier"] == pytest.approx(0.2 * 0.25 + 0.4 * 0.25)
    assert terms["above_q90_climatology_brier"] == pytest.approx(0.1 * 0.01 + 0.2 * 0.81 + 0.3 * 0.81 + 0.4 * 0.01)
    assert terms["above_q90_sampling"] == pytest.approx(0.6 * 0.25)


def test_the_fair_brier_score_does_not_depend_on_the_size_of_the_ensemble(generator: np.random.Generator):
    weights = np.full(40_000, 1 / 40_000)
    happened = (generator.random((1, 40_000)) < 0.3).astype(float)
    fair = []
    for members in (2, 5, 40):
        probability = generator.binomial(members, 0.3, size=(1, 40_000)) / members
        terms = event_terms("e", 0.3, probability, happened, members, weights)
        fair.append(float(terms["e_brier"][0] - terms["e_sampling"][0]))
    assert fair == pytest.approx([0.21] * 3, abs=0.008)


def test_reliability_has_a_bin_for_every_number_of_members():
    probability, happened = np.array([[0.0, 1 / 3, 1.0, 1 / 3]]), np.array([[0.0, 1.0, 1.0, 0.0]])
    counts = reliability_counts(bin_areas(probability, 3, WEIGHTS), probability, happened)
    assert counts.shape == (1, 4, 3)
    np.testing.assert_allclose(counts[0, :, 0], [0.1, 0.6, 0.0, 0.3])
    np.testing.assert_allclose(counts[0, :, 1], [0.0, 0.2, 0.0, 0.3])
    np.testing.assert_allclose(counts[0, :, 2], [0.0, 0.2, 0.0, 0.3])


def test_large_ensembles_share_eleven_bins():
    probability = np.linspace(0, 1, 51)[None]
    areas = bin_areas(probability, 50, np.full(51, 1 / 51))
    counts = reliability_counts(areas, probability, np.zeros_like(probability))
    assert counts.shape == (1, 11, 3)
    assert counts[0, :, 0].sum() == pytest.approx(1.0)
    assert counts[0, :, 1].sum() == pytest.approx(probability.mean())


def test_the_energy_score_is_that_of_scoringrules(generator: np.random.Generator):
    forecast, truth = generator.normal(size=(6, 3, 4)), generator.normal(size=(3, 4))
    terms = energy_terms(forecast - truth, WEIGHTS)
    # The library's distance is Euclidean: with areas, of values times the root of their area.
    rooted = np.sqrt(WEIGHTS)
    for lead in range(3):
        expected = scoringrules.es_ensemble(truth[lead] * rooted, forecast[:, lead] * rooted, estimator="fair")
        ours = terms["field_distance"][lead] - terms["field_half_difference"][lead]
        assert ours == pytest.approx(float(expected), rel=1e-12)


def test_the_energy_score_of_one_point_is_the_crps(generator: np.random.Generator):
    error = generator.normal(size=(5, 2, 1))
    whole, points = energy_terms(error, np.ones(1)), error_terms(error, np.ones(1))
    np.testing.assert_allclose(whole["field_distance"], points["member_absolute_error"], rtol=1e-12)
    np.testing.assert_allclose(whole["field_half_difference"], points["half_difference"], rtol=1e-12)


def test_one_member_has_no_distance_from_another():
    assert energy_terms(np.full((1, 1, 4), 2.0), WEIGHTS)["field_distance"].tolist() == [pytest.approx(2.0)]
    assert set(energy_terms(np.ones((1, 1, 4)), WEIGHTS)) == {"field_distance"}


def test_the_transform_of_flat_ranks_is_uniform():
    terms = pit_terms(np.full((2, 9), 1 / 9))
    np.testing.assert_allclose(terms["pit"], 1 / 2, rtol=1e-12)
    np.testing.assert_allclose(terms["pit_squared"], 1 / 3, rtol=1e-12)


def test_the_transform_spreads_a_rank_over_its_interval():
    # A truth above one of three members lies between 1/4 and 1/2: mean 3/8, mean square (1/8 − 1/64) / 3 · 4.
    terms = pit_terms(np.array([[0.0, 1.0, 0.0, 0.0]]))
    assert terms["pit"].tolist() == [0.375]
    assert terms["pit_squared"][0] == pytest.approx((0.5**3 - 0.25**3) / 3 / 0.25)


def test_members_in_the_place_of_the_truth_are_counted_in_the_bins_of_the_ensemble():
    happens = np.array([[[1.0, 0.0, 1.0, 0.0]], [[1.0, 1.0, 0.0, 0.0]]])
    areas = bin_areas(happens.mean(axis=0), 2, WEIGHTS)
    counts = member_counts(areas, happens)
    assert counts.shape == (1, 3, 2)
    np.testing.assert_allclose(counts[0], [[0.0, 0.0], [0.3, 0.2], [0.1, 0.1]])
    # Over members, events happen as often as they were forecast.
    forecast = reliability_counts(areas, happens.mean(axis=0), happens[0])[..., 1]
    np.testing.assert_allclose(counts.mean(axis=-1), forecast)


def test_frequencies_of_reliable_forecasts_lie_within_the_consistency_bars_as_often_as_they_say():
    """Truths that are one more member, one place per date: Bröcker and Smith's own case, bars against the binomial."""
    generator = np.random.default_rng(3)
    dates, members, inside = 60, 4, []
    for trial in range(60):
        happens = (generator.uniform(size=(dates, members, 1)) < 0.5).astype(float)
        probability = happens.mean(axis=1)
        areas = np.stack([bin_areas(value[None], members, np.ones(1)) for value in probability])
        of_members = np.stack([member_counts(area, value[:, None]) for area, value in zip(areas, happens, strict=True)])
        happened = (generator.uniform(size=(dates, 1)) < probability).astype(float)
        low, high = consistency_interval(Bootstrap(200, seed=trial), 1, areas.sum(axis=-1), of_members)
        observed = (areas.sum(axis=-1) * happened[..., None]).sum(axis=0)[0, 2] / areas.sum(axis=(0, -1))[0, 2]
        inside.append(low[0, 2] <= observed <= high[0, 2])
    assert 0.88 <= np.mean(inside) <= 1.0


def test_consistency_bars_know_that_a_bin_without_chance_has_none():
    happens = np.array([[1.0, 1.0], [1.0, 0.0]])
    areas = bin_areas(happens.mean(axis=0)[None], 2, np.array([0.5, 0.5]))
    bars = consistency_interval(
        Bootstrap(50), 1, np.stack([areas.sum(axis=-1)] * 2), np.stack([member_counts(areas, happens[:, None])] * 2)
    )
    low, high = (ends[0].tolist() for ends in bars)
    # All members agree on the last bin; the first is empty.
    assert low[1:] == [0.0, 1.0]
    assert high[1:] == [1.0, 1.0]
    assert np.isnan(low[0])
    assert np.isnan(high[0])
