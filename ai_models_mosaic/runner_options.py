"""The runner's own options: which of them were typed, and what it takes without looking."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import OptionError, OutputError
from .number_lists import MOST
from .options import Options
from .outputs.files import check_writable, is_stream

DEFAULTS = {"--date": "-1", "--time": 12, "--num-threads": 1}
"""What the runner hands on where nothing was typed."""

UNSUPPORTED = ("hindcast_reference_year", "hindcast_reference_date")
"""Options that are refused rather than ignored."""

MOST_THREADS = 4096
"""More than any machine has cores: the system would refuse to start them, in the midst of the run."""


def is_typed(option: str, value: object) -> bool:
    """Whether the user gave an option: a value that is its default may still have been typed.

    The runner accepts abbreviations, so any beginning counts.
    """
    words = (word.split("=")[0] for word in sys.argv[1:])
    return value != DEFAULTS[option] or any(option.startswith(word) and len(word) > 2 for word in words)


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


def check_runner_options(given: Mapping[str, Any], output: str, options: Options) -> None:
    """Refuse what cannot be honoured, before anything is read.

    Parameters
    ----------
    given : mapping of str to object
        The runner's options, as it hands them on.
    output : str
        Its name of the destination.
    options : Options
        Those of the plugin.

    Raises
    ------
    OptionError
        If one is not supported or makes no sense, or what was asked for would not be written.
    """
    for name in UNSUPPORTED:
        if given.get(name):
            raise OptionError(
                f"--{name.replace('_', '-')} is not supported by mosaic: run one date at a time, without it"
            )
    threads = given["num_threads"]
    if not 1 <= threads <= MOST_THREADS:
        raise OptionError(f"--num-threads: expected 1 to {MOST_THREADS}, got {threads}")
    wanted = options.output
    if output != "none":
        return
    if wanted.products_path is not None:
        raise OptionError("--products-path: expected GRIB to be written, got --output none; leave one of them out")
    if wanted.products and wanted.zarr is None and wanted.netcdf is None:
        raise OptionError("--products: with --output none expected --zarr or --netcdf, or nothing would be written")


def check_side_files(given: Mapping[str, Any], kept: Mapping[str, str | None]) -> None:
    """Refuse, before the forecast, what the runner would open after it and not be able to write.

    Parameters
    ----------
    given : mapping of str to object
        The runner's options, as it hands them on.
    kept : mapping of str to str or None
        Files that must not be written over, by their options.

    Raises
    ------
    OutputError
        If a folder is not there or not writable, or the file is needed for something else.
    """
    taken = {Path(name).resolve(): f"that of {option} {name}" for option, name in kept.items() if name is not None}
    for option in ("--archive-requests", "--dump-provenance"):
        name = given.get(option.removeprefix("--").replace("-", "_"))
        if not name:
            continue
        try:
            check_writable(Path(name))
        except OutputError as error:
            raise OutputError(f"{option}: {error}") from error
        if is_stream(Path(name)):
            continue
        before = taken.setdefault(Path(name).resolve(), f"that of {option}")
        if before != f"that of {option}":
            raise OutputError(f"{option} {name}: expected a file of its own, got {before}")
