"""``ai-models-mosaic replay``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import ReplayError
from ..forecast.console import say
from . import Commands, add_command
from .surroundings import check_surroundings


def add(commands: Commands) -> None:
    """Add the command to the subparsers."""
    replay = add_command(commands, "replay", "make fields of a forecast again, from its card")
    replay.add_argument("card", type=Path, metavar="NAME.grib.provenance.json", help="the card")
    replay.add_argument("--member", type=int, required=True, metavar="N", help="its number")
    replay.add_argument("--steps", required=True, metavar="HOURS", help="lead times, such as 24 or 96-120")
    replay.add_argument("--params", metavar="LIST", help="fields, such as 2t,z500,u (default: all)")
    replay.add_argument("--output", type=Path, required=True, metavar="FILE", help="GRIB of the fields made again")
    replay.add_argument("--file", help="the input, if it is elsewhere than it was")
    replay.add_argument("--assets", type=Path, metavar="FOLDER", help="of the weights, if they are elsewhere")
    replay.set_defaults(command=run)


def run(known: argparse.Namespace) -> None:
    """Make the fields, and compare them.

    Raises
    ------
    ReplayError
        If some differ.
    """
    check_surroundings()
    from ..forecast.recorded import read_card
    from ..forecast.replay import choose_channels, choose_hours, replay

    card = read_card(known.card)
    hours, channels = choose_hours(known.steps, card), choose_channels(known.params)
    found = replay(card, known.member, hours, channels, known.output, file=known.file, assets=known.assets)
    say(f"{known.output}: {found}")
    if found.differing:
        raise ReplayError(f"{len(found.differing)} fields are not those of the original")
