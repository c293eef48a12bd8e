"""The command ``calibrate``: factors that are recovered, cut by spectra, and tried on other dates."""

import json
import shlex
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray
from miniature_cases import GRID, stored

from ai_models_mosaic.channels import CHANNELS
from ai_models_mosaic.cli import main
from ai_models_mosaic.commands.forecast_run import parser as forecast_parser
from ai_models_mosaic.errors import InputError, OptionError
from ai_models_mosaic.forecast.noise_factors import parse_noise_factors
from ai_models_mosaic.outputs.calibration import moved, parse_calibration
from ai_models_mosaic.verification.accumulate import verify
from ai_models_mosaic.verification.bootstrap import Bootstrap
from ai_models_mosaic.verification.calibration.dates import split
from ai_models_mosaic.verification.calibration.noise import fit_noise, interpolated
from ai_models_mosaic.verification.calibration.options import by_noise_factor
from ai_models_mosaic.verification.calibration.origin import Origin, common_origin, origin_of
from ai_models_mosaic.verification.calibration.spectra import Bands, bands_of
from ai_models_mosaic.verification.calibration.spread import fit_spread
from ai_models_mosaic.verification.cases import Case
from ai_models_mosaic.verification.evaluation import Evaluation
from ai_models_mosaic.verification.plan import Plan, find_channels
from ai_models_mosaic.verification.spectra import PowerSpectrum

DOCUMENTATION = Path(__file__).parent.parent / "docs" / "calibration.md"
CHANNEL_LIST = find_channels(("z500", "2t"))
PLAN = Plan(CHANNEL_LIST, spectra=CHANNEL_LIST)
MEMBERS, LEADS = 6, (24, 48)
DATES = [datetime(2020, 1, 1) + timedelta(days=4 * index) for index in range(12)]
"""Far enough apart for every valid time to be of one forecast."""

WIDE = Bands(((1, 5),), 0.999)
"""A bound that nothing comes to."""

OPTIONS = ("--channels", "z500,2t", "--bootstrap", "50", "--block-length", "2", "--bound", "0.9")


def noise(channel, time, draw):
    """A field of standard normal numbers, the same whenever it is asked for."""
    hours = int((time - DATES[0]).total_seconds()) // 3600
    return np.random.default_rng([CHANNELS.index(channel), 100 + hours, draw]).normal(size=GRID.shape)


class Truth:
    """A centre of every time, and a draw about it."""

    grid = GRID

    def read(self, channel, times):
        return np.stack([2 * noise(channel, time, 0) + noise(channel, time, 1) for time in times])


def members(channel, date, spread, wrong=0.0):
    """Draws about the same centres, so many times as far from them, ``(member, lead, lon, lat)``.

    `wrong` is how far all of them are off together.
    """
    times = [date + timedelta(hours=lead) for lead in LEADS]
    centre = np.stack([2 * noise(channel, time, 0) + wrong * noise(channel, time, 99) for time in times])
    return centre + spread * np.stack(
        [[noise(channel, time, 2 + member) for time in times] for member in range(MEMBERS)]
    )


def evaluation(spread=1.0, wrong=0.0):
    def case(date):
        return Case(date, tuple(range(1, MEMBERS + 1)), LEADS, lambda channel: members(channel, date, spread, wrong))

    return Evaluation(f"{spread:g}", verify(map(case, DATES), Truth(), PLAN), Bootstrap(50, block_length=2))


def forecast_store(path, spread=1.0):
    values = {channel.label: np.stack([members(channel, date, spread) for date in DATES]) for channel in CHANNEL_LIST}
    dimensions = ("time", "number", "prediction_timedelta", "longitude", "latitude")
    coordinates = {"time": np.array(DATES, dtype="datetime64[ns]"), "number": np.arange(1, MEMBERS + 1)}
    coordinates["prediction_timedelta"] = np.array(LEADS, dtype="timedelta64[h]").astype("timedelta64[ns]")
    return stored(dataset(values, dimensions, coordinates), path)


def truth_store(path):
    times = [date + timedelta(hours=lead) for date in DATES for lead in (0, *LEADS)]
    values = {channel.label: Truth().read(channel, times) for channel in CHANNEL_LIST}
    dimensions = ("time", "longitude", "latitude")
    return stored(dataset(values, dimensions, {"time": np.array(times, dtype="datetime64[ns]")}), path)


