"""What an input holds, and which history of states to take from it.

Fields are earthkit-data's, more than needed, in any order, of either GRIB edition. What is looked
at is parameter, level and valid time, never MARS labels alone.
"""

from __future__ import annotations

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
    factor : float
        What the values are multiplied with.
    grid : str
        Digest of the grid section: equal for equal grids.
    grid_type : str
        ecCodes' name of the grid.
    """

    source: Any
    channel: int
    valid_time: datetime
    lead_time_hours: int
    number: int
    factor: float
    grid: str
    grid_type: str

    @property
    def preference(self) -> tuple[int, int, bool]:
        """The smallest is used: an analysis before a forecast, a parameter before its alias."""
        return self.lead_time_hours, self.number, self.factor != 1.0

    @property
    def label(self) -> str:
        """For messages: parameter, level and valid time."""
        return f"{CHANNELS[self.channel].label} valid {self.valid_time:%Y-%m-%d %H:%M} UTC"


@dataclass
class Holdings:
    """What an input holds: usable fields by valid time and channel, and everything by its own name."""

    fields: dict[datetime, dict[int, HeldField]] = field(default_factory=lambda: defaultdict(dict))
    members: set[int] = field(default_factory=set)
    contents: dict[str, set[int | None]] = field(default_factory=lambda: defaultdict(set))
    times: set[datetime] = field(default_factory=set)
    fields_in_one_message: int = 1

    def missing(self, initial_time: datetime, lags_hours: Sequence[int]) -> dict[datetime, list[int]]:
        """Channels that a history lacks, by valid time; empty if it is complete."""
        lacking = {}
        for lag in lags_hours:
            time = initial_time + timedelta(hours=lag)
            held = self.fields.get(time, {})
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

    Of several fields for one channel and time, the one with the shortest lead time counts, then the
    lowest member number, then the first.

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
            held = holdings.fields[found.valid_time]
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
    pressure = level // HECTOPASCALS[kind] if kind in HECTOPASCALS else None
    valid_time = _datetime(handle.get("validityDate"), handle.get("validityTime"))
    holdings.contents[name].add(pressure)
    holdings.times.add(valid_time)
    holdings.fields_in_one_message = max(holdings.fields_in_one_message, _fields_in(handle))
    param, factor = ALIASES.get(name, (name, 1.0))
    channel = INDEX_OF.get((param, pressure))
    if channel is None:
        return None
    lead_time = valid_time - _datetime(handle.get("dataDate"), handle.get("dataTime"))
    number = int(handle.get("number", default=None) or 0)
    holdings.members.add(number)
    return HeldField(
        source=source,
        channel=channel,
        valid_time=valid_time,
        lead_time_hours=int(lead_time.total_seconds()) // 3600,
        number=number,
        factor=factor,
        grid=str(handle.get("md5GridSection")),
        grid_type=str(handle.get("gridType")),
    )


def choose_initial_time(holdings: Holdings, lags_hours: Sequence[int], wanted: Wanted) -> datetime:
    """The newest initial time with a complete history, among those that are wanted.

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
    candidates = sorted((time for time in holdings.times if wanted.accepts(time)), reverse=True)
    missing = {time: holdings.missing(time, lags_hours) for time in candidates}
    complete = [time for time in candidates if not missing[time]]
    if complete:
        if complete[0] != candidates[0]:
            LOG.warning("The history of %s UTC is incomplete; using an older one", list_times(candidates[:1]))
        return complete[0]
    if not candidates:
        raise InputError(f"the input has no field valid at {wanted}. It holds {holdings}.")
    # The newest of those that lack least.
    closest = min(candidates, key=lambda time: sum(len(channels) for channels in missing[time].values()))
    raise InputError(_missing_message(holdings, closest, missing[closest], len(lags_hours)))


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


def _fields_in(handle: Any) -> int:
    """Fields in a GRIB2 message: some centres put u and v into one, and readers miss the second."""
    if handle.get("edition") != 2:
        return 1
    message = handle.get_buffer()
    position, count = 16, 0
    while message[position : position + 4] != b"7777" and position + 5 <= len(message):
        count += message[position + 4] == 7
        position += int.from_bytes(message[position : position + 4], "big")
    return count


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
