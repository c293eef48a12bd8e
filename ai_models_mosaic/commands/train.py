"""``ai-models-mosaic train``."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OptionError
from ..forecast.console import say
from . import Commands, add_command

if TYPE_CHECKING:
    from ..training.trainer import Update

LOG = logging.getLogger(__name__)
GIGABYTE = 10**9


def add(commands: Commands) -> None:
    """Add the command to the subparsers."""
    train = add_command(commands, "train", "train a network by a recipe, or go on with it")
    train.add_argument(
        "recipe",
        type=Path,
        nargs="?",
        metavar="RECIPE.toml",
        help="what is trained on what, and how; --check does without",
    )
    train.add_argument(
        "--data",
        type=Path,
        default=Path(),
        metavar="FOLDER",
        help="to which the recipe's stores are relative (default: this folder)",
    )
    train.add_argument("--output", type=Path, metavar="FOLDER", help="of the run; also to go on with it")
    train.add_argument(
        "--memory",
        type=float,
        default=4.0,
        metavar="GB",
        help="hold all states in memory where they take no more (default: 4)",
    )
    train.add_argument(
        "--check",
        action="store_true",
        help="only make two updates on random states, and tell device, rate and memory; no data, no output",
    )
    train.set_defaults(command=run)


def run(known: argparse.Namespace) -> None:
    """Train, with a progress bar, or only check.

    Raises
    ------
    OptionError
        If there is no recipe, or no folder for the run, or if an update is too large for the GPU.
    """
    from torch import OutOfMemoryError

    try:
        (_check if known.check else _train)(known)
    except OutOfMemoryError as error:
        raise OptionError(
            "train: expected an update that fits into the memory of the GPU, got one that does not; give the recipe "
            "recompute_blocks = true, recompute = true where it has a roll-out, a smaller batch, members or rollout, "
            f"or more processes, which share the batch ({str(error).split('. ')[0]})"
        ) from error


def _train(known: argparse.Namespace) -> None:
    if known.recipe is None or known.output is None:
        raise OptionError("train: expected RECIPE.toml and --output FOLDER, or --check")
    from tqdm import tqdm

    from ..training.recipe import read_recipe
    from ..training.run import TrainingFolders, train

    recipe = read_recipe(known.recipe)
    place = TrainingFolders(known.data, known.output, round(known.memory * GIGABYTE))
    with tqdm(total=recipe.updates, unit="update", smoothing=0.05) as bar:

        def advance(update: Update) -> None:
            bar.update(update.number + 1 - bar.n)
            bar.set_postfix_str(f"loss {update.loss:.4f}", refresh=False)

        path = train(recipe, place, advance)
    if path:
        LOG.info("written %s: ai-models mosaic --variant %s --checkpoint %s …", path, recipe.variant, path)


def _check(known: argparse.Namespace) -> None:
    from ..training.check import check
    from ..training.processes import processes
    from ..training.recipe import Phase, Recipe, read_recipe

    with processes() as among:
        if among.count > 1:
            raise OptionError("--check: expected one process, and not those of a launcher")
        default = Recipe("mini", ("none",), ("none",), (Phase(1, 1, 1e-3),), precision="bfloat16")
        found = check(read_recipe(known.recipe) if known.recipe is not None else default, among)
    say("\n".join(found.lines()))
