"""That training meets no kernel without gradients, and the command that tries a recipe on a machine."""

import importlib
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from running import ROOT
from test_training import ALONE, RECIPE, TOY

from ai_models_mosaic.cli import main
from ai_models_mosaic.errors import OptionError
from ai_models_mosaic.model import attention
from ai_models_mosaic.model.flops import step_flops
from ai_models_mosaic.model.launches import counting
from ai_models_mosaic.model.network import MosaicNetwork
from ai_models_mosaic.training import check, trainer
from ai_models_mosaic.training.recipe import recipe_of
from ai_models_mosaic.variants import VARIANTS

sys.path.append(str(ROOT / "benchmarks"))
AsOnGPU = importlib.import_module("counting").AsOnGPU


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(VARIANTS, TOY.name, TOY)


def recipe(**changes):
    return recipe_of({**RECIPE, **changes}, "test")


# Kernels without gradients.


def test_training_computes_attention_by_a_backend_that_has_gradients_everywhere():
    assert set(trainer.BACKENDS.values()) <= set(attention.PORTABLE)


@pytest.mark.parametrize("gradients", [True, False], ids=["an update", "a validation"])
def test_a_network_that_trains_launches_no_kernel_of_our_own_on_a_gpu(gradients):
    made = trainer.make_network(recipe(), np.zeros((*TOY.architecture.grid.shape, 3)), torch.device("cpu"))
    network = made.to("meta")
    shape = (2, TOY.architecture.history, *TOY.architecture.grid.shape, TOY.architecture.channels)
    inputs = [torch.empty(some, device="meta") for some in (shape, (2,), (2, TOY.architecture.noise_width))]
    with torch.set_grad_enabled(gradients), AsOnGPU(None), counting() as launches:
        assert next(network.parameters()).device.type == "cuda"
        out = network(*inputs)
    assert launches == []
    assert out.requires_grad is gradients


def test_of_a_prepared_network_it_is_gradients_that_keep_kernels_away():
    with torch.device("meta"):
        network = MosaicNetwork(TOY.architecture)
        state = torch.empty(2, TOY.architecture.history, *TOY.architecture.grid.shape, TOY.architecture.channels)
        others = torch.empty(2), torch.empty(2, TOY.architecture.noise_width)
    network.prepare()
    with AsOnGPU(None), counting() as launches:
        network(state.requires_grad_(), *others)
        assert launches == []
        with torch.no_grad():
            network(state, *others)
    assert launches != []


def test_a_recipe_cannot_choose_what_only_forecasts_can():
    with pytest.raises(
        OptionError,
        match=r"^test: attention_backend can be chosen for forecasts only: training needs gradients, which the attention "
        r"backend reference and PyTorch's own operators have; leave it out \(compiled = true compiles\)$",
    ):
        recipe(attention_backend="triton")


# The check.


def test_a_recipe_is_tried_with_two_updates():
    found = check.check(recipe(), ALONE)
    assert (found.precision, found.memory_bytes, len(found.losses)) == ("float32", None, 2)
    assert found.gradient_difference == 0
    assert found.seconds > 0
    lines = found.lines()
    assert lines[0].startswith("device: CPU (")
    assert lines[2] == "memory at the peak: not told on a CPU"


def test_operations_of_an_update_are_those_of_three_steps_and_of_four_where_activations_come_again():
    one = step_flops(TOY.architecture).total
    once = recipe(phases=[{"updates": 1, "batch": 3, "learning_rate": 1e-3}], members=2)
    twice = recipe(phases=[{"updates": 1, "batch": 3, "learning_rate": 1e-3, "rollout": 2}], members=2)
    assert check.update_operations(once) == 3 * 3 * 2 * one
    assert check.update_operations(twice) == 4 * 3 * 2 * 2 * one
    assert check.update_operations(replace(twice, recompute=False)) == 3 * 3 * 2 * 2 * one


GOOD = check.Check("a GPU", "float16", 0.5, 1e12, 4e12, 3 * 10**9, (1.0, 0.9), 1e-5)


def test_what_was_found_is_told_in_words():
    assert GOOD.lines() == [
        "device: a GPU, products in float16",
        "an update: 0.500 s, 1 TFLOP, 2 TFLOP/s: 50% of a large product (4 TFLOP/s)",
        "memory at the peak: 3.00 GB",
        "losses: 1.0000, 0.9000",
        "gradients of a small network in float32: 1.0e-05 from those of the CPU, at most 1e-03 expected",
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"losses": (1.0, float("nan"))}, "expected finite losses, got others"),
        ({"gradient_difference": 0.1}, "training goes wrong on this device: its gradients are not those of the CPU"),
        ({"gradient_difference": float("nan")}, "training goes wrong on this device"),
    ],
)
def test_what_goes_wrong_is_an_error_with_all_that_was_found(wrong, message):
    with pytest.raises(OptionError) as caught:
        check._refuse_wrong(replace(GOOD, **wrong))
    assert str(caught.value).startswith(message)
    assert "device: a GPU" in str(caught.value)


def test_a_gradient_that_is_not_there_is_the_largest_difference(monkeypatch):
    gradients = iter([[torch.ones(2), torch.zeros(2)], [torch.ones(2), torch.tensor([0.0, float("nan")])]])
    monkeypatch.setattr(check, "_gradients", lambda device: next(gradients))
    assert np.isnan(check.gradient_difference(torch.device("cpu")))


def test_the_command_tells_it(tmp_path, capsys):
    path = tmp_path / "recipe.toml"
    phase = "\n[[phases]]\n" + "\n".join(f"{key} = {value}" for key, value in RECIPE["phases"][0].items())
    words = [f"{key} = {json.dumps(value)}" for key, value in RECIPE.items() if key != "phases"]
    path.write_text("\n".join(words) + phase)
    main(["train", str(path), "--check"])
    assert capsys.readouterr().out.startswith("device: CPU (")


def test_the_command_needs_a_recipe_and_a_folder_unless_it_only_checks(capsys):
    assert main(["train"]) == OptionError.exit_status
    assert "train: expected RECIPE.toml and --output FOLDER, or --check" in capsys.readouterr().err


def test_an_update_that_is_too_large_for_the_gpu_is_an_error_that_says_what_to_change(monkeypatch, capsys):
    def too_large(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 64.00 MiB. GPU 0 has a total capacity")

    monkeypatch.setattr(check, "check", too_large)
    assert main(["train", "--check"]) == OptionError.exit_status
    said = capsys.readouterr().err
    assert "expected an update that fits into the memory of the GPU, got one that does not; give the recipe" in said
    assert "which share the batch (CUDA out of memory)" in said
