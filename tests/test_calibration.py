"""Fitted factors where they are used: on the noise, on what is written, and what they are refused with."""

import json
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import test_output_resume
from steps import forecast_step
from test_options import CALIBRATION, NOISE_FACTORS
from test_output_resume import contents, fork
from test_writer import GRID, INDEX, MEMBERS, START, decoded, state, steps_of
from toy_run import DyingEngine
from toy_series import LoadedToy, Toy

from ai_models_mosaic.channels import CHANNELS
from ai_models_mosaic.checkpoints.integrity import digest_of_bytes
from ai_models_mosaic.cli import main
from ai_models_mosaic.errors import CheckpointError, InputError, OptionError, OutputError, ResumeError
from ai_models_mosaic.forecast.noise_factors import parse_noise_factors
from ai_models_mosaic.forecast.options import Options, parse_options
from ai_models_mosaic.forecast.recorded import read_card
from ai_models_mosaic.forecast.rollout import Ensemble, member_noise
from ai_models_mosaic.geometry.grid import to_grib_order
from ai_models_mosaic.outputs.calibration import moved, parse_calibration
from ai_models_mosaic.outputs.grib.keys import Labels
from ai_models_mosaic.outputs.options import OutputOptions
from ai_models_mosaic.outputs.plan import OutputPlan
from ai_models_mosaic.outputs.products import parse_products
from ai_models_mosaic.outputs.selection import Selection
from ai_models_mosaic.outputs.writer import Outputs

SHOWN = Selection(params=("2t", "z500", "t850", "q700"))
EXAMPLE = Path(__file__).parent.parent / "examples" / "mini-input.grib"


def changed(path, source, **values):
    """A copy of a file of factors with something else in it."""
    path.write_text(json.dumps(json.loads(source.read_text()) | values))
    return path


# What a factor does.


def test_members_are_moved_about_their_mean_which_stays():
    members = np.random.default_rng(0).normal(280, 5, (6, 4, 3)).astype(np.float32)
    found = moved(members, 1.5)
    assert np.allclose(found.mean(axis=0), members.mean(axis=0), rtol=1e-7)
    assert np.allclose(found.std(axis=0), 1.5 * members.std(axis=0), rtol=1e-5)
    assert np.array_equal(np.argsort(found, axis=0), np.argsort(members, axis=0))


def test_a_factor_is_1_at_the_start_linear_between_lead_times_and_that_of_the_last_after_it():
    calibration = parse_calibration(CALIBRATION)
    hours = (0, 6, 24, 48, 72, 240)
    assert [calibration.factor("geopotential_500", hour) for hour in hours] == [1, 1.125, 1.5, 1.375, 1.25, 1.25]
    assert calibration.factor("temperature_850", 24) == 1


def test_the_noise_of_a_step_is_what_was_drawn_times_the_factor_of_its_lead_time():
    factors = parse_noise_factors(NOISE_FACTORS)
    assert factors.by_step(12, 8) == (1.5, 1.5, 1.25, 1.0, 0.75, 0.5, 0.5, 0.5)
    ensemble = Ensemble(5, (1, 2), antithetic=True, factors_by_step=factors.by_step(24, 3))
    for step, factor in ((1, 1.5), (2, 1.0), (3, 0.5), (4, 0.5)):
        drawn = member_noise(5, START, 1, step, 32)
        assert np.array_equal(ensemble.noise(START, 1, step, 32), drawn * np.float32(factor))
        assert np.array_equal(ensemble.noise(START, 2, step, 32), drawn * np.float32(-factor))


def test_the_last_bits_of_a_member_do_not_depend_on_the_order_of_members():
    calibration = parse_calibration(CALIBRATION)
    values = np.stack([state(member, 1) for member in (1, 2, 3)])
    ordered = calibration.moved(forecast_step(1, 24, (1, 2, 3), values))
    turned = calibration.moved(forecast_step(1, 24, (3, 1, 2), values[[2, 0, 1]]))
    assert np.array_equal(turned.values, ordered.values[[2, 0, 1]])
    untouched = [index for index in range(82) if CHANNELS[index].name not in calibration.content["factors"]]
    assert np.array_equal(ordered.values[..., untouched], values[..., untouched])


