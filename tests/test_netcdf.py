"""NetCDF by CF: what is in the file, and what compliance-checker, CDO, GDAL, iris and xarray make of it."""

import json
import re
import resource
import shutil
import subprocess
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import xarray
from test_writer import GRID, INDEX, MEMBERS, labels, plan, state, write

from ai_models_mosaic.errors import InputError, OutputError
from ai_models_mosaic.outputs.options import OutputOptions
from ai_models_mosaic.outputs.plan import OutputPlan
from ai_models_mosaic.outputs.products import parse_products
from ai_models_mosaic.outputs.selection import Selection
from ai_models_mosaic.outputs.store.netcdf import convert
from ai_models_mosaic.report.ensemble import canonical, open_ensemble
from ai_models_mosaic.verification.plan import find_channels
from ai_models_mosaic.verification.zarr_stores import ZarrForecasts, ZarrTruth

PARAMS = Selection(params=("2t", "10u", "msl", "z", "q850"), levels=(500, 850))
PRODUCTS = parse_products(
    "mean@2t/z,spread@2t,quantile:2.5@2t,quantile:90@2t/z500,probability:2t>280.5,probability:10ws<=8,"
    "probability:10u<-5,percentile:50@2t,min@q850"
)
NORTH_TO_SOUTH = list(GRID.latitude_deg)[::-1]

NAMES = {"t2m": "2t", "u10": "10u", "msl": "msl", "q850": "q850"}
"""Channels by variable, of those without levels."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same forecast as ``x.nc`` and, a file per member, as ``m-01.nc`` …; products in ``m-products.nc``."""
    made = tmp_path_factory.mktemp("netcdf")
    for name in ("x.nc", "m-{number:02d}.nc"):
        more = {"path": None, "grib": False, "netcdf": f"{made}/{name}"}
        write(plan(made, selection=PARAMS, products=PRODUCTS, **more))
    return made


@pytest.fixture
def dataset(folder):
    with xarray.open_dataset(folder / "x.nc") as made:
        yield made


def rows(member, step, label):
    """A field as a map is printed: rows from north to south, each from Greenwich eastwards."""
    return state(member, step)[..., INDEX[label]].T[::-1]


# What is in it.


def test_coordinates_are_those_of_cf(dataset):
    assert dict(dataset.sizes) == {"number": 3, "time": 3, "level": 2, "latitude": 7, "longitude": 12}
    assert dataset.number.values.tolist() == sorted(MEMBERS)
    assert dataset.number.dtype == np.int32
    assert dataset.time.values.astype("datetime64[h]").astype(str).tolist() == [
        "2020-02-29T18",
        "2020-03-01T18",
        "2020-03-02T18",
    ]
    assert str(dataset.forecast_reference_time.values)[:16] == "2020-02-29T18:00"
    assert dataset.forecast_period.dims == ("time",)
    assert (dataset.time - dataset.forecast_reference_time).values.astype("timedelta64[h]").tolist() == [
        np.timedelta64(hours, "h") for hours in (0, 24, 48)
    ]
    assert dataset.latitude.values.tolist() == NORTH_TO_SOUTH
    assert dataset.longitude.values.tolist() == list(GRID.longitude_deg)
    assert dataset.level.values.tolist() == [500, 850]
    wanted = {
        "time": "time",
        "forecast_reference_time": "forecast_reference_time",
        "forecast_period": "forecast_period",
        "number": "realization",
        "level": "air_pressure",
        "latitude": "latitude",
        "longitude": "longitude",
        "height_2m": "height",
        "level_850": "air_pressure",
    }
    assert {name: dataset[name].attrs["standard_name"] for name in wanted} == wanted
    assert {name: dataset[name].attrs.get("axis") for name in ("time", "level", "latitude", "longitude")} == {
        "time": "T",
        "level": "Z",
        "latitude": "Y",
        "longitude": "X",
    }
    assert dataset.level.attrs["positive"] == "down"
    assert dataset.attrs["Conventions"] == "CF-1.8"
    assert re.fullmatch(r"ai-models-mosaic \S+: forecast from 2020-02-29 18:00 UTC", dataset.attrs["history"])


def test_no_coordinate_is_of_a_type_that_cf_1_8_does_not_have(folder):
    import netCDF4

    with netCDF4.Dataset(folder / "x.nc") as file:
        assert {str(variable.dtype) for variable in file.variables.values()} == {"float32", "float64", "int32"}
        assert all(re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) for name in file.variables)


