"""``ai-models-mosaic options``."""

from __future__ import annotations

import argparse

from ..forecast.console import say
from . import Commands, add_command


def add(commands: Commands) -> None:
    """Add the command to the subparsers."""
    show = add_command(commands, "options", "list what the plugin adds to the runner's options")
    show.add_argument("--markdown", action="store_true", help="as the table of docs/options.md")
    show.set_defaults(command=run)


def run(known: argparse.Namespace) -> None:
    """List the options of a forecast."""
    from ..forecast.options import option_table, parser

    say(option_table() if known.markdown else parser().format_help(), end="")