# What is written.


def written(folder, calibration=CALIBRATION, **more):
    """Members in two batches a step, and products, of which `calibration` moved some."""
    fitted = None if calibration is None else parse_calibration(calibration)
    products = parse_products("mean@2t/z500,spread@2t/z500,probability:2t>281")
    options = OutputOptions(selection=SHOWN, products=products, calibration=fitted, **more)
    plan = OutputPlan(f"{folder}/x.grib", options, GRID, 24, 2, MEMBERS)
    labels = Labels(START, 3, {}, packing=options.packing, calibrated=fitted is not None)
    with Outputs(plan, labels) as outputs:
        for step in steps_of(plan):
            outputs.write(step)
    return {path.name: decoded(path) for path in outputs.paths if path.suffix == ".grib"}


def test_members_and_products_are_written_as_moved_and_say_so(tmp_path):
    found = written(tmp_path)
    members = [message for message in found["x.grib"] if message["step"] == 24]
    assert {message["typeOfGeneratingProcess"] for message in found["x.grib"]} == {13}
    assert {message["type"] for message in found["x.grib"]} == {"pf"}
    assert [message["number"] for message in members[:: len(members) // 3]] == list(MEMBERS)
    for field, factor in (("z500", 1.5), ("2t", 0.5), ("t850", 1.0)):
        values = to_grib_order(np.stack([state(member, 1)[..., INDEX[field]] for member in MEMBERS])).astype(float)
        expected = moved(values, factor)
        short = CHANNELS[INDEX[field]].param
        got = [message for message in members if (message["shortName"], message["number"]) == (short, 3)]
        assert np.allclose(got[0].values, expected[0], atol=2e-3)
        if factor == 1:
            continue
        for product, wanted in (("mean", values.mean(axis=0)), ("spread", factor * values.std(axis=0))):
            products = [one for one in found[f"x-{product}.grib"] if (one["shortName"], one["endStep"]) == (short, 24)]
            assert np.allclose(products[0].values, wanted, atol=2e-3)
            assert products[0]["typeOfGeneratingProcess"] == 13
    assert {one["typeOfGeneratingProcess"] for one in found["x-probability_above_281.grib"]} == {13}


def test_without_a_calibration_messages_are_those_of_an_ensemble(tmp_path):
    found = written(tmp_path, None)
    assert {message["typeOfGeneratingProcess"] for message in found["x.grib"]} == {4}


def test_humidity_is_clipped_after_it_was_moved(tmp_path):
    found = written(tmp_path, clip_humidity=True)
    humidity = [message.values for message in found["x.grib"] if message["shortName"] == "q"]
    assert min(values.min() for values in humidity) == 0


def test_a_store_says_that_its_members_were_moved(tmp_path):
    written(tmp_path, zarr=f"{tmp_path}/x.zarr", clip_humidity=True)
    attributes = json.loads((tmp_path / "x.zarr" / ".zattrs").read_text())
    assert attributes["comment"] == (
        "members were moved about their mean by fitted factors (--calibration); specific humidity below zero was "
        "written as zero (--clip-humidity)"
    )


def test_a_step_that_some_members_never_came_for_is_no_complete_output(tmp_path):
    fitted = parse_calibration(CALIBRATION)
    plan = OutputPlan(f"{tmp_path}/x.grib", OutputOptions(selection=SHOWN, calibration=fitted), GRID, 24, 2, MEMBERS)
    expected = (
        "--calibration: expected all members of every step, got one without 2: members are moved about the mean of "
        "all, so nothing of that step was written"
    )
    outputs = Outputs(plan, Labels(START, 3, {}, calibrated=True))
    for step in steps_of(plan):
        if 2 not in step.members or step.step < 2:
            outputs.write(step)
    with pytest.raises(OutputError, match=f"^{re.escape(expected)}$"):
        outputs.close()
    outputs.abort()
    assert not (tmp_path / "x.grib").exists()


@pytest.mark.parametrize(("calls", "workers"), [(2, 0), (5, 2)])
def test_a_run_killed_within_a_step_goes_on_to_the_same_bytes(tmp_path, calls, workers):
    factors = {"2m_temperature": [1.5, 1.5], "mean_sea_level_pressure": [0.5, 1.0]}
    fitted = changed(tmp_path / "c.json", CALIBRATION, factors=factors)
    more = {"calibration": parse_calibration(fitted), "workers": workers}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    test_output_resume.run(whole, **more)
    assert fork(lambda: test_output_resume.run(killed, engine=DyingEngine(calls, "die"), **more)) == -signal.SIGKILL
    test_output_resume.run(killed, resume=True, **more)
    assert contents(killed) == contents(whole)
    plain = tmp_path / "plain"
    plain.mkdir()
    test_output_resume.run(plain, workers=workers)
    assert contents(plain) != contents(whole)


def test_two_processes_move_members_as_one_does(tmp_path):
    fitted = changed(tmp_path / "c.json", CALIBRATION, factors={"2m_temperature": [1.5, 1.5]})
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    test_output_resume.run(one, calibration=parse_calibration(fitted), zarr=f"{one}/out.zarr")
    test_output_resume.run_two_ranks(two, fitted)
    assert contents(two) == contents(one)


# What is refused.


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"format": "x"}, "of the format 'ai-models-mosaic calibration', got 'x'"),
        ({"version": 2}, "and version 1, got version 2: fit it again"),
        ({"lead_hours": [72, 24]}, "with lead_hours that ascend, got [72, 24]"),
        ({"lead_hours": []}, "with lead_hours that ascend, got []"),
        ({"variant": 5}, "with a text or null as variant, got 5"),
        ({"factors": {}}, "expected factors by field, got {}"),
        ({"factors": {"z500": [1, 1]}}, "expected fields such as geopotential_500, got 'z500'"),
        ({"factors": {"geopotential_500": [1]}}, "geopotential_500: expected 2 factors from 0.5 to 2, got [1]"),
        (
            {"factors": {"geopotential_500": [1, 2.5]}},
            "geopotential_500: expected 2 factors from 0.5 to 2, got [1, 2.5]",
        ),
        ({"factors": {"geopotential_500": [1, True]}}, "expected 2 factors from 0.5 to 2, got [1, True]"),
    ],
)
def test_a_file_that_is_no_calibration_is_refused(tmp_path, values, said):
    path = changed(tmp_path / "c.json", CALIBRATION, **values)
    with pytest.raises(OptionError) as caught:
        parse_calibration(path)
    assert str(caught.value).startswith(f"--calibration {path}")
    assert said in str(caught.value)


