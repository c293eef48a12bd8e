import os
import re
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

from ai_models_mosaic.checkpoints.files import Assets, DataFile, check_assets, locate
from ai_models_mosaic.checkpoints.format import Statistics, build_network, read_checkpoint, save_checkpoint
from ai_models_mosaic.checkpoints.integrity import sha256, write_record
from ai_models_mosaic.engines.torch import CPU_FACTOR, TorchEngine, choose_device, load_engine
from ai_models_mosaic.errors import CheckpointError, OptionError
from ai_models_mosaic.model.attention import choice as attention_choice
from ai_models_mosaic.model.fused import KERNELS
from ai_models_mosaic.variants import MINI

CPU = torch.device("cpu")
MEAN, STD = np.array([280.0, 1e5, 5.5e4, -3.0, 0.002]), np.array([20.0, 1e3, 3e3, 10.0, 1e-3])
STATISTICS = Statistics(MEAN, STD)
PROGRESS = (0.25, 0.7)


def made_network():
    return build_network(tiny.ARCHITECTURE, tiny.checkpoint_of(tiny.parameters()), tiny.STATICS)


def made_engine():
    return TorchEngine(made_network(), STATISTICS, CPU)


@pytest.fixture(scope="module")
def network():
    return made_network()


@pytest.fixture(scope="module")
def engine(network):
    return TorchEngine(network, STATISTICS, CPU)


def physical_inputs(members):
    """History in physical units, and ε."""
    generator = np.random.default_rng(5)
    values = MEAN + STD * generator.normal(size=(members, 2, *tiny.ARCHITECTURE.grid.shape, 5))
    return values.astype(np.float32), generator.normal(size=(members, 6)).astype(np.float32)


# A step.


def test_a_step_normalises_predicts_and_turns_back_to_physical_units(engine, network):
    history, noise = physical_inputs(2)
    normalised = torch.from_numpy((history.astype(np.float64) - MEAN) / STD).float()
    with torch.no_grad():
        predicted = network(normalised, torch.tensor(PROGRESS), torch.from_numpy(noise)).double().numpy()
    found = engine.step(history, PROGRESS, noise)
    assert found.dtype == np.float32
    assert found.shape == (2, *tiny.ARCHITECTURE.grid.shape, 5)
    assert predicted.std() > 0.05
    # To the rounding of physical units in float32.
    np.testing.assert_allclose((found - MEAN) / STD, predicted, rtol=0, atol=5e-5)


def test_members_in_a_batch_equal_members_alone(engine):
    history, noise = physical_inputs(3)
    together = engine.step(history, PROGRESS, noise)
    for member in range(3):
        alone = engine.step(history[member : member + 1], PROGRESS, noise[member : member + 1])
        np.testing.assert_allclose(((alone[0] - together[member]) / STD), 0, rtol=0, atol=5e-5)
    assert np.abs((together[0] - together[1]) / STD).max() > 0.1


def test_a_step_leaves_its_inputs_and_no_trace_behind(engine):
    history, noise = physical_inputs(1)
    kept = history.copy(), noise.copy()
    first = engine.step(history, PROGRESS, noise)
    before = first.copy()
    engine.step(history + 1, (0.5, 0.1), noise - 1)
    np.testing.assert_array_equal(first, before)
    np.testing.assert_array_equal(engine.step(history, PROGRESS, noise), before)
    np.testing.assert_array_equal(history, kept[0])
    np.testing.assert_array_equal(noise, kept[1])
    # What a caller does with the result is the caller's.
    first[...] = 0
    np.testing.assert_array_equal(engine.step(history, PROGRESS, noise), before)
    assert not torch.is_inference_mode_enabled()
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("argument", ["history", "progress", "noise"])
def test_every_argument_counts(engine, argument):
    history, noise = physical_inputs(1)
    changed = {"history": history, "progress": PROGRESS, "noise": noise}
    other = {"history": history[:, ::-1].copy(), "progress": PROGRESS[::-1], "noise": -100 * noise}[argument]
    first = engine.step(**changed)
    second = engine.step(**{**changed, argument: other})
    assert np.abs((first - second) / STD).max() > 1e-3


