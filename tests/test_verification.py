"""Many dates against truth: what is kept, what is skipped, and what the scores come to."""

import itertools
import tracemalloc
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from crps import fair_crps, fair_energy_score, plain_crps
from miniature_cases import GRID, LEADS, NAMES, World, case, days, forecast
from steps import forecast_step

from ai_models_mosaic.channels import CHANNELS
from ai_models_mosaic.errors import InputError, OptionError
from ai_models_mosaic.geometry.grid import LatLonGrid
from ai_models_mosaic.verification.accumulate import Sums, Verifier, verify
from ai_models_mosaic.verification.bootstrap import Bootstrap
from ai_models_mosaic.verification.cases import Case, Regridded, case_of_rollout
from ai_models_mosaic.verification.climatology import FittedClimatology
from ai_models_mosaic.verification.comparison import comparison_rows
from ai_models_mosaic.verification.evaluation import Evaluation, scores_of
from ai_models_mosaic.verification.plan import Event, Plan, find_channels
from ai_models_mosaic.verification.scores import area_weights
from ai_models_mosaic.verification.tables import score_rows

CHANNEL_LIST = find_channels(NAMES)
PLAN = Plan(CHANNEL_LIST, spectra=CHANNEL_LIST[:1])
DATES = days(6)
TRUTH = World(days(12))


@pytest.fixture(scope="module")
def sums() -> Sums:
    return verify((case(date) for date in DATES), TRUTH, PLAN)


def scores(sums: Sums, replicates: int = 50) -> dict[tuple[str, str, int], dict[str, object]]:
    evaluation = Evaluation("ours", sums, Bootstrap(replicates, block_length=2))
    return {(row["score"], row["channel"], row["lead_hours"]): row for row in score_rows(evaluation)}


def test_every_score_is_what_numpy_makes_of_all_fields_at_once(sums: Sums):
    found = scores(sums)
    weights = area_weights(GRID)
    for channel, (index, lead) in itertools.product(CHANNEL_LIST, enumerate(LEADS)):
        members = np.stack([forecast(channel, date, 4)[:, index] for date in DATES], axis=1).astype(float)
        truth = TRUTH.read(channel, [date + timedelta(hours=lead) for date in DATES]).astype(float)
        start = TRUTH.read(channel, DATES).astype(float)

        def mean(values: np.ndarray) -> float:
            return float((values * weights).sum(axis=(-2, -1)).mean())

        error = members.mean(axis=0) - truth
        variance = mean(members.var(axis=0, ddof=1))
        transform = ((members < truth).sum(axis=0) + 0.5) / 5
        crps, distance = mean(fair_crps(members, truth)), mean(abs(start - truth))
        expected = {
            "rmse_mean": mean(error**2) ** 0.5,
            "bias": mean(error),
            "mae_mean": mean(abs(error)),
            "mae_members": mean(abs(members - truth)),
            "rmse_members": mean((members - truth) ** 2) ** 0.5,
            "crps_fair": crps,
            "crps_plain": mean(plain_crps(members, truth)),
            "energy_score_fair": fair_energy_score(members, truth, weights),
            "pit_mean": mean(transform),
            "pit_spread": 12 * (mean(transform**2) + 1 / 12 / 25 - mean(transform) ** 2),
            "spread": variance**0.5,
            "spread_skill": (5 / 4 * variance / mean(error**2)) ** 0.5,
            "rmse_persistence": mean((start - truth) ** 2) ** 0.5,
            "mae_persistence": distance,
            "rmse_skill_persistence": 1 - (mean(error**2) / mean((start - truth) ** 2)) ** 0.5,
            "crps_skill_persistence": 1 - crps / distance,
        }
        got = {score: found[score, channel.name, lead]["value"] for score in expected}
        assert got == pytest.approx(expected, rel=1e-9)
        assert {score for score, name, hours in found if (name, hours) == (channel.name, lead)} == set(expected)


def test_every_line_says_what_it_is_of(sums: Sums):
    row = scores(sums)["rmse_mean", "geopotential_500", 48]
    assert row["low"] < row["value"] < row["high"]
    row = {key: value for key, value in row.items() if key not in ("value", "low", "high")}
    assert row == {
        "forecast": "ours",
        "score": "rmse_mean",
        "channel": "geopotential_500",
        "units": "m**2 s**-2",
        "lead_hours": 48,
        "dates": 6,
        "members": 4,
    }
    assert scores(sums)["spread_skill", "2m_temperature", 24]["units"] == "1"


