"""What a training that goes wrong says, and when it stops."""

import numpy as np
import pytest
import torch
import worlds
from worlds import GRID, TOY

from ai_models_mosaic.errors import ForecastError
from ai_models_mosaic.training import divergence
from ai_models_mosaic.training import statistics as archive_statistics
from ai_models_mosaic.training.archive import Archive
from ai_models_mosaic.training.divergence import WINDOW, Divergence
from ai_models_mosaic.training.processes import Processes
from ai_models_mosaic.training.recipe import Phase, Recipe
from ai_models_mosaic.training.trainer import Trainer
from ai_models_mosaic.variants import VARIANTS


def told(losses, caplog, *phases):
    recipe = Recipe("mini", ("none",), ("none",), phases)
    watch = Divergence(recipe)
    for number, loss in enumerate(losses):
        watch.tell(number, loss)
    return [record.message for record in caplog.records if record.name == divergence.__name__]


def test_a_loss_that_rises_over_hundreds_of_updates_is_told(caplog):
    losses = np.repeat([1.2, 1.0, 1.1, 1.16], WINDOW)
    assert told(losses, caplog, Phase(4 * WINDOW, 8, 4e-3)) == [
        "the mean loss of updates 300 to 399 is 1.16, which was 1 before in this phase: it diverges; a lower "
        "learning_rate (0.004 now) or a shorter phase may help"
    ]


def test_another_phase_has_other_losses(caplog):
    losses = np.repeat([1.0, 1.0, 3.0, 3.0], WINDOW)
    assert told(losses, caplog, Phase(2 * WINDOW, 8, 4e-3), Phase(2 * WINDOW, 8, 4e-3, rollout=10)) == []


def trainer(tmp_path, monkeypatch, **more):
    monkeypatch.setitem(VARIANTS, TOY.name, TOY)
    worlds.write_store(tmp_path / "train.zarr", days=8)
    recipe = Recipe("toy", ("train.zarr",), ("train.zarr",), (Phase(4, 2, 1e-3),), spectral_degree=3, **more)
    archive = Archive(str(tmp_path / "train.zarr"), GRID)
    statistics = archive_statistics.measure([archive], GRID, 24, recipe.spectral_degree)
    return Trainer(recipe, [archive], statistics, Processes(0, 1, torch.device("cpu")))


def test_gradients_that_are_not_finite_end_the_run_before_they_are_in_all_weights(tmp_path, monkeypatch):
    spoilt = trainer(tmp_path, monkeypatch)
    updates = spoilt.updates()
    next(updates)
    with torch.no_grad():
        spoilt.network.get_parameter("noise_generator.to_noise.weight")[0, 0] = torch.inf
    before = {name: weight.clone() for name, weight in spoilt.network.named_parameters()}
    with pytest.raises(ForecastError, match=r"^update 1: expected finite gradients, got a norm of nan \(loss nan\)"):
        next(updates)
    assert all(torch.equal(weight, before[name]) for name, weight in spoilt.network.named_parameters())