@pytest.mark.parametrize(
    ("precision", "kind"),
    [("float32", torch.float32), ("float16", torch.float16), ("bfloat16", torch.bfloat16)],
)
def test_products_are_in_the_precision_asked_for_and_results_in_float32(engine, precision, kind):
    history, noise = physical_inputs(1)
    of_products = []
    # Half precision rounds the weights where they are, so no network serves two engines of different ones.
    network = made_network()
    network.downsample_layers[0].proj_x.register_forward_hook(lambda _, __, out: of_products.append(out.dtype))
    found = TorchEngine(network, STATISTICS, CPU, precision).step(history, PROGRESS, noise)
    assert of_products == [kind]
    assert found.dtype == np.float32
    deviation = np.abs(found - engine.step(history, PROGRESS, noise)) / STD
    assert deviation.max() < 0.1
    assert (deviation.max() > 1e-4) == (precision != "float32")


def test_engines_with_other_statistics_do_not_share_them(network, engine):
    history, noise = physical_inputs(1)
    before = engine.step(history, PROGRESS, noise)
    other = TorchEngine(network, Statistics(MEAN + STD, 2 * STD), CPU)
    shifted = MEAN + STD + 2 * (history - MEAN)
    # Of other units, the normalised prediction is the same.
    predicted = (other.step(shifted.astype(np.float32), PROGRESS, noise) - MEAN - STD) / (2 * STD)
    np.testing.assert_allclose(predicted, (before - MEAN) / STD, rtol=0, atol=2e-4)
    np.testing.assert_array_equal(engine.step(history, PROGRESS, noise), before)


# Members that start alike.


@pytest.fixture
def counted():
    """An engine, and how often its network computed what comes before the noise."""
    network, seen = made_network(), []
    network.interp_to_hp.register_forward_hook(lambda _, arguments, __: seen.append(len(arguments[0])))
    return TorchEngine(network, STATISTICS, CPU), seen


def one_by_one(states, members, noise, progress=PROGRESS):
    """A step of members in batches of one."""
    return [states.advance([member], progress, noise[member : member + 1])().values[0] for member in members]


def test_members_of_one_history_share_what_comes_before_the_noise_to_the_bit(counted):
    history, noise = physical_inputs(3)
    shared, seen = counted
    found = one_by_one(shared.begin(dict.fromkeys(range(3), history[0])), range(3), noise)
    assert seen == [1], "computed once for three members"
    for member in range(3):
        alone = made_engine().step(history[:1], PROGRESS, noise[member : member + 1])
        np.testing.assert_array_equal(found[member], alone[0])
    together = shared.begin(dict.fromkeys(range(3), history[0])).advance(range(3), PROGRESS, noise)().values
    np.testing.assert_allclose((together[2] - alone[0]) / STD, 0, rtol=0, atol=5e-5)
    assert not np.array_equal(together[0], together[1])


def test_members_of_one_history_in_a_batch_share_what_comes_before_the_noise(counted):
    history, noise = physical_inputs(3)
    shared, seen = counted
    shared.begin(dict.fromkeys(range(3), history[0])).advance(range(3), PROGRESS, noise)
    assert seen == [1]
    shared.begin({0: history[0], 1: history[0], 2: history[1]}).advance(range(3), PROGRESS, noise)
    assert seen == [1, 3]


def test_nothing_is_shared_at_the_next_step(counted):
    history, noise = physical_inputs(3)
    shared, seen = counted
    states = shared.begin(dict.fromkeys(range(3), history[0]))
    one_by_one(states, range(3), noise)
    later = (PROGRESS[0] + 1, PROGRESS[1])
    found = one_by_one(states, range(3), noise, later)
    assert seen == [1, 1, 1, 1]
    for member in range(3):
        first = made_engine().step(history[:1], PROGRESS, noise[member : member + 1])
        alone = made_engine().step(np.stack([history[:1, 1], first], axis=1), later, noise[member : member + 1])
        np.testing.assert_array_equal(found[member], alone[0])


