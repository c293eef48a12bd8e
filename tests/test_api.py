"""Forecasts in a program: the same members, and the same bytes, as those of the commands."""

import doctest
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import eccodes
import numpy as np
import pytest
from running import BIN, ROOT, SAMPLE, changed, elsewhere, keys, messages

import ai_models_mosaic as mosaic
from ai_models_mosaic.channels import CHANNELS
from ai_models_mosaic.errors import InputError, OptionError, OutputError
from ai_models_mosaic.inputs.fields import Wanted
from ai_models_mosaic.variants import VARIANTS


@pytest.fixture(scope="module")
def model():
    return mosaic.load_model("mini", device="cpu")


@pytest.fixture(scope="module")
def start(model):
    return mosaic.open_input(SAMPLE, model)


@pytest.fixture(scope="module")
def forecast(model, start):
    return model.forecast(start, members=3, lead_time_hours=48, seed=0)


@pytest.fixture(scope="module")
def steps(forecast):
    return list(forecast)


@pytest.fixture(scope="module")
def of_the_command(tmp_path_factory):
    """GRIB of the same three members, by the command without the runner."""
    path = tmp_path_factory.mktemp("command") / "ensemble.grib"
    words = ("forecast", "--variant", "mini", "--file", SAMPLE, "--lead-time", 48, "--num-ensemble-members", 3)
    command = [str(BIN / "ai-models-mosaic"), *(str(word) for word in words), "--path", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path


def fields_of(path, **wanted):
    found = []
    with path.open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            if all(eccodes.codes_get(handle, key) == value for key, value in wanted.items()):
                found.append(eccodes.codes_get_values(handle).reshape(31, 60))
            eccodes.codes_release(handle)
    return found


def test_steps_come_one_by_one_from_step_0_on_with_all_members(steps):
    assert [(step.lead_time_hours, step.valid_time.day, step.members) for step in steps] == [
        (0, 26, (1, 2, 3)),
        (24, 27, (1, 2, 3)),
        (48, 28, (1, 2, 3)),
    ]
    assert steps[2].field("z500").shape == (3, 31, 60)


def test_its_numbers_are_those_of_the_command(steps, of_the_command):
    for member in (1, 3):
        (written,) = fields_of(of_the_command, shortName="z", level=500, number=member, endStep=48)
        made = steps[2].field("z500")[member - 1]
        np.testing.assert_allclose(written, made, atol=np.ptp(made) / 65_535)


def test_its_file_is_that_of_the_command_to_the_byte(forecast, of_the_command, tmp_path):
    assert forecast.write(tmp_path / "ensemble.grib") == [tmp_path / "ensemble.grib"]
    assert (tmp_path / "ensemble.grib").read_bytes() == of_the_command.read_bytes()


def test_a_member_alone_is_the_same_from_the_api_and_from_the_runner(model, start, tmp_path):
    model.forecast(start, members=[2], lead_time_hours=24).write(tmp_path / "api.grib")
    words = ("mosaic", "--variant", "mini", "--file", SAMPLE, "--lead-time", 24, "--member-number", 2)
    elsewhere(tmp_path, *words, "--path", "runner.grib").check_returncode()
    assert (tmp_path / "api.grib").read_bytes() == (tmp_path / "runner.grib").read_bytes()


def test_a_forecast_can_be_left_and_gone_through_again(forecast, steps):
    first = next(iter(forecast))
    np.testing.assert_array_equal(first.values, steps[0].values)
    np.testing.assert_array_equal(list(forecast)[1].values, steps[1].values)


def test_members_are_the_same_in_any_company_and_order(model, start, steps):
    (_, step) = model.forecast(start, members=[3, 1], lead_time_hours=24)
    np.testing.assert_array_equal(step.values, steps[1].values[[2, 0]])


def test_a_dataset_has_members_steps_levels_and_places_as_dimensions(forecast, steps):
    dataset = forecast.to_xarray(params=["z500", "2t", "10ws"])
    assert dataset["geopotential"].dims == ("number", "step", "level", "latitude", "longitude")
    assert dataset["geopotential"].shape == (3, 3, 1, 31, 60)
    assert dataset["2m_temperature"].attrs["units"] == "K"
    assert dataset["10m_wind_speed"].attrs["standard_name"] == "wind_speed"
    assert list(dataset["latitude"].values[[0, -1]]) == [90, -90]
    np.testing.assert_array_equal(
        dataset["geopotential"].sel(number=2, level=500, step=np.timedelta64(48, "h")).values,
        steps[2].field("z500")[1].astype(np.float32),
    )
    assert dataset["valid_time"].values[2] == np.datetime64("2008-04-28T06:00")


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_the_ending_chooses_the_format(model, start, tmp_path, suffix):
    xarray = pytest.importorskip("xarray")
    made = model.forecast(start, members=2, lead_time_hours=24)
    (path,) = made.write(tmp_path / f"ensemble{suffix}", output_params="2t")
    engine = {"engine": "zarr"} if suffix == ".zarr" else {"engine": "netcdf4"}
    with xarray.open_dataset(path, decode_timedelta=True, **engine) as dataset:
        if suffix == ".zarr":
            found = dataset["2m_temperature"].isel(time=0, drop=True).isel(latitude=slice(None, None, -1))
            found = found.rename(prediction_timedelta="time")
        else:
            found = dataset["t2m"]
        values = found.transpose("time", "number", "latitude", "longitude").values
    for step, written in zip(made, values, strict=True):
        np.testing.assert_array_equal(written, step.field("2t").astype("f4"))


def test_a_dataset_in_memory_is_an_input_as_good_as_its_store(model, start, tmp_path):
    xarray = pytest.importorskip("xarray")
    initial = start.states([1])[1]
    from ai_models_mosaic.channels import CHANNELS, LEVELS_HPA

    grid = model.variant.architecture.grid
    stacked = initial.values
    arrays = {}
    for index, channel in enumerate(CHANNELS):
        if channel.level_hpa is None:
            arrays[channel.variable] = (("time", "longitude", "latitude"), stacked[..., index])
    for variable in dict.fromkeys(channel.variable for channel in CHANNELS if channel.level_hpa is not None):
        levels = [index for index, channel in enumerate(CHANNELS) if channel.variable == variable]
        arrays[variable] = (("time", "longitude", "latitude", "level"), stacked[..., levels])
    coordinates = {
        "time": np.array(initial.times, dtype="datetime64[ns]"),
        "level": list(LEVELS_HPA),
        "latitude": list(grid.latitude_deg),
        "longitude": list(grid.longitude_deg),
    }
    again = mosaic.open_input(xarray.Dataset(arrays, coordinates), model)
    np.testing.assert_array_equal(again.states([1])[1].values, initial.values)


def test_the_initial_time_can_be_chosen(model):
    with pytest.raises(InputError, match="2008-04-25"):
        mosaic.open_input(SAMPLE, model, time=datetime(2008, 4, 25, 6))


def test_a_time_with_a_zone_is_that_time_in_utc(model, start):
    zone = timezone(timedelta(hours=5, minutes=30))
    assert mosaic.open_input(SAMPLE, model, time=datetime(2008, 4, 26, 11, 30, tzinfo=zone)).wanted == Wanted(
        start.initial_time
    )


def test_an_input_that_was_changed_since_it_was_opened_is_not_read_for_what_it_was(model, tmp_path):
    source, other = tmp_path / "in.grib", tmp_path / "other.grib"
    source.write_bytes(SAMPLE.read_bytes())
    start = mosaic.open_input(source, model)
    whole = next(iter(model.forecast(start, lead_time_hours=0))).values
    # More fields after those that were found change nothing of them, and neither does another time of change.
    with source.open("ab") as file:
        file.write(messages(SAMPLE)[0])
    os.utime(source, (0, 0))
    np.testing.assert_array_equal(next(iter(model.forecast(start, lead_time_hours=0))).values, whole)
    # The same fields, a day later, of the same size at the same places.
    other.write_bytes(b"".join(changed(one, dataDate=keys(one, "dataDate")[0] + 1) for one in messages(SAMPLE)))
    assert other.stat().st_size == SAMPLE.stat().st_size
    other.replace(source)
    for what in (
        r"was changed since it was looked at: expected the same message at byte \d+, got something else. Run again when ",
        "cannot be read any more",
    ):
        with pytest.raises(InputError, match=what):
            list(model.forecast(start, lead_time_hours=0))
        source.unlink(missing_ok=True)


def test_without_a_word_of_members_there_is_one_or_as_many_as_a_crossed_ensemble_has(model, start):
    assert model.forecast(start, lead_time_hours=0).to_xarray("2t").number.values.tolist() == [1]
    crossed = model.forecast(start, lead_time_hours=0, crossed="3x4")
    # The sample has one start, and three are asked for.
    with pytest.raises(InputError, match="crossed: expected an input with 3 members or more to start from, got 1"):
        list(crossed)
    with pytest.raises(OptionError, match="members: expected 12 with crossed 3x4, or nothing, got 2"):
        model.forecast(start, 2, crossed="3x4")


def test_lists_and_numbers_stand_for_what_is_typed(model, start, tmp_path):
    numbers = {"lead_time_hours": np.float64(24), "noise_factor": np.float32(0.5), "antithetic": np.False_}
    made = model.forecast(start, members=np.array([2, 1]), **numbers)
    texts = {"output_params": "z,2t", "output_levels": "500", "output_steps": "24", "products": "mean,spread"}
    lists = {"output_params": ["z", "2t"], "output_levels": 500, "output_steps": [24], "products": ("mean", "spread")}
    for name, options in (("texts", texts), ("lists", lists)):
        (tmp_path / name).mkdir()
        made.write(tmp_path / name / "x.grib", output_area=[70, -12, 30, 48], netcdf=None, **options)
    wanted = {path.name: path.read_bytes() for path in (tmp_path / "texts").glob("*.grib")}
    assert sorted(wanted) == ["x-mean.grib", "x-spread.grib", "x.grib"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "lists").glob("*.grib")} == wanted


