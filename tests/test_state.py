"""What an initial state accepts, and what it says otherwise."""

import re
from dataclasses import FrozenInstanceError
from datetime import datetime

import numpy as np
import pytest

from ai_models_mosaic.grid import LatLonGrid
from ai_models_mosaic.state import InitialState

GRID = LatLonGrid.regular(30)
FIRST, SECOND = datetime(2020, 1, 1), datetime(2020, 1, 2)


def values(*shape):
    return np.zeros(shape, dtype=np.float32)


def test_the_initial_time_is_that_of_the_newest_state():
    state = InitialState(GRID, (FIRST, SECOND), values(2, 12, 7, 82))
    assert state.initial_time == SECOND
    assert state.digest == ""


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
