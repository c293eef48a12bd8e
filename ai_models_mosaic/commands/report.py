"""``ai-models-mosaic report``."""

from __future__ import annotations

import argparse

from ..errors import InputError
from ..forecast.console import say
from ..report.options import add_report_options
from . import Commands, add_command
from .surroundings import check_surroundings


def add(commands: Commands) -> None:
    """Add the command to the subparsers."""
    page = add_command(commands, "report", "draw a page of an ensemble, to look at")
    add_report_options(page)
    page.set_defaults(command=run)


def run(known: argparse.Namespace) -> None:
    """Write the page, and say how large it is."""
    require_drawing()
    from ..report.command import report

    path = report(known)
    say(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def require_drawing() -> None:
    """See that all is there that drawing needs.

    Raises
    ------
    InputError
        Says what is not, and how to install it.
    """
    check_surroundings()
    try:
        import matplotlib  # noqa: F401
        import scipy  # noqa: F401
        import xarray  # noqa: F401
    except ImportError as error:
        raise InputError(f"drawing needs more packages ({error}): pip install 'ai-models-mosaic[report]'") from error
