"""``ai-models-mosaic inspect``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..forecast.console import say
from . import Commands, add_command
from .surroundings import check_surroundings


def add(commands: Commands) -> None:
    """Add the command to the subparsers."""
    inspect = add_command(commands, "inspect", "say what an ensemble in GRIB files holds, and what it lacks")
    inspect.add_argument("files", nargs="+", type=Path, metavar="FILE", help="of the ensemble")
    inspect.set_defaults(command=run)


def run(known: argparse.Namespace) -> None:
    """Look into the files."""
    check_surroundings()
    from .inspection import inspect_ensemble

    say(inspect_ensemble(known.files))
