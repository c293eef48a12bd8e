"""A graph of mini in float16, on real states: nothing leaves the range, and the error is that of half precision."""

import importlib
import sys

import earthkit.data
import numpy as np
import onnx
import pytest
import torch
from exporting import exported
from running import ROOT, SAMPLE

from ai_models_mosaic.channels import CHANNELS
from ai_models_mosaic.checkpoints.files import locate
from ai_models_mosaic.engines.onnx import OnnxEngine
from ai_models_mosaic.engines.torch import load_engine
from ai_models_mosaic.inputs.states import read_initial_state
from ai_models_mosaic.variants import MINI

sys.path.append(str(ROOT / "benchmarks"))
half_range = importlib.import_module("half_range")

ASSETS = locate(MINI, ROOT)
STEPS, PROGRESS = 3, (0.25, 0.7)
END_OF_RANGE = 65_504


@pytest.fixture(scope="module")
def states():
    """The bundled sample, real numbers in physical units, as the history of one member."""
    source = earthkit.data.from_source("file", str(SAMPLE))
    return read_initial_state(source, MINI.architecture.grid, MINI.lags_hours).values[None]


def rollout(step, history, noise):
    """Every state that follows, (step, lon, lat, channel)."""
    made = []
    for index in range(STEPS):
        state = step(history, (PROGRESS[0] + index, PROGRESS[1]), noise[index])
        made.append(state[0])
        history = np.concatenate([history[:, 1:], state[:, None]], axis=1)
    return np.stack(made)


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(1).normal(size=(STEPS, 1, MINI.architecture.noise_width)).astype(np.float32)


@pytest.fixture(scope="module")
def reference(states, noise):
    return rollout(load_engine(MINI, ASSETS, torch.device("cpu"), "float32").step, states, noise)


def over_std(found, reference):
    """Root-mean-square difference of every step and channel, over the field's standard deviation over the globe.

    Not the largest of a point: where rounding changes which block is selected, a few points differ a great deal.
    """
    squared = np.square(found - reference, dtype=np.float64).mean(axis=(1, 2))
    return np.sqrt(squared) / reference.std(axis=(1, 2), dtype=np.float64)


def assert_near(found, reference):
    """Nearly all points of every channel, and in the first step every point, are where half precision leaves them."""
    apart = np.abs(found - reference) / reference.std(axis=(1, 2), dtype=np.float64)[:, None, None]
    of_most = np.quantile(apart, 0.99, axis=(1, 2))
    assert of_most[0].max() < 0.05
    assert of_most.max() < 0.2
    assert apart[0].max() < 0.5


def test_every_number_in_float16_is_far_within_its_range_over_several_steps(states, noise, reference):
    with half_range.Range() as seen:
        made = rollout(half_range.half_step(MINI, ASSETS), states, noise)
    assert any("mm" in operator for operator in seen.largest)
    assert 1 < max(seen.largest.values()) < END_OF_RANGE / 4
    assert np.isfinite(made).all()
    assert 1e-4 < over_std(made, reference).max() < 0.1
    assert over_std(made, reference)[0].max() < 0.02
    assert_near(made, reference)


def test_what_leaves_the_range_would_be_seen():
    with half_range.Range() as seen:
        large = torch.full((2, 2), 300.0).half()
        assert max(seen.largest.values()) == 300
        large @ large
    assert max(seen.largest.values()) == np.inf


def test_a_graph_in_float16_follows_float32_over_several_steps_channel_by_channel(
    tmp_path_factory, states, noise, reference
):
    path = exported(tmp_path_factory, "mini-half")
    assert any(table.data_type == onnx.TensorProto.FLOAT16 for table in onnx.load(path).graph.initializer)
    made = rollout(OnnxEngine(path, threads=1).step, states, noise)
    assert np.isfinite(made).all()
    error = over_std(made, reference)
    assert error.shape == (STEPS, len(CHANNELS))
    # A rounding to 11 bits shows in every channel, and stays small in all.
    assert (error.max(axis=0) > 1e-7).all()
    assert error[0].max() < 0.02
    assert error.max() < 0.1
    assert_near(made, reference)
    # Not a bias of all points to one side.
    assert np.abs((made - reference).mean(axis=(1, 2)) / reference.std(axis=(1, 2))).max() < 0.01
