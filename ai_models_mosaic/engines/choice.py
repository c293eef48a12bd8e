"""The one place that chooses an engine, checks what it needs, and loads it."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoints.files import Assets, check_assets, locate
from ..checkpoints.held_file import HeldAhead
from ..errors import OptionError
from ..variants import Variant
from .providers import ANYWHERE, Provider
from .threads import best_threads, cores

if TYPE_CHECKING:
    from . import LoadedEngine

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineChoice:
    """What runs the network, and where.

    Parameters
    ----------
    name : str
        ``torch`` or ``onnx``.
    assets : Path
        Folder of weights and other assets.
    checkpoint : Path or None
        Weights to use instead of the variant's.
    verify_assets : bool
        Hash all assets, not only those that changed.
    precision : str
        ``auto``, ``float32``, ``float16`` or ``bfloat16``.
    attention_backend : str
        What computes attention with PyTorch.
    cuda_graphs, compiled : bool
        Record the step on a GPU and replay it; compile the blocks of the network.
    onnx_model : Path or None
        The graph for ONNX Runtime.
    onnx_provider : Provider
        Where it runs.
    only_gpu : bool
        Raise where there is no GPU.
    threads : int or None
        Of the CPU; None: what is best in a process of our own, else what there are.
    deterministic : bool
        Only algorithms that give the same bits every time.
    local_rank : int
        Of this process on its machine: chooses the GPU.
    files : Assets or None
        Files to use instead of those that `assets` and `checkpoint` lead to.
    device : str or None
        ``cpu``, ``cuda`` or ``cuda:1`` for PyTorch; None: a GPU where there is one.
    own_process : bool
        The process is there for this alone: its threads may be as they are best.
    """

    name: str = "torch"
    assets: Path = Path()
    checkpoint: Path | None = None
    verify_assets: bool = False
    precision: str = "auto"
    attention_backend: str = "auto"
    cuda_graphs: bool = False
    compiled: bool = False
    onnx_model: Path | None = None
    onnx_provider: Provider = ANYWHERE
    only_gpu: bool = False
    threads: int | None = None
    deterministic: bool = False
    local_rank: int = 0
    files: Assets | None = None
    device: str | None = None
    own_process: bool = False


def parse_provider(text: str) -> Provider:
    """A provider of ONNX Runtime and its options, from text such as ``CUDA,device_id=1``.

    Parameters
    ----------
    text : str
        A name, with or without its ending ``ExecutionProvider``, then options.

    Returns
    -------
    Provider

    Raises
    ------
    OptionError
        If it is of another form.
    """
    name, *options = (part.strip() for part in text.split(","))
    pairs = tuple((key, value) for key, found, value in (option.partition("=") for option in options) if key and found)
    if not re.fullmatch(r"\w+", name) or len(pairs) != len(options):
        raise OptionError(
            f"--onnx-provider: expected a name and perhaps options, such as CPU or CUDA,device_id=1, got {text!r}"
        )
    return Provider(name.removesuffix("ExecutionProvider") + "ExecutionProvider", pairs)


def prepare_engine(variant: Variant, choice: EngineChoice) -> Callable[[], LoadedEngine]:
    """Do what may fail before the first field is read; gives what loads the weights after that.

    Parameters
    ----------
    variant : Variant
        What runs.
    choice : EngineChoice
        What runs it.

    Returns
    -------
    callable
        Loads the weights, and gives the engine.

    Raises
    ------
    CheckpointError
        If weights or a graph are not there, or not what they should be.
    OptionError
        If the device cannot be had.
    """
    return _prepare_onnx(variant, choice) if choice.name == "onnx" else _prepare_torch(variant, choice)


def _prepare_onnx(variant: Variant, choice: EngineChoice) -> Callable[[], LoadedEngine]:
    """Open the graph at once: only its session tells what it is, and where it really runs."""
    from .onnx import load_engine

    most, threads = cores(), choice.threads
    if threads is None and choice.own_process and best_threads(variant.architecture, most) != most:
        threads = best_threads(variant.architecture, most)
    engine = load_engine(
        variant,
        choice.onnx_model or Path(),
        provider=choice.onnx_provider,
        only_gpu=choice.only_gpu,
        threads=threads,
        spinning=not choice.own_process,
        deterministic=choice.deterministic,
        precision=choice.precision,
    )
    return lambda: engine


def _prepare_torch(variant: Variant, choice: EngineChoice) -> Callable[[], LoadedEngine]:
    """Check weights and choose a device; what takes long, on a GPU all of it, is done beside what the caller does."""
    assets = choice.files or locate(variant, choice.assets, choice.checkpoint)
    check_assets(variant, assets, full=choice.verify_assets)
    # PyTorch takes seconds to import, in which a disk can be read.
    weights = HeldAhead(assets.checkpoint)
    import torch

    from .form import choose_form
    from .torch import PRECISIONS, choose_device, load_engine
    from .warm_up import Ahead, WarmUp

    device = choose_device(only_gpu=choice.only_gpu, local_rank=choice.local_rank, name=choice.device)
    _refuse_modes(device.type, choice)
    threads = choice.threads
    if threads is None and choice.own_process and device.type == "cpu":
        threads = best_threads(variant.architecture, torch.get_num_threads())
    if threads is not None:
        torch.set_num_threads(threads)
    if choice.deterministic:
        _make_torch_deterministic()

    precision = choice.precision
    if precision == "auto":
        precision = "float16" if device.type == "cuda" else "float32"
    backend, graphs = choice.attention_backend, choice.cuda_graphs
    kernels = None
    if device.type == "cuda":
        where = variant.architecture, device, PRECISIONS[precision]
        kernels = WarmUp(*where, partial(choose_form, backend, *where))
    ahead = Ahead(weights, kernels)

    def load() -> LoadedEngine:
        LOG.info("Loading the weights of %s", assets.checkpoint)
        return load_engine(
            variant, assets, device, precision, backend, graphs=graphs, compiled=choice.compiled, ahead=ahead
        )

    if kernels is None:
        return load
    # A GPU has nothing else to do while fields are read. On a CPU they would only take each other's time.
    return ThreadPoolExecutor(1, thread_name_prefix="engine").submit(load).result


def _refuse_modes(device: str, choice: EngineChoice) -> None:
    """Refuse ways to run that this device, or this installation, does not have."""
    if choice.cuda_graphs and device != "cuda":
        raise OptionError("--cuda-graphs: expected an NVIDIA GPU, and the forecast runs on the CPU; leave it out")
    if choice.compiled and choice.attention_backend == "fa4":
        raise OptionError(
            "--compile: expected a backend that PyTorch's compiler knows, got --attention-backend fa4; leave one out"
        )
    if choice.compiled and device == "cuda" and not (find_spec("triton") and _has_program("CC", "gcc", "clang")):
        raise OptionError(
            "--compile: expected, on a GPU, the package triton, which PyTorch for CUDA brings, and a C compiler, gcc "
            "or what CC names; add what is missing, or take --cuda-graphs, which compiles nothing"
        )
    if choice.compiled and device == "cpu" and not _has_program("CXX", "g++"):
        raise OptionError(
            "--compile: expected, on a CPU, a C++ compiler, g++ or what CXX names; install one, or leave the option out"
        )


def _has_program(variable: str, *names: str) -> bool:
    """Whether there is the program that a variable of the environment names, or else one of some names."""
    asked = os.environ.get(variable)
    return any(shutil.which(name) for name in ([asked] if asked else names))


def _make_torch_deterministic() -> None:
    """As the runner does it for other models."""
    import torch

    LOG.info("Setting deterministic mode for PyTorch")
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True)
    # Nothing is read before it is written, and a pass over all fresh memory would cost much of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
