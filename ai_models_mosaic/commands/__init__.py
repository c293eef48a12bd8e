"""The commands, one module each: `add` gives the parser its words, `run` does what they ask for.

Every `add` runs whatever was typed, so these modules import what takes time within `run`.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, TypeAlias

from ..variants import VARIANTS

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(commands: Commands, name: str, words: str, **more: Any) -> argparse.ArgumentParser:
    """Add a command that is explained by the same words in the list of all and in its own help.

    Parameters
    ----------
    commands : Commands
        To add it to.
    name : str
        As typed.
    words : str
        What it does: one line, without a capital and a full stop.
    **more : object
        Of `argparse.ArgumentParser`.
    """
    sentence = f"{words[0].upper()}{words[1:]}."
    return commands.add_parser(name, help=words, **{"description": sentence, **more})


def add_variant(parser: argparse.ArgumentParser, words: str, default: str | None = None) -> None:
    """Give a parser the option ``--variant``, which is required where it has no default."""
    required = default is None
    parser.add_argument("--variant", choices=sorted(VARIANTS), default=default, required=required, help=words)


def add_assets(
    parser: argparse.ArgumentParser, help: str = "of the weights (default: AI_MODELS_ASSETS, else this folder)"
) -> None:
    """Give a parser the option ``--assets``, with the runner's default."""
    default = Path(os.environ.get("AI_MODELS_ASSETS", "."))
    parser.add_argument("--assets", type=Path, default=default, metavar="FOLDER", help=help)