def test_a_file_that_is_not_there_or_no_json_is_refused(tmp_path):
    with pytest.raises(OptionError, match="expected a file that ai-models-mosaic calibrate wrote"):
        parse_calibration(tmp_path / "nothing.json")
    (tmp_path / "x.json").write_text('{"format": NaN}')
    with pytest.raises(OptionError, match=r"--noise-factor-file .*x.json: expected a file that"):
        parse_noise_factors(tmp_path / "x.json")
    with pytest.raises(OptionError, match="of the format 'ai-models-mosaic noise factors', got 'ai-models-mosaic cal"):
        parse_noise_factors(CALIBRATION)


def test_a_calibration_that_was_changed_since_it_was_looked_at_is_refused(tmp_path):
    path = changed(tmp_path / "c.json", CALIBRATION)
    calibration = parse_calibration(path)
    again = type(calibration)(calibration.path, calibration.sha256)
    changed(path, CALIBRATION, variant="era5")
    with pytest.raises(OptionError, match=r"expected SHA-256 .*: it was changed"):
        _ = again.content


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ensemble_size": 1}, "got 1 of 1"),
        ({"ensemble_size": 4, "members": (1, 2)}, "got 2 of 4"),
        ({"members": (1, 2)}, "got 2 of an unknown number"),
    ],
)
def test_a_calibration_needs_all_members(given, said):
    with pytest.raises(OptionError) as caught:
        Options(**given, output=OutputOptions(calibration=parse_calibration(CALIBRATION)))
    assert str(caught.value) == (
        "--calibration: expected all members of an ensemble of at least 2 (--num-ensemble-members N, without "
        f"--member-number), since members are moved about their mean; {said}"
    )


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--extend", "5"), ("--deadline", "60s"), ("--mc-error", "0.1@mean:2t"), ("--crossed", "3x3")],
)
def test_members_are_moved_about_the_mean_of_an_ensemble_that_is_known(flag, value):
    size = [] if flag == "--crossed" else ["--num-ensemble-members", "5"]
    with pytest.raises(OptionError) as caught:
        parse_options([*size, flag, value, "--calibration", str(CALIBRATION)])
    assert str(caught.value) == (
        "--calibration: expected an ensemble whose size is known and whose members differ by noise alone, since they are "
        f"moved about their mean, got {flag}; leave one out"
    )