def test_a_single_forecast_has_its_absolute_error_as_crps_and_no_spread():
    found = scores(verify([case(date, members=1) for date in DATES], TRUTH, PLAN))
    assert found["crps_fair", "temperature_850", 48]["value"] == found["mae_members", "temperature_850", 48]["value"]
    assert found["mae_mean", "temperature_850", 48]["value"] == pytest.approx(
        found["mae_members", "temperature_850", 48]["value"]
    )
    assert not {"spread", "spread_skill", "crps_plain"} & {score for score, _, _ in found}


def test_dates_may_come_in_any_order(sums: Sums):
    other = verify((case(date) for date in reversed(DATES)), TRUTH, PLAN)
    assert other.dates == sums.dates
    for name, values in sums.terms.items():
        np.testing.assert_array_equal(other.terms[name], values)
    np.testing.assert_array_equal(other.ranks, sums.ranks)


def test_what_has_no_truth_is_skipped_and_counted():
    found = verify((case(date) for date in DATES), World(days(7)), PLAN)
    # Days 6 and later are not there: two leads of day 5, one of day 4 are lost, of three channels.
    assert found.skipped == {"fields without truth at the valid time": 9}
    assert np.isfinite(found.terms["error"][:, 0]).sum(axis=0).tolist() == [6, 5, 4]
    rows = scores(found)
    assert [rows["bias", "2m_temperature", lead]["dates"] for lead in LEADS] == [6, 5, 4]


def test_a_date_wholly_without_truth_is_no_date():
    found = verify((case(date) for date in (*DATES, datetime(2021, 1, 1))), TRUTH, PLAN)
    assert found.dates == tuple(DATES)
    assert found.skipped["dates of which nothing could be verified"] == 1


def test_persistence_needs_truth_at_the_initial_time():
    found = verify((case(date) for date in DATES), World(days(12)[1:]), PLAN)
    assert scores(found)["rmse_persistence", "temperature_850", 24]["dates"] == 5
    assert scores(found)["rmse_mean", "temperature_850", 24]["dates"] == 6
    # Skill is of the dates that both have.
    assert scores(found)["rmse_skill_persistence", "temperature_850", 24]["dates"] == 5


def test_nothing_to_verify_is_an_error():
    with pytest.raises(InputError, match=r"nothing could be verified: there were no forecasts. Expected forecasts"):
        verify([], TRUTH, PLAN)
    with pytest.raises(
        InputError, match="nothing could be verified: 9 fields without truth at the valid time; 1 dates"
    ):
        verify([case(datetime(2021, 1, 1))], TRUTH, PLAN)


def test_dates_with_another_number_of_members_are_left_out_and_counted():
    found = verify([case(DATES[0]), case(DATES[1], members=3), case(DATES[2])], TRUTH, PLAN)
    assert found.dates == (DATES[0], DATES[2])
    assert found.skipped == {"dates with 3 members in place of 4": 1}


def test_a_source_that_knows_the_size_of_the_ensemble_is_believed_from_the_first_date_on():
    short = replace(case(DATES[0], members=3), ensemble=4)
    found = verify([short, case(DATES[1])], TRUTH, PLAN)
    assert found.dates == (DATES[1],)


def test_wholly_missing_fields_are_skipped_and_others_that_are_not_finite_refused():
    def without_second_lead(values: np.ndarray) -> np.ndarray:
        values[1, 1] = np.nan
        return values

    found = verify([case(DATES[0], change=without_second_lead), case(DATES[1])], TRUTH, PLAN)
    assert found.skipped == {"fields missing from the forecast": 3}
    assert np.isfinite(found.terms["error"][:, 0]).tolist() == [[True, False, True], [True, True, True]]

    def with_a_hole(values: np.ndarray) -> np.ndarray:
        values[0, 0, 3, 3] = np.inf
        return values

    message = "geopotential_500 of the forecast from 2020-01-01 00:00:00 UTC has values that are not finite"
    with pytest.raises(InputError, match=message):
        verify([case(DATES[0], change=with_a_hole)], TRUTH, PLAN)


def test_arrays_of_another_shape_are_refused():
    turned = case(DATES[0], change=lambda values: np.swapaxes(values, -1, -2))
    with pytest.raises(
        InputError, match=r"as \(member, lead, lon, lat\) of shape \(4, 3, 12, 7\), got \(4, 3, 7, 12\)"
    ):
        verify([turned], TRUTH, PLAN)


