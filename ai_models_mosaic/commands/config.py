"""Options of a run in a file: TOML, with the names of the command line."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import OptionError, OutputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OWN = ("config", "write-config", "help")
"""Options of the command line that mean nothing in a file."""


def read_config(path: Path, parser: argparse.ArgumentParser) -> list[str]:
    """The words of the command line that say what a file says.

    Parameters
    ----------
    path : Path
        Names of options without their hyphens, and values; true for an option without value, and a list where
        several are allowed or commas separate them.
    parser : argparse.ArgumentParser
        Knows the options.

    Raises
    ------
    OptionError
        If it cannot be read, or names what is no option.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OptionError(f"--config {path}: expected a TOML file, got {error}") from error
    known = {name: action for action in parser._actions for name in _names(action)}
    words: list[str] = []
    for name, value in found.items():
        if name in OWN or name not in known:
            raise OptionError(f"--config {path}: expected names of options such as lead-time, got {name}")
        if isinstance(value, Mapping):
            raise OptionError(f"--config {path}: expected a value for {name}, got a table")
        words += _words(name, value, known[name])
    return words


def write_config(path: Path, parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Write what was asked for, whether typed or read, as `read_config` reads it.

    Parameters
    ----------
    path : Path
        A new file.
    parser : argparse.ArgumentParser
        Knows the options; of no use afterwards.
    words : sequence of str
        All that was asked for.

    Raises
    ------
    OutputError
        If there is such a file, or it cannot be written.
    """
    for action in parser._actions:
        # So that an option that was given its default is there, too, and all as it was typed.
        action.default, action.type = argparse.SUPPRESS, None
    given = vars(parser.parse_args(list(words)))
    lines = [
        f"{names[0]} = {_toml(action, given[action.dest])}\n"
        for action in parser._actions
        if action.dest in given and (names := _names(action)) and names[0] not in OWN
    ]
    try:
        with path.open("x", encoding="utf-8") as file:
            file.writelines(lines)
    except OSError as error:
        raise OutputError(f"--write-config {path}: expected the name of a new file: {error.strerror}") from error


def _names(action: argparse.Action) -> list[str]:
    return [name.removeprefix("--") for name in action.option_strings if name.startswith("--")]


def _words(name: str, value: Any, action: argparse.Action) -> list[str]:
    if isinstance(value, bool):
        negated = [f"--no-{name}"] if isinstance(action, argparse.BooleanOptionalAction) else []
        return [f"--{name}"] if value else negated
    if isinstance(value, list):
        texts = [str(one) for one in value]
        repeated = isinstance(action, argparse._AppendAction)
        return [f"--{name}={text}" for text in texts] if repeated else [f"--{name}={','.join(texts)}"]
    return [f"--{name}={value}"]


def _toml(action: argparse.Action, value: Any) -> str:
    if action.nargs == 0:
        negated = isinstance(action, argparse.BooleanOptionalAction) and not value
        return "false" if negated else "true"
    if isinstance(value, list):
        return f"[{', '.join(_toml_text(one) for one in value)}]"
    return _toml_text(value)


def _toml_text(text: str) -> str:
    """A number where that reads back as the same text."""
    for kind in (int, float):
        try:
            if str(kind(text)) == text and re.fullmatch(r"-?[\d.]+", text):
                return text
        except ValueError:
            continue
    # TOML's basic strings are JSON's, but for this one character.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