def test_what_is_shared_is_let_go_when_members_have_parted(counted):
    history, noise = physical_inputs(3)
    states = counted[0].begin(dict.fromkeys(range(3), history[0]))
    one_by_one(states, range(2), noise)
    assert states._start is not None
    one_by_one(states, [2], noise)
    assert states._start is None


# What it says of itself.


def test_an_engine_describes_itself():
    network = made_network()
    made = TorchEngine(network, STATISTICS, CPU, "bfloat16")
    threads = torch.get_num_threads()
    assert made.description == f"CPU ({threads} threads), bfloat16, attention backend sdpa"
    assert made.noise_width == 6
    assert (made.checkpoint, made.untrained) == (None, False)
    network.use_backend("reference")
    assert made.description.endswith(", attention backend reference")
    network.use_passes(KERNELS)
    assert made.description.endswith(", attention backend reference, kernels between the products")


def test_an_engine_runs_with_the_backend_that_was_asked_for_or_else_with_the_best():
    assets = locate(MINI, Path())
    assert load_engine(MINI, assets, CPU, "float32").description.endswith(", attention backend sdpa")
    made = load_engine(MINI, assets, CPU, "float32", "reference")
    assert made.description.endswith(", attention backend reference")


def test_an_unfit_backend_is_refused_before_the_weights_are_read(monkeypatch):
    # Neither compiled nor interpreted, the kernel cannot run on a CPU.
    monkeypatch.setattr(attention_choice, "find_spec", lambda name: None)
    with pytest.raises(
        OptionError,
        match=r"^--attention-backend: attention backend triton: expected the package triton, which PyTorch for CUDA brings; "
        r"found none; give auto or sdpa, or leave the option out$",
    ):
        load_engine(MINI, Assets(Path("absent"), None, None, Path()), CPU, "float32", "triton")


def test_memory_counts_shared_tables_once_and_grows_by_the_member(engine):
    state = engine.network.state_dict()
    tables = [key for key in state if key.endswith("_freqs")]
    # Where the children of a pixel lie is the same on the way down and on the way up.
    others = sum(state[key].nbytes for key in state if key not in (*tables, "upsample_layers.0.rel_pos"))
    # One pair for all blocks of either resolution: 192 pixels · 8 / 2 angles, 48 pixels · 12 / 2.
    assert len(tables) == 4 * 4
    assert engine.memory_bytes(0) == others + 2 * (192 * 4 + 48 * 6) * 4
    per_member = engine.memory_bytes(1) - engine.memory_bytes(0)
    # 13 fields of tensors, and half as much again for what a process takes.
    assert per_member == 19.5 * 192 * 32 * 4
    assert engine.memory_bytes(24) == engine.memory_bytes(0) + 24 * per_member


@pytest.mark.parametrize(
    ("precision", "graphs", "fields"), [("float32", False, 13), ("float16", False, 8.5), ("float16", True, 17)]
)
def test_on_a_gpu_the_whole_batch_is_computed_at_once_and_a_graph_takes_its_memory_again(precision, graphs, fields):
    engine = TorchEngine(made_network(), STATISTICS, CPU, precision)
    engine.device, engine._graphs = torch.device("cuda"), graphs
    assert engine.memory_bytes(8) - engine.memory_bytes(0) == 8 * fields * 192 * 32 * 4


