"""From GRIB files to the state: places, units, refusals and the digest."""

import hashlib
import logging
import re
from datetime import timedelta
from pathlib import Path

import earthkit.data
import eccodes
import numpy as np
import pytest
from grib_files import (
    COARSE,
    NOW,
    YESTERDAY,
    Layout,
    complete_history,
    fields_of,
    message,
    plausible,
    wanted_keys,
)

from ai_models_mosaic.channels import CHANNELS
from ai_models_mosaic.errors import InputError
from ai_models_mosaic.geometry.grid import LatLonGrid
from ai_models_mosaic.inputs.fields import Wanted, list_available
from ai_models_mosaic.inputs.states import initial_states_of, input_digest, read_initial_state

GRID = LatLonGrid.regular(30)
SAMPLE = Path(__file__).parent.parent / "examples" / "mini-input.grib"
CHANNEL_OF = {(channel.param, channel.level_hpa): index for index, channel in enumerate(CHANNELS)}


@pytest.fixture
def read(tmp_path):
    """The state made of a file with these messages (or a complete history's), by default for one time."""

    def of(messages, lags_hours=(0,), wanted=None, grid=GRID):
        messages = messages.values() if isinstance(messages, dict) else messages
        return read_initial_state(fields_of(tmp_path / "input.grib", messages), grid, lags_hours, wanted)

    return of


def with_field(param, level=None, time=NOW, **keys):
    """A complete history with one field replaced."""
    history = complete_history()
    assert (time, param, level) in history
    return history | {(time, param, level): message(param, level, **keys)}


def on_grid(field, grid=GRID):
    """A function of longitude and latitude on the grid, point by point."""
    return np.array([[float(field(np.array(x), np.array(y))) for y in grid.latitude_deg] for x in grid.longitude_deg])


def refusal(read, messages, **options):
    with pytest.raises(InputError) as error:
        read(messages, **options)
    return str(error.value)


# Values at their places


@pytest.mark.parametrize("edition", [1, 2])
def test_every_value_lands_at_its_longitude_latitude_and_channel_oldest_state_first(read, edition):
    history = complete_history(NOW, YESTERDAY, edition=edition)
    state = read(dict(reversed(history.items())), lags_hours=(-24, 0))
    assert state.times == (YESTERDAY, NOW)
    assert state.initial_time == NOW
    assert state.grid is GRID
    assert state.values.shape == (2, 12, 7, 82)
    assert state.values.dtype == np.float32
    for time, param, level in wanted_keys([YESTERDAY, NOW]):
        found = state.values[state.times.index(time), :, :, CHANNEL_OF[param, level]]
        expected = on_grid(plausible(param, level, time))
        # 24 bits of the range, and single precision.
        np.testing.assert_allclose(found, expected, rtol=2e-7, atol=np.ptp(expected) * 2e-7)


LAYOUTS = (
    COARSE,
    Layout(from_south=True),
    Layout(from_east=True),
    Layout(west=-180),
    Layout(by_columns=True),
    Layout(by_columns=True, from_south=True, from_east=True),
    Layout(columns=13, east=360),
    Layout(columns=13, west=-180, east=180),
    Layout(columns=24, rows=13),
)


def test_every_field_may_have_an_order_and_a_grid_of_its_own(read):
    """What was worked out for one field's grid is not used for another's."""
    history = {
        key: message(*key[1:], layout=LAYOUTS[index % 9], edition=1 + index % 2)
        for index, key in enumerate(wanted_keys([NOW]))
    }
    state = read(history)
    for index, (_, param, level) in enumerate(history):
        if index % 9 == 8:  # Regridded, which has tests of its own.
            continue
        expected = on_grid(plausible(param, level))
        found = state.values[0, :, :, CHANNEL_OF[param, level]]
        np.testing.assert_allclose(found, expected, rtol=2e-7, atol=np.ptp(expected) * 2e-7, err_msg=f"{param} {level}")


def test_rows_in_alternating_directions_land_at_their_places(read):
    """Bit 4 of the scanning mode, which ecCodes ignores when it gives coordinates."""
    state = read(with_field("t", 850, layout=Layout(snaking=True)))
    expected = on_grid(plausible("t", 850))
    np.testing.assert_allclose(state.values[0, :, :, CHANNEL_OF["t", 850]], expected, rtol=0, atol=5e-5)


