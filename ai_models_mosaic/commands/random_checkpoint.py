"""``ai-models-mosaic random-checkpoint``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import OptionError
from ..forecast.console import say
from ..variants import VARIANTS
from . import Commands, add_command, add_variant
from .surroundings import check_surroundings


def add(commands: Commands) -> None:
    """Add the command to the subparsers."""
    random = add_command(commands, "random-checkpoint", "write untrained weights, to try a machine")
    add_variant(random, "whose network")
    random.add_argument(
        "--sample",
        type=Path,
        required=True,
        metavar="GRIB",
        help="input whose mean and spread serve as normalisation",
    )
    random.add_argument("--output", type=Path, required=True, metavar="FILE.safetensors", help="the weights")
    random.add_argument("--seed", type=int, default=0, help="of the weights (default: 0)")
    random.set_defaults(command=run)


def run(known: argparse.Namespace) -> None:
    """Write the weights.

    Raises
    ------
    OptionError
        If they could not be written, or not be read again.
    """
    check_surroundings()
    from ..checkpoints.random_weights import make_random_checkpoint
    from ..inputs.grib_messages import find_messages
    from ..inputs.requests import check_file
    from ..inputs.states import read_initial_state

    variant = VARIANTS[known.variant]
    if known.output.suffix != ".safetensors" or not known.output.parent.is_dir():
        raise OptionError(
            f"--output: expected the name of a .safetensors file in a folder that exists, got {known.output}"
        )
    fields = find_messages(Path(check_file(str(known.sample))))
    sample = read_initial_state(fields, variant.architecture.grid, variant.lags_hours)
    make_random_checkpoint(variant, sample, known.output, known.seed)
    say(f"{known.output}: variant {variant.name}, UNTRAINED, {known.output.stat().st_size / 1e6:.1f} MB")
