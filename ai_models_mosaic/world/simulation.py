"""Start the simulator in its own environment and turn what it writes into Zarr stores.

The simulator needs JAX and with it a newer numpy than the ai-models runner accepts, so it runs as
another program (`simulator.py`) in an environment that `make_environment` makes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from ..arrays import Float32Array, FloatArray, TimeArray
from ..channels import PRESSURE_LEVEL_PARAMS, SINGLE_LEVEL_PARAMS, STANDARD_GRAVITY
from ..errors import InputError, OptionError
from ..geometry.grid import LatLonGrid
from ..geometry.regrid import ConservativeRegridder
from .store import WorldStore, variables

SIMULATOR = Path(__file__).with_name("simulator.py")
REQUIREMENTS = ("jcm==3.0.0", "jax==0.10.2", "netCDF4", "scipy")
"""What the environment holds. The results of another release differ."""

INTERVAL_HOURS = 6
POLL_SECONDS = 2.0
TRUNCATION = 31
SPIN_UP_DAYS = 180
BLOCK_DAYS = 30
SOURCE = "simulated with jcm (SPEEDY physics, T{truncation}, 8 layers): not the Earth"
ONE_THREAD = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
}


@dataclass(frozen=True)
class Run:
    """One simulation, from a state of rest of its own.

    Parameters
    ----------
    name : str
        Of its store, without ``.zarr``.
    start : date
        First day that is written.
    days : int
        Days that are written.
    seed : int
        Of the perturbation that the state of rest is given.

    Raises
    ------
    OptionError
        If the days are none.
    """

    name: str
    start: date
    days: int
    seed: int

    def __post_init__(self) -> None:
        if self.days < 1:
            raise OptionError(f"expected at least one day of {self.name}, got {self.days}")

    def times(self) -> TimeArray:
        """Every time that is written, ``(time,)`` datetime64[s]."""
        hours = np.arange(0, self.days * 24, INTERVAL_HOURS)
        times: TimeArray = np.datetime64(self.start.isoformat(), "s") + hours.astype("timedelta64[h]")
        return times


@dataclass(frozen=True)
class Simulator:
    """How to simulate.

    Parameters
    ----------
    python : Path
        The Python of the simulator's environment.
    truncation : int
        Triangular truncation of the spectral core: 21, 31 or 42.
    spin_up_days : int
        Days from rest before the first that is written.
    block_days : int
        Days between two points from which a killed run goes on.
    """

    python: Path
    truncation: int = TRUNCATION
    spin_up_days: int = SPIN_UP_DAYS
    block_days: int = BLOCK_DAYS

    def command(self, run: Run, folder: Path) -> list[str]:
        """The command line of a run that writes its blocks into `folder`."""
        return [
            str(self.python),
            str(SIMULATOR),
            *("--output", str(folder), "--seed", str(run.seed), "--start", run.start.isoformat()),
            *("--days", str(run.days), "--truncation", str(self.truncation)),
            *("--spin-up-days", str(self.spin_up_days), "--block-days", str(self.block_days)),
            *("--interval-hours", str(INTERVAL_HOURS)),
        ]


def make_environment(folder: Path) -> Path:
    """A virtual environment with the simulator; returns its Python.

    Raises
    ------
    InputError
        If pip fails; what it said has been shown.
    """
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    done = subprocess.run([str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=False)
    if done.returncode:
        raise InputError(f"pip could not install {', '.join(REQUIREMENTS)} into {folder}: see its message above")
    return python


def make_world(
    folder: Path,
    runs: Sequence[Run],
    simulator: Simulator,
    grid: LatLonGrid,
    jobs: int,
    advance: Callable[[int], None],
) -> None:
    """Simulate every run that is not there yet; ``NAME.zarr`` appears when it is complete.

    Parameters
    ----------
    folder : Path
        Where the stores go.
    runs : sequence of Run
        With distinct names.
    simulator : Simulator
        How.
    grid : LatLonGrid
        To which fields are regridded; no finer than the simulator's.
    jobs : int
        Simulations at a time, a core and up to 3.5 GB each.
    advance : callable
        Told the number of days that were added.

    Raises
    ------
    InputError
        If a simulation fails, or the grid is finer than the simulator's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(jobs) as pool:
        for future in [pool.submit(_make_run, folder, run, simulator, grid, advance) for run in runs]:
            future.result()


