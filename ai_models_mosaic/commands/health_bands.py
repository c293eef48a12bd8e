"""``ai-models-mosaic health-bands``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..forecast.console import say
from ..wording.numbers import counted
from . import Commands, add_command


def add(commands: Commands) -> None:
    """Add the command to the subparsers."""
    bands = add_command(commands, "health-bands", "make bands of --health from records of runs that went well")
    bands.add_argument("records", type=Path, nargs="+", metavar="RECORD", help="what --health has written")
    bands.add_argument("--output", type=Path, required=True, metavar="FILE", help="of the bands, for --health-bands")
    bands.add_argument("--with-alarms", action="store_true", help="take runs, too, some of whose members had alarms")
    bands.set_defaults(command=run)


def run(known: argparse.Namespace) -> None:
    """Make the bands, and say of how many runs."""
    from ..forecast.health.bands import write_bands
    from ..forecast.health.learning import learn

    bands, origin = learn(known.records, with_alarms=known.with_alarms)
    write_bands(known.output, bands, origin)
    left = origin["left_out"]
    say(f"{known.output}: bands of {counted(origin['runs'], 'run')}" + (f", {left} left out" if left else ""))
