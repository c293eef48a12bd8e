"""The one place that chooses an engine, checks what it needs, and loads it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoints.files import Assets, check_assets, locate
from ..variants import Variant
from .onnx import ANYWHERE, Provider
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
    """Check the weights and choose a device."""
    assets = choice.files or locate(variant, choice.assets, choice.checkpoint)
    check_assets(variant, assets, full=choice.verify_assets)
    import torch

    from .torch import choose_device, load_engine

    device = choose_device(only_gpu=choice.only_gpu, local_rank=choice.local_rank, name=choice.device)
    threads = choice.threads
    if threads is None and choice.own_process and device.type == "cpu":
        threads = best_threads(variant.architecture, torch.get_num_threads())
    if threads is not None:
        torch.set_num_threads(threads)
    if choice.deterministic:
        _make_torch_deterministic()

    def load() -> LoadedEngine:
        precision = choice.precision
        if precision == "auto":
            precision = "float16" if device.type == "cuda" else "float32"
        LOG.info("Loading the weights of %s", assets.checkpoint)
        backend, graphs = choice.attention_backend, choice.cuda_graphs
        return load_engine(variant, assets, device, precision, backend, graphs=graphs, compiled=choice.compiled)

    return load


def _make_torch_deterministic() -> None:
    """As the runner does it for other models."""
    import torch

    LOG.info("Setting deterministic mode for PyTorch")
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True)
