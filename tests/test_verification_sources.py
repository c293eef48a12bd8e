"""Forecasts and truth from files: Zarr in every usual layout, GRIB of every usual label."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import eccodes
import numpy as np
import pytest
import xarray
from grib_files import COARSE, Layout, message
from miniature_cases import (
    GRID,
    LEADS,
    NAMES,
    World,
    days,
    fields_of,
    forecast,
    forecast_dataset,
    stored,
    truth_dataset,
)

from ai_models_mosaic.errors import InputError
from ai_models_mosaic.verification.accumulate import verify
from ai_models_mosaic.verification.grib_files import GribForecasts, GribTruth
from ai_models_mosaic.verification.messages import find_files
from ai_models_mosaic.verification.plan import Plan, find_channels
from ai_models_mosaic.verification.zarr_stores import ZarrForecasts, ZarrTruth

CHANNELS = find_channels(NAMES)
Z500, T850, T2M = CHANNELS
DATES = days(3)

FORECAST_LAYOUTS = {
    "as WeatherBench 2": lambda ds: ds,
    "other names": lambda ds: ds.rename(
        time="init_time", prediction_timedelta="lead_time", number="realization", latitude="lat", longitude="lon"
    ),
    "members last": lambda ds: ds.transpose("latitude", "longitude", "level", "prediction_timedelta", "time", "number"),
    "north to south": lambda ds: ds.isel(latitude=slice(None, None, -1)),
    "from -180": lambda ds: ds.assign_coords(longitude=(ds.longitude + 180) % 360 - 180).sortby("longitude"),
    "dates in disorder": lambda ds: ds.isel(time=[2, 0, 1]),
    "leads in disorder": lambda ds: ds.isel(prediction_timedelta=[1, 2, 0]),
    "leads as hours": lambda ds: ds.assign_coords(prediction_timedelta=list(LEADS)),
    "with lead 0": lambda ds: ds.reindex(
        prediction_timedelta=np.array([0, *LEADS], "timedelta64[h]").astype("timedelta64[ns]"), fill_value=-1.0
    ),
    "with valid times": lambda ds: ds.assign_coords(
        valid_time=ds.time + ds.prediction_timedelta, lead_time=("prediction_timedelta", list(LEADS))
    ),
    "with Greenwich twice": lambda ds: xarray.concat(
        [ds, ds.isel(longitude=[0]).assign_coords(longitude=[360.0])], "longitude"
    ),
}


@pytest.mark.parametrize("layout", FORECAST_LAYOUTS)
def test_the_layout_of_a_store_of_forecasts_does_not_matter(tmp_path: Path, layout: str):
    path = stored(FORECAST_LAYOUTS[layout](forecast_dataset(DATES, members=2)), tmp_path / "forecast.zarr")
    cases = list(ZarrForecasts(path, CHANNELS).cases())
    assert [case.initial_time for case in cases] == DATES
    for case in cases:
        assert (case.members, case.lead_hours) == ((1, 2), LEADS)
        for channel in CHANNELS:
            np.testing.assert_array_equal(case.read(channel), forecast(channel, case.initial_time, 2))


def test_a_store_without_members_is_a_single_forecast(tmp_path: Path):
    path = stored(forecast_dataset(DATES, members=2).isel(number=0, drop=True), tmp_path / "forecast.zarr")
    forecasts = ZarrForecasts(path, CHANNELS, lead_hours=(48,))
    case = next(iter(forecasts.cases()))
    assert (case.members, case.lead_hours) == ((0,), (48,))
    np.testing.assert_array_equal(case.read(T2M), forecast(T2M, DATES[0], 2)[:1, 1:2])
    assert forecasts.grid.same_points(GRID)


def test_a_store_that_cannot_be_used_is_refused(tmp_path: Path):
    dataset = forecast_dataset(DATES[:1], members=2)
    path = stored(dataset, tmp_path / "whole.zarr")
    with pytest.raises(InputError, match=r"has none of the lead times \[96\] h: it has \[24, 48, 72\]"):
        ZarrForecasts(path, CHANNELS, lead_hours=(96,))
    with pytest.raises(
        InputError, match=r"lacks specific_humidity_700, geopotential_300: expected .* 2m_temperature, geo"
    ):
        ZarrForecasts(path, find_channels(["z500", "q700", "z300"]))
    with pytest.raises(
        InputError, match=r"lacks dimensions: expected lead_time \(prediction_timedelta or lead_time or"
    ):
        ZarrForecasts(stored(dataset.isel(prediction_timedelta=0, drop=True), tmp_path / "a.zarr"), CHANNELS)
    with pytest.raises(InputError, match=r"is not on a usable grid: expected latitudes up to the south pole"):
        ZarrForecasts(stored(dataset.isel(latitude=slice(3, None)), tmp_path / "b.zarr"), CHANNELS)
    with pytest.raises(InputError, match="cannot be opened as a Zarr store"):
        ZarrForecasts(str(tmp_path / "absent.zarr"), CHANNELS)
    halves = dataset.assign_coords(prediction_timedelta=np.array([36, 72, 109], "timedelta64[m]").astype("m8[ns]"))
    with pytest.raises(InputError, match="expected lead times of whole hours"):
        ZarrForecasts(stored(halves, tmp_path / "c.zarr"), CHANNELS)
    plain = dataset.assign_coords(prediction_timedelta=[0.5, 1.0, 1.5])
    with pytest.raises(InputError, match="expected lead times as durations or whole hours, got float64"):
        ZarrForecasts(stored(plain, tmp_path / "d.zarr"), CHANNELS)
    with pytest.raises(InputError, match="expected init_time to decode to dates, got int64"):
        ZarrForecasts(stored(dataset.assign_coords(time=[5]), tmp_path / "e.zarr"), CHANNELS)


def test_truth_is_read_from_several_stores_and_nan_where_there_is_none(tmp_path: Path):
    times = days(4)
    paths = [
        stored(truth_dataset(times[:2]), tmp_path / "one.zarr"),
        stored(truth_dataset(times[2:]).isel(latitude=slice(None, None, -1)), tmp_path / "two.zarr"),
    ]
    truth = ZarrTruth(paths, CHANNELS)
    wanted = [times[3], datetime(1999, 1, 1), times[0], times[3]]
    assert truth.times == times
    for _ in range(2):
        np.testing.assert_array_equal(truth.read(T850, wanted), World(times).read(T850, wanted))


def test_truth_is_kept_for_the_next_date_but_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    times = days(12)
    truth = ZarrTruth([stored(truth_dataset(times), tmp_path / "truth.zarr")], CHANNELS)
    monkeypatch.setattr("ai_models_mosaic.verification.zarr_stores.KEPT_BYTES", 5 * GRID.size * 4)
    for first in range(8):
        part = times[first : first + 4]
        np.testing.assert_array_equal(truth.read(Z500, part), World(times).read(Z500, part))
        assert len(truth._kept) <= 5


def test_stores_of_truth_on_different_grids_are_refused(tmp_path: Path):
    one = stored(truth_dataset(days(1)), tmp_path / "one.zarr")
    half = truth_dataset(days(1)).isel(longitude=slice(None, None, 2))
    with pytest.raises(InputError, match=r"two.zarr is on 6 × 7 points \(60°\), but .*one.zarr on 12 × 7"):
        ZarrTruth([one, stored(half, tmp_path / "two.zarr")], CHANNELS)


def _points(values: np.ndarray, layout: Layout) -> Sequence[float]:
    """Values of a field ``(lon, lat)`` in the order of a message."""
    longitude, latitude = layout.points()
    columns = np.rint(longitude / 30).astype(int) % 12
    return values[columns, np.rint((latitude + 90) / 30).astype(int)].tolist()


def _forecast_messages(date: datetime, members: int, layout: Layout = COARSE, edition: int = 2) -> list[bytes]:
    made = []
    for channel in CHANNELS:
        values = forecast(channel, date, members)
        for number in range(members):
            for lead, field in zip(LEADS, values[number], strict=True):
                options = {"kind": "heightAboveGround"} if channel is T2M and edition == 2 else {}
                made.append(
                    message(
                        channel.param,
                        channel.level_hpa if channel.level_hpa else (2 if options else None),
                        values=_points(field, layout),
                        base=date,
                        step_hours=lead,
                        number=number + 1,
                        layout=layout,
                        edition=edition,
                        **options,
                    )
                )
    return made


def _written(path: Path, messages: Sequence[bytes]) -> str:
    path.write_bytes(b"".join(messages))
    return str(path)


TOLERANCES = {"z500": 2.0, "t850": 0.02, "2t": 0.02}
"""Of packing."""


def _close(fields: np.ndarray, expected: np.ndarray, label: str) -> None:
    np.testing.assert_allclose(fields, expected, rtol=0, atol=TOLERANCES[label])


GRIB_LAYOUTS = {
    "as usual": Layout(),
    "from the south": Layout(from_south=True),
    "by columns": Layout(by_columns=True),
    "snaking": Layout(snaking=True),
}


@pytest.mark.parametrize("layout", GRIB_LAYOUTS)
def test_the_order_of_points_in_grib_does_not_matter(tmp_path: Path, layout: str):
    path = _written(tmp_path / "all.grib", _forecast_messages(DATES[0], 2, GRIB_LAYOUTS[layout]))
    (case,) = GribForecasts(path, CHANNELS).cases()
    assert (case.initial_time, case.members, case.lead_hours) == (DATES[0], (1, 2), LEADS)
    for channel in CHANNELS:
        _close(case.read(channel), forecast(channel, DATES[0], 2), channel.label)


def test_dates_may_share_files_and_files_dates(tmp_path: Path):
    messages = [made for date in DATES for made in _forecast_messages(date, 2)]
    (tmp_path / "deep").mkdir()
    _written(tmp_path / "even.grib", messages[::2])
    _written(tmp_path / "deep" / "odd.grib2", messages[1::2])
    (tmp_path / "notes.txt").write_text("no GRIB")
    cases = list(GribForecasts(str(tmp_path), CHANNELS).cases())
    assert [case.initial_time for case in cases] == DATES
    for case in cases:
        _close(case.read(T850), forecast(T850, case.initial_time, 2), "t850")


def test_the_members_of_grib_1_are_known_too(tmp_path: Path):
    path = _written(tmp_path / "one.grib", _forecast_messages(DATES[0], 2, edition=1))
    (case,) = GribForecasts(path, find_channels(["z500", "t850"])).cases()
    assert case.members == (1, 2)
    _close(case.read(Z500), forecast(Z500, DATES[0], 2), "z500")


def test_geopotential_height_is_taken_for_geopotential(tmp_path: Path):
    height = forecast(Z500, DATES[0], 1)[0, 0] / 9.80665
    made = message("gh", 500, values=_points(height, Layout()), base=DATES[0], step_hours=24, number=1)
    (case,) = GribForecasts(_written(tmp_path / "gh.grib", [made]), [Z500]).cases()
    _close(case.read(Z500)[0, 0], forecast(Z500, DATES[0], 1)[0, 0], "z500")


def test_step_0_and_other_fields_are_no_forecasts(tmp_path: Path):
    values = fields_of(Z500, [1])[0]
    made = [message("z", 500, values=_points(values, Layout()), base=DATES[0])]
    path = _written(tmp_path / "analysis.grib", made)
    with pytest.raises(InputError, match="expected forecasts of z500, got none beyond step 0"):
        GribForecasts(path, [Z500])
    forecast_path = _written(tmp_path / "f.grib", _forecast_messages(DATES[0], 1))
    with pytest.raises(InputError, match=r"expected forecasts of z500 at \[96\] h, got none"):
        GribForecasts(forecast_path, [Z500], lead_hours=(96,))


def test_a_date_without_a_member_and_a_lead_without_a_channel_are_skipped_and_told(tmp_path: Path):
    whole = [made for date in DATES for made in _forecast_messages(date, 2)]
    per_date = len(whole) // 3
    # Messages of a date: channels, then members, then leads.
    del whole[2 * per_date - 1]
    second_member = [index for index in range(per_date) if index // len(LEADS) % 2]
    for index in reversed(second_member):
        del whole[index]
    forecasts = GribForecasts(_written(tmp_path / "holes.grib", whole), CHANNELS)
    cases = list(forecasts.cases())
    assert [case.members for case in cases] == [(1,), (1, 2), (1, 2)]
    assert [case.lead_hours for case in cases] == [LEADS, LEADS[:2], LEADS]
    found = verify(cases, World(days(8)), Plan(CHANNELS, spectra=()))
    assert found.dates == tuple(DATES[1:])
    assert found.skipped == {
        "dates with 1 member in place of 2": 1,
        "lead times that lack a member or a channel": 1,
    }


def test_truth_comes_from_analyses_in_any_files(tmp_path: Path):
    times = days(3)
    for index, time in enumerate(times):
        made = [
            message("z", 500, values=_points(fields_of(Z500, [index])[0], Layout()), base=time),
            message("z", 500, values=0.0, base=time, step_hours=24),
        ]
        _written(tmp_path / f"{index}.grib", made)
    truth = GribTruth([str(tmp_path / "*.grib")], [Z500])
    fields = truth.read(Z500, [times[2], times[2] + timedelta(days=9), times[0]])
    _close(fields[[0, 2]], fields_of(Z500, [2, 0]), "z500")
    assert np.isnan(fields[1]).all()
    with pytest.raises(InputError, match=r"expected analyses \(step 0\) of t850, got none"):
        GribTruth([str(tmp_path)], [Z500, T850])


def test_a_channel_that_is_nowhere_is_named(tmp_path: Path):
    made = [message("z", 500, values=5.0e4, base=DATES[0], step_hours=24, number=number) for number in (1, 2)]
    with pytest.raises(InputError, match="expected forecasts of t850, 2t, got none"):
        GribForecasts(_written(tmp_path / "z.grib", made), CHANNELS)


def test_lead_times_between_whole_hours_are_left_out_and_told(tmp_path: Path):
    def later(made: bytes, minutes: int) -> bytes:
        handle = eccodes.codes_new_from_message(made)
        eccodes.codes_set(handle, "indicatorOfUnitOfTimeRange", 0)
        eccodes.codes_set(handle, "forecastTime", minutes)
        try:
            return eccodes.codes_get_message(handle)
        finally:
            eccodes.codes_release(handle)

    def made(**more: int) -> bytes:
        return message("z", 500, values=5.0e4, base=DATES[0], **more)

    whole, half = made(step_hours=24, number=1), later(made(step_hours=1, number=1), 30)
    (case,) = GribForecasts(_written(tmp_path / "half.grib", [whole, half]), [Z500]).cases()
    assert case.lead_hours == (24,)
    assert case.skipped == ("fields of lead times between whole hours, left out",)
    with pytest.raises(InputError, match=r"expected analyses \(step 0\) of z500, got none"):
        GribTruth([_written(tmp_path / "truth.grib", [later(made(step_hours=1), 30)])], [Z500])


def test_truth_that_is_there_twice_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    first, second = (message("z", 500, values=value, base=DATES[0]) for value in (5.0e4, 5.1e4))
    path = _written(tmp_path / "twice.grib", [first, second])
    assert GribTruth([path], [Z500]).read(Z500, DATES[:1])[0, 0, 0] == pytest.approx(5.0e4)
    assert caplog.messages == [f"{path}: 1 field there twice, of which the first counts"]
    caplog.clear()
    truth = truth_dataset(days(2))
    stores = [stored(truth, tmp_path / "a.zarr"), stored(truth + 1, tmp_path / "b.zarr")]
    np.testing.assert_array_equal(ZarrTruth(stores, CHANNELS).read(T2M, DATES[:2]), fields_of(T2M, [0, 86_400]))
    assert caplog.messages == [f"{stores[1]}: 2 times in a store before it, too, which counts"]


def test_files_that_are_not_there_or_no_grib_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"expected a GRIB file, a folder of files that end in .*; found none"):
        find_files(str(tmp_path / "*.grib"))
    whole = _forecast_messages(DATES[0], 1)[0]
    short = tmp_path / "short.grib"
    short.write_bytes(whole[:-20])
    with pytest.raises(InputError, match=r"short.grib cannot be read as GRIB: .* Expected complete messages"):
        GribForecasts(str(short), [Z500])


def test_messages_on_different_grids_are_refused(tmp_path: Path):
    made = [
        message("z", 500, values=5.0e4, base=DATES[0], step_hours=24, number=1),
        message("z", 500, values=5.0e4, base=DATES[0], step_hours=24, number=2, layout=Layout(columns=24)),
    ]
    (case,) = GribForecasts(_written(tmp_path / "two.grib", made), [Z500]).cases()
    with pytest.raises(InputError, match="z from 2020-01-01 00:00:00 UTC is on another grid than the first message"):
        case.read(Z500)


def _control(made: bytes) -> bytes:
    handle = eccodes.codes_new_from_message(made)
    eccodes.codes_set_key_vals(handle, {"setLocalDefinition": 1, "type": "cf", "number": 0})
    changed = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return changed


@pytest.fixture
def with_control(tmp_path: Path) -> str:
    """Two perturbed members and a control, which is forecast of the first member."""
    made = _forecast_messages(DATES[0], 2)
    return _written(tmp_path / "ens.grib", [*made, *map(_control, made[: len(LEADS)])])


def test_a_control_beside_members_is_left_out_unless_asked_for(with_control: str):
    (case,) = GribForecasts(with_control, [Z500]).cases()
    assert (case.members, case.ensemble) == ((1, 2), 2)
    assert case.skipped == ("fields of the unperturbed control, left out",) * 3
    (case,) = GribForecasts(with_control, [Z500], with_control=True).cases()
    assert (case.members, case.ensemble, case.skipped) == ((0, 1, 2), 3, ())
    _close(case.read(Z500)[0], forecast(Z500, DATES[0], 1)[0], "z500")


def test_a_control_alone_is_a_single_forecast(tmp_path: Path):
    made = [_control(made) for made in _forecast_messages(DATES[0], 1)[: len(LEADS)]]
    (case,) = GribForecasts(_written(tmp_path / "cf.grib", made), [Z500]).cases()
    assert (case.members, case.ensemble) == ((0,), 1)
