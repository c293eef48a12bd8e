"""``ai-models-mosaic plot``."""

from __future__ import annotations

import argparse

from ..forecast.console import say
from ..report.options import add_plot_options
from . import Commands, add_command
from .report import require_drawing


def add(commands: Commands) -> None:
    """Add the command to the subparsers."""
    picture = add_command(commands, "plot", "draw one picture of an ensemble, as PNG or SVG")
    add_plot_options(picture)
    picture.set_defaults(command=run)


def run(known: argparse.Namespace) -> None:
    """Draw the picture, and say how large it is."""
    require_drawing()
    from ..report.command import plot

    path = plot(known)
    say(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
