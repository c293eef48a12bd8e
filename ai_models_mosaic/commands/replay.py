"""``ai-models-mosaic replay``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import CheckError, OptionError, ReplayError
from ..forecast.console import say
from . import Commands, add_command
from .surroundings import check_surroundings


def add(commands: Commands) -> None:
    """Add the command to the subparsers."""
    replay = add_command(commands, "replay", "make fields of a forecast again, from its card")
    replay.add_argument("card", type=Path, metavar="NAME.grib.provenance.json", help="the card")
    replay.add_argument("--member", type=int, metavar="N", help="its number")
    replay.add_argument("--steps", metavar="HOURS", help="lead times, such as 24 or 96-120")
    replay.add_argument("--params", metavar="LIST", help="fields, such as 2t,z500,u (default: all)")
    replay.add_argument("--output", type=Path, metavar="FILE", help="GRIB of the fields made again")
    replay.add_argument("--file", help="the input, if it is elsewhere than it was")
    replay.add_argument("--assets", type=Path, metavar="FOLDER", help="of the weights, if they are elsewhere")
    replay.add_argument(
        "--check",
        type=int,
        metavar="N",
        help="in place of --member, --steps and --output: make N steps of members again, drawn at random, and say how "
        "far off the files beside the card are",
    )
    replay.add_argument("--check-seed", type=int, metavar="SEED", help="of the drawing (default: 0)")
    replay.add_argument(
        "--check-tolerance",
        type=float,
        metavar="SHARE",
        help="of a field's standard deviation that is let pass, beside packing, on another device or with other "
        "versions than the original's (default: 0.001)",
    )
    replay.set_defaults(command=run)


def run(known: argparse.Namespace) -> None:
    """Make the fields, and compare them.

    Raises
    ------
    OptionError
        If neither a member nor a check was asked for, or both.
    ReplayError
        If some fields differ.
    CheckError
        If a check finds some off by more than packing and rounding.
    """
    _refuse_mixtures(known)
    check_surroundings()
    if known.check is None:
        _replay(known)
    else:
        _check(known)


def _refuse_mixtures(known: argparse.Namespace) -> None:
    of_one = {"--member": known.member, "--steps": known.steps, "--output": known.output}
    if known.check is not None:
        for option in (option for option, value in of_one.items() if value is not None):
            raise OptionError(f"{option}: expected it without --check, which draws members and steps, and writes none")
        return
    of_check = {"--check-seed": known.check_seed, "--check-tolerance": known.check_tolerance}
    for option in (option for option, value in of_check.items() if value is not None):
        raise OptionError(f"{option}: expected --check N with it")
    lacking = [option for option, value in of_one.items() if value is None]
    if lacking:
        raise OptionError(f"expected {' and '.join(lacking)} as well, or --check N")


def _replay(known: argparse.Namespace) -> None:
    from ..forecast.recorded import read_card
    from ..forecast.replay import choose_channels, choose_hours, replay

    card = read_card(known.card)
    hours, channels = choose_hours(known.steps, card), choose_channels(known.params)
    found = replay(card, known.member, hours, channels, known.output, file=known.file, assets=known.assets)
    say(f"{known.output}: {found}")
    if found.differing:
        raise ReplayError(f"{len(found.differing)} fields are not those of the original")


def _check(known: argparse.Namespace) -> None:
    from ..forecast.recorded import read_card
    from ..forecast.replay import choose_channels
    from ..forecast.spot_check import TOLERANCE, check

    checked = check(
        read_card(known.card),
        known.check,
        known.check_seed or 0,
        TOLERANCE if known.check_tolerance is None else known.check_tolerance,
        channels=choose_channels(known.params),
        file=known.file,
        assets=known.assets,
    )
    say(str(checked))
    if checked.beyond:
        member, hours, name, level = checked.beyond[0]
        raise CheckError(
            f"{len(checked.beyond)} of {checked.fields} fields are off by more than packing and rounding, the first "
            f"{name} at level {level} of member {member} at +{hours} h: these files are not what {known.card} says"
        )
