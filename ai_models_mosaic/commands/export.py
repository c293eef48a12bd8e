"""``ai-models-mosaic export-onnx``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..forecast.console import say
from ..variants import VARIANTS
from ..wording.numbers import counted
from . import Commands, add_assets, add_command, add_variant


def add(commands: Commands) -> None:
    """Add the command to the subparsers."""
    export = add_command(commands, "export-onnx", "write the network as a graph for --engine onnx")
    add_variant(export, "whose network")
    add_assets(export)
    export.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights to use instead of the variant's")
    export.add_argument("--output", type=Path, required=True, metavar="FILE.onnx", help="the graph")
    export.add_argument(
        "--precision",
        choices=["float32", "float16"],
        default="float32",
        help="of the matrix products (default: float32)",
    )
    export.add_argument("--batch", type=int, metavar="N", help="members per call, if fixed (default: any number)")
    export.set_defaults(command=run)


def run(known: argparse.Namespace) -> None:
    """Export the network."""
    from ..checkpoints.files import locate
    from ..engines.onnx_export import Form, export_onnx

    variant = VARIANTS[known.variant]
    assets = locate(variant, known.assets, known.checkpoint)
    card = export_onnx(variant, assets, known.output, Form(known.precision, known.batch))
    members = "any number of members" if card.batch is None else counted(card.batch, "member")
    untrained = ", UNTRAINED" if card.untrained else ""
    say(f"{known.output}: variant {variant.name}, {card.precision}, {members}, opset {card.opset}{untrained}")