def test_fields_are_those_of_the_states_exactly_and_right_way_up(dataset):
    assert dataset.z.dims == ("number", "time", "level", "latitude", "longitude")
    assert dataset.t2m.dims == ("number", "time", "latitude", "longitude")
    for member in MEMBERS:
        for step in range(3):
            found = dataset.sel(number=member).isel(time=step)
            for name, channel in NAMES.items():
                np.testing.assert_array_equal(found[name].values, rows(member, step, channel))
            np.testing.assert_array_equal(found.z.sel(level=850).values, rows(member, step, "z850"))
    assert dataset.t2m.attrs == {
        "long_name": "2m temperature",
        "units": "K",
        "GRIB_shortName": "2t",
        "standard_name": "air_temperature",
    }


def test_products_say_what_they_are(dataset):
    exact = dataset.astype(np.float64)
    expected = {
        "t2m_mean": exact.t2m.mean("number"),
        "t2m_spread": exact.t2m.std("number"),
        "z_mean": exact.z.mean("number"),
        "q850_minimum": exact.q850.min("number"),
        "t2m_quantile_2p5": exact.t2m.quantile(0.025, "number"),
        "z500_quantile_90": exact.z.sel(level=500).quantile(0.9, "number"),
        "t2m_percentile_50": exact.t2m.median("number"),
        "t2m_probability_above_280p5": 100 * (exact.t2m > 280.5).mean("number"),
        "u10_probability_below_minus_5": 100 * (exact.u10 < -5).mean("number"),
    }
    for name, values in expected.items():
        assert "number" not in dataset[name].dims
        np.testing.assert_allclose(dataset[name].values, values.values, rtol=1e-5, atol=1e-5, err_msg=name)
    assert dataset.t2m_mean.attrs["cell_methods"] == "realization: mean"
    assert dataset.t2m_spread.attrs["cell_methods"] == "realization: standard_deviation"
    assert dataset.t2m_quantile_2p5.quantile_2p5.item() == 0.025
    assert dataset.z500_quantile_90.quantile_90.item() == 0.9
    assert dataset.z500_quantile_90.level_500.item() == 500
    assert dataset.si10_probability_below_8.attrs["units"] == "%"
    threshold = dataset.si10_probability_below_8.si10_probability_below_8_threshold
    assert (threshold.item(), threshold.attrs["units"], threshold.attrs["comparison"]) == (8, "m s-1", "<=")
    assert dataset.t2m_probability_above_280p5.attrs["long_name"] == "2m temperature: probability of > 280.5 K"
    assert "standard_name" not in dataset.t2m_probability_above_280p5.attrs


def test_a_file_per_member_holds_it_alone_and_products_have_one_of_their_own(folder):
    names = ["m-01.nc", "m-02.nc", "m-03.nc", "m-products.nc", "x.nc"]
    assert sorted(path.name for path in folder.iterdir()) == names
    with xarray.open_dataset(folder / "x.nc") as whole, xarray.open_dataset(folder / "m-02.nc") as member:
        assert member.number.ndim == 0
        assert sorted(member.data_vars) == ["msl", "q850", "t2m", "u10", "z"]
        assert member.z.dims == ("time", "level", "latitude", "longitude")
        for name in member.data_vars:
            np.testing.assert_array_equal(member[name].values, whole[name].sel(number=2).values)
    with xarray.open_dataset(folder / "m-products.nc") as products, xarray.open_dataset(folder / "x.nc") as whole:
        assert set(products.data_vars) == set(whole.data_vars) - {"msl", "q850", "t2m", "u10", "z"}
        xarray.testing.assert_equal(products.t2m_mean, whole.t2m_mean)


def test_the_names_of_files_per_member_are_checked_before_the_run(tmp_path):
    made = plan(tmp_path, netcdf=f"{tmp_path}/{{number:.0s}}.nc")
    with pytest.raises(OutputError, match=r"^--netcdf \S+: expected in braces some of date, time, number, perhaps"):
        made.check(labels())
    made = plan(tmp_path, netcdf=f"{tmp_path}/{{number}}/x.nc")
    with pytest.raises(OutputError, match=r"/1/x\.nc\S*: there is no folder"):
        made.check(labels())


