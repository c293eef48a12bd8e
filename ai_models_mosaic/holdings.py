"""What an input holds, and which history of states to take from it.

Fields are earthkit-data's, more than needed, in any order, of either GRIB edition. What is looked
at is parameter, level and valid time, never MARS labels alone.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from eccodes import CodesInternalError

from .channels import CHANNELS, STANDARD_GRAVITY
from .errors import InputError

LOG = logging.getLogger(__name__)

ALIASES = {"gh": ("z", STANDARD_GRAVITY), "prmsl": ("msl", 1.0)}
"""Parameters accepted in place of another, and the factor that makes one of the other."""

HECTOPASCALS = {"isobaricInhPa": 1, "isobaricInPa": 100}
"""Kinds of pressure level, and their units in a hectopascal."""

INDEX_OF = {(channel.param, channel.level_hpa): index for index, channel in enumerate(CHANNELS)}
"""Channels by parameter and level."""


@dataclass(frozen=True)
class Wanted:
    """The initial time that was asked for; with nothing given, the newest in the input.

    Parameters
    ----------
    time : datetime or None
        UTC, without zone.
    day : date or None
        Any time of this day.
    hour : int or None
        This hour of any day.
    """

    time: datetime | None = None
    day: date | None = None
    hour: int | None = None

    def accepts(self, time: datetime) -> bool:
        """Whether a forecast may start at `time`."""
        return (
            self.time in (None, time)
            and self.day in (None, time.date())
            and self.hour in (None, time.hour + time.minute / 60)
        )

    def __str__(self) -> str:
        if self.time is not None:
            return f"{self.time:%Y-%m-%d %H:%M} UTC"
        if self.day is not None:
            return f"{self.day:%Y-%m-%d}"
        return "any time" if self.hour is None else f"{self.hour:02d} UTC"


@dataclass(frozen=True)
class HeldField:
    """A field of the input that a channel can be made of.

    Parameters
    ----------
    source : earthkit-data field
        Gives values, coordinates and the message.
    channel : int
        Index in `channels.CHANNELS`.
    valid_time : datetime
        UTC, without zone.
    lead_time_hours : int
        Valid time less base time.
    number : int
        Ensemble member; 0 for an analysis.
    grid : str
        Digest of the grid section: equal for equal grids.
    grid_type : str
        ecCodes' name of the grid.
    factor : float
        What the values are multiplied with.
    is_alias : bool
        The parameter is another than the channel's, accepted in its place.
    alternating : bool
        Every second row of the values runs the other way, which ecCodes leaves to its users.
    """

    source: Any
    channel: int
    valid_time: datetime
    lead_time_hours: int
    number: int
    grid: str
    grid_type: str
    factor: float = 1.0
    is_alias: bool = False
    alternating: bool = False

    @property
    def preference(self) -> tuple[int, bool]:
        """The smallest is used: an analysis before a forecast, a parameter before its alias."""
        return self.lead_time_hours, self.is_alias

    @property
    def label(self) -> str:
        """For messages: parameter, level and valid time."""
        return f"{CHANNELS[self.channel].label} valid {self.valid_time:%Y-%m-%d %H:%M} UTC"


States = dict[datetime, dict[int, HeldField]]
"""Usable fields by valid time and channel."""


@dataclass(frozen=True)
class History:
    """The states that a forecast starts from, all of one member.

    Parameters
    ----------
    times : tuple of datetime
        Valid times, oldest first.
    number : int
        The member; 0 for an analysis.
    fields : tuple of dict of int to HeldField
        The fields of every state, by channel.
    """

    times: tuple[datetime, ...]
    number: int
    fields: tuple[dict[int, HeldField], ...]


@dataclass
class Holdings:
    """What an input holds: usable fields of every member, and everything by its own name."""

    members: dict[int, States] = field(default_factory=lambda: defaultdict(lambda: defaultdict(dict)))
    contents: dict[str, set[int | None]] = field(default_factory=lambda: defaultdict(set))
    times: set[datetime] = field(default_factory=set)
    fields_in_one_message: int = 1

    def missing(self, number: int, initial_time: datetime, lags_hours: Sequence[int]) -> dict[datetime, list[int]]:
        """Channels that a member's history lacks, by valid time; empty if it is complete."""
        lacking = {}
        for time in _history(initial_time, lags_hours):
            held = self.members[number].get(time, {})
            channels = [channel for channel in range(len(CHANNELS)) if channel not in held]
            if channels:
                lacking[time] = channels
        return lacking

    def __str__(self) -> str:
        if not self.contents:
            return "no fields at all"
        return f"{_list_fields(self.contents)}; valid {list_times(sorted(self.times))} UTC"


