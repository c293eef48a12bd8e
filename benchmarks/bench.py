"""What the sections of ``gpu.py --quick`` share: the device, a random checkpoint, and the one engine of it."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from census import Rates
from torch import Tensor

from ai_models_mosaic.checkpoints.format import build_network, read_checkpoint
from ai_models_mosaic.checkpoints.random_weights import make_random_checkpoint
from ai_models_mosaic.engines.form import choose_form
from ai_models_mosaic.engines.torch import PRECISIONS, TorchEngine
from ai_models_mosaic.engines.warm_up import WarmUp
from ai_models_mosaic.inputs.grib_messages import find_messages
from ai_models_mosaic.inputs.states import read_initial_state
from ai_models_mosaic.model.attention.choice import AUTO
from ai_models_mosaic.variants import VARIANTS

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "examples" / "mini-input.grib"

RUN_MEMBERS = 24
"""Of the whole run; two on a CPU."""

CLOCK = (0.25, 0.5)
"""Day and year progress of all that is timed."""


class NotThereError(Exception):
    """The device, or this installation, has nothing of the kind."""


@dataclass
class Bench:
    """What sections share.

    Parameters
    ----------
    options : argparse.Namespace
        Of ``gpu.py``.
    folder : Path
        For files; gone afterwards.
    until : float
        When the section has to be over, by `time.monotonic`.
    rates : Rates or None
        As measured, once they are.
    """

    options: argparse.Namespace
    folder: Path
    until: float = 0.0
    rates: Rates | None = None

    @cached_property
    def device(self) -> torch.device:
        """Where it is measured."""
        return torch.device(self.options.device)

    @cached_property
    def on_gpu(self) -> bool:
        """Whether that is one."""
        return self.device.type == "cuda"

    @cached_property
    def precision(self) -> str:
        """Of the products."""
        return str(self.options.precision) if self.on_gpu else "float32"

    @cached_property
    def variant(self) -> Any:
        """What is run."""
        return VARIANTS[self.options.variant]

    @cached_property
    def members(self) -> int:
        """Of the whole run."""
        return RUN_MEMBERS if self.on_gpu else 2

    @cached_property
    def start(self) -> Any:
        """The states that members start from."""
        architecture = self.variant.architecture
        return read_initial_state(find_messages(SAMPLE), architecture.grid, self.variant.lags_hours)

    @cached_property
    def checkpoint(self) -> Path:
        """A file of random weights."""
        path = self.folder / "random.safetensors"
        make_random_checkpoint(self.variant, self.start, path, seed=0)
        return path

    @cached_property
    def kernels(self) -> WarmUp:
        """How the network computes, and all kernels compiled, as a forecast does it beside other work."""
        where = self.variant.architecture, self.device, PRECISIONS[self.precision]
        return WarmUp(*where, partial(choose_form, self.options.backend or AUTO, *where))

    @cached_property
    def engine(self) -> TorchEngine:
        """The one engine of the one network."""
        architecture = self.variant.architecture
        form = self.kernels.form()
        checkpoint = read_checkpoint(self.checkpoint)
        network = build_network(architecture, checkpoint)
        form.use_in(network)
        if checkpoint.statistics is None:
            raise ValueError("expected a random checkpoint with statistics")
        engine = TorchEngine(network, checkpoint.statistics, self.device, self.precision, digest=checkpoint.digest)
        self.kernels.wait()
        return engine

    def left(self) -> float:
        """Seconds."""
        return self.until - time.monotonic()

    def check_time(self) -> None:
        """Raise if there is none left.

        Raises
        ------
        NotThereError
            Where the time is up.
        """
        if self.left() <= 0:
            raise NotThereError("no time was left")

    def need_gpu(self) -> None:
        """Raise on a CPU.

        Raises
        ------
        NotThereError
            Where the device is one.
        """
        if not self.on_gpu:
            raise NotThereError("needs a CUDA GPU")

    def inputs(self, members: int) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised states, progress and noise on the device."""
        architecture = self.variant.architecture
        shape = (members, architecture.history, *architecture.grid.shape, architecture.channels)
        noise = torch.randn(members, architecture.noise_width, device=self.device)
        return torch.randn(shape, device=self.device), torch.tensor(CLOCK, device=self.device), noise

    def timed(self, call: Callable[[], object], repeats: int = 3) -> float:
        """Median seconds of a call, after one that is not counted."""
        self._wait(call)
        taken = []
        for _ in range(repeats):
            start = time.perf_counter()
            self._wait(call)
            taken.append(time.perf_counter() - start)
        return statistics.median(taken)

    def _wait(self, call: Callable[[], object]) -> None:
        call()
        if self.on_gpu:
            torch.cuda.synchronize()
