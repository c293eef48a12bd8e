"""Which fields, lead times and points are written, and how they are named and packed."""

import numpy as np
import pytest

from ai_models_mosaic.channels import CHANNELS
from ai_models_mosaic.errors import OptionError
from ai_models_mosaic.geometry.grid import LatLonGrid, Region
from ai_models_mosaic.options.number_lists import parse_numbers
from ai_models_mosaic.outputs.grib.keys import packing_keys
from ai_models_mosaic.outputs.grib.packing import Packing, parse_bits
from ai_models_mosaic.outputs.selection import Selection, parse_area, parse_names
from ai_models_mosaic.params import CHANNEL_FIELDS, FIELDS, named

COARSE = LatLonGrid.regular(6.0)
LEVELS = "50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000"


def labels(selection):
    return [field.label for field in selection.fields]


def refused(call, *arguments, **keywords):
    with pytest.raises(OptionError) as caught:
        call(*arguments, **keywords)
    return str(caught.value)


# Fields.


def test_the_fields_are_the_channels_and_then_the_wind_speeds():
    assert [field.name for field in CHANNEL_FIELDS] == [channel.name for channel in CHANNELS]
    assert [field.channels for field in CHANNEL_FIELDS] == [(index,) for index in range(82)]
    assert [field.label for field in FIELDS[82:]] == ["10si"] + [f"ws{level}" for level in LEVELS.split(", ")]


def test_a_wind_speed_is_made_from_its_own_components():
    state = np.random.default_rng(0).normal(0, 10, (2, 82, 3, 4))
    index = {channel.label: number for number, channel in enumerate(CHANNELS)}
    for label, u, v in [("10si", "10u", "10v"), ("ws500", "u500", "v500"), ("ws1000", "u1000", "v1000")]:
        (field,) = named(label, "--x")
        expected = np.sqrt(state[:, index[u]] ** 2 + state[:, index[v]] ** 2)
        np.testing.assert_allclose(field.of(state[:, list(field.channels)]), expected, rtol=1e-14)


def test_a_channel_is_its_values_in_float64():
    values = np.float32([[[280.1]]])
    made = FIELDS[0].of(values)
    assert made.dtype == np.float64
    assert made == np.float64(np.float32(280.1))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("2t", ["2t"]),
        ("2m_temperature", ["2t"]),
        ("z500", ["z500"]),
        ("geopotential_500", ["z500"]),
        ("10ws", ["10si"]),
        ("10m_wind_speed", ["10si"]),
        ("q", [f"q{level}" for level in LEVELS.split(", ")]),
        ("wind_speed", [f"ws{level}" for level in LEVELS.split(", ")]),
        ("mean_sea_level_pressure", ["msl"]),
    ],
)
def test_a_field_has_its_names_of_ecmwf_and_weatherbench(name, expected):
    assert [field.label for field in named(name, "--x")] == expected


def test_a_field_that_there_is_not_is_refused_with_those_that_there_are():
    assert refused(named, "tp", "--output-params", CHANNEL_FIELDS) == (
        "--output-params: expected some of 2t, 10u, 10v, msl, z, q, t, u, v, w, or one level such as z500, got 'tp'; "
        f"levels are {LEVELS} hPa"
    )


# Selections.


def test_everything_is_written_unless_something_is_chosen():
    assert Selection().fields == CHANNEL_FIELDS
    assert Selection().lead_times(6, 3) == (0, 6, 12, 18)
    assert Selection().region(COARSE) == Region.whole(COARSE)


@pytest.mark.parametrize(
    ("params", "levels", "expected"),
    [
        (("z", "2t"), (500, 850), ["2t", "z500", "z850"]),
        (("t850", "z500", "msl"), None, ["msl", "z500", "t850"]),
        (("z500", "t"), (850,), ["z500", "t850"]),
        (("2t", "10u"), (500,), ["2t", "10u"]),
        (None, (1000,), ["2t", "10u", "10v", "msl", "z1000", "q1000", "t1000", "u1000", "v1000", "w1000"]),
        (("z", "z500"), (500,), ["z500"]),
    ],
)
def test_params_and_levels_choose_fields_in_the_order_of_the_state(params, levels, expected):
    assert labels(Selection(params=params, levels=levels)) == expected


def test_what_cannot_be_chosen_is_refused():
    assert refused(Selection, levels=(500, 510)) == f"--output-levels: expected some of {LEVELS} hPa, got 510"
    assert refused(Selection, params=("ws",)).startswith("--output-params: expected some of 2t, 10u, ")
    assert refused(Selection, area=(30, 0, 60, 10)) == (
        "--output-area: expected N/W/S/E in degrees with 90 >= N >= S >= -90, got 30/0/60/10"
    )
    assert refused(Selection(area=(31, 1, 31, 2)).region, COARSE) == (
        "--output-area: no point of the grid of 60 × 31 points (6°) lies within 31/1/31/2; choose a larger one"
    )


def test_lead_times_must_be_steps_of_the_forecast():
    assert Selection(steps=(48, 0)).lead_times(24, 2) == (0, 48)
    for hours in (36, 72):
        assert refused(Selection(steps=(24, hours)).lead_times, 24, 2) == (
            f"--output-steps: the forecast has lead times 0 to 48 h, every 24 h; it has no {hours}"
        )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("24", (24,)),
        ("0,24, 48", (0, 24, 48)),
        ("48/24", (48, 24)),
        ("24/to/96/by/24", (24, 48, 72, 96)),
        ("0/to/7/by/3", (0, 3, 6)),
        ("24-26,30", (24, 25, 26, 30)),
        ("48/to/0/by/24", (48, 24, 0)),
    ],
)
def test_numbers_are_typed_as_in_lists_or_as_in_mars(text, expected):
    assert parse_numbers(text, "--x") == expected