MEMBERS = "members: expected a number, or a list of different numbers from 1"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, s: m.forecast(s, members=[0]), OptionError, f"{MEMBERS}, got [0]"),
        (lambda m, s: m.forecast(s, members=[]), OptionError, f"{MEMBERS}, got []"),
        (lambda m, s: m.forecast(s, members=[2, 2]), OptionError, f"{MEMBERS}, got [2, 2]"),
        (lambda m, s: m.forecast(s, members="3"), OptionError, f"{MEMBERS}, got '3'"),
        (lambda m, s: m.forecast(s, members=2.0), OptionError, f"{MEMBERS}, got 2.0"),
        (lambda m, s: m.forecast(s, members=0), OptionError, "members: expected at least 1, got 0"),
        (
            lambda m, s: m.forecast(s, lead_time_hours=30),
            OptionError,
            "lead_time_hours: expected a multiple of the step of 24 h, got 30",
        ),
        (
            lambda m, s: m.forecast(s, lead_time_hours=24.5),
            OptionError,
            "lead_time_hours: expected a whole number of hours, got 24.5",
        ),
        (lambda m, s: m.forecast(s, seed=1.5), OptionError, "seed: expected a whole number, got 1.5"),
        (lambda m, s: m.forecast(s, noise_factor="big"), OptionError, "noise_factor: expected a number, got 'big'"),
        (lambda m, s: m.forecast(s, antithetic=1), OptionError, "antithetic: expected True or False, got 1"),
        (lambda m, s: m.forecast(s, noise_factor=-1), OptionError, "noise_factor: expected 0 to 10, got -1"),
        (lambda m, s: m.forecast(s, sed=1), OptionError, "got sed"),
        (lambda m, s: m.forecast(s).to_xarray(["zz"]), OptionError, "params: expected some of 2t, 10u"),
        (lambda m, s: m.forecast(s).write("absent/x.grib"), OutputError, "there is no folder absent; create it first"),
        (lambda m, s: mosaic.load_model("era"), OptionError, "variant: expected one of era5, hres, mini, got 'era'"),
        (lambda m, s: mosaic.load_model(device="gpu"), OptionError, "device: expected cpu, or one of the "),
        (lambda m, s: mosaic.load_model(precision="f8"), OptionError, "precision: expected one of auto, float32"),
        # What would be taken, and have no effect.
        (lambda m, s: m.forecast(s, output_params="2t"), OptionError, "expected keywords of antithetic, "),
        (lambda m, s: m.forecast(s, precision="float16"), OptionError, "perturbations, got precision"),
        (lambda m, s: m.forecast(s).write("x.grib", variant="era5"), OptionError, "zarr, got variant"),
        (lambda m, s: m.forecast(s).write("x.grib", num_ensemble_members=9), OptionError, ", got num_ensemble_members"),
        (lambda m, s: m.forecast(s).write("x.grib", quiet=True), OptionError, "zarr, got quiet"),
        (lambda m, s: m.forecast(s).write("x.zarr", zarr="y.zarr"), OptionError, "state_interval, got zarr"),
        (lambda m, s: mosaic.load_model(seed=1), OptionError, "expected keywords of attention_backend, checkpoint"),
        (
            lambda m, s: replace(m, variant=VARIANTS["era5"]).forecast(s),
            OptionError,
            "start: expected one that was opened for era5, got one for mini",
        ),
        (
            lambda m, s: m.forecast(s).write("x.grib", health="x.grib"),
            OutputError,
            "health x.grib: expected a file of its own, got that of path x.grib",
        ),
        (lambda m, s: m.forecast(s).to_xarray([]), OptionError, "params: expected some fields, or None for all, got"),
        (lambda m, s: mosaic.open_input(SAMPLE, m, time="2008-04-26"), InputError, "time: expected a datetime, got"),
        (lambda m, s: mosaic.open_input(7, m), InputError, "expected a path, a URL, an xarray.Dataset or earthkit"),
        (lambda m, s: mosaic.open_input("absent.grib", m), InputError, "source absent.grib: there is no such file"),
    ],
)
def test_errors_name_the_argument_and_no_option(model, start, call, error, message):
    with pytest.raises(error, match=re.escape(message)) as caught:
        call(model, start)
    assert "--" not in str(caught.value)