def dataset(values, dimensions, coordinates):
    fields = {
        "geopotential": ((*dimensions, "level"), values["z500"][..., None]),
        "2m_temperature": (dimensions, values["2t"]),
    }
    points = {"longitude": list(GRID.longitude_deg), "latitude": list(GRID.latitude_deg), "level": [500]}
    return xarray.Dataset(fields, {**coordinates, **points})


# The factor on the spread.


@pytest.mark.parametrize("spread", [0.7, 1.0, 1.6])
def test_the_factor_is_what_makes_members_like_the_truth(spread):
    fit = fit_spread(evaluation(spread), WIDE)
    # The error of the mean of so many members is theirs, too. 12 dates of 84 points: a standard error of about 3 %.
    assert np.allclose(fit.factors, np.sqrt(MEMBERS / (MEMBERS + 1) * (1 / spread**2 + 1 / MEMBERS)), rtol=0.1)
    assert fit.cut_by == [["", ""], ["", ""]]


def test_spread_over_error_is_1_after_it_on_the_dates_of_the_fit():
    before = evaluation(0.7)
    fit = fit_spread(before, WIDE)
    sums = before.sums
    ratio = (MEMBERS + 1) / MEMBERS * sums.terms["variance"].mean(axis=0) / sums.terms["squared_error"].mean(axis=0)
    assert np.allclose(fit.factors * np.sqrt(ratio), 1, atol=1e-4)


def test_a_factor_is_between_a_half_and_2():
    assert np.all(fit_spread(evaluation(0.2), WIDE).factors == 2)
    fit = fit_spread(evaluation(4.0), WIDE)
    assert np.all(fit.factors == 0.5)
    assert fit.cut_by == [["limits", "limits"], ["limits", "limits"]]
    assert np.all(fit.wanted < 0.46)


def test_members_that_are_all_alike_are_left_to_the_limit():
    fit = fit_spread(evaluation(0.0), WIDE)
    assert np.all(fit.factors == 2)


def test_the_largest_factor_that_spectra_allow_puts_a_band_on_the_bound():
    bands = Bands(((1, 2), (3, 5)), 0.15)
    power = PowerSpectrum(GRID)
    generator = np.random.default_rng(1)
    fields = generator.normal(size=(MEMBERS, *GRID.shape))
    truth = 1.15 * generator.normal(size=GRID.shape)

    def spectra(factor):
        values = moved(fields, factor)
        return np.stack([power(values).mean(axis=0), power(values.mean(axis=0)), power(truth)])

    low, high = bands.limits(spectra(1.0))
    ratio = bands.ratio(spectra(1.0))
    if (ratio < 1.15).all():
        assert bands.ratio(spectra(high)).max() == pytest.approx(1.15)
    assert low <= 1 <= high


@pytest.mark.parametrize(
    ("members", "mean", "limits"),
    [
        # Within the bound: up to 1.15 and down to 0.85 of the truth's power.
        (1.0, 0.5, (np.sqrt(0.35 / 0.5), np.sqrt(0.65 / 0.5))),
        # Beyond it already: no farther, but back.
        (1.3, 0.5, (np.sqrt(0.35 / 0.8), 1.0)),
        (0.7, 0.5, (1.0, np.sqrt(0.65 / 0.2))),
        # Without any spread, as without power of the truth, there is nothing to keep.
        (0.5, 0.5, (0.0, np.inf)),
    ],
)
def test_spectra_bound_the_factor(members, mean, limits):
    spectra = np.array([[0.0, members], [0.0, mean], [0.0, 1.0]])
    assert np.allclose(Bands(((1, 1),), 0.15).limits(spectra), limits)


def test_bands_where_the_truth_has_no_power_do_not_count():
    spectra = np.array([[0.0, 1.0, 1e-3], [0.0, 0.5, 0.0], [0.0, 1.0, 1e-12]])
    bands = Bands(((1, 1), (2, 2)), 0.15)
    assert np.allclose(bands.limits(spectra), (np.sqrt(0.35 / 0.5), np.sqrt(0.65 / 0.5)))


def test_bands_grow_twofold_to_half_the_highest_wavenumber():
    assert bands_of(None, 29, 0.15).names == ("3-5", "6-11", "12-14")
    assert bands_of((2, 20), 29, 0.15).names == ("2-3", "4-7", "8-15", "16-20")
    assert bands_of(None, 5, 0.15).names == ("3-3",)
    with pytest.raises(OptionError, match=r"--wavenumbers: expected FIRST-LAST within 1-29 of this grid, got 3-30"):
        bands_of((3, 30), 29, 0.15)
    with pytest.raises(OptionError, match=r"--bound: expected a number between 0 and 1, such as 0.15, got 1"):
        bands_of(None, 29, 1.0)