def test_a_finer_field_is_averaged_over_the_cells_of_the_grid(read):
    """10° cells nest in those of 30°: three columns by three rows each, weighted by their share of the sphere."""
    fine = Layout(columns=36, rows=19)
    field = plausible("t", 850)
    state = read(with_field("t", 850, layout=fine, edition=1))
    found = state.values[0, :, :, CHANNEL_OF["t", 850]]
    for i, j in [(0, 1), (0, 3), (5, 5), (11, 2)]:
        total = area = 0.0
        for longitude in (30 * i - 10, 30 * i, 30 * i + 10):
            for latitude in (30 * j - 100, 30 * j - 90, 30 * j - 80):
                weight = np.sin(np.radians(latitude + 5)) - np.sin(np.radians(latitude - 5))
                total += weight * field(np.array(longitude), np.array(latitude))
                area += weight
        assert found[i, j] == pytest.approx(total / area, abs=5e-5)
    # The whole row of a pole is one value in GRIB, but 36 cells here; their mean and that of the next row.
    cap, ring = 1 - np.sin(np.radians(85)), np.sin(np.radians(85)) - np.sin(np.radians(75))
    three = [[field(np.array(x), np.array(y)) for x in (350, 0, 10)] for y in (90.0, 80.0)]
    assert found[0, 6] == pytest.approx((cap * np.mean(three[0]) + ring * np.mean(three[1])) / (cap + ring), abs=5e-5)


@pytest.mark.parametrize("edition", [1, 2])
def test_a_regular_gaussian_field_is_accepted(read, edition):
    state = read(
        with_field(
            "t", 850, edition=edition, layout=None, sample="regular_gg_pl", values=lambda lon, lat: 250 + lat + 0 * lon
        )
    )
    found = state.values[0, :, :, CHANNEL_OF["t", 850]]
    np.testing.assert_allclose(found, np.broadcast_to(found[:1], found.shape), rtol=0, atol=1e-4)
    # The mean of φ over a cell is [φ sin φ + cos φ] / [sin φ] between its edges; 0.1° for 2.8° cells that do not nest.
    edges = np.radians([-90, -75, -45, -15, 15, 45, 75, 90])
    means = np.degrees(np.diff(edges * np.sin(edges) + np.cos(edges)) / np.diff(np.sin(edges)))
    np.testing.assert_allclose(found[0], 250 + means, rtol=0, atol=0.1)


def test_the_bundled_sample_is_read_as_ecmwfs_library_decodes_it():
    grid = LatLonGrid.regular(6)
    state = read_initial_state(earthkit.data.from_source("file", str(SAMPLE)), grid, (-24, 0))
    seen = set()
    with SAMPLE.open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            day = eccodes.codes_get_long(handle, "dataDate") % 100
            param, level = eccodes.codes_get_string(handle, "shortName"), eccodes.codes_get_long(handle, "level")
            on_level = eccodes.codes_get_string(handle, "typeOfLevel") == "isobaricInhPa"
            channel = CHANNEL_OF[param, level if on_level else None]
            time = next(index for index, time in enumerate(state.times) if time.day == day)
            # 31 rows from north to south, 60 columns from Greenwich.
            rows = eccodes.codes_get_values(handle).reshape(31, 60)
            np.testing.assert_array_equal(state.values[time, :, :, channel], rows[::-1].T.astype(np.float32))
            seen.add((time, channel))
            eccodes.codes_release(handle)
    assert len(seen) == 164


def test_four_states_come_oldest_first(read):
    times = [NOW - timedelta(hours=hours) for hours in (0, 24, 18, 48)]
    state = read(complete_history(*times), lags_hours=(-48, -24, -18, 0))
    assert state.times == tuple(sorted(times))
    for index, time in enumerate(state.times):
        np.testing.assert_allclose(state.values[index, :, :, 0], on_grid(plausible("2t", None, time)), atol=5e-5)


def test_a_forecast_of_one_member_counts_by_its_valid_time_without_a_word(read, caplog):
    state = read(complete_history(step_hours=24, number=7))
    assert state.times == (NOW,)
    np.testing.assert_allclose(state.values[0, :, :, 0], on_grid(plausible("2t", None, NOW)), atol=5e-5)
    assert caplog.messages == []


