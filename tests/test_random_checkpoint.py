from datetime import datetime

import numpy as np
import pytest
import tiny
import torch

from ai_models_mosaic.checkpoints.format import build_network, read_checkpoint
from ai_models_mosaic.checkpoints.random_weights import make_random_checkpoint, sample_statistics
from ai_models_mosaic.model.network import MosaicNetwork, initialise
from ai_models_mosaic.state import InitialState

GRID = tiny.ARCHITECTURE.grid
TIMES = (datetime(2020, 1, 1), datetime(2020, 1, 2))


def sample_of(values):
    return InitialState(GRID, TIMES[: len(values)], values.astype(np.float32))


@pytest.fixture
def sample():
    generator = np.random.default_rng(4)
    offset, spread = np.array([280.0, 1e5, 0.0, -3.0, 5e3]), np.array([20.0, 1e3, 1e-3, 10.0, 500.0])
    return sample_of(offset + spread * generator.normal(size=(2, *GRID.shape, 5)))


@pytest.fixture
def made(sample, tmp_path):
    path = tmp_path / "random.safetensors"
    make_random_checkpoint(tiny.VARIANT, sample, path, seed=11)
    return read_checkpoint(path)


def test_the_file_says_that_it_is_untrained_and_how_it_was_made(made):
    assert made.untrained
    assert made.metadata == {"variant": "tiny", "untrained": "true", "seed": "11", "licence": "Apache-2.0"}


def test_the_weights_are_those_that_training_would_start_from(made):
    network = MosaicNetwork(tiny.ARCHITECTURE)
    initialise(network, torch.Generator().manual_seed(11))
    assert all(torch.equal(made.state[name], weight) for name, weight in network.named_parameters())


def test_the_file_is_self_contained_and_carries_only_what_does_not_follow(made):
    names = {name for name, _ in MosaicNetwork(tiny.ARCHITECTURE).named_parameters()}
    assert made.state.keys() - names == {"static_vars", "interp_to_hp.neighbors", "interp_to_ll.neighbors"}
    network = build_network(tiny.ARCHITECTURE, made)
    with torch.no_grad():
        found = network(*tiny.inputs(members=2))
    assert found.isfinite().all()
    assert found.std() > 0.01
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_its_planet_has_no_land(made):
    static = made.state["static_vars"][:, 0]
    assert not static[:, :3].any()
    torch.testing.assert_close(static[:, 3:].std(dim=0), torch.ones(3), rtol=1e-5, atol=0)


def test_a_seed_gives_the_same_weights_again_and_another_seed_others(made, sample, tmp_path):
    states = []
    for number, seed in enumerate((11, 12)):
        torch.manual_seed(number)
        path = tmp_path / f"{number}.safetensors"
        make_random_checkpoint(tiny.VARIANT, sample, path, seed)
        states.append(read_checkpoint(path).state)
    assert all(torch.equal(states[0][key], tensor) for key, tensor in made.state.items())
    assert not torch.equal(states[1]["preprocess.0.weight"], made.state["preprocess.0.weight"])
    assert torch.equal(states[1]["static_vars"], made.state["static_vars"])


def test_statistics_weigh_by_area(made, sample):
    # A row at a pole has half a cell: its area runs to half-way to the next row.
    bounds = np.radians([-90, -75, -45, -15, 15, 45, 75, 90])
    area = np.diff(np.sin(bounds)) / 2
    for channel in range(5):
        total = weight = 0.0
        for state, column, row in np.ndindex(2, 12, 7):
            total += area[row] * float(sample.values[state, column, row, channel])
            weight += area[row]
        mean = total / weight
        squares = sum(
            area[row] * (float(sample.values[state, column, row, channel]) - mean) ** 2
            for state, column, row in np.ndindex(2, 12, 7)
        )
        assert made.statistics.mean[channel] == pytest.approx(mean, rel=1e-12, abs=1e-15)
        assert made.statistics.std[channel] == pytest.approx((squares / weight) ** 0.5, rel=1e-9)


def test_statistics_of_a_field_of_two_halves_are_known():
    # 10 on the northern hemisphere, -10 on the southern, 0 at the equator, whose cells are sin 15° of the area.
    values = np.broadcast_to(np.array([-10, -10, -10, 0, 10, 10, 10])[:, None], (1, 12, 7, 1))
    found = sample_statistics(sample_of(values))
    assert found.mean[0] == pytest.approx(0, abs=1e-12)
    assert found.std[0] == pytest.approx(10 * (1 - np.sin(np.radians(15))) ** 0.5)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 273.15, 101325.0])
def test_a_constant_field_has_deviation_1(value):
    found = sample_statistics(sample_of(np.full((2, 12, 7, 1), value)))
    assert found.mean[0] == pytest.approx(np.float32(value))
    assert found.std.tolist() == [1.0]
