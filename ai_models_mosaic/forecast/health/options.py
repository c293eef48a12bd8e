"""The options of the flight recorder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...errors import OptionError
from ...options.declarations import may_change, option

GROUP = "run"
"""Heading of the list of options."""


@dataclass(frozen=True)
class HealthOptions:
    """What is recorded of members' health; nothing that a run makes depends on it.

    Raises
    ------
    OptionError
        If there is no recorder for what is asked of it.
    """

    file: Path | None = option(
        "--health",
        group=GROUP,
        parse=Path,
        metavar="FILE",
        help="record power by wavenumber, mass, moisture and range of every member and step, as lines of JSON, and "
        "warn of what leaves its band",
        resume=may_change("it is no output"),
    )
    bands: Path | None = option(
        "--health-bands",
        group=GROUP,
        parse=Path,
        metavar="FILE",
        help="bands of --health, made by ai-models-mosaic health-bands of runs that went well",
        shown="wide ones for every model",
        resume=may_change("it is no output"),
    )
    exits: bool = option(
        "--health-exit",
        group=GROUP,
        default=False,
        help="end with status 13 where something left its band; the output is complete",
        resume=may_change("it is no output"),
    )

    def __post_init__(self) -> None:
        for flag, given in (("--health-bands", self.bands is not None), ("--health-exit", self.exits)):
            if given and self.file is None:
                raise OptionError(f"{flag}: expected --health FILE as well")
