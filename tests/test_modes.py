"""Ways to run that a device does not have are refused before anything is read."""

from threading import Event
from types import SimpleNamespace

import pytest
import torch

from ai_models_mosaic.engines import choice as engine_choice
from ai_models_mosaic.engines import torch as torch_engine
from ai_models_mosaic.engines import warm_up
from ai_models_mosaic.engines.choice import EngineChoice, prepare_engine
from ai_models_mosaic.errors import CheckpointError, OptionError
from ai_models_mosaic.variants import MINI

ON_A_GPU = (
    r"^--compile: expected, on a GPU, the package triton, which PyTorch for CUDA brings, and a C compiler, gcc or what "
    r"CC names; add what is missing, or take --cuda-graphs, which compiles nothing$"
)


@pytest.fixture
def weights(monkeypatch):
    """None are looked at."""
    monkeypatch.setattr(engine_choice, "locate", lambda *_: SimpleNamespace(checkpoint=None))
    monkeypatch.setattr(engine_choice, "HeldAhead", lambda _: None)
    monkeypatch.setattr(engine_choice, "check_assets", lambda *_, **__: None)


@pytest.fixture
def gpu(weights, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


@pytest.fixture
def nothing(tmp_path, monkeypatch):
    """No compilers on the path."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def test_cuda_graphs_are_refused_on_a_cpu(weights):
    with pytest.raises(
        OptionError, match=r"^--cuda-graphs: expected an NVIDIA GPU, and the forecast runs on the CPU; leave it out$"
    ):
        prepare_engine(MINI, EngineChoice(cuda_graphs=True, device="cpu"))


def test_compiling_on_a_cpu_needs_a_compiler(weights, nothing, monkeypatch):
    with pytest.raises(
        OptionError,
        match=r"^--compile: expected, on a CPU, a C\+\+ compiler, g\+\+ or what CXX names; install one, or leave the "
        r"option out$",
    ):
        prepare_engine(MINI, EngineChoice(compiled=True, device="cpu"))
    compiler = nothing / "another"
    compiler.touch(mode=0o755)
    monkeypatch.setenv("CXX", str(compiler))
    prepare_engine(MINI, EngineChoice(compiled=True, device="cpu"))


def test_compiling_on_a_gpu_needs_triton_and_a_compiler(gpu, nothing, monkeypatch):
    monkeypatch.setattr(engine_choice, "find_spec", lambda name: name)
    with pytest.raises(OptionError, match=ON_A_GPU):
        prepare_engine(MINI, EngineChoice(compiled=True, device="cuda"))
    (nothing / "gcc").touch(mode=0o755)
    prepare_engine(MINI, EngineChoice(compiled=True, cuda_graphs=True, device="cuda"))
    monkeypatch.setattr(engine_choice, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match=ON_A_GPU):
        prepare_engine(MINI, EngineChoice(compiled=True, device="cuda"))


def test_compiling_does_not_go_with_flash_attention_4(weights):
    with pytest.raises(OptionError, match=r"^--compile: expected a backend that .* got --attention-backend fa4; leave"):
        prepare_engine(MINI, EngineChoice(compiled=True, attention_backend="fa4", device="cpu"))


def test_on_a_gpu_the_engine_is_loaded_before_it_is_asked_for_and_an_error_waits_until_then(gpu, monkeypatch):
    begun, engines = Event(), iter(["the engine", CheckpointError("no such weights")])

    def load(*_, **__):
        begun.set()
        engine = next(engines)
        if isinstance(engine, Exception):
            raise engine
        return engine

    monkeypatch.setattr(torch_engine, "load_engine", load)
    monkeypatch.setattr(warm_up, "WarmUp", lambda *_: "kernels")
    first = prepare_engine(MINI, EngineChoice(device="cuda"))
    assert begun.wait(60)
    assert first() == first() == "the engine"
    second = prepare_engine(MINI, EngineChoice(device="cuda"))
    with pytest.raises(CheckpointError, match=r"^no such weights$"):
        second()


def test_on_a_cpu_the_engine_is_loaded_when_it_is_asked_for(weights, monkeypatch):
    asked = []
    monkeypatch.setattr(torch_engine, "load_engine", lambda *_, **__: asked.append(True))
    load = prepare_engine(MINI, EngineChoice(device="cpu"))
    assert not asked
    load()
    assert asked
