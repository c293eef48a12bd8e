import json
import logging
import re
from dataclasses import asdict, replace

import numpy as np
import onnx
import parity
import pytest
import tiny
import torch
from exporting import DATA, MEAN, STATISTICS, STD, exported, tiny_network

from ai_models_mosaic.channels import CHANNELS
from ai_models_mosaic.commands.checks import IDENTITY_MODEL
from ai_models_mosaic.engines import onnx as engines
from ai_models_mosaic.engines.onnx import CPU, OnnxEngine, Provider, choose_provider, load_engine
from ai_models_mosaic.engines.onnx_description import METADATA_KEY, GraphDescription
from ai_models_mosaic.engines.onnx_export import Form, make_card
from ai_models_mosaic.engines.torch import TorchEngine
from ai_models_mosaic.errors import CheckpointError, OptionError
from ai_models_mosaic.variants import MINI

PROGRESS = (0.25, 0.7)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return exported(tmp_path_factory, "tiny")


@pytest.fixture(scope="module")
def engine(path):
    return OnnxEngine(path, threads=1)


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """In float16, for two members at a time."""
    return OnnxEngine(exported(tmp_path_factory, "tiny-half"))


@pytest.fixture(scope="module")
def reference():
    return TorchEngine(tiny_network(), STATISTICS, torch.device("cpu"))


def physical_inputs(members):
    """History in physical units, and ε."""
    generator = np.random.default_rng(5)
    values = MEAN + STD * generator.normal(size=(members, 2, *tiny.ARCHITECTURE.grid.shape, 5))
    return values.astype(np.float32), generator.normal(size=(members, 6)).astype(np.float32)


# A step.


@pytest.mark.parametrize("name", ["era5_tiny", "hres_tiny"])
def test_a_graph_gives_the_output_of_the_released_model(tmp_path_factory, name):
    # The graph takes as many members as the file has.
    runs = OnnxEngine(exported(tmp_path_factory, name))
    case = parity.load(DATA / f"{name}.npz")[1]
    history = case["state"].expand(len(case["noise"]), -1, -1, -1, -1).numpy()
    found = runs.step(history, tuple(case["day_year"].tolist()), case["noise"].numpy())
    assert np.abs(found - case["output"].numpy()).max() <= 1e-5


@pytest.mark.parametrize("members", [1, 2, 3])
def test_a_step_is_that_of_the_torch_engine_for_any_number_of_members(engine, reference, members):
    history, noise = physical_inputs(members)
    found = engine.step(history, PROGRESS, noise)
    assert found.dtype == np.float32
    assert found.shape == (members, *tiny.ARCHITECTURE.grid.shape, 5)
    # To the rounding of physical units in float32.
    assert np.abs((found - reference.step(history, PROGRESS, noise)) / STD).max() <= 1e-4


def test_five_steps_stay_with_the_torch_engine(engine, reference):
    history, noise = physical_inputs(1)
    ours = theirs = history
    for step in range(5):
        progress = (PROGRESS[0] + step, PROGRESS[1])
        ours, theirs = (
            np.concatenate([states[:, 1:], runs.step(states, progress, noise)[:, None]], axis=1)
            for runs, states in ((engine, ours), (reference, theirs))
        )
    assert np.abs((ours - theirs) / STD).max() <= 5e-4
    assert np.abs((theirs[:, -1] - theirs[:, 0]) / STD).max() > 1e-2


@pytest.mark.parametrize("threads", [1, 2])
def test_on_the_cpu_a_member_is_the_same_to_the_byte_in_any_batch_and_place(path, threads):
    engine = OnnxEngine(path, Provider(CPU), threads=threads)
    history, noise = physical_inputs(3)
    together = engine.step(history, PROGRESS, noise)
    for member in range(3):
        alone = engine.step(history[member : member + 1], PROGRESS, noise[member : member + 1])
        np.testing.assert_array_equal(alone[0], together[member])
    turned = engine.step(history[::-1], PROGRESS, noise[::-1])
    np.testing.assert_array_equal(turned[::-1], together)
    assert np.abs((together[0] - together[1]) / STD).max() > 0.1


