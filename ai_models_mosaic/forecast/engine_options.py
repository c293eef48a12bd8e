"""Options of what computes a step: weights, and the engine that runs them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engines.choice import EngineChoice, parse_provider
from ..engines.providers import ANYWHERE, Provider
from ..errors import OptionError
from ..options.declarations import may_change, option, told_by
from ..variants import AUTO

INPUT, NETWORK = "input and weights", "engine"
"""Headings of the list of options."""


@dataclass(frozen=True)
class EngineOptions:
    """What runs the network.

    Raises
    ------
    OptionError
        If something is for another engine.
    """

    checkpoint: Path | None = option(
        "--checkpoint",
        group=INPUT,
        parse=Path,
        metavar="FILE",
        help="weights to use instead of those in --assets: a released .pt or a .safetensors file",
        resume=told_by("weights", "the same may lie elsewhere"),
    )
    verify_assets: bool = option(
        "--verify-assets",
        group=INPUT,
        default=False,
        help="hash weights and other assets before the run, even where size and time are as they were when checked",
        resume=may_change("digests are compared in any case"),
    )
    engine: str = option(
        "--engine",
        group=NETWORK,
        choices=("torch", "onnx"),
        default="torch",
        help="what runs the network: PyTorch, or ONNX Runtime with the graph of --onnx-model",
    )
    precision: str = option(
        "--precision",
        group=NETWORK,
        choices=("auto", "float32", "float16", "bfloat16"),
        default="auto",
        help="precision of the matrix products; auto is float16 on a GPU and float32 on a CPU",
        resume=told_by("precision", "what it stands for may not change"),
    )
    attention_backend: str = option(
        "--attention-backend",
        group=NETWORK,
        choices=(AUTO, "reference", "sdpa", "tiled", "flex", "triton", "fa4"),
        default=AUTO,
        help="what computes attention for --engine torch; tried against reference before the run. auto is triton on a "
        "GPU in half precision, tiled for the full size in float32 on a CPU and else sdpa; the next best where one "
        "fails",
    )
    cuda_graphs: bool = option(
        "--cuda-graphs",
        group=NETWORK,
        default=False,
        help="on an NVIDIA GPU, record the step once and replay it; goes on without where that fails",
        resume=may_change("the same kernels run"),
    )
    compiled: bool = option(
        "--compile",
        group=NETWORK,
        default=False,
        help="compile the blocks of the network with torch.compile, which takes minutes the first time, and is kept on "
        "disk; members are then equal to rounding only, with any number of them per batch",
    )
    onnx_model: Path | None = option(
        "--onnx-model",
        group=NETWORK,
        parse=Path,
        metavar="FILE",
        help="graph for --engine onnx, with its weights inside, as ai-models-mosaic export-onnx writes it",
        resume=told_by("weights", "the same may lie elsewhere"),
    )
    onnx_provider: Provider = option(
        "--onnx-provider",
        group=NETWORK,
        parse=parse_provider,
        metavar="NAME[,KEY=VALUE...]",
        default=ANYWHERE,
        help="where --engine onnx runs, and options handed on, such as CUDA,device_id=1; what cannot be had is refused",
        shown="a GPU where ONNX Runtime was built for one, else the CPU",
    )

    def __post_init__(self) -> None:
        if self.engine == "onnx":
            self._check_onnx()
        else:
            self._check_torch()

    def engine_choice(self, assets: Path, **machine: Any) -> EngineChoice:
        """What runs the network, and where.

        Parameters
        ----------
        assets : Path
            Folder of weights and other assets.
        **machine : object
            Fields of `EngineChoice` that are no options here.
        """
        return EngineChoice(
            name=self.engine,
            assets=assets,
            checkpoint=self.checkpoint,
            verify_assets=self.verify_assets,
            precision=self.precision,
            attention_backend=self.attention_backend,
            cuda_graphs=self.cuda_graphs,
            compiled=self.compiled,
            onnx_model=self.onnx_model,
            onnx_provider=self.onnx_provider,
            **machine,
        )

    def _check_onnx(self) -> None:
        """Refuse what is for PyTorch alone."""
        if self.onnx_model is None:
            raise OptionError(
                "--engine onnx: expected --onnx-model FILE as well, which ai-models-mosaic export-onnx makes of "
                "a checkpoint"
            )
        if self.checkpoint is not None:
            raise OptionError(
                "--checkpoint: the engine onnx takes its weights from --onnx-model; export that checkpoint, or give "
                "--engine torch"
            )
        for flag, given in (("--cuda-graphs", self.cuda_graphs), ("--compile", self.compiled)):
            if given:
                raise OptionError(f"{flag} is for --engine torch, and the engine is onnx; leave it out")
        if self.attention_backend != AUTO:
            raise OptionError("--attention-backend is for --engine torch, and the engine is onnx; leave one out")

    def _check_torch(self) -> None:
        """Refuse what is for ONNX Runtime alone."""
        given = {"--onnx-model": self.onnx_model is not None, "--onnx-provider": self.onnx_provider != ANYWHERE}
        for flag in (flag for flag, is_given in given.items() if is_given):
            raise OptionError(f"{flag} is for --engine onnx, and the engine is torch; give both")