def take_stock(fields: Iterable[Any]) -> Holdings:
    """Find the fields that channels can be made of, by parameter and level.

    Of several fields for one member, channel and time, the one with the shortest lead time counts,
    then the parameter itself before its alias, then the first.

    Parameters
    ----------
    fields : iterable of earthkit-data fields

    Raises
    ------
    InputError
        If a message cannot be read.
    """
    holdings = Holdings()
    count = 0
    try:
        for source in fields:
            found = _enter(holdings, source)
            count += 1
            if found is None:
                continue
            held = holdings.members[found.number][found.valid_time]
            if found.channel not in held or found.preference < held[found.channel].preference:
                held[found.channel] = found
    except (CodesInternalError, OSError) as error:
        raise InputError(
            f"the input cannot be read beyond its first {count} messages: {error}. "
            "Expected complete GRIB messages; was the file cut short?"
        ) from error
    return holdings


def _enter(holdings: Holdings, source: Any) -> HeldField | None:
    """Note what a message is; returns the field if a channel can be made of it."""
    handle = source.handle
    name, kind, level = handle.get("shortName"), handle.get("typeOfLevel"), handle.get("level")
    pressure, remainder = divmod(level, HECTOPASCALS[kind]) if kind in HECTOPASCALS else (None, 0)
    valid_time = _datetime(handle.get("validityDate"), handle.get("validityTime"))
    holdings.contents[name].add(pressure)
    holdings.times.add(valid_time)
    grid, fields = _sections(handle.get_buffer())
    holdings.fields_in_one_message = max(holdings.fields_in_one_message, fields)
    param, factor = ALIASES.get(name, (name, 1.0))
    channel = INDEX_OF.get((param, pressure))
    if channel is None or remainder:
        return None
    lead_time = valid_time - _datetime(handle.get("dataDate"), handle.get("dataTime"))
    return HeldField(
        source=source,
        channel=channel,
        valid_time=valid_time,
        lead_time_hours=int(lead_time.total_seconds()) // 3600,
        number=int(handle.get("number", default=None) or 0),
        grid=hashlib.sha256(grid).hexdigest(),
        grid_type=str(handle.get("gridType")),
        factor=factor,
        is_alias=name in ALIASES,
        alternating=bool(handle.get("alternativeRowScanning", default=0)),
    )


def choose_history(holdings: Holdings, lags_hours: Sequence[int], wanted: Wanted) -> History:
    """The newest complete history among those that are wanted, of the lowest member that has one.

    Parameters
    ----------
    holdings : Holdings
        What there is.
    lags_hours : sequence of int
        Hours of the states relative to the initial time.
    wanted : Wanted
        Which initial times will do.

    Raises
    ------
    InputError
        If there is none; lists all that is missing for the one that comes closest.
    """
    usable = {time for states in holdings.members.values() for time in states} or holdings.times
    candidates = sorted((time for time in usable if wanted.accepts(time)), reverse=True)
    if not candidates:
        raise InputError(f"the input has no field valid at {wanted}. It holds {holdings}.")
    missing = {
        (time, number): holdings.missing(number, time, lags_hours)
        for time in candidates
        for number in sorted(holdings.members) or [0]
    }
    # The newest, of the lowest member, of those that lack least.
    time, number = min(missing, key=lambda key: sum(len(channels) for channels in missing[key].values()))
    if missing[time, number]:
        raise InputError(_missing_message(holdings, time, missing[time, number], len(lags_hours)))
    if time != candidates[0]:
        LOG.warning("The history of %s UTC is incomplete; using an older one", list_times(candidates[:1]))
    return _history_of(holdings, number, _history(time, lags_hours))