def test_a_bad_field_at_a_time_or_on_a_level_that_is_not_used_does_no_harm(read):
    history = complete_history(YESTERDAY, NOW)
    history[NOW, "t", 850] = message("t", 850, values=ramp(-30, 30))
    bad = message("t", 775, base=YESTERDAY, values=ramp(-30, 30))
    state = read([bad, *history.values()], wanted=Wanted(time=YESTERDAY))
    assert state.times == (YESTERDAY,)
    np.testing.assert_allclose(state.values[0, :, :, 0], on_grid(plausible("2t", None, YESTERDAY)), atol=5e-5)


def test_heights_become_geopotential_and_prmsl_stands_in_for_msl(read):
    history = complete_history()
    for level, edition in ((50, 1), (500, 2), (1000, 1)):
        history[NOW, "z", level] = message("gh", level, edition=edition)
    history[NOW, "msl", None] = message("prmsl", values=lambda lon, lat: 101_000 + lat + lon)
    state = read(history)
    for level in (50, 500, 1000):
        found = state.values[0, :, :, CHANNEL_OF["z", level]]
        np.testing.assert_allclose(found, on_grid(plausible("gh", level)) * 9.80665, rtol=1e-6, atol=0.1)
    np.testing.assert_allclose(state.values[0, :, :, 3], on_grid(lambda lon, lat: 101_000 + lat + lon), atol=0.01)


def test_two_inputs_in_one_process_do_not_influence_each_other(read):
    first = read(complete_history(NOW)).values.copy()
    other = read(complete_history(YESTERDAY)).values
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(read(complete_history(NOW)).values, first)


# What is logged


def test_the_times_and_every_grid_are_told_once(read, caplog):
    caplog.set_level(logging.INFO, logger="ai_models_mosaic")
    history = with_field("t", 850, layout=Layout(columns=24, rows=13)) | complete_history(YESTERDAY)
    read(history, lags_hours=(-24, 0))
    assert caplog.messages == [
        "Starting from 2020-01-02 12:00 UTC, with states of 2020-01-01 12:00, 2020-01-02 12:00 UTC",
        "Input grid: 12 × 7 points (30°)",
        "Input grid: 24 × 13 points (15°), regridded to 12 × 7 points (30°)",
    ]


def test_one_state_of_several_members_is_that_of_the_lowest_that_is_complete(read, caplog):
    def shifted(number):
        return message("t", 500, number=number, values=lambda lon, lat: 240 + number + lat / 10)

    history = complete_history(number=2)
    history[NOW, "t", 500] = shifted(2)
    state = read([shifted(10), shifted(9), *history.values(), shifted(11)])
    expected = on_grid(lambda lon, lat: 242 + lat / 10)
    np.testing.assert_allclose(state.values[0, :, :, CHANNEL_OF["t", 500]], expected, atol=1e-4)
    assert state.number == 2
    assert caplog.messages == []


@pytest.fixture
def analyses(tmp_path):
    """AvailableFields of complete analyses with these numbers, told apart by their temperature at 500 hPa."""

    def make(*numbers, lacking=None):
        messages = []
        for number in numbers:
            history = complete_history(YESTERDAY, NOW, number=number)
            for time in (YESTERDAY, NOW):
                history[time, "t", 500] = message("t", 500, base=time, number=number, values=warm(number))
            if number == lacking:
                del history[NOW, "msl", None]
            messages += history.values()
        return list_available(fields_of(tmp_path / "analyses.grib", messages))

    return make


def warm(number):
    return lambda lon, lat: 240 + number + lat / 10


def started(available, members):
    """The member of the input that every member starts from, by its number and by its values."""
    starts = initial_states_of(available, GRID, (-24, 0), Wanted(), members)
    for state in starts.values():
        found = state.values[-1, :, :, CHANNEL_OF["t", 500]]
        np.testing.assert_allclose(found, on_grid(warm(state.number)), atol=1e-4)
    return {member: state.number for member, state in starts.items()}


