"""``ai-models-mosaic verify``."""

from __future__ import annotations

import argparse

from ..forecast.console import say
from ..verification.options import add_options
from . import Commands, add_command
from .surroundings import check_surroundings


def add(commands: Commands) -> None:
    """Add the command to the subparsers."""
    verify = add_command(commands, "verify", "score forecasts against truth: tables, spectra, pictures")
    add_options(verify)
    verify.set_defaults(command=run)


def run(known: argparse.Namespace) -> None:
    """Verify, and show the overview."""
    check_surroundings()
    from ..verification.report import OVERVIEW
    from ..verification.run import run as verify

    paths = verify(known)
    say((known.output / OVERVIEW).read_text(encoding="utf-8"))
    say(f"{len(paths)} files in {known.output}")