@pytest.mark.parametrize(("flag", "source"), [("--calibration", CALIBRATION), ("--noise-factor-file", NOISE_FACTORS)])
def test_factors_are_of_members_that_start_together(flag, source):
    with pytest.raises(OptionError) as caught:
        parse_options(["--num-ensemble-members", "4", "--lagged", "0,-24", flag, str(source)])
    assert str(caught.value) == (
        f"{flag}: expected members of one start, since factors are by lead time, got --lagged; leave one out"
    )


def test_a_calibration_of_forecasts_with_other_noise_is_refused(tmp_path):
    noise = {"noise_factor": 1.2, "noise_factors": None, "perturbations": "on", "antithetic": False}
    calibration = parse_calibration(changed(tmp_path / "c.json", CALIBRATION, noise=noise))
    Options(ensemble_size=2, noise_factor=1.2, antithetic=True, output=OutputOptions(calibration=calibration))
    with pytest.raises(OptionError) as caught:
        Options(ensemble_size=2, output=OutputOptions(calibration=calibration))
    assert str(caught.value) == (
        "--calibration: expected the noise of the forecasts that it was fitted to, --noise-factor 1.2, --perturbations "
        "on, --noise-factor-file with SHA-256 None; got --noise-factor 1.0, --perturbations on, --noise-factor-file with "
        "SHA-256 None"
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [({"noise_factor": 0.8}, "--noise-factor 0.8"), ({"perturbations": "off"}, "--perturbations off")],
)
def test_the_noise_has_one_factor(given, said):
    with pytest.raises(OptionError) as caught:
        Options(noise_factors=parse_noise_factors(NOISE_FACTORS), **given)
    assert str(caught.value) == f"--noise-factor-file: expected to be the only factor on the noise, got {said} with it"


@pytest.mark.parametrize(("option", "source"), [("--calibration", CALIBRATION), ("--noise-factor-file", NOISE_FACTORS)])
def test_factors_fitted_for_other_weights_are_refused(tmp_path, option, source):
    path = changed(tmp_path / "f.json", source, weights_sha256="v" * 64)
    toy = Toy(f"{tmp_path}/x.grib")
    with pytest.raises(OptionError) as caught:
        toy(option, str(path))
    said = str(caught.value)
    assert said.startswith(option)
    assert f"it was fitted for weights with SHA-256 {'v' * 64}, and this forecast is of {'w' * 64}" in said
    assert toy(option, str(path), engine=LoadedToy(weights="v" * 64)).calls == 6


def test_factors_fitted_for_another_variant_are_refused(tmp_path, capsys):
    path = changed(tmp_path / "c.json", CALIBRATION, variant="era5")
    words = ("forecast", "--variant", "mini", "--file", EXAMPLE, "--path", tmp_path / "x.grib", "--lead-time", 24)
    with pytest.raises(SystemExit) as caught:
        main([*map(str, words), "--num-ensemble-members", "2", "--calibration", str(path)])
    assert caught.value.code == OptionError.exit_status
    assert "it was fitted for the variant era5, and this forecast is of mini" in capsys.readouterr().err


def test_another_calibration_does_not_go_on_and_the_same_elsewhere_does(tmp_path):
    toy = Toy(f"{tmp_path}/x.grib")
    copy = tmp_path / "copy.json"
    copy.write_bytes(CALIBRATION.read_bytes())
    toy.stopped("--calibration", str(CALIBRATION))
    other = changed(tmp_path / "other.json", CALIBRATION, variant=None)
    with pytest.raises(ResumeError, match="calibration: it began with "):
        toy("--resume", "--calibration", str(other))
    toy("--resume", "--calibration", str(copy))


# All together.