@pytest.mark.parametrize(
    ("numbers", "members", "expected"),
    [
        # The table of docs/members.md.
        ((0,), (1, 2, 3), {1: 0, 2: 0, 3: 0}),
        ((7,), (1, 2), {1: 7, 2: 7}),
        ((1, 2, 3), (1, 2, 3), {1: 1, 2: 2, 3: 3}),
        ((1, 2, 3), (2,), {2: 2}),
        ((0, 1, 2), (1, 2), {1: 1, 2: 2}),
        ((1, 2), (1, 2, 3, 4, 5), {1: 1, 2: 2, 3: 1, 4: 2, 5: 1}),
        ((3, 5), (1, 2, 3, 4, 5), {1: 3, 2: 5, 3: 3, 4: 5, 5: 5}),
    ],
)
def test_members_start_from_their_own_analysis_and_take_turns_where_there_is_none(analyses, numbers, members, expected):
    assert started(analyses(*numbers), members) == expected


def test_an_analysis_that_lacks_a_field_is_left_out_with_a_warning(analyses, caplog):
    assert started(analyses(1, 2, 3, lacking=2), (1, 2, 3)) == {1: 1, 2: 3, 3: 3}
    assert "Members 2 of the input lack fields for 2020-01-02 12:00 UTC, and are left out" in caplog.messages


def test_members_of_one_analysis_share_it_in_memory(analyses):
    starts = initial_states_of(analyses(1, 2), GRID, (-24, 0), Wanted(), range(1, 101))
    assert len({id(state.values) for state in starts.values()}) == 2


def test_the_digest_of_an_ensemble_depends_on_every_member_of_it(analyses):
    both = initial_states_of(analyses(1, 2), GRID, (-24, 0), Wanted(), (1, 2))
    assert input_digest({1: both[1]}) == input_digest({1: both[1], 9: both[1]}) == both[1].digest
    assert len({input_digest(both), both[1].digest, both[2].digest}) == 3


def test_a_history_is_not_mixed_from_several_members(read):
    """Member 1 has one field only: a state of its t500 and everything else of member 2 never existed."""
    history = complete_history(number=2)
    single = message("t", 500, number=1, values=lambda lon, lat: 270 + lat / 10)
    found = read([single, *history.values()]).values[0, :, :, CHANNEL_OF["t", 500]]
    np.testing.assert_allclose(found, on_grid(plausible("t", 500)), rtol=0, atol=5e-5)


def test_a_constant_field_is_used_with_a_warning(read, caplog):
    state = read(with_field("t", 850, values=250.0))
    assert (state.values[0, :, :, CHANNEL_OF["t", 850]] == 250).all()
    assert caplog.messages == ["t850 is constant: 250 K everywhere"]


# Refusals


def ramp(low, high):
    """84 values from low to high."""
    return np.linspace(low, high, 84)


def one_problem(text):
    return f"1 input field cannot be used:\n  {text}\nExpected finite values in SI units."


# Parameter, level, lowest and highest value, and what is said about it, in the order of channels.
OUT_OF_BOUNDS = [
    ("2t", None, -60, 45, "value -60 is outside 170 … 345 K; is it degrees Celsius?"),
    ("10u", None, -500, 5, "value -500 is outside -120 … 120 m s**-1"),
    ("msl", None, 950, 1050, "value 950 is outside 80000 … 115000 Pa; is it hPa?"),
    ("z", 300, -9e5, 9e4, "value -900000 is outside 61677.5 … 118058 m**2 s**-2"),
    ("z", 500, 5000, 5900, "value 5000 is outside 31756.5 … 77576.4 m**2 s**-2; is it geopotential height in m?"),
    ("z", 700, 2500, 3200, "value 2500 is outside 10398.5 … 48680.3 m**2 s**-2; is it geopotential height in m?"),
    ("q", 1000, 0.5, 20, "value 20 is outside -0.01 … 0.06 kg kg**-1; is it g/kg?"),
    ("t", 600, 250, 5000, "value 5000 is outside 140 … 350 K"),
    ("t", 850, -40, 30, "value -40 is outside 140 … 350 K; is it degrees Celsius?"),
    ("w", 500, -5, 1000, "value 1000 is outside -120 … 120 Pa s**-1"),
]


def test_values_out_of_bounds_are_named_with_the_unit_that_would_explain_them(read):
    history = complete_history()
    for param, level, low, high, _ in OUT_OF_BOUNDS:
        history[NOW, param, level] = message(param, level, values=ramp(low, high))
    lines = [f"  {param}{level or ''} valid 2020-01-02 12:00 UTC: {text}" for param, level, _, _, text in OUT_OF_BOUNDS]
    assert refusal(read, history).split("\n") == [
        "10 input fields cannot be used:",
        *lines,
        "Expected finite values in SI units.",
    ]


