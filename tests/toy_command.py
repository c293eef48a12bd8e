"""The real command with the smallest variant that takes all 82 channels, in a child of this process.

A start of Python and its packages takes seconds and such a run a fraction of one, so that hundreds can be made: of
damaged files (``fuzz.py``), and of runs that are killed (``kills.py``). Nothing here leaves a thread behind it in this
process, which children would miss.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import grib_files
import numpy as np
import torch
import worlds
from ai_models.__main__ import _main
from toy_variant import VARIANT

import ai_models_mosaic.plugin  # noqa: F401 - once, and not in every child
from ai_models_mosaic.channels import CHANNELS
from ai_models_mosaic.checkpoints.format import Statistics, save_checkpoint
from ai_models_mosaic.cli import main
from ai_models_mosaic.engines import Arrival
from ai_models_mosaic.engines.tensor_states import TensorStates
from ai_models_mosaic.model.buffers import make_buffers
from ai_models_mosaic.model.network import MosaicNetwork, initialise

RUN = ("mosaic", "--variant", "toy", "--assets", ".", "--num-threads", "1")
"""The words that all runs begin with; ``toy.safetensors`` and ``in.grib`` are in their folder."""

TRACEBACK = 70
"""Exit status of a child that ended with an exception: none of the package's own, see ``docs/operations.md``."""

CPU_SECONDS, WALL_SECONDS = 20, 240
"""What hangs is ended; a case takes a third of a second."""

SPARE_BYTES = 4 * 2**30
"""Address space of a child beyond that of this process, so that absurd sizes fail at once, and harm nobody."""


def prepare() -> None:
    """Make this process one to have children: without threads, and without the cache of the user."""
    os.environ["AI_MODELS_MOSAIC_CACHE"] = "off"
    torch.set_num_threads(1)


def statistics() -> Statistics:
    """Those of `grib_files.plausible`, roughly."""
    mean = [grib_files.centre(channel.param, channel.level_hpa) for channel in CHANNELS]
    return Statistics(np.array(mean), np.array([grib_files.VARIATION[channel.param] for channel in CHANNELS]))


def static_fields() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(*worlds.GRID.shape, 3)).astype(np.float32)


def weights(*, with_statics: bool = True) -> dict[str, torch.Tensor]:
    """Random weights by key, and all buffers, with or without that of the static fields."""
    network = MosaicNetwork(VARIANT.architecture)
    initialise(network, torch.Generator().manual_seed(0))
    state = {key: value.detach() for key, value in network.named_parameters()}
    # With its geometry, so that no run has to look for neighbours, which takes as long as all the rest.
    names = network.state_dict().keys() - state.keys() - (set() if with_statics else {"static_vars"})
    return state | make_buffers(VARIANT.architecture, names, state, static_fields() if with_statics else None)


def write_inputs(folder: Path) -> None:
    """What the words in `RUN` speak of."""
    messages = grib_files.complete_history(grib_files.YESTERDAY, grib_files.NOW)
    grib_files.write(folder / "in.grib", messages.values())
    save_checkpoint(folder / "toy.safetensors", weights(), statistics(), {"untrained": "true"})


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit status, negative if a signal ended it, and all that it said."""

    status: int
    said: str


class Child:
    """A command in a child that is running.

    Parameters
    ----------
    folder : Path
        Where it runs.
    words : sequence of str
        As typed; ``mosaic`` first for ``ai-models``, else those of ``ai-models-mosaic``.
    before : callable
        Called in the child before the command.
    environment : mapping of str to str
        Added to that of this process.
    """

    def __init__(
        self,
        folder: Path,
        words: Sequence[object],
        before: Callable[[], None] = lambda: None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._said = folder.with_name(f"{folder.name}-{time.monotonic_ns()}.said")
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _be(folder, [str(word) for word in words], self._said, before, environment or {})

    def wait(self) -> Ended:
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        said = self._said.read_text(errors="replace") if self._said.exists() else ""
        self._said.unlink(missing_ok=True)
        return Ended(status, said)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def run(folder: Path, *words: object, before: Callable[[], None] = lambda: None) -> Ended:
    """Run a command to its end."""
    return Child(folder, words, before).wait()


def _be(
    folder: Path, words: list[str], said: Path, before: Callable[[], None], environment: Mapping[str, str]
) -> NoReturn:
    status = TRACEBACK
    try:
        descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        faulthandler.enable()
        _limit()
        os.chdir(folder)
        os.environ |= environment
        before()
        status = _command(words)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    signal.alarm(WALL_SECONDS)


def _command(words: list[str]) -> int:
    if words[0] != "mosaic":
        return main(words)
    sys.argv = ["ai-models", *words]
    try:
        _main(words)
    except SystemExit as error:
        return 0 if error.code is None else error.code if isinstance(error.code, int) else TRACEBACK
    return 0


def at_step(count: int, what: Callable[[], None], dawdle_s: float = 0.0) -> Callable[[], None]:
    """For `before`: do something when the engine is asked for so many steps, and take some time for each."""

    def install() -> None:
        ordinary, calls = TensorStates.advance, 0

        def advance(self: TensorStates, *arguments: object) -> Arrival:
            nonlocal calls
            calls += 1
            time.sleep(dawdle_s)
            if calls == count:
                what()
            return ordinary(self, *arguments)  # type: ignore[arg-type]

        TensorStates.advance = advance  # type: ignore[method-assign, assignment]

    return install


def end_by(number: int) -> Callable[[], None]:
    """Sends a signal to the process itself."""
    return lambda: os.kill(os.getpid(), number)
