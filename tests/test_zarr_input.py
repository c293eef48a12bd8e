"""Zarr stores in the layout of WeatherBench 2 as input."""

from pathlib import Path

import numpy as np
import pytest
import xarray
from running import ROOT, SAMPLE, Runner, messages, values
from zarr_cases import GRID, LAGS, read_zarr, sample_dataset, sample_state, stored

from ai_models_mosaic.channels import LEVELS_HPA
from ai_models_mosaic.errors import InputError
from ai_models_mosaic.inputs.fields import Wanted
from ai_models_mosaic.inputs.zarr import dataset_fields, is_zarr
from ai_models_mosaic.state import InitialState


@pytest.fixture(scope="module")
def sample() -> InitialState:
    return sample_state()


@pytest.fixture
def dataset() -> xarray.Dataset:
    return sample_dataset()


LAYOUTS = {
    "as WeatherBench 2": lambda ds: ds,
    "latitude before longitude": lambda ds: ds.transpose("time", "level", "latitude", "longitude"),
    "level last": lambda ds: ds.transpose("latitude", "longitude", "time", "level"),
    "north to south": lambda ds: ds.isel(latitude=slice(None, None, -1)),
    "levels from below": lambda ds: ds.isel(level=slice(None, None, -1)),
    "from -180": lambda ds: ds.assign_coords(longitude=(ds.longitude + 180) % 360 - 180).sortby("longitude"),
    "short names": lambda ds: ds.rename(latitude="lat", longitude="lon"),
    "more levels and variables": lambda ds: ds.reindex(level=[1, *LEVELS_HPA], fill_value=0).assign(
        extra=ds.geopotential
    ),
    "times as hours": lambda ds: ds.assign_coords(time=("time", [6, 30], {"units": "hours since 2008-04-25"})),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_of_the_store_does_not_matter(
    dataset: xarray.Dataset, sample: InitialState, tmp_path: Path, layout: str
):
    state = read_zarr(stored(LAYOUTS[layout](dataset), tmp_path), GRID, LAGS)
    assert state.times == sample.times
    assert (state.values == sample.values).all()


def test_the_newest_complete_history_is_taken_from_many_times(
    dataset: xarray.Dataset, sample: InitialState, tmp_path: Path
):
    longer = xarray.concat(
        [dataset.assign_coords(time=dataset.time + np.timedelta64(day, "D")) for day in (0, 2)], dim="time"
    )
    state = read_zarr(stored(longer, tmp_path), GRID, LAGS)
    assert f"{state.initial_time:%Y-%m-%d %H}" == "2008-04-28 06"
    assert (state.values == sample.values).all()
    earlier = read_zarr(stored(longer, tmp_path), GRID, LAGS, Wanted(time=sample.times[0].replace(day=27)))
    assert (earlier.values == sample.values[::-1]).all()


def test_what_is_missing_is_listed_with_what_there_is(dataset: xarray.Dataset, tmp_path: Path):
    path = stored(dataset.drop_vars("2m_temperature").sel(level=list(LEVELS_HPA[1:])), tmp_path)
    with pytest.raises(InputError) as caught:
        read_zarr(path, GRID, LAGS)
    lines = str(caught.value).splitlines()
    assert lines[0] == "the input lacks 14 of the 164 fields that a forecast from 2008-04-26 06:00 UTC needs:"
    assert lines[1] == "  2t; z, q, t, u, v, w at 50 hPa; valid 2008-04-25 06:00 UTC"
    assert lines[3].startswith(
        "It holds 10m_u_component_of_wind, 10m_v_component_of_wind, mean_sea_level_pressure; geop"
    )
    assert lines[3].endswith(
        "at 100/150/200/250/300/400/500/600/700/850/925/1000 hPa; valid 2008-04-25 06:00, 2008-04-26 06:00 UTC."
    )


def test_a_time_that_the_store_does_not_have_is_refused(dataset: xarray.Dataset, sample: InitialState, tmp_path: Path):
    with pytest.raises(InputError, match=r"^the input has no field valid at 2008-04-27 06:00 UTC\. It holds "):
        read_zarr(stored(dataset, tmp_path), GRID, LAGS, Wanted(time=sample.times[0].replace(day=27)))


def test_bad_values_are_named_as_in_grib(dataset: xarray.Dataset, tmp_path: Path):
    dataset["temperature"][1, 12, 0, 0] = np.nan
    dataset["mean_sea_level_pressure"] /= 100
    with pytest.raises(InputError) as caught:
        read_zarr(stored(dataset, tmp_path), GRID, LAGS)
    assert "3 input fields cannot be used:" in str(caught.value)
    assert "t1000 valid 2008-04-26 06:00 UTC: 1 of 1860 values are NaN, infinite or missing" in str(caught.value)
    assert str(caught.value).count("Pa; is it hPa?") == 2


def test_another_grid_is_mapped_conservatively(dataset: xarray.Dataset, sample: InitialState, tmp_path: Path):
    # Every cell of 6° cut in two along longitude has the same mean again.
    fine = dataset.isel(longitude=np.repeat(np.arange(60), 2)).assign_coords(longitude=np.arange(120) * 3.0)
    state = read_zarr(stored(fine, tmp_path), GRID, LAGS)
    expected = (sample.values * 3 + np.roll(sample.values, 1, axis=1)) / 4
    np.testing.assert_allclose(state.values, expected, rtol=2e-6, atol=1e-6)


def test_other_dimensions_are_refused(dataset: xarray.Dataset, tmp_path: Path):
    with pytest.raises(
        InputError,
        match=r"store.zarr lacks dimensions: expected longitude \(longitude or lon\); got .*x",
    ):
        read_zarr(stored(dataset.rename(longitude="x"), tmp_path), GRID, LAGS)


def test_what_is_no_store_is_refused(tmp_path: Path):
    (tmp_path / "empty.zarr").mkdir()
    for name in ("absent.zarr", "empty.zarr"):
        with pytest.raises(InputError, match=rf"{name} cannot be opened as a Zarr store: "):
            read_zarr(str(tmp_path / name), GRID, LAGS)


def test_urls_and_paths_are_told_by_their_ending():
    assert [is_zarr(name) for name in ("a.zarr", "gs://b/c.zarr/", "a.zarr.grib", "zarr")] == [True, True, False, False]


def test_a_forecast_from_a_store_is_that_from_grib(dataset: xarray.Dataset, run: Runner):
    stored(dataset, run.folder)
    run("mosaic", "--variant", "mini", "--file", "store.zarr", "--lead-time", 24, "--path", "zarr.grib")
    run("mosaic", "--variant", "mini", "--file", SAMPLE, "--lead-time", 24, "--path", "grib.grib")
    ours, theirs = messages(run.path("zarr.grib")), messages(run.path("grib.grib"))
    assert ours == theirs
    assert values(ours[100]).std() > 0


def test_auto_takes_era5_for_a_store_and_says_so(
    dataset: xarray.Dataset, run: Runner, caplog: pytest.LogCaptureFixture
):
    stored(dataset, run.folder)
    refused = run.refused("mosaic", "--file", "store.zarr")
    assert "variant era5 needs" in refused.message
    assert "Variant era5, because store.zarr is a Zarr store, as those of ERA5 in WeatherBench 2" in caplog.text
    assert not (ROOT / "store.zarr").exists()


# Units.


@pytest.mark.parametrize(
    ("variable", "units"),
    [
        ("2m_temperature", "degC"),
        ("u_component_of_wind", "knots"),
        ("vertical_velocity", "m s-1"),
        ("geopotential", "m"),
        ("specific_humidity", "g kg**-1"),
    ],
)
def test_a_variable_that_says_to_be_in_other_units_is_refused(variable, units):
    dataset = sample_dataset()
    dataset[variable].attrs["units"] = units
    with pytest.raises(InputError) as caught:
        dataset_fields(dataset, LAGS, Wanted())
    assert str(caught.value).startswith(f"the dataset: expected fields in SI units, got {variable} in {units!r}, not ")


@pytest.mark.parametrize(
    ("variable", "spellings"),
    [
        ("2m_temperature", ("K", "Kelvin", "degK", "deg K", "degrees_kelvin", "")),
        (
            "10m_u_component_of_wind",
            ("m s**-1", "m s-1", "m/s", "m.s-1", "m s^-1", "m s⁻¹", "m s^{-1}", "meters per second"),
        ),
        ("mean_sea_level_pressure", ("Pa", "Pascals")),
        ("geopotential", ("m**2 s**-2", "m^2/s^2", "m2 s-2", "m²/s²", "m² s⁻²", "J kg-1")),
        ("specific_humidity", ("kg kg**-1", "kg/kg", "1", 1, "kg kg-1")),
        ("vertical_velocity", ("Pa s**-1", "Pa/s")),
    ],
)
def test_units_may_be_spelt_as_anybody_does_and_others_are_told(variable, spellings, caplog):
    dataset = sample_dataset()
    for units in spellings:
        dataset[variable].attrs["units"] = units
        dataset_fields(dataset, LAGS, Wanted())
    assert not caplog.messages
    # That of another quantity says nothing of the values: attributes are copied from variable to variable.
    for units in ("furlongs", "mol m-3"):
        dataset[variable].attrs["units"] = units
        dataset_fields(dataset, LAGS, Wanted())
    assert [message.partition(",")[0] for message in caplog.messages] == [
        f"the dataset: {variable} is in {units!r} by its attribute units" for units in ("furlongs", "mol m-3")
    ]
