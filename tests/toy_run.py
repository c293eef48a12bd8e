"""A whole run with a toy for a network: quick, without torch, on a grid of 30°; and ways to let it die.

As a script it is one rank of a run of several; see ``tests/test_ranks.py``.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from grib_writer import GribWriter

from ai_models_mosaic import files
from ai_models_mosaic.engines.states import StepsOnHost
from ai_models_mosaic.errors import ForecastError, MosaicError
from ai_models_mosaic.forecast.health.options import HealthOptions
from ai_models_mosaic.forecast.health.recorder import Recorder
from ai_models_mosaic.forecast.progress import Watch
from ai_models_mosaic.forecast.ranks import SingleRank, connected, find_launch
from ai_models_mosaic.forecast.resume import ResumeRecord, open_resume_state, state_folder
from ai_models_mosaic.forecast.rollout import Ensemble
from ai_models_mosaic.forecast.run import EnsembleJob, EnsembleRun, NoWriter
from ai_models_mosaic.geometry.grid import LatLonGrid
from ai_models_mosaic.outputs.grib.output import GribEncoder, Labels
from ai_models_mosaic.state import InitialState

FIELDS = 6
"""Of a state, so that a run takes a moment: the first of the channels."""

GRID = LatLonGrid.regular(30.0)
START = datetime(2020, 2, 29, 18)


class ToyEngine(StepsOnHost):
    """A state is the mean of its history plus its noise: members drift apart, and every bit counts."""

    noise_width = 4
    description = "toy"

    def step(self, history, progress, noise):
        drift = np.tile(noise, (1, 2))[:, :FIELDS]
        # The points differ, so that no field is ever constant.
        places = np.sin(np.arange(GRID.size, dtype=np.float32)).reshape(*GRID.shape, 1)
        return (0.7 * history[:, -1] + 0.3 * history[:, 0] + drift[:, None, None, :] * places).astype(np.float32)

    def memory_bytes(self, members):
        return members


class DyingEngine(ToyEngine):
    """Ends its process, or fails, or dawdles, when it has made so many steps."""

    def __init__(self, calls: int, how: str) -> None:
        self.calls, self.how = calls, how

    def step(self, history, progress, noise):
        self.calls -= 1
        if self.calls == 0 and self.how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.calls == 0 and self.how == "fail":
            raise ForecastError("the toy broke")
        if self.calls == 0 and self.how == "stop":
            os.kill(os.getpid(), signal.SIGTERM)
        if self.how == "dawdle":
            time.sleep(0.05)
        return super().step(history, progress, noise)


def initial_state(number: int = 0) -> InitialState:
    values = np.random.default_rng(number).normal(size=(2, *GRID.shape, FIELDS)).astype(np.float32)
    return InitialState(GRID, (START - timedelta(hours=24), START), values, f"digest {number}", number)


def job(members: int = 3, steps: int = 2, per_batch: int = 1) -> EnsembleJob:
    ensemble = Ensemble(5, tuple(range(1, members + 1)), per_batch)
    return EnsembleJob(dict.fromkeys(ensemble.members, initial_state()), ensemble, 24, steps)


def toy_run(
    path: str,
    made: EnsembleJob | None = None,
    *,
    resume: bool = False,
    engine: ToyEngine | None = None,
    ranks: Any = None,
    watch: Watch | None = None,
    identity: dict[str, Any] | None = None,
    interval_s: float = 0.0,
    encoder: GribEncoder | None = None,
    recorder: Recorder | None = None,
) -> None:
    """As `session` does it: output, resume state, run, and nothing left of the resume state."""
    made, ranks, watch, engine = made or job(), ranks or SingleRank(), watch or Watch(), engine or ToyEngine()
    if ranks.rank > 0:
        EnsembleRun(made, engine, ranks, NoWriter(), None, watch, recorder)()
        return
    fresh = ResumeRecord({"seed": 5} if identity is None else identity, {"engine": "toy"})
    with (
        nullcontext(encoder)
        if encoder
        else GribEncoder(GRID, Labels(START, len(made.ensemble.members), {}), range(FIELDS)) as made_of,
        open_resume_state(
            state_folder(path, START), fresh, 2, len(made.batches), resume=resume, interval_s=interval_s
        ) as resume_state,
    ):
        output = GribWriter(path, made_of)
        output.resume(resume_state.record.positions or {}, finished=resume_state.record.finished)
        EnsembleRun(made, engine, ranks, output, resume_state, watch, recorder)()
        resume_state.remove()


class Fault:
    """Counts all that a process does to files, and kills it at one of these, inside it if it is a write."""

    def __init__(self, at: int | None) -> None:
        self.count, self._at = 0, at

    def passes(self) -> bool:
        self.count += 1
        return self.count != self._at

    def install(self) -> None:
        """Put itself between Python and the system, for the rest of this process."""
        fault = self

        class File(io.FileIO):
            def write(self, data: Any) -> int:
                if not fault.passes():
                    super().write(memoryview(data)[: len(data) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().write(data)

        files.FileIO = File  # type: ignore[misc]
        for owner, name in (
            *((os, "fsync"), (os, "truncate"), (os, "mkdir"), (os, "rmdir")),
            *((Path, "replace"), (Path, "unlink")),
        ):
            setattr(owner, name, self._deadly(getattr(owner, name)))

    def _deadly(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **more: Any) -> Any:
            if not self.passes():
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **more)

        return called


def fork(what: Callable[[], None]) -> int:
    """Do something in a child; returns its exit status, negative if a signal ended it."""
    child = os.fork()
    if child == 0:
        try:
            what()
        except MosaicError as error:
            print(error, file=sys.stderr)
            os._exit(error.exit_status)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(words: list[str] | None = None) -> int:
    """One rank, as torchrun or SLURM started it."""
    made = argparse.ArgumentParser()
    made.add_argument("path")
    made.add_argument("--members", type=int, default=5)
    made.add_argument("--steps", type=int, default=2)
    made.add_argument("--per-batch", type=int, default=1)
    made.add_argument("--resume", action="store_true")
    made.add_argument("--rank", type=int, default=-1, help="that meets its fate")
    made.add_argument("--calls", type=int, default=0)
    made.add_argument("--how", default="")
    made.add_argument("--health", type=Path)
    known = made.parse_args(words)
    launch = find_launch()
    engine = DyingEngine(known.calls, known.how) if known.rank == launch.rank else ToyEngine()
    watch = Watch()
    try:
        with connected(launch) as ranks, watch.listening():
            what = job(known.members, known.steps, known.per_batch)
            if known.how == "fault" and known.rank == launch.rank:
                engine = ToyEngine()
                Fault(known.calls).install()
            health = known.health and Recorder(HealthOptions(known.health), "toy", resume=known.resume)
            toy_run(known.path, what, resume=known.resume, engine=engine, ranks=ranks, watch=watch, recorder=health)
    except MosaicError as error:
        print(f"rank {launch.rank}: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def several(size: int, words: list[str]) -> list[int]:
    """So many ranks as children of this process; returns their exit statuses."""
    import torch.distributed  # noqa: F401 - once, and not in every child

    children = []
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    for rank in range(size):
        child = os.fork()
        if child == 0:
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            status = 1
            try:
                status = main(words)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stderr.flush()
                os._exit(status)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


if __name__ == "__main__":
    if sys.argv[1] == "--several":
        print(several(int(sys.argv[2]), sys.argv[3:]))
    else:
        sys.exit(main())
