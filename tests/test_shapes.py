"""Shapes in signatures are checked in the tests, and nowhere else."""

import importlib
import inspect
import subprocess
import sys
from datetime import datetime
from pkgutil import walk_packages
from typing import get_type_hints

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

import ai_models_mosaic.model
from ai_models_mosaic.engines.states import HostStates
from ai_models_mosaic.geometry.grid import LatLonGrid
from ai_models_mosaic.model.attention import BlockLayout, block_means, block_sparse_attention
from ai_models_mosaic.model.buffers import standardise
from ai_models_mosaic.model.layers import RMSNorm
from ai_models_mosaic.model.slices import by_row
from ai_models_mosaic.state import ForecastStep

GRID = LatLonGrid.regular(30.0)
NAMES = [module.name for module in walk_packages(ai_models_mosaic.model.__path__, "ai_models_mosaic.model.")]
CHECKED = [name for name in NAMES if not name.endswith("kernel")] + [
    "ai_models_mosaic.engines.states",
    "ai_models_mosaic.state",
]


def refused(parameter):
    return pytest.raises(TypeCheckError, match=f"typechecking parameter '{parameter}'")


def test_a_tensor_of_other_dimensions_is_refused():
    with refused("tensor"):
        block_means(torch.zeros(2, 3, 8), 4)


def test_an_array_of_another_type_is_refused():
    with refused("columns"):
        standardise(np.zeros((3, 2), dtype=np.int64))
    with refused("x"):
        RMSNorm()(torch.zeros(3, 2, dtype=torch.int64))


def test_dimensions_of_one_name_must_be_equal():
    queries, keys = torch.zeros(2, 4, 16, 8), torch.zeros(2, 2, 8, 8)
    with refused("key"):
        block_sparse_attention(queries, keys, keys, torch.zeros(2, 4, 16, 3), BlockLayout(8, 4, 2))


def test_a_result_of_another_shape_is_refused():
    with pytest.raises(TypeCheckError, match=r"checking the return value of .*\.by_row"):
        by_row(lambda rows: rows[:, 0], torch.zeros(2, 3, 4))


def test_states_that_a_step_makes_in_another_shape_are_refused():
    states = HostStates(lambda *_: np.zeros((1, 12, 7), np.float32), {1: np.zeros((2, *GRID.shape, 3), np.float32)})
    with refused("values"):
        states.advance([1], (0.0, 0.0), np.zeros((1, 4), np.float32))


def test_a_step_in_double_precision_is_refused():
    with refused("values"):
        ForecastStep(0, 0, (1,), np.zeros((1, *GRID.shape, 82)), GRID, datetime(2020, 1, 1))


def functions(module):
    """Every function that a module defines, those of its classes included."""
    for owner in (module, *(each for _, each in inspect.getmembers(module, inspect.isclass))):
        for function in vars(owner).values():
            if inspect.isfunction(function) and function.__module__ == module.__name__:
                yield inspect.unwrap(function)


@pytest.mark.parametrize("name", CHECKED)
def test_every_signature_can_be_read(name):
    # Of one that cannot, nothing is checked, without a word.
    module = importlib.import_module(name)
    for function in functions(module):
        get_type_hints(function, vars(module))


def test_outside_of_the_tests_nothing_is_checked_and_nothing_imported():
    program = (
        "import sys, torch\n"
        "from ai_models_mosaic.model.layers import RMSNorm\n"
        "assert RMSNorm()(torch.ones(3, 2, dtype=torch.int64)).shape == (3, 2)\n"
        "assert not {'jaxtyping', 'beartype'} & sys.modules.keys()\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
