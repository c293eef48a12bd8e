"""``ai-models-mosaic convert-checkpoint``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..checkpoints.files import LICENCE
from ..variants import VARIANTS
from . import Commands, add_command, add_variant


def add(commands: Commands) -> None:
    """Add the command to the subparsers."""
    convert = add_command(commands, "convert-checkpoint", "write a released .pt checkpoint as safetensors")
    add_variant(convert, "whose weights they are")
    convert.add_argument("--licence", default=LICENCE, help=f"of the weights, if no record tells (default: {LICENCE})")
    convert.add_argument("source", type=Path, metavar="IN.pt", help="as released")
    convert.add_argument("target", type=Path, metavar="OUT.safetensors", help="what is written")
    convert.set_defaults(command=run)


def run(known: argparse.Namespace) -> None:
    """Convert the file."""
    from ..checkpoints.convert import convert_checkpoint

    convert_checkpoint(VARIANTS[known.variant], known.source, known.target, known.licence)
