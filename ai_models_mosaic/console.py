"""What a user of a forecast sees: how much is logged, and errors without tracebacks."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from . import __version__
from .errors import LostRankError, MosaicError
from .ranks import Launch

PLUGIN = "ai-models mosaic"
"""What a user of the plugin calls."""


@contextmanager
def loudness(launch: Launch, *, quiet: bool, verbose: bool) -> Iterator[None]:
    """Log as much as was asked for, and of several processes but one.

    Parameters
    ----------
    launch : Launch
        This process among its like.
    quiet : bool
        Warnings only, of all that runs in the process.
    verbose : bool
        More of this package.
    """
    level = logging.WARNING if quiet or launch.rank > 0 else logging.DEBUG if verbose else None
    # What is quiet is the whole process; what is verbose, this package.
    logger = logging.getLogger(__name__.split(".")[0] if level == logging.DEBUG else None)
    before = logger.level
    if level is not None:
        logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


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
    except MosaicError as error:
        if debug:
            raise
        # What stops all ranks is said by one; which of them lost touch, by each.
        if launch is None or launch.rank == 0 or isinstance(error, LostRankError):
            sys.stderr.write(f"{program} {__version__}: {error}\n")
        raise SystemExit(error.exit_status) from error
