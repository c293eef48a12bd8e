"""Zarr and NetCDF: opened by xarray as a user would, compared with the states that went in."""

import json
import shutil
import sys

import netCDF4
import numpy as np
import pytest
import xarray
from test_writer import GRID, INDEX, MEMBERS, PRODUCTS, SMALL, START, labels, plan, state, steps_of, write

from ai_models_mosaic.errors import OutputError
from ai_models_mosaic.geometry.grid import Region
from ai_models_mosaic.outputs.extras import require
from ai_models_mosaic.outputs.selection import Selection
from ai_models_mosaic.outputs.store.layout import Layout, variables
from ai_models_mosaic.outputs.store.netcdf import convert
from ai_models_mosaic.outputs.writer import Outputs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the same forecast as ``x.zarr`` and ``x.nc``."""
    made = tmp_path_factory.mktemp("stores")
    options = {"path": None, "grib": False, "zarr": f"{made}/x.zarr", "netcdf": f"{made}/x.nc"}
    write(plan(made, products=PRODUCTS, **options))
    return made


def opened(path):
    """As a user opens it, without a warning."""
    if path.suffix == ".zarr":
        return xarray.open_zarr(path, chunks=None)
    return xarray.open_dataset(path)


@pytest.fixture(params=["x.zarr", "x.nc"])
def dataset(folder, request):
    with opened(folder / request.param) as made:
        yield made


def test_lead_times_valid_times_members_and_places_are_coordinates(dataset):
    assert dataset.time.values.tolist() == [np.datetime64("2020-02-29T18", "ns").astype(int)]
    assert (dataset.prediction_timedelta / np.timedelta64(1, "h")).values.tolist() == [0, 24, 48]
    np.testing.assert_array_equal(
        dataset.valid_time.values, dataset.time.values[:, None] + dataset.prediction_timedelta.values
    )
    assert dataset.number.values.tolist() == list(MEMBERS)
    assert dataset.level.values.tolist() == [500, 850]
    assert dataset.longitude.values.tolist() == list(GRID.longitude_deg)
    assert dataset.latitude.values.tolist() == list(GRID.latitude_deg)
    assert set(dataset.coords) == {
        "time",
        "prediction_timedelta",
        "valid_time",
        "number",
        "level",
        "longitude",
        "latitude",
    }


def test_the_fields_of_members_are_those_of_the_states_exactly(dataset):
    names = {
        "2m_temperature": "2t",
        "10m_u_component_of_wind": "10u",
        "geopotential_500": "z500",
        "temperature_850": "t850",
    }
    for name, channel in names.items():
        assert dataset[name].dims == ("time", "prediction_timedelta", "number", "longitude", "latitude")
        assert dataset[name].dtype == np.float32
        for step in (0, 1, 2):
            for member in MEMBERS:
                found = (
                    dataset[name].isel(time=0).sel(number=member, prediction_timedelta=np.timedelta64(24 * step, "h"))
                )
                np.testing.assert_array_equal(found.values, state(member, step)[..., INDEX[channel]])


def test_products_are_what_numpy_makes_of_the_members_in_the_store(dataset):
    exact = dataset.astype(np.float64)
    wind = np.hypot(exact["10m_u_component_of_wind"], exact["10m_v_component_of_wind"])
    expected = {
        "2m_temperature_mean": exact["2m_temperature"].mean("number"),
        "geopotential_500_spread": exact["geopotential_500"].std("number"),
        "2m_temperature_quantile_25": exact["2m_temperature"].quantile(0.25, "number"),
        "10m_wind_speed_probability_above_8": 100 * (wind > 8).mean("number"),
        "temperature_850_probability_below_281": 100 * (exact["temperature_850"] < 281).mean("number"),
    }
    for name, values in expected.items():
        assert dataset[name].dims == ("time", "prediction_timedelta", "longitude", "latitude")
        np.testing.assert_allclose(dataset[name].values, values.values, rtol=1e-6, atol=1e-5, err_msg=name)
    assert dataset["10m_wind_speed_probability_above_8"].attrs["units"] == "%"


def test_attributes_follow_cf(dataset):
    assert dataset.attrs["Conventions"] == "CF-1.8"
    assert dataset.attrs["experiment_version"] == "mosa"
    temperature = dataset["2m_temperature"]
    assert (temperature.attrs["standard_name"], temperature.attrs["units"]) == ("air_temperature", "K")
    assert dataset["10m_u_component_of_wind"].attrs["units"] == "m s-1"
    assert dataset["geopotential_500"].attrs["level_hpa"] == 500
    assert dataset["2m_temperature_spread"].attrs["cell_methods"] == "number: standard_deviation"
    assert "standard_name" not in dataset["10m_wind_speed_probability_above_8"].attrs
    wanted = {
        "time": "forecast_reference_time",
        "prediction_timedelta": "forecast_period",
        "valid_time": "time",
        "number": "realization",
        "level": "air_pressure",
        "longitude": "longitude",
        "latitude": "latitude",
    }
    assert {name: dataset[name].attrs["standard_name"] for name in wanted} == wanted


def test_both_formats_hold_the_same(folder):
    with opened(folder / "x.zarr") as store, opened(folder / "x.nc") as file:
        xarray.testing.assert_identical(store.load(), file.load())


def test_a_chunk_holds_a_variable_of_one_member_and_lead_time_with_all_levels(tmp_path):
    made = plan(tmp_path, path=None, grib=False, zarr=f"{tmp_path}/x.zarr", selection=Selection(), steps=1)
    write(made)
    consolidated = json.loads((tmp_path / "x.zarr" / ".zmetadata").read_text())["metadata"]
    assert consolidated["geopotential/.zarray"]["chunks"] == [1, 1, 1, 13, 12, 7]
    assert consolidated["2m_temperature/.zarray"]["chunks"] == [1, 1, 1, 12, 7]
    assert consolidated["geopotential/.zattrs"]["_ARRAY_DIMENSIONS"] == [
        "time",
        "prediction_timedelta",
        "number",
        "level",
        "longitude",
        "latitude",
    ]
    with opened(tmp_path / "x.zarr") as dataset:
        assert len(dataset.data_vars) == 10
        assert dataset.level.values.tolist() == sorted(dataset.level.values)
        for level in (50, 500, 1000):
            found = dataset.specific_humidity.sel(level=level, number=2).isel(time=0, prediction_timedelta=1).values
            np.testing.assert_array_equal(found, state(2, 1)[..., INDEX[f"q{level}"]])


def test_a_product_of_all_levels_has_the_dimension_level_and_a_chunk_for_each(tmp_path):
    from ai_models_mosaic.outputs.products import parse_products

    selection = Selection(params=("t", "z"), levels=(850, 300))
    products = parse_products("mean@t,max@t850/z")
    made = plan(
        tmp_path,
        path=None,
        grib=False,
        zarr=f"{tmp_path}/x.zarr",
        selection=selection,
        products=products,
        members=(1, 2),
        steps=1,
    )
    write(made)
    with opened(tmp_path / "x.zarr") as dataset:
        assert set(dataset.data_vars) == {
            "temperature",
            "geopotential",
            "temperature_mean",
            "temperature_850_maximum",
            "geopotential_maximum",
        }
        assert dataset.temperature_mean.encoding["chunks"] == (1, 1, 1, 12, 7)
        np.testing.assert_allclose(
            dataset.temperature_mean, dataset.temperature.astype(float).mean("number"), rtol=1e-6
        )
        np.testing.assert_array_equal(dataset.temperature_850_maximum, dataset.temperature.sel(level=850).max("number"))


@pytest.mark.parametrize("workers", [0, 4])
def test_a_store_is_the_same_to_the_byte_whatever_the_number_of_workers(folder, tmp_path, workers):
    write(plan(tmp_path, path=None, grib=False, zarr=f"{tmp_path}/y.zarr", products=PRODUCTS, workers=workers))

    def contents(store):
        return {path.relative_to(store): path.read_bytes() for path in store.rglob("*") if path.is_file()}

    assert contents(tmp_path / "y.zarr") == contents(folder / "x.zarr")


def test_without_members_there_is_no_dimension_of_members(tmp_path):
    options = {"path": None, "grib": False, "members": MEMBERS, "zarr": f"{tmp_path}/x.zarr", "products": PRODUCTS}
    from ai_models_mosaic.outputs.options import OutputOptions
    from ai_models_mosaic.outputs.plan import OutputPlan

    options = OutputOptions(selection=SMALL, products=PRODUCTS, members=False, grib=False, zarr=f"{tmp_path}/x.zarr")
    write(OutputPlan(None, options, GRID, 24, 1, MEMBERS))
    with opened(tmp_path / "x.zarr") as dataset:
        assert "number" not in dataset.dims
        assert "2m_temperature" not in dataset
        assert "2m_temperature_mean" in dataset


def test_a_region_across_greenwich_has_longitudes_that_ascend(tmp_path):
    selection = Selection(params=("2t",), area=(60, -40, -30, 65))
    write(plan(tmp_path, path=None, grib=False, netcdf=f"{tmp_path}/x.nc", selection=selection, steps=0))
    with opened(tmp_path / "x.nc") as dataset:
        assert dataset.longitude.values.tolist() == [-30, 0, 30, 60]
        assert dataset.latitude.values.tolist() == [-30, 0, 30, 60]
        for member in MEMBERS:
            found = dataset["2m_temperature"].sel(number=member).isel(time=0, prediction_timedelta=0)
            expected = state(member, 0)[..., INDEX["2t"]]
            assert found.sel(longitude=-30, latitude=60) == expected[11, 5]
            assert found.sel(longitude=60, latitude=-30) == expected[2, 2]


def test_the_initial_time_names_the_store(tmp_path):
    write(plan(tmp_path, path=None, grib=False, zarr=f"{tmp_path}/{{date}}-{{time}}.zarr/", steps=0))
    assert [path.name for path in tmp_path.iterdir()] == ["20200229-1800.zarr"]


# Names only when complete.


def one_step(made):
    return next(iter(steps_of(made)))


def test_stores_bear_their_names_only_when_the_run_is_complete(tmp_path):
    made = plan(tmp_path, path=None, grib=False, zarr=f"{tmp_path}/x.zarr", netcdf=f"{tmp_path}/x.nc")
    with Outputs(made, labels()) as outputs:
        for step in steps_of(made):
            outputs.write(step)
            outputs.mark()()
            assert [path.name for path in tmp_path.iterdir()] == ["x.zarr.partial"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.nc", "x.zarr"]
    assert outputs.paths == [tmp_path / "x.nc", tmp_path / "x.zarr"]


def test_netcdf_alone_leaves_no_store_behind(tmp_path):
    made = plan(tmp_path, path=None, grib=False, netcdf=f"{tmp_path}/x.nc", steps=0)
    outputs = write(made)
    assert [path.name for path in tmp_path.iterdir()] == ["x.nc"]
    assert outputs.paths == [tmp_path / "x.nc"]


def test_a_run_that_fails_leaves_the_store_from_before(folder, tmp_path):
    shutil.copytree(folder / "x.zarr", tmp_path / "x.zarr")
    before = sorted(path.name for path in (tmp_path / "x.zarr").iterdir())
    made = plan(tmp_path, path=None, grib=False, zarr=f"{tmp_path}/x.zarr", members=(9,))

    def run():
        with Outputs(made, labels()) as outputs:
            outputs.write(one_step(made))
            outputs.mark()()
            raise KeyError("bug")

    with pytest.raises(KeyError):
        run()
    assert sorted(path.name for path in (tmp_path / "x.zarr").iterdir()) == before
    write(made)
    assert [path.name for path in tmp_path.iterdir()] == ["x.zarr"]
    with opened(tmp_path / "x.zarr") as dataset:
        assert dataset.number.values.tolist() == [9]


def test_a_partial_store_is_gone_on_with_where_the_run_is_resumed(tmp_path):
    made = plan(tmp_path, path=None, grib=False, zarr=f"{tmp_path}/x.zarr")
    steps = list(steps_of(made))

    def first():
        with Outputs(made, labels()) as outputs:
            for step in steps[:3]:
                outputs.write(step)
            outputs.mark()()
            raise KeyError("killed")

    with pytest.raises(KeyError):
        first()
    with Outputs(made, labels(), resuming=True) as outputs:
        outputs.resume({})
        for step in steps[3:]:
            outputs.write(step)
    with opened(tmp_path / "x.zarr") as dataset:
        assert not np.isnan(dataset["2m_temperature"]).any()
        found = dataset["2m_temperature"].sel(number=3).isel(time=0, prediction_timedelta=0)
        np.testing.assert_array_equal(found, state(3, 0)[..., INDEX["2t"]])


def test_a_store_whose_folder_vanishes_ends_the_run_with_its_name(tmp_path):
    made = plan(tmp_path, path=None, grib=False, zarr=f"{tmp_path}/gone/x.zarr", workers=0)
    (tmp_path / "gone").mkdir()

    def run():
        with Outputs(made, labels()) as outputs:
            outputs.write(one_step(made))
            shutil.rmtree(tmp_path / "gone")
            outputs.write(one_step(made))

    with pytest.raises(OutputError) as caught:
        run()
    assert str(caught.value) == (
        f"cannot write {tmp_path}/gone/x.zarr: its partial store was removed while it was being written"
    )
    assert not (tmp_path / "gone").exists()


def test_what_a_run_that_died_left_of_a_store_is_no_reason_to_refuse_the_next(tmp_path):
    made = plan(tmp_path, path=None, grib=False, zarr=f"{tmp_path}/x.zarr")
    (tmp_path / "x.zarr.partial").mkdir()
    made.check(labels())
    (tmp_path / "x.zarr").mkdir()
    with pytest.raises(OutputError, match=r"^--zarr \S+/x.zarr: there is something of this name that is no Zarr store"):
        made.check(labels())
    made = plan(tmp_path, path=None, grib=False, zarr=f"{tmp_path}/gone/x.zarr")
    with pytest.raises(
        OutputError, match=r"^cannot write \S+/gone/x.zarr.partial: there is no folder \S+/gone; create"
    ):
        made.check(labels())


def test_a_store_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    made = plan(tmp_path, path=None, grib=False, zarr=f"{tmp_path}/file/x.zarr")
    with pytest.raises(OutputError) as caught:
        Outputs(made, labels())
    assert str(caught.value).startswith(f"cannot write {tmp_path}/file/x.zarr: ")


def test_netcdf_that_cannot_be_written_is_named_and_the_store_stays(folder, tmp_path):
    (tmp_path / "x.nc.partial").mkdir()
    with pytest.raises(OutputError) as caught:
        convert(folder / "x.zarr", tmp_path / "x.nc")
    assert str(caught.value).startswith(f"cannot write {tmp_path}/x.nc: ")
    assert not (tmp_path / "x.nc").exists()
    assert (folder / "x.zarr" / ".zmetadata").exists()


def test_netcdf_is_of_version_4_with_a_chunk_per_member_and_lead_time(folder):
    with netCDF4.Dataset(folder / "x.nc") as file:
        assert file.data_model == "NETCDF4"
        assert file["2m_temperature"].chunking() == [1, 1, 1, 12, 7]
        assert file["2m_temperature"].filters()["zlib"]
        assert file["number"][:].tolist() == list(MEMBERS)


def test_layouts_name_what_they_hold():
    from ai_models_mosaic.params import named

    fields = (*named("2t", "x"), *named("z500", "x"), *named("z850", "x"), *named("t850", "x"))
    layout = Layout(Region.whole(GRID), START, (0, 24), (1,), fields, ())
    assert [variable.name for variable in variables(layout)] == ["2m_temperature", "geopotential", "temperature_850"]
    assert layout.levels_hpa == (500, 850)


@pytest.mark.parametrize(("package", "extra"), [("zarr", "zarr"), ("numcodecs", "zarr"), ("netCDF4", "netcdf")])
def test_an_output_without_its_package_says_what_to_install(package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        OutputError, match=rf"^writing a\.b needs {package}: pip install 'ai-models-mosaic\[{extra}\]'$"
    ):
        require(package, "writing a.b")
