"""Pictures of an evaluation: what is written on them, and what their axes and colours are."""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from miniature_cases import NAMES, World, case, days

from ai_models_mosaic.verification import drawing, pictures
from ai_models_mosaic.verification.accumulate import verify
from ai_models_mosaic.verification.bootstrap import Bootstrap
from ai_models_mosaic.verification.climatology import FittedClimatology
from ai_models_mosaic.verification.evaluation import Evaluation
from ai_models_mosaic.verification.maps import map_pages, plume_page
from ai_models_mosaic.verification.plan import Plan, find_channels
from ai_models_mosaic.verification.probability_pictures import pit_pages, rank_pages
from ai_models_mosaic.verification.report import Report
from ai_models_mosaic.verification.scale_pictures import crps_pages, growth_pages, spectrum_pages

PLAN = Plan(find_channels(NAMES), spectra=find_channels(NAMES), point_deg=(52.5, 13.4))


def evaluated(members=4, dates=6, leads=(24, 48, 72)):
    sums = verify((case(date, members, leads) for date in days(dates)), World(days(12)), PLAN)
    return Evaluation("ours", sums, Bootstrap(20, block_length=min(2, dates)))


@pytest.fixture(scope="module")
def evaluation():
    return evaluated()


def drawn(figure):
    FigureCanvasAgg(figure).draw()
    return figure


def maps_of(figure):
    """The axes that a map is in, which have a title; bars of colours have none."""
    return [axis for axis in figure.axes if axis.get_title()]


@pytest.mark.parametrize(
    ("members", "titles"),
    [
        (4, ["truth", "ensemble mean", "member 1", "spread of 4 members", "mean − truth"]),
        (1, ["truth", "forecast", "forecast − truth"]),
    ],
)
def test_no_panel_is_empty(members, titles):
    sums = evaluated(members, 1).sums
    for _, make in map_pages(sums, "ours"):
        figure = make()
        assert [axis.get_title() for axis in maps_of(figure)] == titles
        # Every panel has its bar, and there is nothing else.
        assert len(figure.axes) == 2 * len(titles)
        assert all(axis.images for axis in maps_of(figure))


