"""The table of channels against the specification, published numbers and what the air can be."""

import pytest

from ai_models_mosaic.channels import (
    CHANNELS,
    LEVELS_HPA,
    PRESSURE_LEVEL_PARAMS,
    SINGLE_LEVEL_PARAMS,
    STATIC_FIELDS,
    standard_height_m,
)

CHANNEL = {channel.label: channel for channel in CHANNELS}


def test_the_82_channels_are_named_and_ordered_as_the_statistics_of_the_released_model():
    variables = [
        "geopotential",
        "specific_humidity",
        "temperature",
        "u_component_of_wind",
        "v_component_of_wind",
        "vertical_velocity",
    ]
    expected = ["2m_temperature", "10m_u_component_of_wind", "10m_v_component_of_wind", "mean_sea_level_pressure"]
    for variable in variables:
        for level in (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000):
            expected.append(f"{variable}_{level}")
    assert len(expected) == 82
    assert [channel.name for channel in CHANNELS] == expected


def test_every_channel_has_a_parameter_and_level_of_its_own():
    assert len({(channel.param, channel.level_hpa) for channel in CHANNELS}) == 82


@pytest.mark.parametrize(
    ("index", "name", "param", "level_hpa", "label", "units"),
    [
        (0, "2m_temperature", "2t", None, "2t", "K"),
        (1, "10m_u_component_of_wind", "10u", None, "10u", "m s**-1"),
        (2, "10m_v_component_of_wind", "10v", None, "10v", "m s**-1"),
        (3, "mean_sea_level_pressure", "msl", None, "msl", "Pa"),
        (4, "geopotential_50", "z", 50, "z50", "m**2 s**-2"),
        (11, "geopotential_500", "z", 500, "z500", "m**2 s**-2"),
        (17, "specific_humidity_50", "q", 50, "q50", "kg kg**-1"),
        (40, "temperature_850", "t", 850, "t850", "K"),
        (43, "u_component_of_wind_50", "u", 50, "u50", "m s**-1"),
        (68, "v_component_of_wind_1000", "v", 1000, "v1000", "m s**-1"),
        (81, "vertical_velocity_1000", "w", 1000, "w1000", "Pa s**-1"),
    ],
)
def test_a_channel_has_its_grib_identity_and_si_units(index, name, param, level_hpa, label, units):
    channel = CHANNELS[index]
    assert (channel.name, channel.param, channel.level_hpa) == (name, param, level_hpa)
    assert (channel.label, channel.units) == (label, units)


def test_the_short_lists_are_what_a_request_to_mars_needs():
    assert LEVELS_HPA == (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
    assert SINGLE_LEVEL_PARAMS == ("2t", "10u", "10v", "msl")
    assert PRESSURE_LEVEL_PARAMS == ("z", "q", "t", "u", "v", "w")


def test_the_static_fields_are_in_the_order_of_the_released_file():
    assert STATIC_FIELDS == ("geopotential_at_surface", "land_sea_mask", "soil_type")


@pytest.mark.parametrize(
    ("level_hpa", "published_m"),
    [
        (1000, 111),
        (925, 762),
        (850, 1457),
        (700, 3012),
        (500, 5574),
        (300, 9164),
        (250, 10363),
        (100, 16180),
        (50, 20576),
    ],
)
def test_standard_heights_are_those_of_the_icao_tables(level_hpa, published_m):
    assert standard_height_m(level_hpa) == pytest.approx(published_m, abs=15)


def test_standard_height_is_zero_at_sea_level_and_continuous_at_the_tropopause():
    assert standard_height_m(1013.25) == pytest.approx(0, abs=0.01)
    assert standard_height_m(226.320999) == pytest.approx(standard_height_m(226.321001), abs=0.5)
    assert standard_height_m(226.321) == pytest.approx(11_000, abs=1)


@pytest.mark.parametrize(
    ("label", "lowest", "highest"),
    [
        # Records of weather stations, and extremes of the ERA5 reanalysis, both rounded outwards.
        ("2t", 183.0, 331.0),
        ("10u", -75.0, 75.0),
        ("10v", -75.0, 75.0),
        ("msl", 87_000.0, 109_000.0),
        ("z50", 9.80665 * 18_200, 9.80665 * 21_300),
        ("z100", 9.80665 * 14_400, 9.80665 * 17_000),
        ("z250", 9.80665 * 8_900, 9.80665 * 11_200),
        ("z500", 9.80665 * 4_550, 9.80665 * 6_050),
        ("z700", 9.80665 * 2_200, 9.80665 * 3_350),
        ("z850", 9.80665 * 350, 9.80665 * 1_800),
        ("z925", 9.80665 * -420, 9.80665 * 1_150),
        ("z1000", 9.80665 * -1_200, 9.80665 * 700),
        ("q50", -1e-5, 1e-4),
        ("q1000", -1e-3, 0.035),
        ("t50", 170.0, 260.0),
        ("t1000", 215.0, 330.0),
        ("u250", -100.0, 130.0),
        ("v300", -110.0, 110.0),
        ("w500", -40.0, 25.0),
    ],
)
def test_bounds_admit_the_most_extreme_weather(label, lowest, highest):
    channel = CHANNEL[label]
    assert channel.minimum < lowest
    assert highest < channel.maximum


@pytest.mark.parametrize("level", [50, 100, 150, 200, 250, 300, 400, 500, 600, 700])
def test_bounds_refuse_the_height_of_a_level_above_850_hpa_as_its_geopotential(level):
    channel = CHANNEL[f"z{level}"]
    assert standard_height_m(level) * 1.1 < channel.minimum
    assert channel.minimum < standard_height_m(level) * 9.80665 < channel.maximum


@pytest.mark.parametrize("label", ["2t", *(f"t{level}" for level in LEVELS_HPA)])
def test_bounds_refuse_celsius_as_kelvin(label):
    hottest_celsius = 60.0
    assert CHANNEL[label].minimum > hottest_celsius


def test_bounds_refuse_hectopascals_and_grams_per_kilogram():
    assert CHANNEL["msl"].minimum > 1100
    # A humid tropical boundary layer has 15 g/kg or more somewhere.
    assert CHANNEL["q1000"].maximum < 15