class Live(TorchDispatchMode):
    """Bytes of the tensors that are alive, and the most that ever were, of all that is made under it but `held`."""

    def __init__(self, held):
        super().__init__()
        # A view of a weight is no new memory.
        self.now, self.peak, self._known = 0, 0, {tensor.untyped_storage()._cdata: 0 for tensor in held}

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        made = function(*arguments, **(keywords or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self._known:
                storage = tensor.untyped_storage()
                self._known[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                weakref.finalize(storage, self._forget, storage._cdata)
        self.peak = max(self.peak, self.now)
        return made

    def _forget(self, key):
        self.now -= self._known.pop(key, 0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_estimated_memory_is_what_the_tensors_of_a_step_take(precision):
    # Of the finest stage and the interpolations, as of the full size; their share in the small network is the same.
    engine = load_engine(MINI, locate(MINI, Path("unused")), CPU, precision)
    history = np.zeros((1, 2, *MINI.architecture.grid.shape, 82), dtype=np.float32)
    with Live(engine.network.state_dict().values()) as live:
        engine.step(history, PROGRESS, np.zeros((1, engine.noise_width), dtype=np.float32))
    estimated = (engine.memory_bytes(1) - engine.memory_bytes(0)) / CPU_FACTOR
    assert 1 / 1.5 < live.peak / estimated < 1.5


def test_memory_counts_weights_that_are_parts_of_one_storage(tmp_path):
    # As the flat parameters of some training frameworks are saved.
    parameters = tiny.parameters()
    flat = torch.cat([weight.flatten() for weight in parameters.values()])
    parts = flat.split([weight.numel() for weight in parameters.values()])
    path = tmp_path / "flat.pt"
    torch.save({key: part.view(parameters[key].shape) for key, part in zip(parameters, parts, strict=True)}, path)
    made = TorchEngine(build_network(tiny.ARCHITECTURE, read_checkpoint(path), tiny.STATICS), STATISTICS, CPU)
    assert made.memory_bytes(0) >= flat.nbytes


def test_the_digest_of_the_weights_is_that_of_their_file(assets):
    loaded = load_engine(tiny.VARIANT, assets, CPU, "float32")
    assert loaded.checkpoint_sha256 == sha256(assets.checkpoint)


def test_what_is_read_beside_the_weights_is_known_by_its_digest(assets):
    beside = (("normalisation statistics", assets.statistics), ("static fields", assets.statics))
    found = load_engine(tiny.VARIANT, assets, CPU, "float32").data
    assert found == tuple(DataFile(what, path, sha256(path)) for what, path in beside if path is not None)
    assert found


def test_cuda_graphs_are_refused_on_the_cpu(assets):
    sentence = "--cuda-graphs: expected an NVIDIA GPU, and the forecast runs on the CPU; leave it out"
    with pytest.raises(OptionError, match=f"^{re.escape(sentence)}$"):
        load_engine(tiny.VARIANT, assets, CPU, "float32", graphs=True)


# From files.


@pytest.fixture
def assets(tmp_path):
    """The files of the tiny variant as they would be released."""
    torch.save({"model_state_dict": {f"model.{k}": v for k, v in tiny.parameters().items()}}, tmp_path / "tiny_best.pt")
    np.savez(tmp_path / "norm_stats_tiny.npz", state_mean=MEAN, state_std=STD)
    sides = {"latitude": tiny.ARCHITECTURE.grid.latitude_deg, "longitude": tiny.ARCHITECTURE.grid.longitude_deg}
    np.savez(tmp_path / "static_vars.npz", data=tiny.STATICS, **sides)
    return locate(tiny.VARIANT, tmp_path)


def test_an_engine_of_released_files_gives_the_same_step(engine, assets):
    loaded = load_engine(tiny.VARIANT, assets, CPU, "float32")
    inputs = physical_inputs(1)
    np.testing.assert_array_equal(
        loaded.step(inputs[0], PROGRESS, inputs[1]), engine.step(inputs[0], PROGRESS, inputs[1])
    )
    assert (loaded.checkpoint, loaded.untrained, loaded.precision) == (assets.checkpoint, False, "float32")


def test_an_engine_of_one_self_contained_file_gives_the_same_step(engine, tmp_path):
    path = tmp_path / "own.safetensors"
    state = {**tiny.parameters(), "static_vars": engine.network.static_vars}
    save_checkpoint(path, state, STATISTICS, {"untrained": "true"})
    loaded = load_engine(tiny.VARIANT, Assets(path, None, None, path.parent), CPU, "float32")
    inputs = physical_inputs(1)
    np.testing.assert_array_equal(
        loaded.step(inputs[0], PROGRESS, inputs[1]), engine.step(inputs[0], PROGRESS, inputs[1])
    )
    assert (loaded.checkpoint, loaded.untrained) == (path, True)


def test_files_of_another_variant_are_refused(assets):
    other = replace(tiny.VARIANT, architecture=replace(tiny.ARCHITECTURE, history=4))
    sentence = "wrong shapes: preprocess.0.weight (32, 20) instead of (32, 30). Is it another variant's?"
    with pytest.raises(CheckpointError, match=f"{re.escape(sentence)}$"):
        load_engine(other, assets, CPU, "float32")


@pytest.mark.parametrize("length", [1, 4])
def test_statistics_of_another_number_of_channels_are_refused(assets, tmp_path, length):
    # A single number would fit every channel without a word.
    path = tmp_path / "own.safetensors"
    extra = {"statistics.state_mean": torch.zeros(length), "statistics.state_std": torch.ones(length)}
    save_file({**tiny.parameters(), **extra}, path)
    with pytest.raises(CheckpointError, match="statistics"):
        load_engine(tiny.VARIANT, replace(assets, checkpoint=path), CPU, "float32")


def test_the_bundled_weights_make_a_forecast_step():
    loaded = load_engine(MINI, locate(MINI, Path("unused")), CPU, "float32")
    statistics = read_checkpoint(loaded.checkpoint).statistics
    generator = np.random.default_rng(0)
    history = statistics.mean + statistics.std * generator.normal(size=(1, 2, *MINI.architecture.grid.shape, 82))
    noise = generator.normal(size=(1, loaded.noise_width)).astype(np.float32)
    found = loaded.step(history.astype(np.float32), PROGRESS, noise)
    assert found.shape == (1, 60, 31, 82)
    assert np.isfinite(found).all()
    # Physical units: every channel near its own mean.
    assert (np.abs(found.mean(axis=(0, 1, 2)) - statistics.mean) < 5 * statistics.std).all()


# Devices.


def test_the_cpu_is_chosen_where_there_is_no_gpu_and_a_gpu_where_there_is():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device(only_gpu=False).type == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_only_gpu_is_refused_where_there_is_none():
    message = (
        f"--only-gpu: expected a CUDA GPU, found none that PyTorch {torch.__version__} can use; check nvidia-smi and "
        "that this PyTorch was built for CUDA, or leave the option out to run on the CPU"
    )
    with pytest.raises(OptionError, match=f"^{re.escape(message)}$"):
        choose_device(only_gpu=True)


@pytest.mark.parametrize("ask", [lambda engine: engine.checkpoint_sha256, lambda engine: step_of(engine)])
def test_weights_that_are_not_those_that_were_checked_make_no_step(assets, ask):
    write_record(assets.checkpoint, "0" * 64, "the hub", None, None)
    # By size and time it is the file of the record.
    check_assets(tiny.VARIANT, assets, full=False)
    loaded = load_engine(tiny.VARIANT, assets, CPU, "float32")
    record = assets.checkpoint.with_name(assets.checkpoint.name + ".json")
    message = (
        f"{assets.checkpoint} is not the file that it should be: expected SHA-256 {'0' * 64} (from {record}), got "
        f"{sha256(assets.checkpoint)}; fetch it again (--download-assets), or, if you changed it yourself, correct or "
        f"remove {record}"
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        ask(loaded)


def step_of(engine):
    history, noise = physical_inputs(1)
    return engine.step(history, PROGRESS, noise)


@pytest.mark.parametrize("harm", [lambda path: os.truncate(path, 0), lambda path: path.write_bytes(b"other")])
def test_what_becomes_of_the_files_does_not_touch_the_engine_in_use(engine, assets, harm):
    files = [assets.checkpoint, *(path for path in (assets.statistics, assets.statics) if path is not None)]
    digests = [sha256(path) for path in files]
    loaded = load_engine(tiny.VARIANT, assets, CPU, "float32")
    for path in files:
        harm(path)
    np.testing.assert_array_equal(step_of(loaded), step_of(engine))
    assert [loaded.checkpoint_sha256, *(file.sha256 for file in loaded.data)] == digests