def test_members_that_fill_up_a_fixed_batch_do_not_touch_the_others(half):
    history, noise = physical_inputs(3)
    together = half.step(history, PROGRESS, noise)
    for member in range(3):
        alone = half.step(history[member : member + 1], PROGRESS, noise[member : member + 1])
        np.testing.assert_array_equal(alone[0], together[member])


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


def test_states_that_do_not_lie_in_a_row_are_taken_as_they_are_meant(engine):
    history, noise = physical_inputs(1)
    turned = np.ascontiguousarray(history.transpose(0, 1, 3, 2, 4)).transpose(0, 1, 3, 2, 4)
    assert not turned.flags.c_contiguous
    np.testing.assert_array_equal(engine.step(turned, PROGRESS, noise), engine.step(history, PROGRESS, noise))


@pytest.mark.parametrize("argument", ["history", "progress", "noise"])
def test_every_argument_counts(engine, argument):
    history, noise = physical_inputs(1)
    changed = {"history": history, "progress": PROGRESS, "noise": noise}
    other = {"history": history[:, ::-1].copy(), "progress": PROGRESS[::-1], "noise": -100 * noise}[argument]
    difference = engine.step(**changed) - engine.step(**{**changed, argument: other})
    assert np.abs(difference / STD).max() > 1e-3


@pytest.mark.parametrize("members", [1, 2, 3])
def test_half_precision_and_a_fixed_batch_give_every_member_within_half_precision(half, reference, members):
    history, noise = physical_inputs(members)
    found = half.step(history, PROGRESS, noise)
    assert found.dtype == np.float32
    assert found.shape == (members, *tiny.ARCHITECTURE.grid.shape, 5)
    deviation = np.abs(found - reference.step(history, PROGRESS, noise)) / STD
    assert 1e-4 < deviation.max() < 0.05


# What it says of itself.


def test_an_engine_describes_what_its_session_runs_on(engine, half, path):
    import onnxruntime

    version = onnxruntime.__version__
    assert engine.description == f"CPUExecutionProvider (1 threads), float32, ONNX Runtime {version}"
    assert half.description == f"CPUExecutionProvider, float16, ONNX Runtime {version}"
    assert (engine.noise_width, engine.precision, engine.untrained) == (6, "float32", False)
    assert engine.checkpoint == path
    assert engine.providers == ("CPUExecutionProvider",)
    assert engine.origin["exported_from_sha256"] == "0" * 64
    assert engine.origin["providers"] == ["CPUExecutionProvider"]


def test_memory_is_that_of_the_file_and_grows_by_the_member_unless_the_batch_is_fixed(engine, half, path):
    assert engine.memory_bytes(0) == path.stat().st_size
    assert engine.memory_bytes(3) - engine.memory_bytes(2) == 14 * 192 * 32 * 4
    assert half.memory_bytes(1) == half.memory_bytes(24) == half.checkpoint.stat().st_size + 2 * 14 * 192 * 32 * 4


# What is refused.


def test_a_graph_of_another_variant_is_refused(path):
    message = (
        f"--onnx-model {path} is of variant tiny, and the forecast of mini; give --variant tiny, or the model of mini"
    )
    with pytest.raises(OptionError, match=f"^{re.escape(message)}$"):
        load_engine(MINI, path)


def test_a_graph_of_another_precision_is_refused(path):
    message = f"--precision float16: {path} was exported in float32; leave the option out, or export again with it"
    with pytest.raises(OptionError, match=f"^{re.escape(message)}$"):
        load_engine(tiny.VARIANT, path, precision="float16")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"channels": ()}, "channels"),
        ({"step_hours": 6, "lags_hours": (-6, 0)}, "step_hours, lags_hours"),
        ({"longitude_deg": (0.0, 90.0, 180.0, 270.0)}, "longitudes"),
        ({"latitude_deg": (-90.0, 0.0, 90.0)}, "latitudes"),
    ],
)
def test_a_graph_of_another_grid_or_other_times_is_refused(tmp_path, change, named):
    card = replace(make_card(MINI, Form(), "0" * 64, untrained=False), **change)
    message = f"expected the {named} of variant mini, got others; export it with this version"
    with pytest.raises(CheckpointError, match=f"{re.escape(message)}$"):
        card.check(tmp_path / "a.onnx", MINI)
    make_card(MINI, Form(), "0" * 64, untrained=False).check(tmp_path / "a.onnx", MINI)


