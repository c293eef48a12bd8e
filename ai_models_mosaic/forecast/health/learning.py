"""Bands from the records of runs that went well."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ... import __version__
from ...errors import InputError
from .bands import Bands
from .record import Section, read_record

LOG = logging.getLogger(__name__)

ENOUGH = 20
"""Runs, below which a warning says that there are few."""


def learn(paths: Sequence[Path], *, with_alarms: bool = False) -> tuple[Bands, dict[str, Any]]:
    """Bands that the members of all complete runs stay within, with a margin.

    Parameters
    ----------
    paths : sequence of Path
        Records; each may hold several initial times, all of one variant.
    with_alarms : bool
        Whether to take runs some of whose members left the bands of then, but for copies and what is not finite.

    Returns
    -------
    Bands
    dict
        Where they come from.

    Raises
    ------
    InputError
        If there is no such run, or records do not go together.
    """
    sections = [section for path in paths for section in read_record(path)]
    clean = [section for section in sections if _is_clean(section, with_alarms=with_alarms)]
    if not clean:
        raise InputError(
            f"expected records of complete runs without alarms, got {len(sections)} runs, none of them so; "
            "--with-alarms takes those with alarms, too"
        )
    kinds = {(one.header["variant"], tuple(map(tuple, one.header["waves"]))) for one in clean}
    if len(kinds) > 1:
        listed = ", ".join(sorted(f"{variant} at {waves}" for variant, waves in kinds))
        raise InputError(f"expected records of one variant and one grid, got {listed}")
    if len(clean) < ENOUGH:
        LOG.warning("Bands of %d runs: %d or more tell better what is usual", len(clean), ENOUGH)
    try:
        bands = Bands.of_signs(clean[0].header["waves"], (line for section in clean for line in section.lines))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"expected records as --health writes them, got {error!r}") from error
    times = sorted(section.header["initial_time"] for section in clean)
    origin = {
        "variant": clean[0].header["variant"],
        "ai-models-mosaic": __version__,
        "runs": len(clean),
        "left_out": len(sections) - len(clean),
        "member_steps": sum(len(section.lines) for section in clean),
        "initial_times": [times[0], times[-1]],
        "lead_time_hours": max(line["lead_time_hours"] for section in clean for line in section.lines),
    }
    return bands, origin


def _is_clean(section: Section, *, with_alarms: bool) -> bool:
    if section.ending != {"event": "end"} or not section.lines:
        return False
    alarms = [alarm for line in section.lines for alarm in line["alarms"]]
    if with_alarms:
        return not any("copy of member" in alarm or "not finite" in alarm for alarm in alarms)
    return not alarms
