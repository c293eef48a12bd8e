"""Drawings: what is written on them, and where their axes begin."""

from __future__ import annotations

import io

import numpy as np
import pytest
from ensembles import START, ensemble
from matplotlib.dates import num2date
from PIL import Image

from ai_models_mosaic.errors import OptionError
from ai_models_mosaic.report import maps, plumes, spaghetti, stamps
from ai_models_mosaic.report.drawing import compact, picture
from ai_models_mosaic.report.fields import Threshold
from ai_models_mosaic.report.projections import PlateCarree, Polar
from ai_models_mosaic.report.styles import probability_bands, style_of, value_bands

DATASET = ensemble()


def texts(figure):
    """Everything that is written outside the maps."""
    found = [figure.get_suptitle()]
    for axis in figure.axes:
        found += [axis.get_title(), axis.get_title(loc="left"), axis.get_xlabel(), axis.get_ylabel()]
    return [text for text in found if text]


def test_mean_and_spread():
    figure = maps.mean_and_spread(DATASET, "z500", [24, 48])

    assert texts(figure) == [
        "Geopotential height at 500 hPa: mean and spread of 4 members, from 2020-01-02 12 UTC",
        "mean, +24 h, valid Fri 2020-01-03 12 UTC",
        "spread (standard deviation)",
        "mean, +48 h, valid Sat 2020-01-04 12 UTC",
        "spread (standard deviation)",
        "geopotential height at 500 hPa (dam)",
        "spread (dam)",
    ]


def test_a_member_the_mean_the_spread_and_a_probability():
    lead = "from 2020-01-02 12 UTC, +24 h, valid Fri 2020-01-03 12 UTC"

    assert texts(maps.member(DATASET, "2t", 3, 24))[0] == f"2 m temperature, member 3 of 4\n{lead}"
    assert texts(maps.ensemble_mean(DATASET, "2t"))[0] == f"2 m temperature, mean of 4 members\n{lead}"
    assert texts(maps.ensemble_spread(DATASET, "2t"))[0] == f"2 m temperature, spread of 4 members\n{lead}"
    drawn = maps.probability(DATASET, Threshold("2t", True, 273.15))
    assert texts(drawn)[0] == f"Probability of 2 m temperature below 0 °C\n{lead}"
    assert texts(drawn)[1] == "probability (%), share of 4 members"


def test_a_plateau_at_an_edge_has_one_colour():
    bands = probability_bands()
    plateau = np.array([20, 40, 60, 80], dtype=np.float32)[:, None] * (1 + np.float32([-2e-7, 0, 2e-7]))
    assert bands.index(plateau).tolist() == [[1] * 3, [2] * 3, [3] * 3, [4] * 3]
    assert bands.index(np.array([4.9, 5.1, 100.0])).tolist() == [0, 1, 6]


def test_what_is_not_there_is_refused_with_what_is():
    with pytest.raises(OptionError, match="expected a member that the ensemble has, got 7; it has 1 to 4"):
        maps.member(DATASET, "2t", 7)
    with pytest.raises(OptionError, match="expected a lead time that the ensemble has, got 6 h; it has 0, 24, 48 h"):
        maps.ensemble_mean(DATASET, "2t", 6)
    with pytest.raises(OptionError, match=r"expected a contour between \S+ and \S+ dam, .* got 900"):
        spaghetti.spaghetti(DATASET, "z500", 900)


def test_stamps_show_the_mean_and_every_member():
    figure = stamps.stamps(DATASET, "msl", 48)

    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == ["mean", "1", "2", "3", "4"]


def test_spaghetti_has_a_line_of_every_member_and_the_mean():
    figure = spaghetti.spaghetti(DATASET, "2t", 0.0, 24)

    (axis,) = figure.axes
    lines = [each for each in axis.collections if each.get_linewidth()[0] in (0.6, 1.6)]
    assert len(lines) == 5
    assert axis.get_title().startswith("2 m temperature, contour of 0 °C\n")
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["4 members", "their mean"]


def test_plumes_begin_at_step_0_and_have_days_on_their_axis():
    figure = plumes.plumes(DATASET, (52.5, 13.4, "Berlin"), ["2t", "msl"])
    picture(figure)

    upper, lower = figure.axes
    assert figure.get_suptitle() == "Berlin, 52.5°N 13.4°E, from 2020-01-02 12 UTC"
    assert texts(figure)[1:] == ["2 m temperature (°C)", "Mean sea level pressure (hPa)", "valid time (UTC)"]
    start, end = (np.datetime64(num2date(each).replace(tzinfo=None), "ns") for each in lower.get_xlim())
    assert start == START
    assert end == START + np.timedelta64(48, "h")
    labels = [label.get_text() for label in lower.get_xticklabels()]
    assert labels == ["Fri\n3\nJan", "Sat\n4"]
    # Members, the line that names them in the legend, the median.
    assert len(upper.lines) == 4 + 1 + 1
    np.testing.assert_allclose(
        upper.lines[-1].get_ydata(), np.median([line.get_ydata() for line in upper.lines[:4]], axis=0), rtol=1e-6
    )


@pytest.mark.parametrize("place", [(52.5, 13.4), (-33.9, 151.2), (40.7, -74.0), (40.7, 286.0)])
def test_places_are_written_as_they_are(place):
    assert plumes.where(*place) in ("52.5°N 13.4°E", "33.9°S 151.2°E", "40.7°N 74°W")


@pytest.mark.parametrize("projection", [Polar(), Polar(north=False), PlateCarree(70, -20, 30, 50)])
def test_other_projections_are_drawn(projection):
    content = picture(maps.ensemble_mean(DATASET, "z500", projection=projection), dpi=50)

    assert content.startswith(b"\x89PNG")


def test_the_same_drawing_is_the_same_file():
    once, again = (picture(maps.ensemble_mean(DATASET, "2t"), "svg") for _ in range(2))

    assert once == again
    assert b"<svg" in once


def test_a_smaller_file_has_the_same_colours():
    content = picture(maps.mean_and_spread(DATASET, "msl"), dpi=60)
    small = compact(content)

    assert len(small) < 0.6 * len(content)
    with Image.open(io.BytesIO(content)) as before, Image.open(io.BytesIO(small)) as after:
        pixels = [np.asarray(image.convert("RGB")).astype(int) for image in (before, after)]
    assert after.info["dpi"] == pytest.approx(before.info["dpi"])
    # No place is of another colour than before, but for the edges of lines and letters.
    differing = np.abs(pixels[0] - pixels[1]).max(axis=-1)
    assert (differing > 0).mean() < 0.25
    assert (differing > 40).mean() < 0.01
    colours = value_bands(style_of("msl", None)).colours
    shown = {tuple(each) for each in pixels[1].reshape(-1, 3).tolist()}
    assert {tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5)) for colour in colours} <= shown


def test_an_ensemble_of_one_is_drawn():
    single = DATASET.sel(number=1, drop=True)

    for figure in (maps.mean_and_spread(single, "2t"), plumes.plumes(single, (0.0, 0.0, ""), ["2t"])):
        assert picture(figure, dpi=40)
