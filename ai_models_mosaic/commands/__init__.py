"""The commands, one module each: `add` gives the parser its words, `run` does what they ask for.

Every `add` runs whatever was typed, so these modules import what takes time within `run`.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_assets(parser: argparse.ArgumentParser, help: str | None = None) -> None:
    """Give a parser the option ``--assets``, with the runner's default."""
    default = Path(os.environ.get("AI_MODELS_ASSETS", "."))
    parser.add_argument("--assets", type=Path, default=default, metavar="FOLDER", help=help)
