"""Peak memory of whole runs of mini by members and steps: linear in members, flat in steps.

Every run has a process of its own, and writes GRIB and state as a forecast does. With
``--engine persistence`` the network is left out, so that what is seen is the states and the rest.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from ai_models_mosaic.arrays import Float32Array
from ai_models_mosaic.engines import Engine
from ai_models_mosaic.engines.states import StepsOnHost
from ai_models_mosaic.forecast.progress import Watch
from ai_models_mosaic.forecast.ranks import SingleRank
from ai_models_mosaic.forecast.resume import ResumeRecord, open_resume_state, state_folder
from ai_models_mosaic.forecast.rollout import Ensemble
from ai_models_mosaic.forecast.run import EnsembleJob, EnsembleRun
from ai_models_mosaic.outputs.grib.keys import Labels
from ai_models_mosaic.outputs.options import OutputOptions
from ai_models_mosaic.outputs.plan import OutputPlan
from ai_models_mosaic.outputs.writer import Outputs
from ai_models_mosaic.state import InitialState
from ai_models_mosaic.variants import MINI

START = datetime(2020, 1, 1)


class Persistence(StepsOnHost):
    """Leaves the state as it is, but for the noise."""

    noise_width = 1
    description = "persistence"

    def step(self, history: Float32Array, progress: tuple[float, float], noise: Float32Array) -> Float32Array:
        """See `StepsOnHost.step`."""
        return history[:, -1] * (1 + 1e-6 * noise[:, None, None, :])

    def memory_bytes(self, members: int) -> int:
        """See `Engine.memory_bytes`."""
        return 0


def sample() -> tuple[InitialState, Engine]:
    """The bundled sample and network."""
    import earthkit.data
    import torch

    from ai_models_mosaic.checkpoints.files import locate
    from ai_models_mosaic.engines.torch import load_engine
    from ai_models_mosaic.inputs.states import read_initial_state

    file = Path(__file__).parent.parent / "examples" / "mini-input.grib"
    initial = read_initial_state(earthkit.data.from_source("file", str(file)), MINI.architecture.grid, MINI.lags_hours)
    return initial, load_engine(MINI, locate(MINI, Path()), torch.device("cpu"), "float32")


def made_up() -> tuple[InitialState, Engine]:
    """A state of the same size, and no network."""
    shape = (len(MINI.lags_hours), *MINI.architecture.grid.shape, MINI.architecture.channels)
    values = np.random.default_rng(0).normal(1, 0.1, size=shape).astype(np.float32)
    times = tuple(START + timedelta(hours=lag) for lag in MINI.lags_hours)
    return InitialState(MINI.architecture.grid, times, values), Persistence()


def peak_mb(members: int, steps: int, engine: str) -> float:
    """Peak resident memory of this process, MB, after a run."""
    initial, network = sample() if engine == "mini" else made_up()
    ensemble = Ensemble(0, tuple(range(1, members + 1)))
    job = EnsembleJob(dict.fromkeys(ensemble.members, initial), ensemble, MINI.step_hours, steps)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/out.grib"
        place, fresh = state_folder(path, initial.initial_time), ResumeRecord({}, {})
        plan = OutputPlan(path, OutputOptions(), initial.grid, MINI.step_hours, steps, ensemble.members)
        with (
            Outputs(plan, Labels(initial.initial_time, members, {})) as outputs,
            open_resume_state(place, fresh, job.history, members, resume=False) as resume_state,
        ):
            EnsembleRun(job, network, SingleRank(), outputs, resume_state, Watch())()
            resume_state.remove()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--engine", choices=["mini", "persistence"], default="mini")
    made.add_argument("--members", type=int, nargs="+", default=[4, 16, 64])
    made.add_argument("--steps", type=int, nargs="+", default=[2, 20])
    made.add_argument("--one", action="store_true", help="in this process, for the first of each")
    known = made.parse_args()
    if known.one:
        print(peak_mb(known.members[0], known.steps[0], known.engine))
        return
    state = MINI.architecture.grid.size * MINI.architecture.channels * 4 / 1e6
    print(f"{known.engine}; a member's history is {len(MINI.lags_hours)} × {state:.2f} MB")
    for members in known.members:
        for steps in known.steps:
            command = [sys.executable, __file__, "--one", "--engine", known.engine]
            command += ["--members", str(members), "--steps", str(steps)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
            print(f"{members} members × {steps} steps: peak {float(done.stdout):.0f} MB", flush=True)


if __name__ == "__main__":
    main()
