"""The parser of every command, by name, for the command reference: ``world_simulate`` is that of ``world simulate``."""

from __future__ import annotations

import argparse
from collections.abc import Callable

# Any name of this module is taken for a command's.
from ai_models_mosaic.cli import parser as _of_all
from ai_models_mosaic.commands.forecast_run import parser as forecast  # noqa: F401


def __getattr__(name: str) -> Callable[[], argparse.ArgumentParser]:
    if name.startswith("__"):
        raise AttributeError(name)
    return lambda: _parser_of(name)


def _parser_of(name: str) -> argparse.ArgumentParser:
    parser = _of_all()
    while name:
        commands = {word.replace("-", "_"): made for word, made in _commands(parser).items()}
        word = next(word for word in commands if f"{name}_".startswith(f"{word}_"))
        parser, name = commands[word], name[len(word) + 1 :]
    return parser


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Those below a parser."""
    return next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