@pytest.mark.parametrize(
    ("room", "why"),
    [(0, "not even its first bytes could be written"), (3000, "NetCDF: HDF error")],
)
def test_a_full_disk_is_told_as_such_wherever_it_is_met(tmp_path, room, why):
    made = plan(tmp_path, path=None, grib=False, zarr=f"{tmp_path}/x.zarr", selection=PARAMS)
    write(made)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores SIGXFSZ, so a limit on the size of files acts as a disk that fills up.
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(OutputError) as caught:
            convert(tmp_path / "x.zarr", tmp_path / "x.nc", made.layout(labels()))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(caught.value) == f"cannot write {tmp_path}/x.nc: {why}; is the disk full?"
    assert not (tmp_path / "x.nc").exists()


def test_products_alone_have_no_realization(tmp_path):
    options = OutputOptions(
        selection=PARAMS, products=PRODUCTS[:1], members=False, grib=False, netcdf=f"{tmp_path}/x.nc"
    )
    write(OutputPlan(None, options, GRID, 24, 1, MEMBERS))
    with xarray.open_dataset(tmp_path / "x.nc") as dataset:
        assert list(dataset.data_vars) == ["t2m_mean", "z_mean"]
        assert "number" not in dataset.variables


# What this package makes of it.


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The same forecast as a store."""
    made = tmp_path_factory.mktemp("zarr")
    write(plan(made, path=None, grib=False, zarr=f"{made}/x.zarr", selection=PARAMS, products=PRODUCTS))
    return made / "x.zarr"


CHANNELS = find_channels(["z500", "2t", "q850"])


@pytest.mark.parametrize("name", ["x.nc", "m-*.nc"])
def test_verify_reads_of_netcdf_what_it_reads_of_zarr(folder, store, name):
    (case,) = ZarrForecasts(f"{folder}/{name}", CHANNELS).cases()
    (expected,) = ZarrForecasts(str(store), CHANNELS).cases()
    assert (case.initial_time, case.lead_hours) == (expected.initial_time, expected.lead_hours)
    assert case.members == (1, 2, 3)
    order = [expected.members.index(member) for member in case.members]
    for channel in CHANNELS:
        np.testing.assert_array_equal(case.read(channel), expected.read(channel)[order])
    assert case.skipped == expected.skipped == ("variables of products, left out",) * 9


def test_the_layout_that_was_written_before_and_that_of_cfgrib_are_read(store, tmp_path):
    (expected,) = ZarrForecasts(str(store), CHANNELS).cases()
    with xarray.open_zarr(store, chunks=None) as before:
        before.to_netcdf(tmp_path / "before.nc")
        plain = before.isel(time=0).drop_vars("valid_time").rename(prediction_timedelta="step", level="isobaricInhPa")
        names = {"geopotential": "z", "2m_temperature": "t2m", "specific_humidity_850": "q850"}
        plain = plain[list(names)].rename(names)
        plain["q850"].attrs = {"GRIB_shortName": "q"}
        plain.assign_coords(isobaricInhPa=("isobaricInhPa", [500.0, 850.0])).to_netcdf(tmp_path / "cfgrib.nc")
    (found,) = ZarrForecasts(f"{tmp_path}/before.nc", CHANNELS).cases()
    assert found.members == expected.members
    for channel in CHANNELS:
        np.testing.assert_array_equal(found.read(channel), expected.read(channel))
    (found,) = ZarrForecasts(f"{tmp_path}/cfgrib.nc", CHANNELS[:2]).cases()
    assert found.initial_time == expected.initial_time
    for channel in CHANNELS[:2]:
        np.testing.assert_array_equal(found.read(channel), expected.read(channel))


def test_verify_reads_several_initial_times(tmp_path):
    for day in (1, 2):
        label = replace(labels(), initial_time=datetime(2020, 3, day))
        write(plan(tmp_path, path=None, grib=False, netcdf=f"{tmp_path}/{{date}}.nc"), label)
    cases = list(ZarrForecasts(f"{tmp_path}/*.nc", find_channels(["2t"])).cases())
    assert [(case.initial_time.day, case.lead_hours) for case in cases] == [(1, (24, 48)), (2, (24, 48))]
    np.testing.assert_array_equal(cases[1].read(find_channels(["2t"])[0])[2, 0], rows(3, 1, "2t")[::-1].T)


def test_products_alone_are_no_forecast(folder):
    with pytest.raises(InputError, match="lacks geopotential_500, 2m_temperature, specific_humidity_850: expected"):
        ZarrForecasts(f"{folder}/m-products.nc", CHANNELS)
    with pytest.raises(InputError, match=r"m-products\.nc: expected fields by lead time, latitude and longitude; got "):
        open_ensemble([f"{folder}/m-products.nc"])


def test_truth_from_the_climate_data_store_is_read(tmp_path):
    """ERA5 in NetCDF as CDS gives it: valid times, pressure levels, names of cfgrib, scalars beside them."""
    times = np.array(["2020-03-01T00", "2020-03-01T06"], dtype="datetime64[ns]")
    axes = {"valid_time": times, "latitude": NORTH_TO_SOUTH, "longitude": list(GRID.longitude_deg)}
    values = np.stack([rows(1, step, "2t") for step in (0, 1)])
    made = xarray.Dataset(
        {
            "t2m": (("valid_time", "latitude", "longitude"), values, {"GRIB_shortName": "2t"}),
            "z": (("valid_time", "pressure_level", "latitude", "longitude"), values[:, None], {"GRIB_shortName": "z"}),
        },
        {**axes, "pressure_level": ("pressure_level", [500.0], {"units": "hPa"}), "number": 0},
    )
    made.to_netcdf(tmp_path / "era5.nc")
    truth = ZarrTruth([f"{tmp_path}/era5.nc"], CHANNELS[:2])
    assert [time.hour for time in truth.times] == [0, 6]
    for channel in CHANNELS[:2]:
        np.testing.assert_array_equal(truth.read(channel, truth.times)[1], rows(1, 1, "2t")[::-1].T)


@pytest.mark.parametrize("name", ["x.nc", "m-*.nc"])
def test_report_reads_of_netcdf_what_it_reads_of_zarr(folder, store, name):
    with open_ensemble([f"{folder}/{name}"]) as found, open_ensemble([str(store)]) as expected:
        assert sorted(found.data_vars) == sorted(expected.data_vars) == ["10u", "2t", "msl", "q850", "z"]
        for field in found.data_vars:
            chosen = expected[field].sel(number=found.number).transpose(*found[field].dims)
            np.testing.assert_array_equal(found[field].values, chosen.values)
        np.testing.assert_array_equal(found.step.values, expected.step.values)
        assert found.time.values == expected.time.values


def test_a_dataset_that_the_user_opened_is_as_good(folder):
    with xarray.open_dataset(folder / "x.nc") as dataset:
        found = canonical(dataset)
        assert sorted(found.data_vars) == ["10u", "2t", "msl", "q850", "z"]
        assert "level_hpa" not in dataset.q850.attrs


# What others make of it.


CHECKER = shutil.which("compliance-checker")

STATISTIC_OVER_MEMBERS = (
    r"\w+'s cell_methods name component realization does not match a dimension, area or auxiliary coordinate"
)
"""CF 7.3 allows a standard name there, and a variable that is a statistic over members has no such coordinate."""


def tool(name, remedy):
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"no {name}: {remedy}")


def said(*words):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, check=True)


@tool("cdo", "apt-get install cdo")
@pytest.mark.parametrize("member", MEMBERS)
def test_cdo_reads_a_file_per_member(folder, member, tmp_path):
    file = folder / f"m-{member:02d}.nc"
    listed = said("cdo", "-s", "sinfon", file).stdout
    assert re.findall(r": (\w+) +$", listed, flags=re.MULTILINE) == ["t2m", "u10", "msl", "z", "q850"]
    assert "90 to -90 by -30 degrees_north" in listed
    assert "0 to 330 by 30 degrees_east  circular" in listed
    assert re.search(r"time : 3 steps\n.*\n +ForecastRefTime =  2020-02-29T18:00:00", listed)
    assert "2020-02-29 18:00:00  2020-03-01 18:00:00  2020-03-02 18:00:00" in listed
    # Onto the same points the other way up: every value must come to where it was.
    (tmp_path / "grid").write_text(
        "gridtype = lonlat\nxsize = 12\nysize = 7\nxfirst = 0\nxinc = 30\nyfirst = -90\nyinc = 30\n"
    )
    said("cdo", "-s", "-f", "nc4", f"remapbil,{tmp_path}/grid", file, tmp_path / "turned.nc")
    with xarray.open_dataset(tmp_path / "turned.nc") as turned:
        assert turned.lat.values.tolist() == NORTH_TO_SOUTH[::-1]
        for name, channel in NAMES.items():
            found = np.squeeze(turned[name].isel(time=2).values)
            np.testing.assert_allclose(found, rows(member, 2, channel)[::-1], rtol=1e-5, atol=1e-4)
        found = turned.z.isel(time=2).sel(level=500)
        np.testing.assert_allclose(found, rows(member, 2, "z500")[::-1], rtol=1e-5, atol=1e-4)


@tool("cdo", "apt-get install cdo")
def test_cdo_makes_the_mean_of_the_members_that_is_among_the_products(folder, tmp_path):
    members = [folder / f"m-{member:02d}.nc" for member in sorted(MEMBERS)]
    said("cdo", "-s", "ensmean", *members, tmp_path / "mean.nc")
    with xarray.open_dataset(tmp_path / "mean.nc") as made, xarray.open_dataset(folder / "m-products.nc") as products:
        np.testing.assert_allclose(np.squeeze(made.t2m.values), products.t2m_mean.values, rtol=1e-6)
    listed = said("cdo", "-s", "sinfon", folder / "m-products.nc").stdout
    with xarray.open_dataset(folder / "m-products.nc") as products:
        assert sorted(re.findall(r": (\w+) *$", listed, flags=re.MULTILINE)) == sorted(products.data_vars)


@tool("cdo", "apt-get install cdo")
def test_cdo_says_what_it_leaves_out_of_a_file_of_all_members(folder):
    found = said("cdo", "-s", "sinfon", folder / "x.nc")
    assert "Time must be the first dimension! Unsupported array structure, skipped variable t2m!" in found.stderr
    assert "t2m_mean" in found.stdout


@tool("gdalinfo", "apt-get install gdal-bin")
def test_gdal_reads_members_and_products_right_way_up(folder, tmp_path):
    subdatasets = json.loads(said("gdalinfo", "-json", folder / "x.nc").stdout)["metadata"]["SUBDATASETS"]
    names = {text.rpartition(":")[2] for key, text in subdatasets.items() if key.endswith("_NAME")}
    with xarray.open_dataset(folder / "x.nc") as dataset:
        assert set(dataset.data_vars) <= names
    for name, bands in {"t2m": 9, "z": 18, "z_mean": 6, "t2m_quantile_90": 3}.items():
        found = json.loads(said("gdalinfo", "-json", f"NETCDF:{folder}/x.nc:{name}").stdout)
        assert found["size"] == [12, 7]
        assert found["geoTransform"] == [-15, 30, 0, 105, 0, -30]
        assert len(found["bands"]) == bands
    # The corner of the north west is the first that is written.
    place = f"NETCDF:{folder}/x.nc:t2m"
    said("gdal_translate", "-q", "-of", "XYZ", "-b", 4, place, tmp_path / "band.xyz")
    *_, values = np.loadtxt(tmp_path / "band.xyz").T
    np.testing.assert_allclose(values.reshape(7, 12), rows(2, 0, "2t"), rtol=1e-6)


@tool("compliance-checker", "make test-interop")
@pytest.mark.parametrize("name", ["x.nc", "m-02.nc", "m-products.nc"])
def test_compliance_checker_has_no_error(folder, name, tmp_path):
    report = tmp_path / "report.json"
    words = (CHECKER, "--test", "cf:1.8", "--format", "json", "--output", report, folder / name)
    # Its status is 1 where there are warnings, too.
    subprocess.run([str(word) for word in words], capture_output=True, check=False)
    found = json.loads(report.read_text())["cf:1.8"]
    assert len(found["all_priorities"]) > 20
    assert [text for check in found["high_priorities"] for text in check["msgs"]] == []
    wrong = [text for check in found["all_priorities"] for text in check["msgs"]]
    assert [text for text in wrong if not re.fullmatch(STATISTIC_OVER_MEMBERS, text)] == []


@tool("compliance-checker", "make test-interop")
def test_iris_knows_members_times_and_levels(folder):
    # An interpreter of its own: iris and ecCodes in one process load two libraries of PROJ, of which the second fails.
    python = Path(CHECKER).with_name("python")
    cubes = json.loads(said(python, Path(__file__).with_name("iris_cubes.py"), folder / "x.nc").stdout)
    with xarray.open_dataset(folder / "x.nc") as dataset:
        assert cubes.keys() == set(dataset.data_vars)
    geopotential = cubes["z"]
    assert geopotential["dimensions"] == ["realization", "time", "air_pressure", "latitude", "longitude"]
    assert geopotential["forecast_period"] == [0, 24, 48]
    assert geopotential["times"] == ["2020-02-29 18", "2020-03-01 18", "2020-03-02 18"]
    np.testing.assert_array_equal(np.float32(geopotential["values"][2][1][1]), rows(3, 1, "z850"))
    assert cubes["t2m_mean"]["cell_methods"] == ["realization: mean"]
    assert cubes["z500_quantile_90"]["scalars"]["quantile"] == 0.9
    assert cubes["q850"]["scalars"]["air_pressure"] == 850
