# PYTHON_ARGCOMPLETE_OK
"""The package's own command, which knows all others."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from . import __version__
from .commands import (
    calibrate,
    convert,
    doctor,
    download,
    export,
    forecast,
    health_bands,
    inspect,
    options,
    plot,
    random_checkpoint,
    replay,
    report,
    representatives,
    train,
    tune,
    verify,
    world,
)
from .engines.threads import wait_passively
from .errors import MosaicError
from .forecast import console
from .forecast.console import say, show_all_characters
from .forecast.listeners import LOG_FORMATS
from .wording.log_lines import log_as
from .wording.redaction import redact_process

COMMANDS = (
    forecast,
    options,
    doctor,
    inspect,
    report,
    plot,
    representatives,
    verify,
    calibrate,
    replay,
    health_bands,
    tune,
    download,
    convert,
    random_checkpoint,
    export,
    train,
    world,
)
"""In the order of the help: a forecast and what is done with one, weights, training."""


NEGATIVE_LIST = re.compile(r"-\.?\d[^,/]*[,/]")
"""Beginning of several numbers, with commas or slashes between them, of which the first is negative."""


class _Parser(argparse.ArgumentParser):
    """A parser whose help may be piped to what reads the beginning only."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is sys.stdout:
            say(message, end="")
        else:
            super()._print_message(message, file)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status: 0, or that of the kind of error that was shown."""
    wait_passively()
    show_all_characters()
    redact_process()
    try:
        words = parser()
        given = joined(sys.argv[1:] if arguments is None else arguments)
        if forecast.COMPLETING in os.environ:
            _complete(words)
        known, rest = words.parse_known_args(given)
        if rest and "reads_the_rest" not in known:
            words.error(f"unrecognized arguments: {' '.join(rest)}")
        known.rest = rest
        logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(message)s")
        log_as(known.log_format)
        known.command(known)
    except (MosaicError, KeyboardInterrupt) as error:
        return console.report("ai-models-mosaic", error)
    return 0


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    made: argparse.ArgumentParser = _Parser(
        prog="ai-models-mosaic",
        description="Ensembles of Mosaic. With ECMWF's runner, a forecast is: ai-models mosaic …",
        epilog="More of each command: ai-models-mosaic COMMAND --help. Exit statuses are those of docs/operations.md.",
    )
    made.add_argument("--version", action="version", version=__version__)
    made.add_argument("--log-format", choices=LOG_FORMATS, default=LOG_FORMATS[0], help="json logs one object a line")
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    for name, parser in commands.choices.items():
        # A forecast has it among its own options.
        if name != forecast.NAME:
            parser.add_argument("--log-format", choices=LOG_FORMATS, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return made


def joined(words: Sequence[str]) -> list[str]:
    """The words of a command line, with lists of numbers that begin below zero put to their options.

    In ``--point -33.9,151.2``, argparse takes the second word for an option, too.

    Parameters
    ----------
    words : sequence of str
        As they were typed.
    """
    found: list[str] = []
    for word in words:
        if NEGATIVE_LIST.match(word) and found and found[-1].startswith("--") and "=" not in found[-1]:
            found[-1] += f"={word}"
        else:
            found.append(word)
    return found


def _complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks what may come next; argcomplete then ends the process."""
    try:
        import argcomplete
    except ImportError:
        return
    argcomplete.autocomplete(parser)


if __name__ == "__main__":
    sys.exit(main())
