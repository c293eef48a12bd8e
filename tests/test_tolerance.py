"""--mc-error: the sampling error of means and probabilities, and ensembles that grow until it is small enough."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from running import SAMPLE
from test_extending import Typed, typed  # noqa: F401 - a fixture
from toy_run import START

from ai_models_mosaic.channels import CHANNELS
from ai_models_mosaic.errors import OptionError
from ai_models_mosaic.forecast.tolerance import (
    SamplingError,
    Tolerance,
    all_met,
    parse_tolerances,
    posterior_error,
)
from ai_models_mosaic.geometry.grid import LatLonGrid
from ai_models_mosaic.params import named
from ai_models_mosaic.state import ForecastStep

GRID = LatLonGrid.regular(30.0)
(TEMPERATURE,) = named("2t", "test")


def members_of(count: int, step: int = 1) -> ForecastStep:
    chance = np.random.default_rng(step)
    values = chance.normal(280.0, 1.0, (count, *GRID.shape, len(CHANNELS))).astype(np.float32)
    values[..., 0] *= 10
    return ForecastStep(step, 24 * step, tuple(range(1, count + 1)), values, GRID, START)


def temperatures(forecast: ForecastStep) -> np.ndarray:
    """(member, lon, lat), float64."""
    return forecast.values[..., TEMPERATURE.channels[0]].astype(np.float64)


def part(forecast: ForecastStep, first: int, last: int) -> ForecastStep:
    return ForecastStep(
        forecast.step,
        forecast.lead_time_hours,
        forecast.members[first:last],
        forecast.values[first:last],
        GRID,
        START,
    )


def reached(text: str, *steps: ForecastStep) -> float | None:
    error = SamplingError(parse_tolerances(text)[0], GRID)
    for step in steps:
        # In parts, as groups of members come.
        for first in range(0, len(step.members), 3):
            error.add(part(step, first, first + 3))
    return error.reached


def test_the_error_of_a_mean_is_that_of_numpy_over_points_area_and_lead_times():
    first, second = members_of(10), members_of(10, 2)
    errors = [temperatures(step).std(axis=0, ddof=1) / math.sqrt(10) for step in (first, second)]
    assert reached("1@mean:2t", first, second) == pytest.approx(max(error.max() for error in errors), rel=1e-12)
    weights = np.broadcast_to(GRID.cell_weights(), GRID.shape)
    means = [np.average(error, weights=weights) for error in errors]
    assert reached("1@mean:2t@mean", first, second) == pytest.approx(max(means), rel=1e-12)
    inside = errors[0][np.ix_([11, 0, 1], [3, 4, 5])]
    assert reached("1@mean:2t@max:60/-30/0/30", first) == pytest.approx(inside.max(), rel=1e-12)
    weighted = np.average(inside, weights=weights[:3, 3:6])
    assert reached("1@mean:2t@mean:60/-30/0/30", first) == pytest.approx(weighted, rel=1e-12)


def test_the_error_of_a_probability_is_that_of_what_members_can_tell():
    forecast = members_of(10)
    happened = (temperatures(forecast) < 279.5).sum(axis=0)
    share = (happened + 1) / 12
    wanted = np.sqrt(share * (1 - share) / 13)
    assert reached("0.1@probability:2t<279.5", forecast) == pytest.approx(wanted.max(), rel=1e-12)
    # Beta(k + 1, n - k + 1) has this standard deviation, by its definition.
    points = np.linspace(0, 1, 20001)
    density = points**3 * (1 - points) ** 7
    density /= density.sum()
    mean = (points * density).sum()
    spread = math.sqrt(((points - mean) ** 2 * density).sum())
    assert posterior_error(np.array(3.0), 10) == pytest.approx(spread, rel=1e-6)


def test_where_it_never_happened_members_still_count():
    forecast = members_of(40)
    few = reached("0.02@probability:2t>400", part(forecast, 0, 10))
    many = reached("0.02@probability:2t>400", forecast)
    assert few == pytest.approx(math.sqrt(1 / 12 * 11 / 12 / 13))
    assert many == pytest.approx(math.sqrt(1 / 42 * 41 / 42 / 43))


def test_small_variations_of_large_values_are_not_lost():
    forecast = members_of(8)
    values = (1e5 + np.arange(8, dtype=np.float32) / 16)[:, None, None, None] + np.zeros_like(forecast.values)
    same = ForecastStep(1, 24, forecast.members, values.astype(np.float32), GRID, START)
    assert reached("1@mean:2t", same) == pytest.approx(np.std(np.arange(8) / 16, ddof=1) / math.sqrt(8), rel=1e-9)


def test_one_member_and_the_initial_state_tell_nothing():
    assert reached("1@mean:2t", members_of(1)) is None
    assert reached("1@mean:2t", members_of(5, 0)) is None
    assert not SamplingError(Tolerance(1e9, "mean:2t"), GRID).is_met
    assert not all_met([])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0.02@probability:2t<273.15", "0.02@probability:2t<273.15@max"),
        ("0.02@prob: 10ws >= 15 @mean", "0.02@probability:10ws>=15@mean"),
        ("50@mean:z500@max:70/-10/35/40.5", "50@mean:z500@max:70/-10/35/40.5"),
        (".5@mean:ws850", "0.5@mean:ws850@max"),
        ("1e-2@mean:2t,0.1@probability:t850>280@mean:90/0/20/360", "0.01@mean:2t@max"),
    ],
)
def test_what_is_asked_for_is_read(text: str, wanted: str):
    assert str(parse_tolerances(text.replace(" @", "@"))[0]) == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0.02", "--mc-error: expected ERROR@probability:FIELD<VALUE or ERROR@mean:FIELD, perhaps with @max"),
        ("0@mean:2t", "such as 0.02@probability:2t<273.15, got '0@mean:2t'"),
        ("-1@mean:2t", "got '-1@mean:2t'"),
        ("1@spread:2t", "got '1@spread:2t'"),
        ("1@mean:2t@median", "got '1@mean:2t@median'"),
        ("1@mean:2t@max:70/-10/35", "got '1@mean:2t@max:70/-10/35'"),
        ("1@mean:2t@max:7-0/-10/35/40", "got '1@mean:2t@max:7-0/-10/35/40'"),
        ("2@probability:2t<273.15", "the error of a probability is a share below 1, such as 0.02"),
        ("0.1@probability:2t<cold", "expected a number behind the comparison"),
        ("1@mean:z", "--mc-error: expected one level, such as z500, got 'mean:z'"),
        ("0.1@probability:t>280", "--mc-error: expected one level"),
        ("1@mean:snow", "--mc-error: "),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, said: str):
    with pytest.raises(OptionError) as caught:
        parse_tolerances(text)
    assert said in str(caught.value)


def test_an_area_without_a_point_is_refused_before_anything_is_read(typed: Typed):  # noqa: F811
    status, said = typed.ended(
        "a", "--num-ensemble-members", 9, "--path", "out.grib", "--mc-error", "1@mean:2t@max:1.2/1/1/1.2"
    )
    assert status == 2
    assert "--mc-error: no point of the grid of" in said
    assert "lies within 1.2/1/1/1.2; choose a larger one" in said
    assert not typed.contents("a")
    assert SAMPLE.is_file()


def test_steps_among_which_there_is_none_to_look_at_are_refused_before_anything_is_read(typed: Typed):  # noqa: F811
    words = ("--num-ensemble-members", 9, "--path", "out.grib", "--output-steps", 0)
    status, said = typed.ended("a", *words, "--mc-error", "1@mean:2t")
    assert status == 2
    assert "--mc-error looks at lead times after 0 h that are written, and there are none: expected one in" in said
    assert not typed.contents("a")


def test_members_are_made_until_the_error_is_small_enough_and_no_more(typed: Typed):  # noqa: F811
    asked = "0.4@mean:2t@mean:90/0/0/354"
    words = ("--path", "out.grib", "--zarr", "out.zarr", "--num-ensemble-members", 12)
    grown = typed("a", *words, "--mc-error", asked)
    card = json.loads((typed.folder / "a" / "out.grib.provenance.json").read_text())
    size, (said,) = card["growth"]["members"], card["growth"]["mc_error"]
    assert 2 < size < 12
    assert said["asked"] == asked
    assert said["met"]
    assert grown == typed("b", *words[:-1], size)
    errors = [error_in(typed.folder / "a" / "out.zarr", count) for count in range(2, size + 1)]
    assert errors[-1] <= 0.4
    assert min(errors[:-1]) > 0.4
    assert said["reached"] == pytest.approx(errors[-1], rel=1e-6)


def error_in(store: Path, members: int) -> float:
    """What the first members of a store say, the larger of two lead times after step 0."""
    zarr = pytest.importorskip("zarr")
    values = np.asarray(zarr.open_group(str(store), mode="r")["2m_temperature"]).astype(np.float64)
    grid = LatLonGrid.regular(6.0)
    errors = values[0, 1:, :members].std(axis=1, ddof=1) / math.sqrt(members)
    north = np.array(grid.latitude_deg) >= 0
    weights = np.broadcast_to(grid.cell_weights()[north], (grid.shape[0], north.sum()))
    return max(float(np.average(error[:, north], weights=weights)) for error in errors)


def test_what_is_not_reached_with_all_members_is_said(typed: Typed, caplog: pytest.LogCaptureFixture):  # noqa: F811
    typed("a", "--path", "out.grib", "--num-ensemble-members", 2, "--mc-error", "1e-9@mean:2t")
    assert "--mc-error 1e-09@mean:2t@max is not met: reached " in caplog.text
    card = json.loads((typed.folder / "a" / "out.grib.provenance.json").read_text())
    assert card["growth"]["members"] == card["growth"]["most"] == 2
    assert card["growth"]["mc_error"][0]["met"] is False