def test_maps_have_coasts_and_reach_round_the_globe(evaluation):
    _, make = next(map_pages(evaluation.sums, "ours"))
    figure = make()
    for axis in maps_of(figure):
        assert max(len(line.get_xdata()) for line in axis.lines) > 5000
        shown = axis.images[0].get_array()
        # The equator lies across the whole width of the map: no strip is white.
        assert np.isfinite(np.asarray(shown)[shown.shape[0] // 2]).all()


def test_maps_are_named_in_words_and_in_the_units_that_people_read(evaluation):
    figures = {name: make() for name, make in map_pages(evaluation.sums, "ours")}
    found = {name: (figure.get_suptitle(), figure.axes[-1].get_xlabel()) for name, figure in figures.items()}

    assert found == {
        "z500": ("ours: geopotential height at 500 hPa, from 2020-01-01 00 UTC, day 3", "dam"),
        "t850": ("ours: temperature at 850 hPa, from 2020-01-01 00 UTC, day 3", "°C"),
        "2t": ("ours: 2 m temperature, from 2020-01-01 00 UTC, day 3", "°C"),
    }


def test_the_place_is_the_one_that_was_asked_for(evaluation):
    title = plume_page(evaluation.sums, "ours", "#000000").get_suptitle()

    assert title == "ours: at 52.5°N 13.4°E (nearest point of the grid: 60°N 0°E)\nfrom 2020-01-01 00 UTC"


@pytest.mark.parametrize("leads", [(24, 48, 72), (6, 12, 18, 24, 30)])
def test_axes_of_lead_times_begin_at_step_0_and_have_whole_days(leads):
    evaluation = evaluated(leads=leads)
    figures = [
        plume_page(evaluation.sums, "ours", "#000000"),
        *(make() for _, make in pictures.score_pages([evaluation])),
    ]
    for figure in map(drawn, figures):
        for axis in figure.axes:
            assert axis.get_xlim()[0] == 0
            ticks = [tick for tick in axis.get_xticks() if tick <= axis.get_xlim()[1]]
            assert ticks[0] == 0
            assert all(tick == round(tick) for tick in ticks)


def test_rank_histograms_have_one_scale(evaluation):
    for _, make in rank_pages([evaluation]):
        figure = make()
        limits = {axis.get_ylim() for axis in figure.axes}
        assert len(limits) == 1
        top = limits.pop()[1]
        heights = [bar.get_height() for axis in figure.axes for bar in axis.patches]
        assert max(heights) < top


def test_power_is_in_the_square_of_the_units(evaluation):
    labels = {name: make().axes[0].get_ylabel() for name, make in spectrum_pages([evaluation])}

    assert labels == {"spectra_z500": "power (m⁴ s⁻⁴)", "spectra_t850": "power (K²)", "spectra_2t": "power (K²)"}


def test_a_climatology_of_other_hours_is_in_no_picture():
    training = World(days(400))
    climatology = FittedClimatology(training, training.times, (0.1, 0.9))
    later = days(4, datetime(2020, 1, 1, 6))
    world = World([date + timedelta(days=day) for date in later for day in range(4)])
    found = Evaluation("ours", verify(map(case, later), world, PLAN, climatology), Bootstrap(20, block_length=2))
    assert found.sums.events == ()
    names = dict(pictures.planned([found], "ours"))
    assert not [name for name in names if name.startswith("reliability")]
    assert [axis.get_title() for axis in drawn(names["scorecard"]()).axes] == ["ours over persistence"]
    labels = {text.get_text() for axis in drawn(names["error_growth_ours"]()).axes for text in axis.get_legend().texts}
    assert labels == {"day 1", "day 2", "day 3"}


def test_without_any_reference_there_is_no_card_of_skill():
    world = World(days(3, datetime(2020, 1, 2)))
    found = Evaluation("ours", verify([case(days(1)[0])], world, PLAN), Bootstrap(20))
    names = dict(pictures.planned([found], "ours"))
    assert "scorecard" not in names
    drawn(names["scores"]())


def test_forecasts_of_other_dates_are_not_compared(evaluation, tmp_path, caplog):
    other = Evaluation("theirs", verify(map(case, days(3, datetime(2020, 1, 7))), World(days(20)), PLAN), Bootstrap(20))
    assert "comparison" not in dict(pictures.planned([evaluation, other], "ours"))
    Report((evaluation, other), sources={}, pictures=False).write(tmp_path)
    assert "theirs and ours have no initial date, or no lead time, in common: they are not compared" in caplog.messages
    assert not (tmp_path / "comparison.csv").exists()


def test_a_comparison_says_how_many_dates_it_is_of(evaluation):
    other = Evaluation("theirs", evaluated(dates=4).sums, Bootstrap(20, block_length=2))
    ((_, make),) = pictures.comparison_pages([evaluation, other], "ours")
    titles = [axis.get_title() for axis in make().axes]
    assert titles == [f"{score} of theirs against ours, 4 dates of both" for score in ("RMSE", "CRPS")]


def test_one_date_is_one():
    (_, make), *_ = pictures.score_pages([evaluated(members=1, dates=1)])

    assert make().get_suptitle() == "Error by lead time\nours: 1 date, 1 member; no intervals"


def test_drawing_is_not_silent(monkeypatch, caplog):
    now = iter([0.0, 1.0, 6.0, 6.0, 7.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    with caplog.at_level(logging.INFO, "ai_models_mosaic"):
        found = list(drawing._said(iter([("scores.png", b"1"), ("spread.png", b"2"), ("plume.png", b"3")]), 3))

    assert found == [("scores.png", b"1"), ("spread.png", b"2"), ("plume.png", b"3")]
    assert caplog.messages == ["Drew spread.png, picture 2 of 3"]


def test_pictures_by_scale_have_units_and_whole_wavenumbers(evaluation):
    for pages, expected in (
        (crps_pages, ["fair CRPS (m² s⁻²)", "fair CRPS (K)", "fair CRPS (K)"]),
        (growth_pages, ["power of the error (m⁴ s⁻⁴)", "power of the error (K²)", "power of the error (K²)"]),
    ):
        for _, make in pages([evaluation]):
            figure = drawn(make())
            assert [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()] == expected
            for axis in figure.axes:
                assert axis.get_xlabel() == "total wavenumber"
                assert [label.get_text() for label in axis.get_xticklabels()] == ["1", "2", "5"]


def test_errors_of_single_members_grow_to_twice_the_power_and_those_of_the_mean_to_once(evaluation):
    (_, make) = next(growth_pages([evaluation]))
    members, mean = make().axes[:2]
    lines = [
        dict(zip(("label", "values"), (line.get_label(), line.get_ydata()), strict=True)) for line in members.lines
    ]
    assert [line["label"] for line in lines] == ["day 1", "day 2", "day 3", "2 × power of the truth"]
    assert mean.lines[-1].get_label() == "power of the truth"
    np.testing.assert_allclose(members.lines[-1].get_ydata(), 2 * mean.lines[-1].get_ydata())


def test_ensembles_of_all_sizes_are_in_one_picture_of_the_transform(evaluation):
    (_, make) = next(pit_pages([evaluation, evaluated(members=3), evaluated(members=1)]))
    labels = [text.get_text() for text in make().axes[0].get_legend().get_texts()]
    assert labels == ["ours, 4 members", "ours, 3 members"]


def test_pictures_do_not_depend_on_the_number_of_processes():
    sums = verify(
        (case(date, 3, (24, 48)) for date in days(3)), World(days(6)), Plan(PLAN.channels[:1], PLAN.channels[:1])
    )
    evaluations = [Evaluation("ours", sums, Bootstrap(5, block_length=1))]
    alone = list(drawing.draw(evaluations, "ours"))
    assert len(alone) >= 2 * drawing.LEAST_PAGES
    assert list(drawing.draw(evaluations, "ours", processes=2)) == alone
