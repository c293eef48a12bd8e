"""What an input lacks, in words: fields that are missing, that are no states, or that are of several sources."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from ..channels import CHANNELS
from .field_origins import Origin
from .fields import AvailableFields, Strains, list_fields, list_times

PARTS_SHOWN = 6
"""Parts of a state, and broken messages, that one message describes."""


def missing_fields(available: AvailableFields, number: int, times: Iterable[datetime]) -> dict[datetime, list[int]]:
    """Channels that a member's history lacks, whoever made them, by valid time; empty if there are all."""
    lacking = {}
    for time in times:
        held = {channel for fields in available.members[number].get(time, {}).values() for channel in fields}
        channels = [channel for channel in range(len(CHANNELS)) if channel not in held]
        if channels:
            lacking[time] = channels
    return lacking


def missing_together(available: AvailableFields, times: Iterable[datetime]) -> dict[datetime, set[int]]:
    """Channels that no member has, by valid time."""
    each = [missing_fields(available, number, times) for number in available.members]
    return {
        time: set.intersection(*(set(lacking.get(time, ())) for lacking in each)) if each else set(range(len(CHANNELS)))
        for time in times
    }


def products_message(available: AvailableFields) -> str:
    """That an input holds no state, but what was made of several."""
    first = next(iter(available.products))
    return (
        f"{first} is not a state: the input holds no field to start from. It holds {available.list_products()}; "
        "expected instantaneous fields of an analysis, a control, a member or a deterministic forecast."
        f"{_damaged(available)}"
    )


def left_out(available: AvailableFields) -> str:
    """What of an input was left out, for the end of a message; empty if nothing was."""
    products = f"\nLeft out, since they are no states: {available.list_products()}." if available.products else ""
    return products + _damaged(available)


def _damaged(available: AvailableFields) -> str:
    lines = [f"Left out: {problem}." for problem in available.damages[:PARTS_SHOWN]]
    if len(available.damages) > PARTS_SHOWN:
        lines.append(f"Left out: {len(available.damages) - PARTS_SHOWN} more.")
    return "".join(f"\n{line}" for line in lines)


def missing_message(
    available: AvailableFields, initial_time: datetime, missing: Mapping[datetime, Sequence[int]], states: int
) -> str:
    """All fields that a history lacks.

    Parameters
    ----------
    available : AvailableFields
        What there is.
    initial_time : datetime
        Of the history.
    missing : dict of datetime to list of int
        Channels by valid time.
    states : int
        Of the history.
    """
    count = sum(len(channels) for channels in missing.values())
    lines = [
        f"the input lacks {count} of the {states * len(CHANNELS)} fields that a forecast from "
        f"{initial_time:%Y-%m-%d %H:%M} UTC needs:"
    ]
    for time, channels in missing.items():
        lines.append(f"  {_list_channels(channels)}; valid {list_times([time])} UTC")
    lines.append(f"It holds {available}.{left_out(available)}")
    if available.fields_in_one_message > 1:
        lines.append(
            f"Some of its messages hold {available.fields_in_one_message} fields, of which only the first is read: "
            "split them with grib_copy INPUT OUTPUT (without -M), or wgrib2 INPUT -submsg_uv OUTPUT."
        )
    return "\n".join(lines)


def mixture_message(available: AvailableFields, times: Sequence[datetime]) -> str:
    """That a history could only be put together from several sources, and from which."""
    lines = [
        f"the input has all fields that a forecast from {list_times(times[-1:])} UTC needs, but not of one source, and "
        "sources are never mixed:"
    ]
    parts = [
        f"  {list_times([time])} UTC, {_part(origin, number, held)}"
        for time in times
        for number in sorted(available.members)
        for origin, held in _by_origin(available.members[number].get(time, {})).items()
    ]
    lines += parts[:PARTS_SHOWN]
    if len(parts) > PARTS_SHOWN:
        lines.append(f"  and {len(parts) - PARTS_SHOWN} more")
    lines.append(
        "Expected every state whole from one centre, class, stream, expver, type and member, and all states from one "
        f"centre and class: keep one source, for instance with grib_copy -w.{left_out(available)}"
    )
    return "\n".join(lines)


def _part(origin: Origin, number: int, held: set[int]) -> str:
    lacking = sorted(set(range(len(CHANNELS))) - held)
    without = f", without {_list_channels(lacking)}" if lacking else ""
    member = f", member {number}" if number else ""
    return f"{origin}{member}: {len(held)} of {len(CHANNELS)} fields{without}"


def _by_origin(strains: Strains) -> dict[Origin, set[int]]:
    """Channels of every origin."""
    held: dict[Origin, set[int]] = defaultdict(set)
    for strain, fields in strains.items():
        held[strain.origin].update(fields)
    return held


def _list_channels(channels: Iterable[int]) -> str:
    levels: dict[str, set[int | None]] = defaultdict(set)
    for index in channels:
        levels[CHANNELS[index].param].add(CHANNELS[index].level_hpa)
    return list_fields(levels)
