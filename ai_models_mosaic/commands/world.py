"""``ai-models-mosaic world``."""

from __future__ import annotations

import argparse
import logging
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OptionError
from ..options.moments import moment_of
from ..variants import MINI
from . import Commands, add_command

if TYPE_CHECKING:
    from ..world.simulation import Run

LOG = logging.getLogger(__name__)


def add(commands: Commands) -> None:
    """Add the command to the subparsers."""
    world = add_command(commands, "world", "simulate a miniature world to train and to verify on")
    steps = world.add_subparsers(required=True, metavar="STEP")
    environment = add_command(steps, "environment", "make the virtual environment that the simulator needs")
    environment.add_argument("folder", type=Path, metavar="FOLDER", help="what is made")
    environment.set_defaults(command=make_environment)
    simulate = add_command(steps, "simulate", "simulate runs and write each as Zarr; goes on where it stopped")
    simulate.add_argument("--environment", type=Path, required=True, metavar="FOLDER", help="as made by that command")
    simulate.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="of the stores, NAME.zarr")
    simulate.add_argument(
        "--run",
        action="append",
        required=True,
        metavar="NAME:START:DAYS:SEED",
        help="a simulation of its own, such as train-1:2001-01-01:540:1; may be given several times",
    )
    simulate.add_argument("--spin-up-days", type=int, default=180, metavar="DAYS", help="before START (default: 180)")
    simulate.add_argument(
        "--truncation", type=int, choices=(21, 31, 42), default=31, help="of the dynamics (default: 31)"
    )
    simulate.add_argument("--jobs", type=int, default=1, metavar="N", help="simulations at a time, a core each")
    simulate.set_defaults(command=run)
    sample = add_command(steps, "sample", "write states of a store as GRIB, to start a forecast from")
    sample.add_argument("--store", required=True, metavar="STORE.zarr", help="of a simulation")
    sample.add_argument(
        "--time",
        type=_moment,
        action="append",
        required=True,
        metavar="TIME",
        help="of a state, UTC; again for more",
    )
    sample.add_argument("--output", type=Path, required=True, metavar="FILE", help="GRIB of the states")
    sample.set_defaults(command=write_sample)


def make_environment(known: argparse.Namespace) -> None:
    """Make the simulator's environment."""
    from ..world import simulation

    LOG.info("the simulator can be run by %s", simulation.make_environment(known.folder))


def run(known: argparse.Namespace) -> None:
    """Simulate, with a progress bar in days."""
    from tqdm import tqdm

    from ..world.simulation import Simulator, make_world

    runs = [run_of(text) for text in known.run]
    python = known.environment / "bin" / "python"
    if not python.exists():
        raise OptionError(f"no {python}: make it with ai-models-mosaic world environment {known.environment}")
    simulator = Simulator(python, known.truncation, known.spin_up_days)
    with tqdm(total=sum(each.days for each in runs), unit="day") as bar:
        make_world(known.output, runs, simulator, MINI.architecture.grid, known.jobs, bar.update)


def write_sample(known: argparse.Namespace) -> None:
    """Write states as GRIB."""
    from ..training.archive import Archive
    from ..world import sample

    sample.write_sample(Archive(known.store, MINI.architecture.grid), known.time, known.output)


def _moment(text: str) -> datetime:
    try:
        return moment_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a time such as 2008-02-01T06, got {text}") from error


def run_of(text: str) -> Run:
    """A `simulation.Run` from ``NAME:START:DAYS:SEED``.

    Raises
    ------
    OptionError
        If it is not of that form.
    """
    from ..world.simulation import Run

    try:
        name, start, days, seed = text.split(":")
        return Run(name, date.fromisoformat(start), int(days), int(seed))
    except ValueError as error:
        raise OptionError(
            f"--run: expected NAME:START:DAYS:SEED, such as test:2008-01-01:360:4, got {text!r}"
        ) from error