@pytest.mark.parametrize(
    "text", ["", "24,", "24/to/48/by/0", "0-9999999999", "24/to/", "-24", "24,24", "1.5", "all", "٣", "1" * 5000]
)
def test_a_list_that_is_none_is_refused(text):
    assert refused(parse_numbers, text, "--output-steps").startswith("--output-steps: expected ")


def test_names_are_separated_by_commas_or_slashes():
    assert parse_names("2t, z500/t", "--x") == ("2t", "z500", "t")
    for text in ("", "2t,,z", "2t,2t"):
        assert refused(parse_names, text, "--x") == f"--x: expected different names separated by commas, got {text!r}"


def test_an_area_is_four_numbers():
    assert parse_area("75/-15/30/45") == (75, -15, 30, 45)
    assert parse_area("10.5,0,-10.5,360") == (10.5, 0, -10.5, 360)
    for text in ("75/-15/30", "75/-15/30/45/1", "a/b/c/d", "nan/0/0/0", ""):
        assert refused(parse_area, text) == (
            f"--output-area: expected N/W/S/E in degrees, such as 75/-15/30/45, got {text!r}"
        )


# Regions.


def coordinates_of(region, grid):
    """What `take` makes of every point's own coordinates."""
    longitude, latitude = np.meshgrid(grid.longitude_deg, grid.latitude_deg, indexing="ij")
    return region.take(longitude), region.take(latitude)


@pytest.mark.parametrize(
    ("area", "longitudes", "latitudes"),
    [
        ((75, -15, 30, 45), (-12, -6, 0, 6, 12, 18, 24, 30, 36, 42), (30, 36, 42, 48, 54, 60, 66, 72)),
        ((0, 90, 0, 102), (90, 96, 102), (0,)),
        ((12, 345, -6, 15), (-12, -6, 0, 6, 12), (-6, 0, 6, 12)),
        ((6, 348, 6, 354), (348, 354), (6,)),
        ((6, 170, 0, -170), (174, 180, 186), (0, 6)),
        ((6, -180, 6, -168), (180, 186, 192), (6,)),
        ((90, 354, 84, 360), (-6, 0), (84, 90)),
    ],
)
def test_a_region_has_the_points_of_its_area_from_west_to_east(area, longitudes, latitudes):
    region = Region.within(COARSE, *area)
    assert region.longitude_deg == longitudes
    assert region.latitude_deg == latitudes
    assert (region.shape, region.size) == ((len(longitudes), len(latitudes)), len(longitudes) * len(latitudes))
    east, north = coordinates_of(region, COARSE)
    np.testing.assert_array_equal(east, np.broadcast_to(np.array(longitudes)[:, None] % 360, region.shape))
    np.testing.assert_array_equal(north, np.broadcast_to(latitudes, region.shape))


@pytest.mark.parametrize("west", [0, -180, 90, 3])
def test_all_longitudes_are_taken_once_from_the_west_of_the_area(west):
    region = Region.within(COARSE, 90, west, -90, west + 360)
    assert len(set(region.columns)) == 60
    assert np.allclose(np.diff(region.longitude_deg), 6)
    assert region.latitude_deg == COARSE.latitude_deg
    assert -360 < region.longitude_deg[0] < 360
    assert (region.longitude_deg[0] - west) % 360 < 6


def test_the_whole_grid_is_not_copied():
    values = np.zeros(COARSE.shape)
    assert Region.whole(COARSE).take(values) is values
    assert Region.within(COARSE, 90, 0, -90, 360).take(values) is values


# Packing.


def bits(packing, label):
    (field,) = named(label, "--x")
    return packing.bits_for(field)


def test_bits_are_given_for_all_or_by_parameter():
    packing = Packing("ccsds", parse_bits("14,z=18,q=12,z500=20"))
    assert [bits(packing, label) for label in ("2t", "z850", "q50", "z500")] == [14, 18, 12, 20]
    assert packing_keys(packing, FIELDS[0]) == {"packingType": "grid_ccsds", "bitsPerValue": 14}
    assert packing_keys(Packing(), FIELDS[0]) == {"packingType": "grid_simple", "bitsPerValue": 16}


@pytest.mark.parametrize(
    ("method", "text", "message"),
    [
        ("jpeg", "16", "--packing: expected simple or ccsds, got 'jpeg'"),
        ("simple", "0", "--bits-per-value: expected 1 to 32 bits, got 0"),
        ("simple", "z=33", "--bits-per-value: expected 1 to 32 bits, got 33"),
        ("simple", "z:3", "--bits-per-value: expected bits such as 16, or z=18,q=12 by parameter, got 'z:3'"),
        ("simple", "16,", "--bits-per-value: expected bits such as 16, or z=18,q=12 by parameter, got '16,'"),
    ],
)
def test_a_packing_that_there_is_not_is_refused(method, text, message):
    assert refused(lambda: Packing(method, parse_bits(text))) == message


def test_bits_of_a_field_that_there_is_not_are_refused():
    assert refused(parse_bits, "tp=12").startswith("--bits-per-value: expected some of 2t, 10u, ")
