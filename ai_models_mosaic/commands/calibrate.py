"""``ai-models-mosaic calibrate``."""

from __future__ import annotations

import argparse

from ..forecast.console import say
from ..verification.calibration.options import add_options
from . import Commands, add_command
from .surroundings import check_surroundings


def add(commands: Commands) -> None:
    """Add the command to the subparsers."""
    calibrate = add_command(
        commands, "calibrate", "fit factors on the spread or the noise of an ensemble, to past forecasts and truth"
    )
    add_options(calibrate)
    calibrate.set_defaults(command=run)


def run(known: argparse.Namespace) -> None:
    """Fit, and show what came of it on dates that were not used."""
    check_surroundings()
    from ..verification.calibration.run import calibrate

    for line in calibrate(known):
        say(line)
    say(f"{known.output}: fitted; scores are of dates that the fit did not see")