def test_a_card_survives_its_file(tmp_path):
    card = replace(make_card(MINI, Form("float16", 4), "1" * 64, untrained=True), licence="Apache-2.0")
    assert GraphDescription.from_metadata(tmp_path, {METADATA_KEY: json.dumps(asdict(card))}) == card
    assert card.channels == tuple(channel.name for channel in CHANNELS)


@pytest.mark.parametrize(
    ("metadata", "found"),
    [({}, "none"), ({METADATA_KEY: "{}"}, "format None"), ({METADATA_KEY: '{"format": 99}'}, "format 99")],
)
def test_a_graph_that_this_package_did_not_write_is_refused(tmp_path, metadata, found):
    model = onnx.load_from_string(IDENTITY_MODEL)
    onnx.helper.set_model_props(model, metadata)
    path = tmp_path / "other.onnx"
    onnx.save(model, path)
    message = (
        f"{path}: expected a model with metadata of format 1, as ai-models-mosaic export-onnx writes them, got {found}; "
        "export it with this version"
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        load_engine(MINI, path)


def test_a_damaged_file_is_refused_in_one_line(path, tmp_path):
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"^\S+damaged\.onnx cannot be run by ONNX Runtime .*$"):
        load_engine(tiny.VARIANT, damaged)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    path = tmp_path / "absent.onnx"
    message = f"--onnx-model {path}: there is no such file; ai-models-mosaic export-onnx makes one"
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        load_engine(MINI, path)


def test_without_onnx_runtime_the_message_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    message = (
        "--engine onnx needs ONNX Runtime, which is not installed: pip install 'ai-models-mosaic[onnx]' (or "
        "onnxruntime-gpu in place of onnxruntime, for NVIDIA GPUs), or leave it out"
    )
    with pytest.raises(OptionError, match=f"^{re.escape(message)}$"):
        load_engine(MINI, tmp_path / "any.onnx")


# Providers.


def test_a_provider_that_onnx_runtime_was_not_built_with_is_refused():
    with pytest.raises(OptionError, match=r"^--onnx-provider: expected one of .*CPUExecutionProvider.*, got Nonsense$"):
        choose_provider(Provider("Nonsense"), only_gpu=False)


def test_only_gpu_refuses_an_onnx_runtime_without_one():
    # Whatever this machine has: asking for the CPU by name is not asking for a GPU.
    with pytest.raises(OptionError, match=r"^--only-gpu: expected a provider for a GPU, got .*onnxruntime-gpu"):
        choose_provider(Provider(CPU), only_gpu=True)


@pytest.mark.parametrize(
    ("asked", "only_gpu", "option"), [(True, False, "--onnx-provider"), (False, True, "--only-gpu")]
)
def test_a_fall_back_of_onnx_runtime_is_refused_where_a_provider_was_demanded(asked, only_gpu, option):
    message = (
        f"{option}: CUDAExecutionProvider could not be started on this machine, and ONNX Runtime fell back to {CPU}"
    )
    with pytest.raises(OptionError, match=f"^{re.escape(message)}; its own messages say why"):
        engines._check_provider("CUDAExecutionProvider", (CPU,), asked=asked, only_gpu=only_gpu)


def test_a_fall_back_is_never_silent(caplog):
    caplog.set_level(logging.WARNING)
    engines._check_provider("CUDAExecutionProvider", (CPU,), asked=False, only_gpu=False)
    assert [record.getMessage() for record in caplog.records] == [
        f"CUDAExecutionProvider could not be started on this machine, and ONNX Runtime fell back to {CPU}"
    ]
    engines._check_provider(CPU, (CPU,), asked=True, only_gpu=False)
    assert len(caplog.records) == 1


def test_the_engine_names_the_provider_that_it_was_given(path):
    assert OnnxEngine(path, Provider(CPU), threads=1, deterministic=True).providers == (CPU,)
