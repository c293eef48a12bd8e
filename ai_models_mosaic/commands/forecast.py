"""``ai-models-mosaic forecast``."""

from __future__ import annotations

import argparse
import os

from ..forecast.console import say
from . import Commands

NAME = "forecast"

COMPLETING = "_ARGCOMPLETE"
"""In the environment where a shell asks what may come next, and not for a forecast."""


def add(commands: Commands) -> None:
    """Add the command to the subparsers."""
    words = "forecast as ai-models mosaic does, without the runner"
    if COMPLETING in os.environ:
        from .forecast_run import parser

        commands.add_parser(NAME, help=words, parents=[parser()], add_help=False)
        return
    # Its own parser reads its options: to build that takes imports which no other command should wait for.
    forecast = commands.add_parser(NAME, add_help=False, help=words)
    forecast.set_defaults(command=run, reads_the_rest=True)


def run(known: argparse.Namespace) -> None:
    """Run the forecast."""
    from .forecast_run import run as run_forecast

    say(run_forecast(known.rest), end="")