# Dates.


def test_every_other_block_of_dates_is_tried_on():
    fit, trial = split(DATES[:10], 3)
    assert fit == [*DATES[:3], *DATES[6:9]]
    assert trial == [*DATES[3:6], DATES[9]]
    with pytest.raises(InputError, match=r"at least 4 initial dates with truth, in blocks of 3 .*; got 3 and 1"):
        split(DATES[:4], 3)


# The factor on the noise.


def test_the_noise_factor_is_interpolated_to_where_spread_is_as_large_as_the_error():
    evaluations = {factor: evaluation(0.8 * factor) for factor in (1.0, 1.2, 1.4)}
    fit = fit_noise(evaluations, WIDE)
    assert np.allclose(fit.factors, 1.25, rtol=0.08)
    assert fit.cut_by == ["", ""]


def test_a_noise_factor_beyond_those_that_were_tried_is_said_to_be():
    fit = fit_noise({factor: evaluation(0.5 * factor) for factor in (1.0, 1.2)}, WIDE)
    assert fit.factors.tolist() == [1.2, 1.2]
    assert fit.cut_by == ["range", "range"]


def test_a_noise_factor_that_takes_power_beyond_the_bound_is_cut():
    # What is wrong in all members has power, too: that of a spread as large as the error is 1.144 of the truth's.
    evaluations = {factor: evaluation(factor, wrong=0.6) for factor in (1.0, 1.4)}
    free = fit_noise(evaluations, WIDE)
    assert np.allclose(free.factors, 1.166, rtol=0.06)
    cut = fit_noise(evaluations, Bands(((1, 5),), 0.09))
    assert np.all(cut.factors < free.factors)
    assert cut.cut_by == ["spectra", "spectra"]


def test_between_factors_logarithms_are_linear():
    values = {1.0: np.array([[1.0, 2.0]]), 2.0: np.array([[4.0, 2.0]])}
    assert np.allclose(interpolated(values, np.array([1.5, 1.25])), [[2.0, 2.0]])
    assert np.allclose(interpolated(values, np.array([1.0, 2.0])), [[1.0, 2.0]])


@pytest.mark.parametrize("forecasts", [["1=a", "b"], ["1=a", "1.0=b"], ["1=a", "0=b"], ["1=a", "x=b"]])
def test_several_forecasts_are_named_by_their_noise_factors(forecasts):
    with pytest.raises(OptionError, match=r"--forecast: expected the noise factor of each of several forecasts"):
        by_noise_factor(forecasts)


def test_the_noise_factors_that_were_tried_stand_round_1():
    with pytest.raises(
        OptionError, match=r"--forecast: expected noise factors on both sides of 1, or 1, got \[1.1, 1.2\]"
    ):
        by_noise_factor(["1.2=a", "1.1=b"])


# The command.


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    truth_store(folder / "truth.zarr")
    for spread in (0.7, 1.0, 1.2):
        forecast_store(folder / f"{spread:g}.zarr", spread)
    return folder


def calibrated(stores, output, *forecasts):
    words = ("calibrate", "--truth", str(stores / "truth.zarr"), "--output", str(output), *OPTIONS)
    return main([*words, *(word for forecast in forecasts for word in ("--forecast", forecast))])


def test_a_calibration_is_fitted_to_some_dates_and_tried_on_the_others(stores, tmp_path, capsys):
    output = tmp_path / "c.json"
    assert calibrated(stores, output, str(stores / "0.7.zarr")) == 0
    found = json.loads(output.read_text())
    assert found["lead_hours"] == [24, 48]
    assert found["members"] == MEMBERS
    assert (found["variant"], found["weights_sha256"]) == (None, None)
    fit, trial = found["fit"]["dates"], found["fit"]["trial_dates"]
    assert [len(fit), len(trial)] == [6, 6]
    assert not set(fit) & set(trial)
    expected = fit_spread(evaluation(0.7).on([datetime.fromisoformat(date) for date in fit], 2), WIDE)
    assert np.allclose(list(found["factors"].values()), expected.factors, atol=2e-4)
    calibration = parse_calibration(output)
    for row in found["scores"]:
        assert calibration.factor(row["channel"], row["lead_hours"]) == row["factor"]
        before, after = row["spread_skill"]["before"][0], row["spread_skill"]["after"][0]
        assert after == pytest.approx(row["factor"] * before, rel=1e-3)
        assert abs(after - 1) < abs(before - 1)
        ratio, low, high = row["crps_fair_ratio"]
        assert ratio == pytest.approx(row["crps_fair"]["after"][0] / row["crps_fair"]["before"][0], rel=1e-3)
        assert low <= ratio <= high < 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:5]] == [["z500", "24"], ["z500", "48"], ["2t", "24"], ["2t", "48"]]
    assert lines[-1] == f"{output}: fitted; scores are of dates that the fit did not see"


