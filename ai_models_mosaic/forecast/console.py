"""What a user sees: how much is logged, what is printed, and errors without tracebacks."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .. import __version__
from ..errors import INTERRUPTED, LostRankError, MosaicError, OutputError, ReaderGoneError
from ..wording.log_lines import logs_json
from .ranks import Launch

LOG = logging.getLogger(__name__)

PACKAGE = __name__.split(".")[0]
RUNNER = "ai_models"

PLUGIN = "ai-models mosaic"
"""What a user of the plugin calls."""


# Logging.


def hush(*, quiet: bool) -> None:
    """Keep to warnings of this package what this package and the runner log, from here to the end of the process.

    The runner says how long all took when the forecast is long over. What `logging_as_asked` does ends with it.
    """
    for name, level in ((PACKAGE, logging.WARNING), (RUNNER, logging.ERROR)):
        logging.getLogger(name).setLevel(level if quiet else logging.NOTSET)
    logging.getLogger(f"{RUNNER}.model").addFilter(_is_possible)


def _is_possible(record: logging.LogRecord) -> bool:
    """Whether a line of the runner is one that can be: it takes times by a clock that may be set back meanwhile."""
    arguments = record.args if isinstance(record.args, tuple) else ()
    return not any(isinstance(text, str) and text.startswith("-") and "second" in text for text in arguments)


@contextmanager
def logging_as_asked(launch: Launch, *, quiet: bool, verbose: bool) -> Iterator[None]:
    """Log as much as was asked for, and of several processes but one.

    Parameters
    ----------
    launch : Launch
        This process among its like.
    quiet : bool
        Warnings of this package and errors only, of all that runs in the process.
    verbose : bool
        More of this package.
    """
    silent = quiet or launch.rank > 0
    levels = {"": logging.ERROR, PACKAGE: logging.WARNING} if silent else {PACKAGE: logging.DEBUG} if verbose else {}
    before = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


# Printing.


def show_all_characters() -> None:
    """Escape what the encoding of standard output does not have, such as × in ASCII, in place of failing."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def printing() -> Iterator[None]:
    """See that what is printed here arrives.

    Raises
    ------
    ReaderGoneError
        If nobody reads it any more.
    OutputError
        If it cannot be written for another reason, such as a full disk.
    """
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        _forget_standard_output()
        if isinstance(error, BrokenPipeError):
            raise ReaderGoneError("nobody reads the standard output") from error
        raise OutputError(f"standard output: cannot be written: {error.strerror or error}") from error


def _forget_standard_output() -> None:
    """Python would try to write what is left of it once more at its end, and complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def say(text: str, *, end: str = "\n") -> None:
    """Print on standard output, now; errors are those of `printing`."""
    with printing():
        if sys.stdout is not None:
            sys.stdout.write(text + end)


# Errors.


def report(program: str, error: MosaicError | KeyboardInterrupt) -> int:
    """Say on standard error, if that can still be had, what went wrong; returns the exit status of it."""
    try:
        if isinstance(error, ReaderGoneError):
            return status_of(error)
        if logs_json():
            LOG.error(str(error) or "interrupted", extra={"program": program, "exit_status": status_of(error)})
        elif sys.stderr is not None:
            sys.stderr.write(f"{program} {__version__}: {str(error) or 'interrupted'}\n")
    except OSError:
        # The exit status tells it, too.
        pass
    return status_of(error)


def status_of(error: MosaicError | KeyboardInterrupt) -> int:
    """The exit status of an error."""
    return error.exit_status if isinstance(error, MosaicError) else INTERRUPTED


@contextmanager
def plain_errors(*, debug: bool, launch: Launch | None = None, program: str = PLUGIN) -> Iterator[None]:
    """Show what a user can act on as one message without a traceback, and exit with the status of its kind.

    Parameters
    ----------
    debug : bool
        Let errors pass as they are.
    launch : Launch or None
        This process among its like, where that is known.
    program : str
        Who speaks.
    """
    try:
        yield
    except (MosaicError, KeyboardInterrupt) as error:
        if debug:
            raise
        # What stops all ranks is said by one; which of them lost touch, by each.
        if launch is None or launch.rank == 0 or isinstance(error, LostRankError):
            raise SystemExit(report(program, error)) from error
        raise SystemExit(status_of(error)) from error
