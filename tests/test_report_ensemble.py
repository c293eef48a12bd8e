"""Any ensemble is the same dataset, whatever it comes in."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest
import xarray
from ensembles import ensemble
from grib_files import COARSE, NOW, Layout, message, plausible, two_fields_in_one_message, write

from ai_models_mosaic.errors import InputError, OptionError
from ai_models_mosaic.report.angles import axis_of_angles, between_columns
from ai_models_mosaic.report.ensemble import canonical, open_ensemble
from ai_models_mosaic.report.fields import names, native
from ai_models_mosaic.report.grib_index import index
from ai_models_mosaic.verification.messages import scan

LONG_NAMES = {"msl": "mean_sea_level_pressure", "2t": "2m_temperature", "z": "geopotential", "t": "temperature"}


def fields(param, level=None, layout=COARSE, members=(1, 2), steps=(0, 6), **keywords):
    return [
        message(
            param, level, number=number, step_hours=step, layout=layout,
            values=plausible(param, level, NOW + timedelta(hours=step + 5 * number)), **keywords,
        )
        for number in members
        for step in steps
    ]  # fmt: skip


@pytest.mark.parametrize("layout", [COARSE, Layout(from_south=True), Layout(from_east=True), Layout(by_columns=True)])
def test_grib_is_read_right_way_up(tmp_path, layout):
    path = write(tmp_path / "e.grib", fields("2t", layout=layout) + fields("t", 500, layout) + fields("t", 850, layout))

    found = open_ensemble([str(path)])

    assert found["t"].dims == ("number", "step", "level", "latitude", "longitude")
    assert found["level"].values.tolist() == [500, 850]
    value = found["t"].sel(number=2, step="6h", level=850, latitude=30, longitude=90).item()
    expected = plausible("t", 850, NOW + timedelta(hours=16))(np.array([90.0]), np.array([30.0]))
    assert value == pytest.approx(expected.item(), abs=1e-3)
    assert found["2t"].isel(number=[1], step=slice(0, 1), latitude=[2, 3]).shape == (1, 1, 2, 12)


def test_a_region_across_greenwich_goes_from_west_to_east(tmp_path):
    layout = Layout(columns=5, rows=3, west=-20, east=20, north=60, south=40)

    found = open_ensemble([str(write(tmp_path / "e.grib", fields("2t", layout=layout)))])

    assert found["longitude"].values.tolist() == [-20, -10, 0, 10, 20]
    expected = plausible("2t", None, NOW + timedelta(hours=5))(np.array([-20.0]), np.array([60.0]))
    assert found["2t"].sel(number=1, step="0h", longitude=-20, latitude=60).item() == pytest.approx(expected.item())


def test_only_what_is_asked_for_is_decoded(tmp_path):
    good, other = fields("2t", members=(1,), steps=(0,))[0], fields("2t", members=(2,), steps=(0,))[0]
    # The values of member 2 are on another grid, which decoding it tells.
    other = fields("2t", members=(2,), steps=(0,), layout=Layout(columns=24))[0]
    found = open_ensemble([str(write(tmp_path / "e.grib", [good, other]))])

    assert np.isfinite(found["2t"].sel(number=1).values).all()
    with pytest.raises(InputError, match="2t is on another grid than the rest: expected one grid"):
        found["2t"].sel(number=2).values  # noqa: B018


def test_a_field_that_is_not_there_is_nan(tmp_path, caplog):
    path = write(tmp_path / "e.grib", fields("2t") + fields("msl", members=(1,)))

    found = open_ensemble([str(path)])

    assert np.isnan(found["msl"].sel(number=2).values).all()
    assert np.isfinite(found["msl"].sel(number=1).values).all()
    assert found.attrs["missing_fields"] == 2
    assert caplog.messages == [
        "2 fields of members and lead times are missing: means, spreads and probabilities are of the members that have "
        "the field"
    ]


def test_a_field_that_is_there_twice_is_told(tmp_path, caplog):
    first, second = (message("2t", None, number=1, step_hours=6, values=value) for value in (280.0, 290.0))
    found = open_ensemble([str(write(tmp_path / "e.grib", [first, second]))])

    assert found["2t"].values.mean() == pytest.approx(280)
    assert caplog.messages == ["1 field there twice, of which the first counts"]


def test_levels_that_only_another_param_has_are_not_offered(tmp_path):
    path = write(tmp_path / "e.grib", fields("t", 300) + fields("t", 850) + fields("z", 500))

    found = open_ensemble([str(path)])

    assert names(found) == ["t300", "t850", "z500"]
    with pytest.raises(OptionError, match="expected fields that the ensemble has, got t500; it has t300, t850, z500"):
        native(found, "t500", 0)


def test_a_reduced_grid_is_refused(tmp_path):
    path = write(tmp_path / "e.grib", [message("2t", number=1, layout=None, sample="reduced_gg_pl_32")])

    with pytest.raises(InputError, match=r"expected latitudes × longitudes\. Interpolate it first"):
        open_ensemble([str(path)])


def test_several_initial_times_want_a_choice(tmp_path):
    before = NOW - timedelta(days=1)
    path = write(tmp_path / "e.grib", fields("2t") + fields("2t", base=before))

    with pytest.raises(InputError, match="got 2; choose with --date: 2020-01-01T12, 2020-01-02T12"):
        open_ensemble([str(path)])
    assert open_ensemble([str(path)], before)["time"].values == np.datetime64(before)
    with pytest.raises(InputError, match="expected a forecast from 2021-01-01 00 UTC, got none"):
        open_ensemble([str(path)], datetime(2021, 1, 1))


def test_the_index_says_what_the_scan_says(tmp_path):
    messages = [
        *fields("2t"),
        *fields("z", 500, steps=(0, 240)),
        *fields("msl", edition=2, packing="grid_ccsds"),
        message("t", 850),
        message("gh", 500, number=3),
        message("t", 12, kind="hybrid", number=3),
    ]
    path = write(tmp_path / "e.grib", messages)
    old = write(tmp_path / "old.grib", fields("2t", edition=1))

    assert list(index(path)) == list(scan(path))
    assert list(index(old)) == list(scan(old))
    assert len(list(index(path))) > 10


def test_the_index_takes_the_first_of_two_fields_in_a_message(tmp_path):
    pair = two_fields_in_one_message(*fields("10u", steps=(6,)), tmp_path / "pair.grib")
    path = write(tmp_path / "e.grib", [pair, *fields("10u", members=(3,), steps=(6,))])

    assert [each.number for each in index(path)] == [1, 3] == [each.number for each in scan(path)]


def test_a_file_that_ends_early_is_named(tmp_path):
    path = write(tmp_path / "e.grib", [b"".join(fields("2t"))[:-9]])

    with pytest.raises(InputError, match=r"e.grib cannot be read as GRIB: the message at byte \d+ is not complete"):
        open_ensemble([str(path)])


@pytest.mark.parametrize("place", [8, 15, 16])
def test_damage_ends_in_an_error_that_names_the_file(tmp_path, place):
    content = bytearray(b"".join(fields("2t")))
    content[place : place + 1] = b"\0" if place == 15 else b"\xff"
    path = write(tmp_path / "e.grib", [bytes(content)])
    with pytest.raises(InputError, match=r"e\.grib cannot be read as GRIB"):
        list(index(path))


def test_a_message_of_no_length_is_no_endless_one(tmp_path):
    good = b"".join(fields("2t"))
    path = write(tmp_path / "e.grib", [good, b"GRIB\0\0\0\2" + bytes(8) + good])

    with pytest.raises(InputError, match=rf"the message at byte {len(good)} is not complete"):
        list(index(path))


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found,
        lambda found: found.isel(latitude=slice(None, None, -1)),
        lambda found: found.assign_coords(longitude=(found["longitude"] + 180) % 360 - 180).sortby("longitude"),
        lambda found: found.rename(LONG_NAMES).rename(number="sample", step="prediction_timedelta").expand_dims("time"),
        lambda found: found.rename({"2t": "t2m", "10u": "u10", "10v": "v10", "level": "isobaricInhPa"}),
        lambda found: found.rename(latitude="lat", longitude="lon", number="realization", step="lead_time"),
        lambda found: found.assign_coords(step=[0, 24, 48]).rename(step="lead_time", time="init_time"),
        lambda found: found.rename(time="forecast_reference_time", step="time").assign_coords(
            time=found["time"].values + found["step"].values
        ),
        lambda found: found.transpose("step", "longitude", "number", ...),
    ],
)
def test_other_names_and_orders_make_no_difference(change):
    plain = canonical(ensemble())

    found = canonical(change(ensemble()))

    assert {*plain} == {*found}
    for name in plain:
        np.testing.assert_array_equal(found[name].transpose(*plain[name].dims).values, plain[name].values)
    for name in ("number", "step", "level", "latitude", "longitude", "time"):
        np.testing.assert_array_equal(found[name].values, plain[name].values)


def test_netcdf_and_zarr_are_read(tmp_path):
    plain = ensemble()
    plain.rename(LONG_NAMES).to_netcdf(tmp_path / "e.nc")
    plain.rename(LONG_NAMES).to_zarr(tmp_path / "e.zarr")

    for path in (tmp_path / "e.nc", tmp_path / "e.zarr"):
        with open_ensemble([str(path)]) as found:
            np.testing.assert_array_equal(found["2t"].values, plain["2t"].values)


def test_a_single_forecast_is_an_ensemble_of_one():
    found = canonical(ensemble().sel(number=2, drop=True))

    assert found.sizes["number"] == 1
    assert native(found, "2t", 0).shape == (1, 19, 36)


def test_products_are_no_members():
    mixed = ensemble().assign(t_mean=ensemble()["2t"].mean("number"))

    assert "t_mean" not in canonical(mixed)


def test_whole_lead_times_have_the_units_that_they_say():
    dataset = ensemble()
    hours = dataset["step"].values / np.timedelta64(1, "h")
    for units, hour in {"days": 1 / 24, "seconds": 3600}.items():
        steps = ("step", (hours * hour).astype(int), {"units": units})
        np.testing.assert_array_equal(canonical(dataset.assign_coords(step=steps))["step"], dataset["step"])
    with pytest.raises(InputError, match="expected lead times as durations or in hours, got int64 in fortnights"):
        canonical(dataset.assign_coords(step=("step", hours.astype(int), {"units": "fortnights"})))


@pytest.mark.parametrize(("name", "units"), [("2t", "degC"), ("msl", "hPa"), ("z", "gpm")])
def test_other_units_are_refused(name, units):
    dataset = ensemble()
    dataset[name].attrs["units"] = units
    with pytest.raises(
        InputError, match=f"expected fields in SI units, got {name} in '{units}', not .* Convert them, or "
    ):
        canonical(dataset)


def test_what_is_no_ensemble_is_refused():
    with pytest.raises(InputError, match=r"file.nc: expected an initial time and lead times, got x \(3\)"):
        canonical(xarray.Dataset({"a": ("x", [1, 2, 3])}), "file.nc")
    with pytest.raises(InputError, match="expected fields by lead time, latitude and longitude; got none"):
        canonical(ensemble().drop_vars([*ensemble().data_vars]), "file.nc")


def test_longitudes_go_round():
    axis, columns = axis_of_angles(np.array([350.0, 355.0, 0.0, 5.0]))
    assert axis.tolist() == [-10, -5, 0, 5]
    assert columns.tolist() == [0, 1, 2, 3]

    globe = np.arange(0.0, 360, 90)
    west, east, weight = between_columns(globe, np.array([315.0, -90.0, 45.0]))
    assert west.tolist() == [3, 3, 0]
    assert east.tolist() == [0, 0, 1]
    assert weight.tolist() == [0.5, 0, 0.5]

    assert np.isnan(between_columns(axis, np.array([7.0]))[2]).all()