def choose_histories(holdings: Holdings, lags_hours: Sequence[int], wanted: Wanted) -> dict[int, History]:
    """The history of every member that has one at the time that `choose_history` chooses, by number.

    A control, number 0, counts only where it is alone. Arguments and errors are those of `choose_history`.
    """
    first = choose_history(holdings, lags_hours, wanted)
    initial_time = first.times[-1]
    here = [number for number in sorted(holdings.members) if initial_time in holdings.members[number]]
    complete = [number for number in here if not holdings.missing(number, initial_time, lags_hours)]
    lacking = sorted(set(here) - set(complete) - {0})
    if lacking:
        LOG.warning(
            "Members %s of the input lack fields for %s UTC, and are left out",
            ", ".join(str(number) for number in lacking),
            list_times([initial_time]),
        )
    perturbed = [number for number in complete if number != 0]
    return {number: _history_of(holdings, number, first.times) for number in perturbed or complete}


def pair_members(members: Sequence[int], numbers: Sequence[int]) -> dict[int, int]:
    """Which member of the input every member of the forecast starts from.

    Its own number where the input has it; else the input's members in turn, so that the answer for a
    member depends neither on the size of the ensemble nor on what else is run.

    Parameters
    ----------
    members : sequence of int
        Of the forecast, from 1.
    numbers : sequence of int
        Of the input, ascending, at least one.
    """
    return {member: member if member in numbers else numbers[(member - 1) % len(numbers)] for member in members}


def _history_of(holdings: Holdings, number: int, times: tuple[datetime, ...]) -> History:
    return History(times, number, tuple(holdings.members[number][state] for state in times))


def _history(initial_time: datetime, lags_hours: Sequence[int]) -> tuple[datetime, ...]:
    return tuple(initial_time + timedelta(hours=lag) for lag in lags_hours)


def _missing_message(
    holdings: Holdings, initial_time: datetime, missing: Mapping[datetime, Sequence[int]], states: int
) -> str:
    count = sum(len(channels) for channels in missing.values())
    lines = [
        f"the input lacks {count} of the {states * len(CHANNELS)} fields that a forecast from "
        f"{initial_time:%Y-%m-%d %H:%M} UTC needs:"
    ]
    for time, channels in missing.items():
        lacking: dict[str, set[int | None]] = defaultdict(set)
        for index in channels:
            lacking[CHANNELS[index].param].add(CHANNELS[index].level_hpa)
        lines.append(f"  {_list_fields(lacking)}; valid {list_times([time])} UTC")
    lines.append(f"It holds {holdings}.")
    if holdings.fields_in_one_message > 1:
        lines.append(
            f"Some of its messages hold {holdings.fields_in_one_message} fields, of which only the first is read: "
            "split them with grib_copy INPUT OUTPUT (without -M), or wgrib2 INPUT -submsg_uv OUTPUT."
        )
    return "\n".join(lines)


def _sections(message: bytes) -> tuple[bytes, int]:
    """Section of a message that describes its grid, and the number of fields in it.

    Some centres put u and v into one GRIB2 message, of which readers miss the second; ecCodes'
    own digest of the grid fails on such messages.
    """
    edition = message[7]
    if edition == 1:
        start = 8 + int.from_bytes(message[8:11], "big")
        return message[start : start + int.from_bytes(message[start : start + 3], "big")], 1
    grid, fields, position = b"", 0, 16
    while message[position : position + 4] != b"7777" and position + 5 <= len(message):
        length, number = int.from_bytes(message[position : position + 4], "big"), message[position + 4]
        grid = message[position : position + length] if number == 3 else grid
        fields += number == 7
        position += max(length, 5)
    return grid, fields


def _datetime(day: int, time: int) -> datetime:
    """UTC time of the GRIB keys ``YYYYMMDD`` and ``HHMM``."""
    return datetime.strptime(f"{day:08d}{time:04d}", "%Y%m%d%H%M")


def _list_fields(levels_of: Mapping[str, set[int | None]]) -> str:
    """Parameters, those on the same levels together: ``2t; t, z at 500/850 hPa``."""
    together: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name, levels in levels_of.items():
        together[tuple(sorted(level for level in levels if level is not None))].append(name)
    parts = [
        ", ".join(names) + (f" at {'/'.join(str(level) for level in levels)} hPa" if levels else "")
        for levels, names in together.items()
    ]
    return "; ".join(parts)


def list_times(times: Iterable[datetime]) -> str:
    """Times for a message, without their zone, UTC."""
    return ", ".join(f"{time:%Y-%m-%d %H:%M}" for time in times)
