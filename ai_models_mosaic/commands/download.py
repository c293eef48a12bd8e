"""``ai-models-mosaic download``."""

from __future__ import annotations

import argparse

from ..variants import VARIANTS
from . import Commands, add_assets, add_command, add_variant


def add(commands: Commands) -> None:
    """Add the command to the subparsers."""
    download = add_command(commands, "download", "fetch weights, and what goes with them, from the hub")
    add_variant(download, "whose weights")
    add_assets(download, "where to (default: AI_MODELS_ASSETS, else this folder)")
    download.add_argument(
        "--revision", metavar="COMMIT", help="another state of the hub than the one that this version is made for"
    )
    download.set_defaults(command=run)


def run(known: argparse.Namespace) -> None:
    """Fetch the files."""
    from ..checkpoints.hub import REVISION, fetch

    fetch(VARIANTS[known.variant], known.assets, revision=known.revision or REVISION)
