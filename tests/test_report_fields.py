"""What is drawn: names, units, statistics, colours, and where they lie on paper."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from ensembles import ensemble

from ai_models_mosaic.errors import InputError, OptionError
from ai_models_mosaic.report.coastlines import coast, land, rings
from ai_models_mosaic.report.ensemble import canonical
from ai_models_mosaic.report.fields import (
    Threshold,
    mean,
    names,
    native,
    preferred,
    series,
    shown,
    split,
    spread,
    style,
)
from ai_models_mosaic.report.projections import EqualEarth, PlateCarree, Polar
from ai_models_mosaic.report.rasters import Paper, Sampler, projection_for
from ai_models_mosaic.report.styles import bands, nice_levels, probability_bands, style_of, value_bands
from ai_models_mosaic.report.units import pretty

DATASET = canonical(ensemble())


def test_names_are_understood():
    assert split("z500", DATASET) == ("z", 500)
    assert split("2t", DATASET) == ("2t", None)
    assert split("10ws", DATASET) == ("10ws", None)
    assert preferred(DATASET) == ["z500", "t850", "msl", "2t", "10ws"]
    assert {"u850", "10u", "10ws"} <= set(names(DATASET))
    assert "ws850" not in names(DATASET)


def test_a_field_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(
        OptionError, match="expected fields that the ensemble has, got z700; it has msl, 2t, 10u, 10v, z500"
    ):
        split("z700", DATASET)


def test_values_are_in_the_units_that_people_read():
    raw = DATASET["z"].sel(level=500).isel(step=1).values
    np.testing.assert_allclose(shown(DATASET, "z500", 1), raw / 98.0665, rtol=1e-6)
    np.testing.assert_allclose(shown(DATASET, "2t", 1), DATASET["2t"].isel(step=1).values - 273.15, atol=1e-4)
    np.testing.assert_allclose(shown(DATASET, "msl", 1), DATASET["msl"].isel(step=1).values / 100, rtol=1e-6)
    speed = np.hypot(DATASET["10u"].isel(step=1).values, DATASET["10v"].isel(step=1).values)
    np.testing.assert_allclose(native(DATASET, "10ws", 1), speed, rtol=1e-6)
    assert style(DATASET, "z500").axis == "geopotential height at 500 hPa (dam)"
    assert style(DATASET, "2t").axis == "2 m temperature (°C)"


def test_statistics_are_numpys():
    members = native(DATASET, "2t", 1)

    np.testing.assert_array_equal(mean(members), np.mean(members, axis=0))
    np.testing.assert_array_equal(spread(members), np.std(members, axis=0, ddof=1))
    np.testing.assert_array_equal(spread(members[:1]), np.zeros_like(members[0]))
    below, above = Threshold.parsed("2t<283.15"), Threshold.parsed(" 2t > 283.15 ")
    np.testing.assert_allclose(below.probability(members), 100 * (members < 283.15).mean(axis=0))
    np.testing.assert_allclose(above.probability(members), 100 * (members > 283.15).mean(axis=0))
    members[0, 0, 0] = np.nan
    assert np.isnan(below.probability(members)[0, 0])


def test_a_member_that_lacks_the_field_does_not_count():
    members = native(DATASET, "2t", 1)
    lacking = np.concatenate([members[:2], np.full_like(members[:1], np.nan)])

    np.testing.assert_array_equal(mean(lacking), members[:2].mean(axis=0))
    np.testing.assert_array_equal(spread(lacking), members[:2].std(axis=0, ddof=1))
    event = Threshold.parsed("2t<283.15")
    np.testing.assert_array_equal(event.probability(lacking), event.probability(members[:2]))
    assert np.isnan(mean(lacking[2:])).all()


def test_events_are_told_in_the_units_that_people_read():
    event = Threshold.parsed("2t<273.15")

    assert event.words(style(DATASET, "2t")) == "2 m temperature below 0 °C"
    assert event.symbols(style(DATASET, "2t")) == "< 0 °C"
    assert Threshold.parsed("msl>1.02e5").words(style(DATASET, "msl")) == "mean sea level pressure above 1020 hPa"


@pytest.mark.parametrize("text", ["2t", "2t<", "<3", "2t=3", "2t<warm", "2t<1<2"])
def test_other_events_are_refused(text):
    with pytest.raises(OptionError, match="--threshold: expected a field, < or >, and a value in SI units"):
        Threshold.parsed(text)


def test_values_at_a_point_lie_between_those_of_the_grid():
    found = series(DATASET, ["2t"], [(50.0, 10.0, "on the grid"), (45.0, 355.0, "between")])["2t"]

    celsius = DATASET["2t"].values - 273.15
    assert found.shape == (2, 3, 4)
    np.testing.assert_allclose(found[0], celsius[:, :, 14, 1].T, atol=1e-4)
    corners = celsius[:, :, 13:15][..., [35, 0]].mean(axis=(2, 3))
    np.testing.assert_allclose(found[1], corners.T, atol=1e-4)


def test_a_point_outside_is_refused():
    region = DATASET.isel(longitude=slice(0, 4), latitude=slice(12, 16))

    with pytest.raises(InputError, match=r"--point 52\.5,200,NoWriter: lies outside the grid of the ensemble"):
        series(region, ["2t"], [(52.5, 200.0, "NoWriter")])


def test_bands_have_a_colour_for_every_value():
    both = bands("cividis", [0, 1, 2])
    assert both.index(np.array([-1, 0.5, 1.5, 3])).tolist() == [0, 1, 2, 3]
    assert len(both.colours) == 4
    assert bands("cividis", [0, 1, 2], below=False).index(np.array([0, 0.5, 1.5, 3])).tolist() == [0, 0, 1, 2]
    chances = probability_bands()
    assert chances.index(np.array([0, 4, 6, 100])).tolist() == [0, 0, 1, 6]
    assert chances.colours[0] == "#ffffff"
    assert len(chances.colours) == 7


def test_winds_have_zero_in_the_middle_of_diverging_colours():
    fitted = style_of("u", 250).fitted(-20.0, 60.0)

    assert fitted.diverging
    assert fitted.levels[0] == -fitted.levels[-1]
    assert 0.0 in fitted.levels
    colours = value_bands(fitted).colours
    # Brown from the palette's one side, purple from the other.
    red = [int(colour[1:3], 16) - int(colour[5:7], 16) for colour in (colours[0], colours[-1])]
    assert red[0] < 0 < red[1]


@pytest.mark.parametrize("param", ["z", "msl", "2t", "t", "q", "u", "w", "10ws", "anything"])
def test_palettes_are_safe_for_colour_blind_eyes(param):
    # ColorBrewer's list of safe ones, and two that were made so.
    safe = {"YlGnBu", "YlGnBu_r", "RdYlBu_r", "PuOr", "PuOr_r", "BuPu", "cividis"}

    assert style_of(param, None).colours in safe
    assert style_of(param, None).colours in matplotlib.colormaps


def test_levels_are_round_and_cover_the_range():
    assert nice_levels(0.3, 17.2, 8) == [0, 2.5, 5, 7.5, 10, 12.5, 15, 17.5]
    assert len(nice_levels(5.0, 5.0)) > 1
    assert len(nice_levels(np.nan, np.nan)) > 1


@pytest.mark.parametrize(
    ("plain", "raised"),
    [
        ("m**2 s**-2", "m² s⁻²"),
        ("K**2", "K²"),
        ("kg m-2", "kg m⁻²"),
        ("m^3", "m³"),
        ("K", "K"),
        ("%", "%"),
        ("m s-1 day**-1", "m s⁻¹ day⁻¹"),
    ],
)
def test_units_are_printed_as_they_are_written(plain, raised):
    assert pretty(plain) == raised


@pytest.mark.parametrize(
    "projection",
    [EqualEarth(), Polar(), Polar(north=False), PlateCarree(70, -20, 30, 50), PlateCarree(10, 170, -10, 200)],
)
def test_projections_can_be_undone(projection):
    left, right, bottom, top = projection.extent
    x, y = np.meshgrid(np.linspace(left, right, 31), np.linspace(bottom, top, 21))
    longitude, latitude = projection.inverse(x, y)
    inside = np.isfinite(longitude)

    back = projection.forward(longitude[inside], latitude[inside])

    assert inside.mean() > 0.7
    np.testing.assert_allclose(back[0], x[inside], atol=1e-9)
    np.testing.assert_allclose(back[1], y[inside], atol=1e-9)


def test_equal_earth_is_as_published():
    # Šavrič, Patterson and Jenny 2019: the map is 2.05 times as wide as it is high, the pole 0.59 of the equator.
    _, right, _, top = EqualEarth().extent
    assert right / top == pytest.approx(2.05, abs=0.01)
    assert EqualEarth().forward(np.array([180.0]), np.array([90.0]))[0] / right == pytest.approx(0.59, abs=0.01)


def test_a_raster_shows_what_the_grid_has():
    latitude, longitude = DATASET["latitude"].values, DATASET["longitude"].values
    field = np.cos(np.radians(longitude))[None] + latitude[:, None] / 90
    paper = Paper(EqualEarth(), 200)
    sampler = paper.sampler(DATASET)
    raster = sampler(field)

    assert raster.shape == (paper.height, 200)
    assert np.isnan(raster[0, 0])
    middle = raster[paper.height // 2]
    assert np.isfinite(middle).all()
    assert middle.argmax() in (99, 100)
    assert np.nanmean(raster[:10]) > np.nanmean(raster[-10:])


def test_no_strip_is_left_out_where_longitudes_meet():
    sampler = Sampler(
        DATASET["latitude"].values, DATASET["longitude"].values, np.array([351.0, 357.0, 359.99]), np.zeros(3)
    )
    assert np.isfinite(sampler(np.ones((19, 36)))).all()


def test_a_region_is_drawn_as_one():
    region = DATASET.isel(longitude=slice(0, 4), latitude=slice(12, 16))

    assert projection_for(DATASET) == EqualEarth()
    assert projection_for(region) == PlateCarree(60.0, 0.0, 30.0, 30.0)


def test_the_coasts_come_with_the_package():
    assert sum(map(len, rings())) > 5000
    line = coast(EqualEarth())
    strides = np.hypot(*np.diff(line, axis=0).T)
    assert np.nanmax(strides) < 0.5
    # A third of the sphere is land, nearly.
    area = sum(
        0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))
        for x, y in (each.T for each in land(EqualEarth()))
    )
    assert area / (4 * np.pi) == pytest.approx(0.29, abs=0.015)


@pytest.mark.parametrize(
    ("plain", "squared"), [("K", "K²"), ("m**2 s**-2", "m⁴ s⁻⁴"), ("m s**-1", "m² s⁻²"), ("Pa", "Pa²")]
)
def test_units_are_squared_one_by_one(plain, squared):
    assert pretty(plain, power=2) == squared