def test_importing_the_package_imports_neither_torch_nor_the_runner():
    program = (
        "import sys, ai_models_mosaic as mosaic\n"
        "assert 'load_model' in dir(mosaic)\n"
        "assert not {'torch', 'ai_models', 'numpy'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_example_of_the_package_holds(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert doctest.testmod(mosaic).failed == 0


def test_factors_on_the_noise_may_be_a_path_and_are_refused_where_they_are_of_others(model, start, tmp_path):
    factors = ROOT / "tests" / "data" / "noise-factors.json"
    plain, fitted = (
        list(model.forecast(start, members=1, lead_time_hours=24, **more))[1].values
        for more in ({"noise_factor": 1.5}, {"noise_factor_file": factors})
    )
    assert np.array_equal(plain, fitted)
    other = tmp_path / "other.json"
    other.write_text(factors.read_text().replace('"mini"', '"era5"'))
    with pytest.raises(OptionError, match=r"it was fitted for the variant era5, and this forecast is of mini"):
        next(iter(model.forecast(start, members=1, lead_time_hours=24, noise_factor_file=other)))


def test_a_calibration_moves_what_is_written_and_is_refused_where_members_come_as_they_were_made(
    forecast, model, start, tmp_path
):
    factors = ROOT / "tests" / "data" / "calibration.json"
    with pytest.raises(OptionError) as caught:
        model.forecast(start, members=3, lead_time_hours=48, calibration=factors)
    assert str(caught.value) == (
        "calibration: it moves members where they are written, and those here would be as they were made; give it to "
        "Forecast.write"
    )
    (path,) = forecast.write(tmp_path / "x.grib", output_params="z500", calibration=factors)
    assert len(fields_of(path, typeOfGeneratingProcess=13)) == 9


def test_humidity_is_clipped_where_members_come_too_and_the_model_goes_on_from_what_it_made(model, start, steps):
    clipped = list(model.forecast(start, members=3, lead_time_hours=48, seed=0, clip_humidity=True))
    dry = [channel for channel, one in enumerate(CHANNELS) if one.param == "q"]
    assert min(step.values[..., dry].min() for step in steps) < 0
    for usual, step in zip(steps, clipped, strict=True):
        np.testing.assert_array_equal(step.values[..., dry], np.maximum(usual.values[..., dry], 0))
