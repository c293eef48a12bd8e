"""``ai-models-mosaic inspect``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import InputError
from ..forecast.console import say
from ..wording.numbers import size_of
from . import Commands, add_command
from .surroundings import check_surroundings

SECONDS = 0.5
"""Between two words on how far it is."""


def add(commands: Commands) -> None:
    """Add the command to the subparsers."""
    inspect = add_command(commands, "inspect", "say what an ensemble in GRIB, NetCDF or Zarr holds, and what it lacks")
    inspect.add_argument("files", nargs="+", metavar="FILE", help="read as one ensemble; a Zarr store alone")
    inspect.add_argument("--long", action="store_true", help="name every field, its levels, and all that is missing")
    inspect.set_defaults(command=run)


def run(known: argparse.Namespace) -> None:
    """Look into the files."""
    check_surroundings()
    progress = Progress(sum(Path(name).stat().st_size for name in known.files if Path(name).is_file()))
    try:
        told = inspect_files(known.files, long=known.long, on_progress=progress)
    finally:
        progress.close()
    say(told)


def inspect_files(
    names: Sequence[str], *, long: bool = False, on_progress: Callable[[int], None] = lambda _: None
) -> str:
    """Members, steps and fields of an ensemble in GRIB or NetCDF files, or in a Zarr store.

    Parameters
    ----------
    names : sequence of str
        Read as one ensemble.
    long : bool
        Whether every field, and everything that is missing, is named.
    on_progress : callable
        Told how many bytes of GRIB files are behind.

    Raises
    ------
    InputError
        If something is absent or cannot be read, or files are not of one kind.
    """
    from ..inputs.netcdf import netcdf_files
    from ..inputs.zarr_store.opening import is_zarr

    files = [file for name in names if not is_zarr(name) for file in netcdf_files(name)]
    stores = [name for name in names if is_zarr(name)]
    if stores or files:
        if len(stores) > 1 or (stores and len(names) > 1) or (files and not all(netcdf_files(name) for name in names)):
            raise InputError(f"expected GRIB files, NetCDF files, or one Zarr store; got {', '.join(names)}")
        from .store_inspection import inspect_store

        return inspect_store(stores, files, long=long)
    from .inspection import inspect_ensemble

    return inspect_ensemble([Path(name) for name in names], long=long, on_progress=on_progress)


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
