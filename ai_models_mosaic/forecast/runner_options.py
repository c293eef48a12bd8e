"""The options that the runner has for every model: what it takes without looking."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import OptionError, OutputError
from ..options.number_lists import MOST
from ..outputs.grib.files import check_writable, is_stream
from .options import Options

MOST_THREADS = 4096
"""More than any machine has cores: the system would refuse to start them, in the midst of the run."""


def steps_of(lead_time_hours: int, step_hours: int) -> int:
    """Steps that lead to a lead time.

    Raises
    ------
    OptionError
        If none do, or more than any forecast has.
    """
    if lead_time_hours < 0 or lead_time_hours % step_hours:
        raise OptionError(f"--lead-time: expected a multiple of the step of {step_hours} h, got {lead_time_hours}")
    if lead_time_hours // step_hours > MOST:
        raise OptionError(f"--lead-time: expected at most {MOST * step_hours} h, {MOST} steps, got {lead_time_hours}")
    return lead_time_hours // step_hours


def check_runner_options(options: Options, *, threads: int | None, grib: bool) -> None:
    """Refuse what cannot be honoured, before anything is read.

    Parameters
    ----------
    options : Options
        Those of the plugin.
    threads : int or None
        Of the CPU; None: what is fastest.
    grib : bool
        Whether it is to be written at all.

    Raises
    ------
    OptionError
        If there are no such threads, or what was asked for would not be written.
    """
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise OptionError(f"--num-threads: expected 1 to {MOST_THREADS}, got {threads}")
    wanted = options.output
    if grib:
        return
    if wanted.products_path is not None:
        raise OptionError("--products-path: expected GRIB to be written, got --output none; leave one of them out")
    if wanted.products and wanted.zarr is None and wanted.netcdf is None:
        raise OptionError("--products: with --output none expected --zarr or --netcdf, or nothing would be written")


def refuse_other_input(typed: str | None, file: str | None) -> None:
    """Refuse an input that is asked for beside a file, which would be read in its place.

    Parameters
    ----------
    typed : str or None
        What ``--input`` says, if it was typed.
    file : str or None
        What ``--file`` says.

    Raises
    ------
    OptionError
        If they are two.
    """
    if typed not in (None, "file") and file is not None:
        raise OptionError(
            f"--input {typed}: expected it without --file {file}, from which the run would start; leave one of them "
            "out, or say --input file where a configuration has the other"
        )


def check_side_files(files: Mapping[str, str | None]) -> None:
    """Refuse, before the forecast, what would be opened after it and could not be written.

    Parameters
    ----------
    files : mapping of str to str or None
        What is written when the forecast is done, by its options.

    Raises
    ------
    OutputError
        If a folder is not there or not writable.
    """
    for option, name in files.items():
        if name:
            try:
                check_writable(Path(name))
            except OutputError as error:
                raise OutputError(f"{option}: {error}") from error


def refuse_shared_files(files: Mapping[str, str | None], kept: Mapping[Path, str]) -> None:
    """Refuse, before the forecast, to write two things to one file, or over one that is needed.

    Parameters
    ----------
    files : mapping of str to str or None
        What is written beside the output, by its options.
    kept : mapping of Path to str
        Files that are something else, and of which options they are.

    Raises
    ------
    OutputError
        Says which.
    """
    taken = {place.resolve(): f"that of {what}" for place, what in kept.items()}
    for option, name in files.items():
        if not name or is_stream(Path(name)):
            continue
        before = taken.setdefault(Path(name).resolve(), f"that of {option}")
        if before != f"that of {option}":
            raise OutputError(f"{option} {name}: expected a file of its own, got {before}")
