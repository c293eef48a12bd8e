"""``ai-models-mosaic doctor``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import MosaicError
from ..forecast.console import say
from ..variants import VARIANTS
from . import Commands, add_assets, add_command, add_variant


def add(commands: Commands) -> None:
    """Add the command to the subparsers."""
    doctor = add_command(commands, "doctor", "say what would go wrong with a forecast here")
    add_variant(doctor, "of the forecast (default: mini)", default="mini")
    add_assets(doctor)
    doctor.add_argument("--members", type=int, default=1, metavar="N", help="of the forecast (default: 1)")
    doctor.add_argument("--lead-time", type=int, default=240, metavar="HOURS", help="of the forecast (default: 240)")
    doctor.add_argument(
        "--output", type=Path, default=Path(), metavar="FOLDER", help="where the output would go (default: this folder)"
    )
    doctor.set_defaults(command=run)


def run(known: argparse.Namespace) -> None:
    """Make all checks, and say what they find.

    Raises
    ------
    MosaicError
        If some failed.
    """
    from .checks import FAILURE, IntendedForecast, examine

    variant = VARIANTS[known.variant]
    plan = IntendedForecast(variant, known.assets, known.members, known.lead_time // variant.step_hours, known.output)
    failures = 0
    for finding in examine(plan):
        say(str(finding))
        failures += finding.level == FAILURE
    if failures:
        raise MosaicError(f"{failures} of these checks failed: a forecast with variant {variant.name} would not work")
