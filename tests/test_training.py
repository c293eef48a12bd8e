"""Training as a whole: what is learnt, that it goes on after any death, and that many processes are one."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import worlds
from worlds import GRID, START, TOY

from ai_models_mosaic.checkpoints.format import Statistics, build_network, read_checkpoint
from ai_models_mosaic.engines.torch import TorchEngine
from ai_models_mosaic.errors import InputError, OptionError
from ai_models_mosaic.forecast.rollout import Ensemble, member_noise, rollout
from ai_models_mosaic.model.fused import branch_gates
from ai_models_mosaic.state import InitialState
from ai_models_mosaic.training import statistics as archive_statistics
from ai_models_mosaic.training.archive import Archive, Sample
from ai_models_mosaic.training.processes import Processes
from ai_models_mosaic.training.recipe import Phase, recipe_of
from ai_models_mosaic.training.roll_out import RollOut
from ai_models_mosaic.training.run import TrainingFolders, export, train
from ai_models_mosaic.training.sampling import free_steps_at, sample_at, training_noise
from ai_models_mosaic.training.trainer import Trainer, learning_rate, make_network
from ai_models_mosaic.variants import VARIANTS

TESTS = Path(__file__).parent
ALONE = Processes(0, 1, torch.device("cpu"))
RECIPE = {
    "variant": "toy",
    "training": ["train.zarr"],
    "validation": ["validation.zarr"],
    "spectral_weight": 0.5,
    "spectral_degree": 3,
    "seed": 3,
    "validate_every": 5,
    "validation_starts": 2,
    "validation_members": 2,
    "power_weight": 0.1,
    "noise_rate": 0.5,
    "phases": [
        {"updates": 6, "batch": 2, "learning_rate": 3e-3, "warm_up": 2},
        {"updates": 2, "batch": 2, "learning_rate": 1e-3, "rollout": 2, "free_steps": 2},
    ],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    worlds.write_store(folder / "train.zarr", days=12)
    worlds.write_store(folder / "validation.zarr", days=9, seed=1)
    return folder


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(VARIANTS, TOY.name, TOY)


def recipe(**changes):
    return recipe_of({**RECIPE, **changes}, "test")


def trainer(data, **changes):
    made = recipe(**({"power_weight": 0.0} if changes.get("kind") == "mse" else {}) | changes)
    archive = Archive(str(data / "train.zarr"), GRID)
    statistics = archive_statistics.measure([archive], GRID, 24, made.spectral_degree)
    return Trainer(made, [archive], statistics, ALONE)


def run(data, output, **changes):
    return train(recipe(**changes), TrainingFolders(data, output, 10**9))


def losses(output):
    with (output / "log.csv").open(newline="") as file:
        return [(int(row["number"]), float(row["loss"])) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, TOY.name, TOY)
        run(data, output)
    return output


def test_a_run_leaves_what_it_promises(finished):
    assert {path.name for path in finished.iterdir()} == {
        *("recipe.json", "statistics.npz", "log.csv", "validation.csv", "progress.png", "maps.png"),
        "checkpoint.safetensors",
    }
    assert [number for number, _ in losses(finished)] == list(range(8))


@pytest.mark.parametrize(("kind", "optimiser"), [("crps", "adamw"), ("mse", "adamw"), ("crps", "muon")])
def test_the_loss_falls(data, kind, optimiser):
    """40 updates on a world of one wave."""
    phases = [{"updates": 40, "batch": 2, "learning_rate": 1e-2, "warm_up": 5}]
    made = trainer(data, kind=kind, optimiser=optimiser, phases=phases, power_weight=0.0, noise_rate=1.0)
    found = [update.loss for update in made.updates()]
    assert np.mean(found[-5:]) < 0.6 * np.mean(found[:5])


def test_the_checkpoint_runs_as_it_is(finished, data):
    from ai_models_mosaic.checkpoints.files import Assets
    from ai_models_mosaic.engines.torch import load_engine

    engine = load_engine(
        TOY, Assets(finished / "checkpoint.safetensors", None, None, finished), torch.device("cpu"), "float32"
    )
    assert not engine.untrained
    archive = Archive(str(data / "train.zarr"), GRID)
    times = (START, START + timedelta(days=1))
    initial = InitialState(GRID, times, np.stack([archive.state(time) for time in times]))
    _, step = rollout(engine, {1: initial, 2: initial}, Ensemble(1, (1, 2), 2), 24, 1)
    assert np.isfinite(step.values).all()


def test_the_checkpoint_tells_how_it_was_made(finished, data):
    metadata = read_checkpoint(finished / "checkpoint.safetensors").metadata
    recorded = json.loads(metadata["recipe"])
    assert recipe_of(recorded, "metadata") == recipe()
    assert json.loads(metadata["training_data"]) == {"train.zarr": Archive(str(data / "train.zarr"), GRID).digest}
    assert (metadata["variant"], metadata["updates"], metadata["licence"]) == ("toy", "8", "Apache-2.0")


def test_the_statistics_in_the_checkpoint_are_those_of_the_training_data(finished):
    found = read_checkpoint(finished / "checkpoint.safetensors").statistics
    measured = archive_statistics.load(finished / "statistics.npz")
    np.testing.assert_array_equal(found.mean, measured.state_mean)
    np.testing.assert_array_equal(found.std, measured.state_std)


def toy_process(data, output, changes=None, launcher=()):
    path = output.parent / f"{output.name}.json"
    path.write_text(json.dumps({**RECIPE, **(changes or {})}))
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *launcher, str(TESTS / "train_toy.py"), str(path), str(data), str(output)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(("number", "updates"), [(signal.SIGTERM, 2), (signal.SIGKILL, 5), (signal.SIGKILL, 6)])
def test_a_run_that_was_killed_goes_on_as_if_nothing_had_happened(finished, data, tmp_path, number, updates):
    output = tmp_path / "killed"
    process = toy_process(data, output)
    for line in process.stdout:
        if line.strip() == str(updates):
            process.send_signal(number)
            break
    process.communicate()
    assert not (output / "checkpoint.safetensors").exists()
    if number == signal.SIGTERM:
        assert (output / "state.pt").exists()
    run(data, output)
    assert losses(output) == losses(finished)
    assert (output / "validation.csv").read_text() == (finished / "validation.csv").read_text()
    assert (output / "checkpoint.safetensors").read_bytes() == (finished / "checkpoint.safetensors").read_bytes()


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_state_in_the_middle_is_all_that_a_resumed_run_needs(data, optimiser):
    """Every update from a state saved before it, in a trainer that has made none."""
    whole = trainer(data, optimiser=optimiser)
    states, expected = [], []
    states.append(torch.utils._pytree.tree_map(lambda x: x.clone() if torch.is_tensor(x) else x, whole.state()))
    for update in whole.updates():
        expected.append(update)
        states.append(torch.utils._pytree.tree_map(lambda x: x.clone() if torch.is_tensor(x) else x, whole.state()))
    for index in (1, 5, 7):
        again = trainer(data, optimiser=optimiser)
        again.load_state(states[index])
        assert list(again.updates()) == expected[index:]


def test_two_processes_lose_what_one_loses(finished, data, tmp_path):
    output = tmp_path / "two"
    process = toy_process(
        data, output, launcher=("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    )
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    np.testing.assert_allclose(losses(output), losses(finished), rtol=2e-5)
    ours, theirs = (read_checkpoint(folder / "checkpoint.safetensors").state for folder in (output, finished))
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=2e-3)


def test_training_under_plain_srun_finds_its_rank(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    slurm = {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_PROCID": "1",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_JOB_ID": "7",
    }
    program = (
        "from ai_models_mosaic.training.processes import processes\n"
        "import torch\n"
        "with processes() as among:\n"
        "    print(among.rank, among.count, float(among.mean(torch.tensor(float(among.rank)))))\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={
                **os.environ,
                **slurm,
                "SLURM_PROCID": str(rank),
                "SLURM_LOCALID": str(rank),
                "MASTER_ADDR": "127.0.0.1",
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[0].split() for process in started]
    assert said == [["0", "2", "0.5"], ["1", "2", "0.5"]]


def test_a_batch_that_the_processes_do_not_divide_is_refused():
    with pytest.raises(OptionError, match="expected a batch that 3 processes divide, got 4"):
        Processes(0, 3, torch.device("cpu")).share(4)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_shares_of_all_processes_are_the_batch(count):
    shares = [index for rank in range(count) for index in Processes(rank, count, torch.device("cpu")).share(8)]
    assert shares == list(range(8))


def test_another_recipe_in_the_same_folder_is_refused(finished, data):
    message = "holds a run of another recipe: members 2 there, 3 now; choose another --output"
    with pytest.raises(OptionError, match=re.escape(message)):
        run(data, finished, members=3)


def test_a_run_of_a_version_that_knew_fewer_keys_is_the_same_recipe(finished, data, tmp_path):
    held = json.loads((finished / "recipe.json").read_text())
    del held["recompute_blocks"], held["quiet"], held["noise_rate"]
    (tmp_path / "recipe.json").write_text(json.dumps(held))
    message = "holds a run of another recipe: noise_rate 1.0 there, 0.5 now; choose another --output"
    with pytest.raises(OptionError, match=re.escape(message)):
        run(data, tmp_path)
    (tmp_path / "recipe.json").write_text(json.dumps(held | {"noise_rate": 0.5}))
    assert run(data, tmp_path).exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"phases": [{"updates": 1, "batch": 1, "learning_rate": 1e-3, "rollout": 30}]},
            "expected a time to train on: one with states at -24 h and 30 steps of 24 h after it, in one of ",
        ),
        (
            {"validation": ["short.zarr"]},
            "expected a time to validate with: one with states at -24 h and 5 steps of 24 h after it, in one of ",
        ),
    ],
)
def test_stores_that_nothing_can_start_from_are_refused_at_once(data, tmp_path, changes, message):
    if not (data / "short.zarr").exists():
        worlds.write_store(data / "short.zarr", days=3)
    with pytest.raises(InputError, match=re.escape(message)):
        run(data, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_few_starts_are_validated_with_once_each(data, tmp_path):
    changes = {"phases": [{"updates": 1, "batch": 1, "learning_rate": 1e-3}], "power_weight": 0.0}
    starts = len(Archive(str(data / "validation.zarr"), GRID).starts(TOY.lags_hours, [24 * day for day in range(1, 6)]))
    for number in (starts, 10 * starts):
        run(data, tmp_path / str(number), **changes, validation_starts=number)
    first, second = ((tmp_path / str(number) / "validation.csv").read_bytes() for number in (starts, 10 * starts))
    assert first == second


def test_a_run_does_not_go_on_with_other_data(data, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    worlds.write_store(other / "train.zarr", days=12, seed=5)
    worlds.write_store(other / "validation.zarr", days=9, seed=1)
    made = trainer(data)
    (tmp_path / "out").mkdir()
    torch.save(made.state(), tmp_path / "out" / "state.pt")
    with pytest.raises(OptionError, match="out holds a run on other training data; choose another --output"):
        run(other, tmp_path / "out")


def test_data_that_look_suspicious_are_told(tmp_path, caplog):
    archive = Archive(str(worlds.write_store(tmp_path / "train.zarr", days=9)), GRID)
    archive.warn_of_units()
    assert any(
        re.search(r"train.zarr: 2m_temperature lies within .*, where K was expected; is it degrees Celsius\?$", each)
        for each in caplog.messages
    )
    caplog.clear()
    run(
        tmp_path,
        tmp_path / "out",
        validation=["train.zarr"],
        phases=[{"updates": 1, "batch": 1, "learning_rate": 1e-3}],
    )
    assert "train.zarr: trained on and validated with, so the scores say nothing of other data" in caplog.messages


def test_quiet_blocks_must_be_blocks(data):
    with pytest.raises(
        OptionError, match=r"quiet to be beginnings of names of blocks, in encoder_stages, .*; got encodr"
    ):
        trainer(data, quiet=["encodr", "bottleneck"])


def test_fine_tuning_starts_from_a_checkpoint(finished, data, tmp_path):
    start = finished / "checkpoint.safetensors"
    made = {"updates": 1, "batch": 2, "learning_rate": 1e-9}
    path = train(recipe(start_from=str(start), phases=[made]), TrainingFolders(data, tmp_path, 10**9))
    before, after = read_checkpoint(start).state, read_checkpoint(path).state
    for name in before:
        torch.testing.assert_close(after[name], before[name], rtol=1e-5, atol=1e-7)


def test_fine_tuning_keeps_the_normalisation_that_the_weights_know(finished, data, tmp_path):
    """Whatever it is trained on; only the scales of the scores are those of the new data."""
    worlds.write_store(tmp_path / "other.zarr", days=12, seed=5)
    made = {"updates": 1, "batch": 2, "learning_rate": 1e-9}
    start = finished / "checkpoint.safetensors"
    changes = {"start_from": str(start), "phases": [made], "training": [str(tmp_path / "other.zarr")]}
    before = read_checkpoint(start).statistics
    after = read_checkpoint(run(data, tmp_path / "run", **changes)).statistics
    np.testing.assert_array_equal(after.mean, before.mean)
    np.testing.assert_array_equal(after.std, before.std)
    held = archive_statistics.load(tmp_path / "run" / "statistics.npz")
    measured = archive_statistics.measure([Archive(str(tmp_path / "other.zarr"), GRID)], GRID, 24, 3)
    assert (measured.state_mean != before.mean).all()
    np.testing.assert_array_equal(held.residual_std, measured.residual_std)
    np.testing.assert_allclose(
        held.residual_spectrum * held.state_std, measured.residual_spectrum * measured.state_std, rtol=1e-12
    )


def test_members_from_a_deterministic_start_draw_their_noise_afresh(data):
    """Two members alike in every bit have no gradient that would part them."""
    twin = trainer(data, kind="mse")
    weights = dict(twin.network.named_parameters())
    assert not weights["noise_generator.to_noise.weight"].any()
    made = trainer(data)
    drawn = made.network.noise_generator.to_noise.weight.clone()
    made.load_weights(weights)
    assert torch.equal(made.network.noise_generator.to_noise.weight, drawn)
    assert torch.equal(made.averaged["noise_generator.to_noise.weight"], drawn)
    assert torch.equal(made.network.postprocess[3].weight, twin.network.postprocess[3].weight)
    assert spread(made) > 0.0


# Optimisers


def test_muon_has_the_inner_matrices_and_adamw_the_rest(data):
    made = trainer(data, optimiser="muon")
    names = {weight.data_ptr(): name for name, weight in made.network.named_parameters()}
    muon, adamw = ({names[w.data_ptr()] for g in each.param_groups for w in g["params"]} for each in made.optimisers)
    assert muon | adamw == set(names.values())
    assert not muon & adamw
    inner = {"attention.to_q", "attention.to_o", "ffn.w13", "ffn.w2"}
    assert {f"bottleneck.blocks.0.{name}.weight" for name in inner} <= muon
    outer = {"preprocess.0", "postprocess.3", "noise_generator.to_noise", "interp_to_hp.to_q"}
    outer |= {"bottleneck.blocks.0.ffn.noise_bias", "bottleneck.blocks.0.attention.to_strategy_combine_mlp"}
    assert {f"{name}.weight" for name in outer} <= adamw


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_maps_from_noise_learn_at_a_rate_of_their_own(data, optimiser):
    names = ("bottleneck.blocks.0.ffn.noise_bias.weight", "noise_generator.to_noise.weight", "postprocess.3.weight")
    phases = [{"updates": 2, "batch": 2, "learning_rate": 1e-4}]

    def steps(rate):
        made = trainer(data, optimiser=optimiser, noise_rate=rate, weight_decay=0.0, phases=phases)
        before = [made.network.get_parameter(name).detach().clone() for name in names]
        next(made.updates())
        return [made.network.get_parameter(name).detach() - was for name, was in zip(names, before, strict=True)]

    for fast, slow, rate in zip(steps(7.0), steps(1.0), (7, 7, 1), strict=True):
        assert slow.abs().max() > 0
        torch.testing.assert_close(fast, rate * slow, rtol=1e-2, atol=1e-7)


def test_muon_moves_a_matrix_alike_in_all_its_directions(data):
    """What tells it from AdamW: the singular values of a first step are near one another."""
    made = trainer(data, optimiser="muon", weight_decay=0.0, phases=[{"updates": 2, "batch": 2, "learning_rate": 1e-2}])
    matrix = made.network.bottleneck.blocks[0].ffn.w2.weight
    before = matrix.detach().clone()
    next(made.updates())
    values = torch.linalg.svdvals(matrix.detach() - before)
    assert values.max() < 3 * values.min()


def test_an_unknown_optimiser_is_refused_by_name():
    expected = "recipe: expected optimiser to be one of adamw, muon, got 'sgd'"
    with pytest.raises(OptionError, match=re.escape(expected)):
        recipe(optimiser="sgd")


# Samples and noise


def test_every_epoch_has_every_sample_once_in_an_order_of_its_own():
    samples = [Sample(0, START + timedelta(days=day)) for day in range(20)]
    epochs = [[sample_at(samples, 5, 20 * epoch + index) for index in range(20)] for epoch in range(3)]
    assert all(sorted(epoch, key=lambda sample: sample.time) == samples for epoch in epochs)
    assert len({tuple(sample.time for sample in epoch) for epoch in epochs}) == 3


def test_noise_is_that_of_the_forecasts_counter():
    found = training_noise(3, 10, START, 2, 4, 6)
    for member in (1, 2):
        np.testing.assert_array_equal(found[member - 1], member_noise(13, START, member, 4, 6))


def test_the_free_steps_of_an_update_are_evenly_spread():
    drawn = [free_steps_at(5, update, 3) for update in range(4000)]
    assert drawn == [free_steps_at(5, update, 3) for update in range(4000)]
    np.testing.assert_allclose(np.bincount(drawn), 1000, atol=100)
    assert {free_steps_at(5, update, 0) for update in range(10)} == {0}


def test_what_is_scored_comes_after_the_free_steps(data):
    made = trainer(data, phases=[{"updates": 20, "batch": 1, "learning_rate": 1e-3, "rollout": 2, "free_steps": 3}])
    batches = [made.batch(update) for update in range(20)]
    assert {batch.free for batch in batches} == {0, 1, 2, 3}
    for batch in batches:
        (_, sample) = batch.samples[0]
        coming = [sample.time + timedelta(days=batch.free + ahead) for ahead in (1, 2)]
        expected = [(sample_state(made, time)) for time in coming]
        np.testing.assert_allclose(batch.targets[:, 0].numpy(), expected, atol=1e-4)


def sample_state(made, time):
    statistics = made.statistics
    return (made.archives[0].state(time) - statistics.state_mean) / statistics.state_std


def test_the_batches_of_two_processes_are_those_of_one(data):
    alone = trainer(data)
    halves = [trainer(data) for _ in range(2)]
    for rank, half in enumerate(halves):
        half.among = Processes(rank, 2, torch.device("cpu"))
    for update in (0, 6):
        whole, parts = alone.batch(update), [half.batch(update) for half in halves]
        assert whole.samples == parts[0].samples + parts[1].samples
        torch.testing.assert_close(whole.targets, torch.cat([part.targets for part in parts], dim=1))


def test_a_batch_holds_normalised_history_and_targets(data):
    made = trainer(data, phases=[{"updates": 7, "batch": 2, "learning_rate": 1e-3, "rollout": 2}])
    batch = made.batch(6)
    (_, sample) = batch.samples[0]
    archive, statistics = made.archives[0], made.statistics
    for index, hours in enumerate((-24, 0)):
        expected = (archive.state(sample.time + timedelta(hours=hours)) - statistics.state_mean) / statistics.state_std
        np.testing.assert_allclose(batch.history[0, index].numpy(), expected, atol=1e-4)
    for index, hours in enumerate((24, 48)):
        expected = (archive.state(sample.time + timedelta(hours=hours)) - statistics.state_mean) / statistics.state_std
        np.testing.assert_allclose(batch.targets[index, 0].numpy(), expected, atol=1e-4)


# Parts of an update


@pytest.mark.parametrize(("within", "rate"), [(0, 0.25), (3, 1.0), (4, 1.0), (4 + 48, 0.5), (4 + 95, 0.000268)])
def test_the_learning_rate_warms_up_and_falls_as_a_cosine(within, rate):
    assert learning_rate(Phase(100, 1, 1.0, warm_up=4), within) == pytest.approx(rate, abs=1e-6)


def test_gradients_are_clipped_to_the_recipes_norm(data):
    """The same gradient at any scale makes the same step once both are clipped."""
    made = trainer(data, clip=1e-3)
    update = next(made.updates())
    assert update.gradient_norm > 1e-3
    total = torch.sqrt(
        sum(weight.grad.square().sum() for weight in made.network.parameters() if weight.grad is not None)
    )
    assert total.item() == pytest.approx(1e-3, rel=1e-3)


def test_the_averaged_weights_trail_behind(data):
    made = trainer(data, ema=0.5)
    before = {name: weight.clone() for name, weight in made.averaged.items()}
    next(made.updates())
    decay = min(0.5, 1 / 10)
    for name, weight in made.network.named_parameters():
        torch.testing.assert_close(made.averaged[name], decay * before[name] + (1 - decay) * weight.detach())
    own = {name: weight.detach().clone() for name, weight in made.network.named_parameters()}
    with made.averaged_network() as network:
        for name, weight in network.named_parameters():
            torch.testing.assert_close(weight.detach(), made.averaged[name])
    for name, weight in made.network.named_parameters():
        torch.testing.assert_close(weight.detach(), own[name])


def test_a_roll_out_is_the_network_again_and_again_on_what_it_made(data):
    made = trainer(data)
    generator = torch.Generator().manual_seed(0)
    states, noise = torch.randn(2, 2, *GRID.shape, 82, generator=generator), torch.randn(3, 2, 4, generator=generator)
    progress = torch.rand(3, 2, 2, generator=generator)
    found = RollOut(made.network, torch.float32)(states, progress, noise)
    for step in range(3):
        expected = made.network(states, progress[step], noise[step])
        torch.testing.assert_close(found[step], expected, rtol=1e-5, atol=1e-5)
        states = torch.cat([states[:, 1:], expected[:, None]], dim=1)


def test_gradients_begin_after_the_free_steps(data):
    """They are those of a roll-out that starts from the states that the free steps made."""
    made = trainer(data)
    generator = torch.Generator().manual_seed(0)
    states, noise = torch.randn(1, 2, *GRID.shape, 82, generator=generator), torch.randn(4, 1, 4, generator=generator)
    progress = torch.rand(4, 1, 2, generator=generator)
    weights, roll_out = list(made.network.parameters()), RollOut(made.network, torch.float32)
    whole = roll_out(states, progress, noise)
    later = torch.stack([whole[0], whole[1]], dim=1).detach()
    expected = roll_out(later, progress[2:], noise[2:])
    found = roll_out(states, progress, noise, 2)
    torch.testing.assert_close(found, whole[2:])
    gradients = [torch.autograd.grad(steps.square().sum(), weights) for steps in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_recomputed_activations_give_the_gradients_of_kept_ones(data):
    made = trainer(data)
    generator = torch.Generator().manual_seed(0)
    states, noise = torch.randn(1, 2, *GRID.shape, 82, generator=generator), torch.randn(2, 1, 4, generator=generator)
    progress = torch.rand(2, 1, 2, generator=generator)
    weights = list(made.network.parameters())

    def gradient(recompute):
        roll_out = RollOut(made.network, torch.float32, recompute=recompute)
        return torch.autograd.grad(roll_out(states, progress, noise).square().sum(), weights)

    again = gradient(True)
    for one, other in zip(again, gradient(False), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    first = made.network(states, progress[0], noise[0])
    second = made.network(torch.cat([states[:, 1:], first[:, None]], dim=1), progress[1], noise[1])
    kept = torch.autograd.grad(first.square().sum() + second.square().sum(), weights)
    for one, other in zip(again, kept, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_blocks_that_are_computed_again_give_the_same_gradients_and_keep_less(data):
    kept, again = (trainer(data, recompute_blocks=chosen) for chosen in (False, True))
    again.load_state(kept.state())
    saved = {}
    for made in (kept, again):
        held = {}

        def keep(tensor, held=held):
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            losses = made._losses(made.batch(0))
        losses.sum().backward()
        saved[made] = sum(held.values())
    for (name, one), (_, other) in zip(kept.network.named_parameters(), again.network.named_parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), name
    assert saved[again] < 0.6 * saved[kept]


def test_a_run_that_computes_blocks_again_has_the_same_losses_and_validations(finished, data, tmp_path):
    run(data, tmp_path, recompute_blocks=True)
    for name in ("log.csv", "validation.csv"):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
def test_the_gradient_of_every_backend_is_that_of_the_reference(data, backend):
    made = trainer(data)
    generator = torch.Generator().manual_seed(0)
    states, noise = torch.randn(2, 2, *GRID.shape, 82, generator=generator), torch.randn(2, 4, generator=generator)
    weights = list(made.network.parameters())

    def gradient(name):
        made.network.use_backend(name)
        return torch.autograd.grad(made.network(states, torch.rand(2), noise).square().mean(), weights)

    torch.manual_seed(0)
    expected = gradient("reference")
    torch.manual_seed(0)
    for found, wanted in zip(gradient(backend), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_half_precision_loses_near_what_full_precision_does(data):
    full, half = (next(trainer(data, precision=precision).updates()) for precision in ("float32", "bfloat16"))
    assert half.loss == pytest.approx(full.loss, rel=0.02)
    assert np.isfinite(half.gradient_norm)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:The .grad attribute:UserWarning")
def test_a_compiled_network_loses_what_the_written_one_does(data, network_module, monkeypatch):
    for name in ("MosaicNetwork", "Block", "initialise"):
        monkeypatch.setattr(f"ai_models_mosaic.training.trainer.{name}", getattr(network_module, name))
    written, compiled = (next(trainer(data, compiled=each).updates()) for each in (False, True))
    assert compiled.loss == pytest.approx(written.loss, rel=1e-5)
    assert compiled.gradient_norm == pytest.approx(written.gradient_norm, rel=1e-3)


def test_the_twin_sees_no_noise(data):
    made = trainer(data, kind="mse")
    batch = made.batch(0)
    assert made._noise(batch, 1).count_nonzero() == 0
    assert made._noise(batch, 1).shape == (2, 4)


def test_the_clock_of_every_sample_is_its_own():
    network = make_network(recipe(), np.random.default_rng(0).uniform(size=(*GRID.shape, 3)), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    states, noise = torch.randn(2, 2, *GRID.shape, 82, generator=generator), torch.randn(2, 4, generator=generator)
    progress = torch.tensor([[0.1, 0.2], [0.7, 0.9]])
    together = network(states, progress, noise)
    for index in range(2):
        alone = network(states[index : index + 1], progress[index], noise[index : index + 1])
        torch.testing.assert_close(together[index : index + 1], alone, rtol=1e-5, atol=1e-5)


# Ablations


def spread(made):
    engine = TorchEngine(made.network, Statistics(np.zeros(82), np.ones(82)), torch.device("cpu"))
    history = np.random.default_rng(0).normal(size=(1, 2, *GRID.shape, 82)).astype(np.float32).repeat(2, axis=0)
    noise = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32)
    one, other = engine.step(history, (0.0, 0.0), noise)
    return float(np.abs(one - other).max())


def test_quiet_blocks_stay_quiet_through_training(data):
    made = trainer(data, quiet=["encoder_stages", "bottleneck", "decoder_stages"])
    list(made.updates())
    assert spread(made) == 0.0
    loud = trainer(data, quiet=["encoder_stages", "bottleneck"])
    list(loud.updates())
    assert spread(loud) > 0.0
    silent = [name for name, weight in loud.network.named_parameters() if "noise_bias" in name and not weight.any()]
    assert len(silent) == 2


def test_quiet_blocks_stay_quiet_when_they_start_from_loud_ones(data):
    loud = trainer(data)
    assert loud.network.bottleneck.blocks[0].ffn.noise_bias.weight.any()
    made = trainer(data, quiet=["encoder_stages", "bottleneck", "decoder_stages"])
    made.load_weights(dict(loud.network.named_parameters()))
    assert spread(made) == 0.0
    assert torch.equal(made.network.postprocess[3].weight, loud.network.postprocess[3].weight)


def test_a_closed_branch_has_no_part_in_the_output(data, tmp_path):
    """Neither in training nor in the plugin, whose network hears of it from the checkpoint."""
    made = trainer(data, without_selected=True)
    opened = trainer(data)
    inputs = torch.randn(1, 2, *GRID.shape, 82), torch.zeros(2), torch.zeros(1, 4)
    with torch.no_grad():
        shut, free = made.network(*inputs), opened.network(*inputs)
        assert not torch.equal(shut, free)
        for block in (made.network.encoder_stages[0].blocks[0], made.network.bottleneck.blocks[0]):
            gates = branch_gates(torch.randn(1, 4, 12), without_selected=block.attention.without_selected)
            assert gates[..., 2].max() == 0.0
            torch.testing.assert_close(gates.sum(dim=-1), torch.ones_like(gates[..., 0]))
        path = export(made, tmp_path / "checkpoint.safetensors")
        network = build_network(TOY.architecture, read_checkpoint(path))
        torch.testing.assert_close(network(*inputs), shut)
