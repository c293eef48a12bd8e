"""``ai-models-mosaic options``."""

from __future__ import annotations

import argparse

from ..forecast.console import say
from . import Commands


def add(commands: Commands) -> None:
    """Add the command to the subparsers."""
    show = commands.add_parser("options", help="list the options that the plugin adds to ai-models")
    show.add_argument("--markdown", action="store_true", help="as the table of the README")
    show.set_defaults(command=run)


def run(known: argparse.Namespace) -> None:
    """List the options of a forecast."""
    from ..forecast.options import option_table, parser

    say(option_table() if known.markdown else parser().format_help(), end="")