def test_a_date_given_twice_is_refused():
    with pytest.raises(InputError, match="expected every initial date once, got 2020-01-01 00:00:00 UTC again"):
        verify([case(DATES[0]), case(DATES[0])], TRUTH, PLAN)


def test_only_the_wanted_leads_are_verified(sums: Sums):
    found = verify((case(date) for date in DATES), TRUTH, replace(PLAN, lead_hours=(48,)))
    assert found.lead_hours == (48,)
    np.testing.assert_allclose(found.terms["variance"][..., 0], sums.terms["variance"][..., 1], rtol=1e-12)


def test_ranks_are_shares_and_do_not_depend_on_other_channels(sums: Sums):
    np.testing.assert_allclose(sums.ranks.sum(axis=-1), 1.0)
    alone = verify((case(date) for date in DATES), TRUTH, replace(PLAN, channels=CHANNEL_LIST[1:], spectra=()))
    np.testing.assert_array_equal(alone.ranks, sums.ranks[:, 1:])


def test_power_is_of_members_of_their_mean_and_of_the_truth(sums: Sums):
    verifier = Verifier(TRUTH, PLAN)
    power = verifier._power
    assert power is not None
    z500 = CHANNEL_LIST[0]
    members = forecast(z500, DATES[2], 4)[:, 1].astype(float)
    truth = TRUTH.read(z500, [DATES[2] + timedelta(hours=48)])[0].astype(float)
    kept = sums.spectra_power[2, 0, 1]
    np.testing.assert_allclose(kept[0], np.mean([power(member) for member in members], axis=0), rtol=1e-9)
    np.testing.assert_allclose(kept[1], power(members.mean(axis=0)), rtol=1e-9)
    np.testing.assert_allclose(kept[2], power(truth), rtol=1e-9)


def test_memory_does_not_grow_with_the_dates():
    plan = Plan(CHANNEL_LIST[:1], spectra=())

    def growth(count: int) -> int:
        """Bytes held after so many dates, beyond those after the first."""
        verifier = Verifier(World(days(count + 4)), plan)
        verifier.add(case(START_OF_ALL, members=8))
        tracemalloc.start()
        for date in days(count)[1:]:
            verifier.add(case(date, members=8))
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak - held < 4e6
        return held

    few, many = growth(4), growth(24)
    fields_of_one_date = 8 * 3 * GRID.size * 4
    # Twenty more dates leave a few numbers each, and not a field.
    assert (many - few) / 20 < 0.6 * fields_of_one_date


START_OF_ALL = days(1)[0]


def test_a_rollout_in_this_process_is_a_case():
    rng = np.random.default_rng(0)
    steps = [
        forecast_step(
            step, 24 * step, members, rng.normal(size=(len(members), *GRID.shape, len(CHANNELS))).astype("f4")
        )
        for step in (1, 2)
        for members in ((2, 1), (3,))
    ]
    made = case_of_rollout(DATES[0], iter(steps), CHANNEL_LIST[1:])
    assert (made.members, made.lead_hours) == ((1, 2, 3), (24, 48))
    t850 = CHANNELS.index(CHANNEL_LIST[1])
    np.testing.assert_array_equal(made.read(CHANNEL_LIST[1])[1, 0], steps[0].values[0, ..., t850])
    np.testing.assert_array_equal(made.read(CHANNEL_LIST[1])[2, 1], steps[3].values[0, ..., t850])
    assert case_of_rollout(DATES[0], iter(steps), CHANNEL_LIST, (48,)).lead_hours == (48,)
    with pytest.raises(InputError, match=r"expected members \[1, 2, 3\] at \+24 h, as at other leads; got \[1, 2\]"):
        case_of_rollout(DATES[0], iter([steps[0], *steps[2:]]), CHANNEL_LIST)


def test_a_case_refuses_members_twice_and_leads_in_disorder():
    with pytest.raises(ValueError, match="expected distinct members"):
        Case(DATES[0], (1, 1), (24,), lambda _: np.zeros(0))
    with pytest.raises(ValueError, match="expected ascending lead times"):
        Case(DATES[0], (1, 2), (48, 24), lambda _: np.zeros(0))


