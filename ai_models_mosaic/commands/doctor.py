"""``ai-models-mosaic doctor``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import MosaicError
from ..forecast.console import say
from ..variants import VARIANTS
from . import Commands, add_assets


def add(commands: Commands) -> None:
    """Add the command to the subparsers."""
    doctor = commands.add_parser("doctor", help="check this installation, and say what would go wrong with a forecast")
    doctor.add_argument("--variant", choices=sorted(VARIANTS), default="mini")
    add_assets(doctor)
    doctor.add_argument("--members", type=int, default=1, metavar="N")
    doctor.add_argument("--lead-time", type=int, default=240, metavar="HOURS")
    doctor.add_argument("--output", type=Path, default=Path(), metavar="FOLDER", help="where the output would go")
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
