"""What an initial state accepts, and what it says otherwise."""

import re
from dataclasses import FrozenInstanceError
from datetime import datetime

import numpy as np
import pytest

from ai_models_mosaic.channels import CHANNELS
from ai_models_mosaic.errors import OptionError
from ai_models_mosaic.geometry.grid import LatLonGrid
from ai_models_mosaic.state import ForecastStep, InitialState

GRID = LatLonGrid.regular(30)
FIRST, SECOND = datetime(2020, 1, 1), datetime(2020, 1, 2)


def values(*shape):
    return np.zeros(shape, dtype=np.float32)


def test_the_initial_time_is_that_of_the_newest_state():
    state = InitialState(GRID, (FIRST, SECOND), values(2, 12, 7, 82))
    assert state.initial_time == SECOND
    assert state.digest == ""


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    "shape",
    [(2, 7, 12, 82), (1, 12, 7, 82), (3, 12, 7, 82), (12, 7, 82), (2, 12, 7), (2, 12, 6, 82), (2, 1, 12, 7, 82)],
)
def test_values_of_another_shape_are_refused(shape):
    expected = f"expected 2 states of 12 × 7 points (30°), got shape {shape}"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        InitialState(GRID, (FIRST, SECOND), values(*shape))


@pytest.mark.parametrize("times", [(SECOND, FIRST), (FIRST, FIRST)], ids=["descending", "repeated"])
def test_times_that_do_not_ascend_are_refused(times):
    with pytest.raises(ValueError, match=r"^expected ascending times, got \(datetime\.datetime\(2020, 1, "):
        InitialState(GRID, times, values(2, 12, 7, 82))


def test_a_state_cannot_be_exchanged_under_the_forecast():
    state = InitialState(GRID, (SECOND,), values(1, 12, 7, 82))
    with pytest.raises(FrozenInstanceError):
        state.times = (FIRST,)


def a_step():
    grid = LatLonGrid.regular(30.0)
    values = np.random.default_rng(3).normal(size=(2, *grid.shape, len(CHANNELS))).astype(np.float32)
    return ForecastStep(3, 72, (4, 2), values, grid, datetime(2020, 2, 28, 18))


def test_a_step_knows_when_it_is_valid():
    assert a_step().valid_time == datetime(2020, 3, 2, 18)


def test_a_field_of_a_step_goes_from_north_to_south_with_longitudes_last():
    step = a_step()
    z500 = next(index for index, channel in enumerate(CHANNELS) if channel.label == "z500")
    field = step.field("z500")
    assert field.shape == (2, 7, 12)
    assert step.latitude_deg[0] == 90
    np.testing.assert_array_equal(field[1, 0], step.values[1, :, -1, z500])
    np.testing.assert_array_equal(field[0, -1], step.values[0, :, 0, z500])


def test_a_wind_speed_is_made_from_its_components():
    step = a_step()
    np.testing.assert_array_equal(step.field("10ws"), np.hypot(step.field("10u"), step.field("10v")))
    np.testing.assert_array_equal(step.field("ws850"), np.hypot(step.field("u850"), step.field("v850")))


def test_a_name_of_several_levels_is_refused_with_one_that_would_do():
    with pytest.raises(
        OptionError, match=re.escape("field: expected one level, such as z1000, got 'z', which is on several")
    ):
        a_step().field("z")


def test_a_step_whose_values_are_not_on_its_grid_is_refused():
    grid = LatLonGrid.regular(30.0)
    with pytest.raises(ValueError, match="expected states of 1 members"):
        ForecastStep(0, 0, (1,), np.zeros((2, *grid.shape, 82), dtype=np.float32), grid, datetime(2020, 1, 1))