@pytest.fixture(scope="module")
def moved_card(tmp_path_factory):
    """The card of a forecast of three members, two at a time, whose factors were typed as a path from a folder."""
    folder = tmp_path_factory.mktemp("moved")
    (folder / "factors.json").write_bytes(CALIBRATION.read_bytes())
    words = ("forecast", "--variant", "mini", "--file", EXAMPLE, "--path", folder / "x.grib", "--lead-time", 48)
    words += ("--num-ensemble-members", 3, "--members-per-batch", 2, "--output-params", "z500,2t,t850")
    words += ("--calibration", "factors.json", "--noise-factor-file", NOISE_FACTORS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*map(str, words)]) == 0
    return folder / "x.grib.provenance.json"


def made_again(card, folder, *more):
    words = ("--member", 2, "--steps", "24-48", "--params", "z500,2t", "--output", folder / "again.grib", *more)
    return main(["replay", str(card), *map(str, words)])


def test_a_calibrated_forecast_is_made_again_from_its_card_in_another_folder(moved_card, tmp_path, monkeypatch, capsys):
    said = json.loads(moved_card.read_text())["options"]
    factors = moved_card.parent.resolve() / "factors.json"
    assert said["output"]["calibration"] == {"path": str(factors), "sha256": parse_calibration(CALIBRATION).sha256}
    assert said["noise_factors"]["factors"] == [1.5, 0.5]
    monkeypatch.chdir(tmp_path)
    assert made_again(moved_card, tmp_path) == 0
    assert "4 fields made again, 4 of 4 identical to the original's" in capsys.readouterr().out
    # Every member of the sample needs all of them.
    assert main(["replay", str(moved_card), "--check", "3"]) == 0
    assert "9 of 9 fields identical to the byte" in capsys.readouterr().out


@pytest.mark.parametrize("gone", [True, False])
def test_a_calibrated_forecast_is_not_made_again_without_its_factors(moved_card, tmp_path, monkeypatch, capsys, gone):
    # As cards of before had it: a path as it was typed.
    said = json.loads(moved_card.read_text())
    said["options"]["output"]["calibration"]["path"] = "factors.json"
    said["weights"]["sha256"] = "v" * 64
    card, factors = tmp_path / "x.grib.provenance.json", tmp_path / "factors.json"
    card.write_text(json.dumps(said))
    monkeypatch.chdir(tmp_path)
    got = "no file there" if gone else digest_of_bytes(changed(factors, CALIBRATION, variant="era5").read_bytes())
    # The weights are others, too: they are looked at later, and loaded later still.
    assert made_again(card, tmp_path) == InputError.exit_status
    assert (
        f"the factors by which members of {card} were moved: expected the file {factors} with SHA-256 "
        f"{parse_calibration(CALIBRATION).sha256}, got {got}; put that file there again\n"
    ) in capsys.readouterr().err
    factors.write_bytes(CALIBRATION.read_bytes())
    assert made_again(card, tmp_path) == CheckpointError.exit_status


@pytest.mark.parametrize("value", [3, "x", [], {"path": "x"}])
def test_a_card_whose_calibration_is_none_is_no_card(moved_card, tmp_path, value):
    said = json.loads(moved_card.read_text())
    said["options"]["output"]["calibration"] = value
    (tmp_path / "x.json").write_text(json.dumps(said))
    with pytest.raises(InputError, match="expected the card of a forecast"):
        read_card(tmp_path / "x.json")


def test_more_members_than_memory_holds_are_not_moved(moved_card, tmp_path, capsys):
    said = json.loads(moved_card.read_text())
    card = tmp_path / "x.grib.provenance.json"
    count = 1_000_000
    card.write_text(json.dumps({**said, "members": list(range(1, count + 1)), "ensemble_size": count}))
    assert made_again(card, tmp_path) == InputError.exit_status
    found = re.search(
        r"ran 2 members at a time and moved all 1000000 of them about their mean, which takes ([\d.]+) GB; this machine",
        capsys.readouterr().err,
    )
    # Of every member two states of history, what is moved and what was: 82 fields of 1860 points, 4 bytes each.
    assert found is not None
    assert float(found[1]) == pytest.approx(count * 4 * 82 * 1860 * 4 / 1e9, abs=1)