def test_a_folder_that_is_not_there_is_told_before_the_fit(tmp_path, capsys):
    words = ["calibrate", "--forecast", "absent", "--truth", "absent", "--output", str(tmp_path / "no" / "f.json")]
    assert main(words) == 2
    assert f"--output: expected a file in a folder that exists, got {tmp_path}/no/f.json" in capsys.readouterr().err


def test_the_scores_after_are_those_of_members_that_were_moved(stores, tmp_path):
    output = tmp_path / "c.json"
    calibrated(stores, output, str(stores / "0.7.zarr"))
    found, calibration = json.loads(output.read_text()), parse_calibration(output)
    trial = [datetime.fromisoformat(date) for date in found["fit"]["trial_dates"]]

    def case(date):
        def read(channel):
            factors = np.array([calibration.factor(channel.name, lead) for lead in LEADS])
            return moved(members(channel, date, 0.7), factors[:, None, None])

        return Case(date, tuple(range(1, MEMBERS + 1)), LEADS, read)

    sums = verify(map(case, trial), Truth(), replace(PLAN, spectra=()))
    crps = (sums.terms["member_absolute_error"] - sums.terms["half_difference"]).mean(axis=0)
    assert np.allclose([row["crps_fair"]["after"][0] for row in found["scores"]], crps.ravel(), rtol=1e-4)


def test_noise_factors_are_fitted_to_several_forecasts(stores, tmp_path, capsys):
    output = tmp_path / "n.json"
    forecasts = (f"0.7={stores / '0.7.zarr'}", f"1={stores / '1.zarr'}")
    assert calibrated(stores, output, *forecasts) == 0
    found, factors = json.loads(output.read_text()), parse_noise_factors(output)
    assert factors.lead_hours == LEADS
    assert np.all(np.array(factors.factors) > 0.9)
    assert [row["factor"] for row in found["scores"]] == list(factors.factors)
    assert found["fit"]["noise_factors"] == [0.7, 1.0]
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["24", "h", f"{factors.factors[0]:.3f}"]


USUAL = {"noise_factor": 1.0, "noise_factors": None, "perturbations": "on", "antithetic": False}
FACTORS = {"sha256": "f" * 64, "lead_hours": [24], "factors": [1.2], "variant": None, "weights_sha256": None}


def put_card(file, **options):
    card = {"variant": "mini", "weights": {"sha256": "v" * 64}, "options": options}
    file.with_name(f"{file.name}.provenance.json").write_text(json.dumps(card))


def test_cards_say_what_factors_are_for_and_what_was_moved_is_not_fitted_again(stores, tmp_path, capsys):
    store = tmp_path / "f.zarr"
    forecast_store(store, 0.7)
    put_card(store, noise_factor=1.0, perturbations="on", output={"calibration": None})
    assert calibrated(stores, tmp_path / "c.json", str(store)) == 0
    found = json.loads((tmp_path / "c.json").read_text())
    assert (found["variant"], found["weights_sha256"]) == ("mini", "v" * 64)
    # What the card does not name is as it was before there was an option.
    assert found["noise"] == USUAL
    put_card(store, output={"calibration": {"path": "c.json", "sha256": "c" * 64}})
    assert calibrated(stores, tmp_path / "again.json", str(store)) == InputError.exit_status
    assert "expected forecasts as they were made, got some of which --calibration moved" in capsys.readouterr().err
    assert not (tmp_path / "again.json").exists()