def test_truth_on_another_grid_is_regridded_or_refused():
    coarse = LatLonGrid.regular(45)
    regridded = Regridded(TRUTH, coarse)
    fields = regridded.read(CHANNEL_LIST[0], DATES[:2])
    assert fields.shape == (2, 8, 5)
    fine = TRUTH.read(CHANNEL_LIST[0], DATES[:2])
    for after, before in zip(fields, fine, strict=True):
        mean = (before * area_weights(GRID)).sum()
        assert (after * area_weights(coarse)).sum() == pytest.approx(mean, rel=1e-6)
    climatology = FittedClimatology(regridded, DATES)
    with pytest.raises(
        InputError, match=r"the climatology is on 8 × 5 points \(45°\), where 12 × 7 points \(30°\) was"
    ):
        Verifier(TRUTH, PLAN, climatology)


def test_forecasts_are_compared_on_the_dates_of_both(sums: Sums):
    better = verify((case(date, change=lambda values: values) for date in DATES[1:]), TRUTH, PLAN)
    bootstrap = Bootstrap(20, block_length=2)
    rows = list(comparison_rows(Evaluation("b", better, bootstrap), Evaluation("a", sums, bootstrap)))
    assert {row["score"] for row in rows} == {"rmse_mean", "crps_fair", "energy_score_fair", "rmse_members"}
    assert {(row["ratio"], row["low"], row["high"], row["dates"]) for row in rows} == {(1.0, 1.0, 1.0, 5)}


def test_a_lead_time_that_one_forecast_lacks_on_a_date_is_compared_on_the_others():
    worse = {DATES[2]: lambda values: values + 100}
    whole = verify((case(date, change=worse.get(date)) for date in DATES), TRUTH, PLAN)
    short = verify((case(date, leads=LEADS[: 1 if date == DATES[2] else 3]) for date in DATES), TRUTH, PLAN)
    rows = list(comparison_rows(Evaluation("b", short, Bootstrap(20)), Evaluation("a", whole, Bootstrap(20))))
    assert {(row["lead_hours"], row["dates"]) for row in rows} == {(24, 6), (48, 5), (72, 5)}
    assert {row["ratio"] for row in rows if row["lead_hours"] != 24} == {1.0}
    assert all(row["ratio"] < 1 for row in rows if row["lead_hours"] == 24)


def test_a_comparison_with_a_single_forecast_is_of_crps_with_absolute_error(sums: Sums):
    single = verify((case(date, members=1) for date in DATES), TRUTH, PLAN)
    bootstrap = Bootstrap(20, block_length=2)
    rows = {
        (row["score"], row["channel"], row["lead_hours"]): row["ratio"]
        for row in comparison_rows(Evaluation("one", single, bootstrap), Evaluation("many", sums, bootstrap))
    }
    expected = scores(single)["mae_members", "temperature_850", 48]["value"]
    expected /= scores(sums)["crps_fair", "temperature_850", 48]["value"]
    assert rows["crps_fair", "temperature_850", 48] == pytest.approx(expected)


def test_channels_are_found_by_short_and_long_names():
    names = ["geopotential_500", "z500", "2t", "t2m", "2m_temperature", "u10", "10u", "q700", "msl"]
    assert [channel.label for channel in find_channels(names)] == ["z500", "2t", "10u", "q700", "msl"]
    assert find_channels(["all"]) == CHANNELS
    assert [channel.label for channel in find_channels(["w"])][::12] == ["w50", "w1000"]
    message = "expected some of 2t, 10u, 10v, msl, z, q, t, u, v, w, or one level such as z500, got 'z501'; levels are"
    for option in ("--channels", "--spectra"):
        with pytest.raises(OptionError, match=f"^{option}: {message} 50, 100, "):
            find_channels(["z501"], option)
    with pytest.raises(OptionError, match=r"^--channels: .* got '10ws';"):
        find_channels(["10ws"])


def test_a_plan_refuses_what_it_cannot_do():
    with pytest.raises(OptionError, match="expected at least one channel"):
        Plan(channels=(), spectra=())
    with pytest.raises(OptionError, match="spectra of 2t need these among the channels that are verified"):
        Plan(CHANNEL_LIST[:1], spectra=CHANNEL_LIST[2:])
    with pytest.raises(OptionError, match="expected quantiles between 0 and 1, got 1"):
        Event(1.0)


def test_scores_that_a_forecast_cannot_have_are_not_listed(sums: Sums):
    assert not any("climatology" in score.name or "brier" in score.name for score in scores_of(sums))