def test_missing_values_and_those_that_are_no_numbers_are_counted(read):
    history = complete_history()
    for level, bad in ((700, np.inf), (850, -np.inf), (925, np.nan)):
        values = ramp(240, 280)
        values[[3, 50]] = bad
        history[NOW, "t", level] = message("t", level, values=values, packing="grid_ieee")
    history[NOW, "2t", None] = message("2t", missing=[0, 17, 83])
    history[NOW, "10u", None] = message("10u", edition=1, missing=[8])
    history[NOW, "w", 50] = message("w", 50, missing=range(84))
    assert refusal(read, history) == (
        "6 input fields cannot be used:\n"
        "  2t valid 2020-01-02 12:00 UTC: 3 of 84 values are NaN, infinite or missing\n"
        "  10u valid 2020-01-02 12:00 UTC: 1 of 84 values are NaN, infinite or missing\n"
        "  t700 valid 2020-01-02 12:00 UTC: 2 of 84 values are NaN, infinite or missing\n"
        "  t850 valid 2020-01-02 12:00 UTC: 2 of 84 values are NaN, infinite or missing\n"
        "  t925 valid 2020-01-02 12:00 UTC: 2 of 84 values are NaN, infinite or missing\n"
        "  w50 valid 2020-01-02 12:00 UTC: 84 of 84 values are NaN, infinite or missing\n"
        "Expected finite values in SI units."
    )


def test_several_problems_of_both_states_are_in_one_message_oldest_first(read):
    history = complete_history(YESTERDAY, NOW)
    history[NOW, "t", 1000] = message("t", 1000, values=ramp(-30, 30))
    history[NOW, "2t", None] = message("2t", missing=[5])
    history[YESTERDAY, "w", 50] = message("w", 50, base=YESTERDAY, values=ramp(0, 9999))
    assert refusal(read, history, lags_hours=(-24, 0)) == (
        "3 input fields cannot be used:\n"
        "  w50 valid 2020-01-01 12:00 UTC: value 9999 is outside -120 … 120 Pa s**-1\n"
        "  2t valid 2020-01-02 12:00 UTC: 1 of 84 values are NaN, infinite or missing\n"
        "  t1000 valid 2020-01-02 12:00 UTC: value -30 is outside 140 … 350 K; is it degrees Celsius?\n"
        "Expected finite values in SI units."
    )


def test_more_than_ten_problems_are_counted(read):
    levels = [50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000]
    history = complete_history()
    for level in levels:
        history[NOW, "t", level] = message("t", level, values=ramp(-80, 20))
    shown = "".join(
        f"  t{level} valid 2020-01-02 12:00 UTC: value -80 is outside 140 … 350 K; is it degrees Celsius?\n"
        for level in levels[:10]
    )
    assert refusal(read, history) == (
        f"13 input fields cannot be used:\n{shown}  and 3 more\nExpected finite values in SI units."
    )


@pytest.mark.parametrize("edition", [1, 2])
def test_a_field_on_a_reduced_gaussian_grid_is_mapped(read, edition):
    """Rows stand from north to south; each has the value of its place, 200 to 263."""
    half = [20, 27, 36, 40, 45, 50, 60, 64, 72, 75, 80, 90, 90, 96, 100, 108, 108, 120, 120, 120, *[128] * 12]
    rows = np.repeat(np.arange(64), [*half, *half[::-1]])
    state = read(with_field("t", 850, edition=edition, layout=None, sample="reduced_gg_pl_32", values=200.0 + rows))
    found = state.values[0, :, :, CHANNEL_OF["t", 850]]
    assert np.ptp(found, axis=0).max() < 0.01
    assert (np.diff(found[0]) < 0).all()
    np.testing.assert_allclose(found[0] + found[0][::-1], 2 * 231.5, atol=0.02)


@pytest.mark.parametrize("edition", [1, 2])
def test_a_spectral_field_is_refused_as_such(read, edition):
    """As ECMWF's archive gives temperature on pressure levels where no grid was asked for."""
    history = with_field("t", 850, edition=edition, layout=None, sample="sh_pl", values=spectral_constant(edition))
    assert refusal(read, history) == (
        "t850 valid 2020-01-02 12:00 UTC is on a grid of type sh: expected one of regular_ll, regular_gg, reduced_gg, reduced_ll. "
        "Interpolate the input first, for instance to 0.25°"
    )


