"""``ai-models-mosaic inspect``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from ..forecast.console import say
from ..wording.numbers import size_of
from . import Commands
from .surroundings import check_surroundings

SECONDS = 0.5
"""Between two words on how far it is."""


def add(commands: Commands) -> None:
    """Add the command to the subparsers."""
    inspect = commands.add_parser(
        "inspect", help="say what an ensemble in GRIB, NetCDF or Zarr holds, and what it lacks"
    )
    inspect.add_argument("files", nargs="+", metavar="FILE", help="read as one ensemble; a Zarr store alone")
    inspect.add_argument("--long", action="store_true", help="name every field, its levels, and all that is missing")
    inspect.set_defaults(command=run)


def run(known: argparse.Namespace) -> None:
    """Look into the files."""
    check_surroundings()
    from .inspection import inspect_files

    progress = Progress(sum(Path(name).stat().st_size for name in known.files if Path(name).is_file()))
    try:
        told = inspect_files(known.files, long=known.long, on_progress=progress)
    finally:
        progress.close()
    say(told)


class Progress:
    """Says on a terminal how far it is, and nothing anywhere else.

    Parameters
    ----------
    total : int
        Bytes of all files.
    """

    def __init__(self, total: int) -> None:
        self._total, self._shown = total, ""
        self._next = time.monotonic() + SECONDS
        self._on = sys.stderr is not None and sys.stderr.isatty()

    def __call__(self, behind: int) -> None:
        """So many bytes are behind."""
        if self._on and time.monotonic() >= self._next:
            self._show(f"{size_of(behind)} of {size_of(self._total)}")
            self._next = time.monotonic() + SECONDS

    def close(self) -> None:
        """Take the line away."""
        if self._shown:
            self._show("")

    def _show(self, text: str) -> None:
        sys.stderr.write("\r" + text.ljust(len(self._shown)) + ("" if text else "\r"))
        sys.stderr.flush()
        self._shown = text
