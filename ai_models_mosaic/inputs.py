"""From GRIB fields to a checked InitialState.

Fields are earthkit-data's, from a file or from a service; more than needed, in any order, of
either GRIB edition. What is looked at is parameter, level and valid time, never MARS labels alone.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
from eccodes import CodesInternalError

from .arrays import FloatArray, IntArray
from .channels import CHANNELS, STANDARD_GRAVITY, Channel
from .errors import InputError
from .grid import LatLonGrid, grid_of_points
from .regrid import ConservativeRegridder
from .state import InitialState

LOG = logging.getLogger(__name__)

GRID_TYPES = ("regular_ll", "regular_gg")
"""Grids whose points are the product of their longitudes and latitudes."""

ALIASES = {"gh": ("z", STANDARD_GRAVITY), "prmsl": ("msl", 1.0)}
"""Parameters accepted in place of another, and the factor that makes one of the other."""

HECTOPASCALS = {"isobaricInhPa": 1, "isobaricInPa": 100}
"""Kinds of pressure level, and their units in a hectopascal."""

INDEX_OF = {(channel.param, channel.level_hpa): index for index, channel in enumerate(CHANNELS)}
"""Channels by parameter and level."""

PROBLEMS_SHOWN = 10
"""Bad fields that one message describes before it counts the rest."""


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
        return f"{_list_fields(self.contents)}; valid {_list_times(sorted(self.times))} UTC"


def read_initial_state(
    fields: Iterable[Any], grid: LatLonGrid, lags_hours: Sequence[int], wanted: Wanted | None = None
) -> InitialState:
    """Select, check and regrid the fields of a history.

    Parameters
    ----------
    fields : iterable of earthkit-data fields
        GRIB fields, in any order.
    grid : LatLonGrid
        The variant's grid.
    lags_hours : sequence of int
        Hours of the states relative to the initial time, oldest first, such as (-24, 0).
    wanted : Wanted or None
        The initial time; None for the newest complete history.

    Returns
    -------
    InitialState

    Raises
    ------
    InputError
        If fields are missing, unreadable, on an unsupported grid, non-finite or unphysical. One
        message names all of them.
    """
    holdings = take_stock(fields)
    initial_time = choose_initial_time(holdings, lags_hours, wanted or Wanted())
    if len(holdings.members) > 1:
        LOG.warning(
            "The input holds members %s; every member of the forecast starts from the first of them, %d. "
            "Choose another with: grib_copy -w number=N INPUT OUTPUT",
            ", ".join(str(number) for number in sorted(holdings.members)),
            min(holdings.members),
        )
    times = tuple(initial_time + timedelta(hours=lag) for lag in lags_hours)
    LOG.info("Starting from %s, with states of %s UTC", f"{initial_time:%Y-%m-%d %H:%M} UTC", _list_times(times))
    values = np.empty((len(times), *grid.shape, len(CHANNELS)), dtype=np.float32)
    digest = hashlib.sha256()
    problems: list[str] = []
    mapper = _Mapper(grid)
    for index, time in enumerate(times):
        for channel in range(len(CHANNELS)):
            held = holdings.fields[time][channel]
            digest.update(held.source.message())
            raw = held.source.to_numpy(flatten=True, dtype=np.float64) * held.factor
            problem = _problem(raw, CHANNELS[channel])
            if problem:
                problems.append(f"{held.label}: {problem}")
            else:
                values[index, :, :, channel] = mapper(held, raw)
    _refuse_problems(problems)
    return InitialState(grid, times, values, digest.hexdigest())


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
            LOG.warning("The history of %s UTC is incomplete; using an older one", _list_times(candidates[:1]))
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
        lines.append(f"  {_list_fields(lacking)}; valid {_list_times([time])} UTC")
    lines.append(f"It holds {holdings}.")
    if holdings.fields_in_one_message > 1:
        lines.append(
            f"Some of its messages hold {holdings.fields_in_one_message} fields, of which only the first is read: "
            "split them with grib_copy INPUT OUTPUT (without -M), or wgrib2 INPUT -submsg_uv OUTPUT."
        )
    return "\n".join(lines)


class _Mapper:
    """Puts fields on the variant's grid; what depends on their grid alone is worked out once."""

    def __init__(self, target: LatLonGrid) -> None:
        self._target = target
        self._known: dict[str, tuple[IntArray, ConservativeRegridder]] = {}

    def __call__(self, held: HeldField, values: FloatArray) -> FloatArray:
        """The field on the target, ``(lon, lat)``."""
        if held.grid not in self._known:
            self._known[held.grid] = self._prepare(held)
        order, regridder = self._known[held.grid]
        return regridder(values[order])

    def _prepare(self, held: HeldField) -> tuple[IntArray, ConservativeRegridder]:
        if held.grid_type not in GRID_TYPES:
            raise InputError(
                f"{held.label} is on a grid of type {held.grid_type}: expected one of {', '.join(GRID_TYPES)}. "
                "Interpolate the input first, for instance to 0.25°"
            )
        points = held.source.to_latlon(flatten=True)
        try:
            grid, order = grid_of_points(points["lon"], points["lat"])
        except ValueError as error:
            raise InputError(f"{held.label} is not on a usable grid: {error}") from error
        regridder = ConservativeRegridder(grid, self._target)
        LOG.info("Input grid: %s%s", grid, "" if regridder.is_identity else f", regridded to {self._target}")
        return order, regridder


def _problem(values: FloatArray, channel: Channel) -> str:
    """What makes a field unusable, or an empty string; a constant field only earns a warning."""
    finite = np.isfinite(values)
    if not finite.all():
        return f"{values.size - int(finite.sum())} of {values.size} values are NaN, infinite or missing"
    low, high = float(values.min()), float(values.max())
    if low < channel.minimum or high > channel.maximum:
        worst = low if low < channel.minimum else high
        bounds = f"{channel.minimum:g} … {channel.maximum:g} {channel.units}"
        return f"value {worst:g} is outside {bounds}{_hint(values, channel)}"
    if low == high:
        LOG.warning("%s is constant: %g %s everywhere", channel.label, low, channel.units)
    return ""


def _hint(values: FloatArray, channel: Channel) -> str:
    """The mistake that a change of units would explain, in words for the end of a message."""
    guesses: dict[str, Callable[[FloatArray], FloatArray]] = {
        "geopotential height in m": lambda v: v * STANDARD_GRAVITY,
        "degrees Celsius": lambda v: v + 273.15,
        "hPa": lambda v: v * 100,
        "g/kg": lambda v: v / 1000,
    }
    fitting = {"z": ["geopotential height in m"], "t": ["degrees Celsius"], "2t": ["degrees Celsius"]}
    fitting |= {"msl": ["hPa"], "q": ["g/kg"]}
    for name in fitting.get(channel.param, []):
        corrected = guesses[name](values)
        if channel.minimum <= corrected.min() and corrected.max() <= channel.maximum:
            return f"; is it {name}?"
    return ""


def _refuse_problems(problems: Sequence[str]) -> None:
    if not problems:
        return
    shown = "\n".join(f"  {problem}" for problem in problems[:PROBLEMS_SHOWN])
    rest = f"\n  and {len(problems) - PROBLEMS_SHOWN} more" if len(problems) > PROBLEMS_SHOWN else ""
    raise InputError(
        f"{len(problems)} input fields cannot be used:\n{shown}{rest}\nExpected finite values in SI units."
    )


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


def _list_times(times: Iterable[datetime]) -> str:
    return ", ".join(f"{time:%Y-%m-%d %H:%M}" for time in times)