def spectral_constant(edition):
    handle = eccodes.codes_grib_new_from_samples(f"sh_pl_grib{edition}")
    size = eccodes.codes_get_size(handle, "values")
    eccodes.codes_release(handle)
    return [250.0] + [0.0] * (size - 1)


@pytest.mark.parametrize(
    ("layout", "reason"),
    [
        (
            Layout(columns=7, rows=4, west=0, east=60, north=60, south=30),
            "expected longitudes all round the globe, got a gap of 300° east of 60°",
        ),
        (Layout(rows=4, south=0), "expected latitudes up to the south pole, got a gap of 90°"),
        (Layout(columns=3), "expected a global grid, got 3 longitudes × 7 latitudes"),
    ],
)
def test_a_grid_that_is_not_global_is_refused(read, layout, reason):
    assert refusal(read, with_field("t", 850, layout=layout)) == (
        f"t850 valid 2020-01-02 12:00 UTC is not on a usable grid: {reason}"
    )


def test_missing_fields_are_told_before_any_value_is_looked_at(read):
    history = with_field("t", 850, values=ramp(-30, 30))
    del history[NOW, "q", 300]
    assert refusal(read, history).startswith(
        "the input lacks 1 of the 82 fields that a forecast from 2020-01-02 12:00 UTC needs:\n"
        "  q at 300 hPa; valid 2020-01-02 12:00 UTC\nIt holds 2t, "
    )


def test_a_field_whose_values_cannot_be_decoded_is_refused_by_name(read):
    history = with_field("t", 850)
    history[NOW, "t", 850] = with_half_of_its_data(history[NOW, "t", 850])
    with pytest.raises(InputError, match=re.escape("t850 valid 2020-01-02 12:00 UTC")):
        read(history)


def with_half_of_its_data(data):
    """A GRIB2 message that is consistent in its lengths, but has too few values."""
    start = 16
    while data[start + 4] != 7:
        start += int.from_bytes(data[start : start + 4], "big")
    length = len(data) - 4 - start
    kept = length // 2
    section = kept.to_bytes(4, "big") + data[start + 4 : start + kept]
    total = start + kept + 4
    return data[:8] + total.to_bytes(8, "big") + data[16:start] + section + b"7777"


# The digest


def test_the_digest_is_that_of_the_messages_in_order_of_time_and_channel(read):
    history = complete_history(YESTERDAY, NOW)
    expected = hashlib.sha256(b"".join(history[key] for key in wanted_keys([YESTERDAY, NOW]))).hexdigest()
    assert read(history, lags_hours=(-24, 0)).digest == expected


def test_the_digest_does_not_depend_on_the_order_of_the_file_or_on_fields_that_are_not_used(read):
    messages = list(complete_history().values())
    shuffled = [messages[index] for index in np.random.default_rng(3).permutation(len(messages))]
    extra = [message("tp"), message("t", 500, number=4, base=YESTERDAY, step_hours=24)]
    assert read(messages).digest == read([*extra, *shuffled]).digest


def test_the_digest_changes_with_a_single_value(read):
    values = ramp(240, 280)
    first = read(with_field("t", 850, values=values)).digest
    values[40] += 0.5
    assert read(with_field("t", 850, values=values)).digest != first


# Fields that are there several times.


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([message("t", 500)], None),
        # Packed otherwise, it is the same field.
        ([message("2t", values=280.0, packing="grid_ieee")], None),
        (
            [message("2t", values=281.0)],
            "The input has 2t valid 2020-01-02 12:00 UTC several times, not all alike: the",
        ),
        (
            [message("2t", values=280.0), message("2t", values=281.0), message("t", 850, values=281.0)],
            "The input has 2t valid 2020-01-02 12:00 UTC (and 1 other field) several times, not all alike: the first is",
        ),
    ],
)
def test_a_field_that_is_there_several_times_and_differs_is_told(read, caplog, more, said):
    first = with_field("2t", values=280.0)
    state = read([*first.values(), *more])
    np.testing.assert_array_equal(state.values, read(first).values)
    told = [record.getMessage() for record in caplog.records if "several times" in record.getMessage()]
    assert len(told) == (said is not None)
    assert said is None or told[0].startswith(said)