@pytest.mark.parametrize(
    ("option", "value"), [("lagged", {"hours": [0, -24]}), ("crossed", {"starts": 2, "noises": 3})]
)
@pytest.mark.parametrize("by_noise", [False, True])
def test_members_that_differ_by_more_than_noise_are_not_fitted_to(stores, tmp_path, capsys, option, value, by_noise):
    store = tmp_path / "f.zarr"
    forecast_store(store, 0.7)
    put_card(store, noise_factor=0.7, **{option: value})
    forecasts = (f"0.7={store}", f"1={stores / '1.zarr'}") if by_noise else (str(store),)
    assert calibrated(stores, tmp_path / "c.json", *forecasts) == InputError.exit_status
    assert (
        f"{store}: expected members of one start that differ by noise alone, as factors are for, got some of "
        f"--{option}; fit to forecasts without it"
    ) in capsys.readouterr().err
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"noise_factor": 1.2}, "expected forecasts with that noise factor, got one with 1.2"),
        (
            {"noise_factors": FACTORS},
            "expected forecasts with that noise factor at all lead times, got some of --noise-factor-file: factors are "
            "fitted to forecasts without it",
        ),
        (
            {"perturbations": "off"},
            "expected forecasts with that noise factor, got some of --perturbations off, which have no noise",
        ),
    ],
)
def test_the_noise_is_fitted_to_forecasts_of_the_factor_that_they_are_named_by(options, said):
    with pytest.raises(InputError) as caught:
        common_origin(
            {0.7: Origin("mini", noise={**USUAL, "noise_factor": 0.7}), 1.0: Origin("mini", noise=USUAL | options)}
        )
    assert str(caught.value) == f"--forecast 1=…: {said}"


def test_forecasts_of_several_noise_factors_differ_by_nothing_else():
    other = {**USUAL, "noise_factor": 0.7}
    assert common_origin({0.7: Origin("mini", noise=other), 1.0: Origin("mini", noise=USUAL)}) == Origin("mini")
    with pytest.raises(InputError, match=r"--forecast: .* some whose antithetic is True and some with False"):
        common_origin({0.7: Origin("mini", noise={**other, "antithetic": True}), 1.0: Origin("mini", noise=USUAL)})


def test_what_is_fitted_to_forecasts_of_fitted_noise_goes_with_those(stores, tmp_path):
    store = tmp_path / "f.zarr"
    forecast_store(store, 0.7)
    put_card(store, noise_factors=FACTORS)
    assert calibrated(stores, tmp_path / "c.json", str(store)) == 0
    assert json.loads((tmp_path / "c.json").read_text())["noise"] == {**USUAL, "noise_factors": FACTORS}


def test_cards_of_all_versions_are_of_one_kind_where_they_mean_the_same(tmp_path):
    for name, options in {"old": {"noise_factor": 1.0, "perturbations": "on"}, "new": USUAL}.items():
        (tmp_path / f"{name}.grib").touch()
        put_card(tmp_path / f"{name}.grib", **options)
    assert origin_of(str(tmp_path)) == Origin("mini", "v" * 64, USUAL)
    (tmp_path / "other.grib").touch()
    put_card(tmp_path / "other.grib", **{**USUAL, "noise_factors": FACTORS})
    with pytest.raises(InputError, match=r"got some whose noise_factors is None and some with \{'sha256': 'fff"):
        origin_of(str(tmp_path))


def test_forecasts_of_another_noise_factor_than_their_name_are_refused(stores, tmp_path, capsys):
    store = tmp_path / "f.zarr"
    forecast_store(store, 0.7)
    put_card(store, noise_factor=1.0)
    forecasts = (f"0.7={store}", f"1={stores / '1.zarr'}")
    assert calibrated(stores, tmp_path / "n.json", *forecasts) == InputError.exit_status
    assert "--forecast 0.7=…: expected forecasts with that noise factor, got one with 1" in capsys.readouterr().err


def documented(word):
    """The commands of the documentation that begin so, as lists of words."""
    text = DOCUMENTATION.read_text(encoding="utf-8").replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in text.splitlines() if line.startswith(f"ai-models-mosaic {word} ")]


def test_the_commands_of_the_documentation_run(stores, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {"past": "0.7.zarr", "1.0=past-1.0": "0.7.zarr", "1.2=past-1.2": "1.zarr", "1.4=past-1.4": "1.2.zarr"}
    places["era5.zarr"] = "truth.zarr"

    def here(word):
        factor, equals, _ = word.rpartition("=")
        return f"{factor}{equals}{stores / places[word]}" if word in places else word.replace("all", "z500,2t")

    commands = documented("calibrate")
    assert [words[words.index("--output") + 1] for words in commands] == ["calibration.json", "noise.json"]
    for words in commands:
        assert main([*map(here, words), "--channels", "z500,2t", "--block-length", "2", "--bootstrap", "0"]) == 0
    assert parse_calibration("calibration.json").content["lead_hours"] == [24, 48]
    assert parse_noise_factors("noise.json").lead_hours == LEADS
    for words in documented("forecast"):
        forecast_parser().parse_args(words[1:])