def _make_run(folder: Path, run: Run, simulator: Simulator, grid: LatLonGrid, advance: Callable[[int], None]) -> None:
    path = folder / f"{run.name}.zarr"
    if path.exists():
        advance(run.days)
        return
    blocks = folder / f"{run.name}.blocks"
    blocks.mkdir(exist_ok=True)
    with (
        (blocks / "log").open("ab") as log,
        subprocess.Popen(
            simulator.command(run, blocks),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | ONE_THREAD,
        ) as process,
    ):
        try:
            convert(path, run, simulator, grid, blocks, lambda: process.poll() is None, advance)
            process.wait()
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait()
    if process.returncode or not path.exists():
        said = (blocks / "log").read_text(errors="replace").strip().splitlines()[-3:]
        raise InputError(
            f"the simulation {run.name} failed (exit {process.returncode}): {' / '.join(said)}; "
            f"the same command goes on from its last block; its log is {blocks / 'log'}"
        )
    for left in blocks.iterdir():
        left.unlink()
    blocks.rmdir()


def convert(
    path: Path,
    run: Run,
    simulator: Simulator,
    grid: LatLonGrid,
    blocks: Path,
    running: Callable[[], bool],
    advance: Callable[[int], None],
) -> None:
    """Put blocks into the run's store as they come, until it is complete or the simulator has stopped.

    Parameters
    ----------
    path : Path
        Of the store.
    run, simulator, grid
        As in `make_world`.
    blocks : Path
        Where the simulator writes; blocks that are in the store are removed.
    running : callable
        Whether more blocks may come.
    advance : callable
        Told the number of days that were added.

    Raises
    ------
    InputError
        If the grid is finer than the simulator's, or a block does not fit.
    """
    while not (blocks / "static.npz").exists():
        if not running():
            return
        time.sleep(POLL_SECONDS)
    with np.load(blocks / "static.npz", allow_pickle=False) as static:
        native = dict(static)
    source = LatLonGrid(tuple(native["longitude"].tolist()), tuple(native["latitude"][::-1].tolist()))
    if grid.size > source.size:
        raise InputError(f"the simulator's grid has {source}: expected no finer a grid than that, got {grid}")
    regridder = ConservativeRegridder(source, grid)
    about = {"source": SOURCE.format(truncation=simulator.truncation), "seed": run.seed}
    store = WorldStore(path, grid, run.times(), _static_fields(native, regridder, grid), about)
    advance(store.written * INTERVAL_HOURS // 24)
    while store.written < len(run.times()):
        came = False
        # Whether it still runs is asked first: its last block may come between the two questions.
        more = running()
        for block in sorted(blocks.glob("block-*.npz")):
            before = store.written
            with np.load(block, allow_pickle=False) as arrays:
                store.write(dict(_on_grid(arrays, regridder)), arrays["time"])
            block.unlink()
            advance((store.written - before) * INTERVAL_HOURS // 24)
            came = True
        if not came and not more:
            return
        if not came:
            time.sleep(POLL_SECONDS)
    store.finish()


def _on_grid(block: Mapping[str, FloatArray], regridder: ConservativeRegridder) -> Iterator[tuple[str, Float32Array]]:
    """Every variable of a block, ``(time, [level,] lon, lat)``."""
    params = (*SINGLE_LEVEL_PARAMS, *PRESSURE_LEVEL_PARAMS)
    for variable, param in zip(variables(), params, strict=True):
        fields = block[param]
        regridded = [regridder(_south_to_north(field)) for field in fields.reshape(-1, *fields.shape[-2:])]
        yield variable.name, np.stack(regridded).astype(np.float32).reshape(*fields.shape[:-2], *regridder.target.shape)


def _south_to_north(field: FloatArray) -> FloatArray:
    """``(lat, lon)`` from the north to ``(lon, lat)`` from the south."""
    return field[::-1].T


def _static_fields(
    native: Mapping[str, FloatArray], regridder: ConservativeRegridder, grid: LatLonGrid
) -> dict[str, FloatArray]:
    land = np.clip(regridder(_south_to_north(native["land_sea_mask"])), 0, 1)
    return {
        "geopotential_at_surface": regridder(_south_to_north(native["orography"])) * STANDARD_GRAVITY,
        "land_sea_mask": land,
        "soil_type": np.where(land > 0.5, invented_soil(np.array(grid.latitude_deg)), 0.0),
    }


def invented_soil(latitude_deg: FloatArray) -> FloatArray:
    """A soil type by latitude, for the simulator has none: tropical organic, coarse, medium, medium fine.

    Parameters
    ----------
    latitude_deg : array (lat,)

    Returns
    -------
    array (lat,)
        Codes as in ECMWF's ``slt``: 7 up to 15°, 1 up to 35°, 2 up to 55°, then 3.
    """
    return np.select([abs(latitude_deg) < limit for limit in (15, 35, 55)], [7.0, 1.0, 2.0], 3.0)
