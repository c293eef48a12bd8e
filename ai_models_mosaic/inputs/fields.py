"""What an input holds: the fields that are states, by member, time and who made them, and all else by its name.

There may be more than is needed, in any order, of either GRIB edition. A field is known by what it is: parameter,
level and valid time, and whether it is a state at all.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from eccodes import CodesInternalError

from ..channels import CHANNELS, STANDARD_GRAVITY
from ..errors import InputError
from .field_kinds import integer, kind_of, text
from .field_origins import UNLABELLED, Origin, number_of, origin_of, process_of, times_of
from .grib_messages import Damage, FieldMessage, Message

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
class AvailableField:
    """A field of the input that a channel can be made of.

    Parameters
    ----------
    source : grib_messages.Message or its like
        Gives values, coordinates and the message.
    channel : int
        Index in `channels.CHANNELS`.
    valid_time : datetime
        UTC, without zone.
    lead_time_s : int
        Valid time less base time, s.
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
    origin : Origin
        Who made it.
    process : tuple of int or None
        As `field_origins.process_of` gives it.
    others : list of AvailableField
        What else is there under the same name, after it.
    """

    source: Any
    channel: int
    valid_time: datetime
    lead_time_s: int
    number: int
    grid: str
    grid_type: str
    factor: float = 1.0
    is_alias: bool = False
    alternating: bool = False
    origin: Origin = UNLABELLED
    process: tuple[int | None, ...] = ()
    others: list[AvailableField] = field(default_factory=list, compare=False, repr=False)

    @property
    def strain(self) -> Strain:
        """What the fields of one run of one model have in common."""
        return Strain(self.origin, self.lead_time_s, self.process)

    @property
    def label(self) -> str:
        """For messages: parameter, level and valid time."""
        return f"{CHANNELS[self.channel].label} valid {self.valid_time:%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True)
class Strain:
    """One run of one model: its fields at one time may be a state.

    Parameters
    ----------
    origin : Origin
    lead_time_s : int
        Valid time less base time, s.
    process : tuple of int or None
        As `field_origins.process_of` gives it.
    """

    origin: Origin
    lead_time_s: int
    process: tuple[int | None, ...]


Fields = dict[int, AvailableField]
"""Usable fields by channel."""

Strains = dict[Strain, Fields]
"""Usable fields of one member at one time, in the order of the input."""


@dataclass
class AvailableFields:
    """What an input holds: usable fields of every member, and everything by its own name.

    Parameters
    ----------
    members : dict of int to dict of datetime to Strains
        By number and valid time.
    contents : dict of str to set of int or None
        Levels by parameter, of every message, hPa.
    times : set of datetime
        At which any message is valid.
    fields_in_one_message : int
        The most.
    products : Counter of str
        Fields that would be needed if they were states, by what they are.
    damages : list of str
        What is wrong with messages that cannot be read.
    """

    members: dict[int, dict[datetime, Strains]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(dict)))
    contents: dict[str, set[int | None]] = field(default_factory=lambda: defaultdict(set))
    times: set[datetime] = field(default_factory=set)
    fields_in_one_message: int = 1
    products: Counter[str] = field(default_factory=Counter)
    damages: list[str] = field(default_factory=list)

    def add(self, found: AvailableField) -> None:
        """Keep a usable field; of two of one strain, a parameter counts before its alias, then the first."""
        held = self.members[found.number][found.valid_time].setdefault(found.strain, {})
        before = held.get(found.channel)
        if before is None or found.is_alias < before.is_alias:
            held[found.channel] = found
        elif found.is_alias == before.is_alias:
            before.others.append(found)

    def list_products(self) -> str:
        """What would be needed if it were a state, counted."""
        return ", ".join(f"{count} fields of {kind}" for kind, count in self.products.items())

    def __str__(self) -> str:
        if not self.contents:
            return "no fields at all"
        return f"{list_fields(self.contents)}; valid {list_times(sorted(self.times))} UTC"


def list_available(fields: Iterable[Any]) -> AvailableFields:
    """Find the fields that channels can be made of: by parameter and level, then by what they are.

    A message that is none of them is not interpreted further, whatever is wrong with it.

    Parameters
    ----------
    fields : iterable of grib_messages.Message, Damage or earthkit-data fields

    Raises
    ------
    InputError
        If they cannot be read.
    """
    available = AvailableFields()
    count = 0
    try:
        for source in fields:
            count += 1
            if isinstance(source, Damage):
                available.damages.append(source.problem)
                continue
            _enter(available, source if isinstance(source, Message) else FieldMessage(source), count)
    except (CodesInternalError, OSError) as error:
        raise InputError(
            f"the input cannot be read beyond its first {count} messages: {error}. Expected complete GRIB messages"
        ) from error
    if available.products:
        LOG.info("Left out, since they are no states: %s", available.list_products())
    for problem in available.damages:
        LOG.warning("Left out: %s", problem)
    return available


def _enter(available: AvailableFields, message: Message, count: int) -> None:
    """Note what a message is, and keep it if a channel can be made of it."""
    try:
        with message.headers() as handle:
            _enter_headers(available, message, handle, f"message {count}")
    except (CodesInternalError, ValueError) as error:
        available.damages.append(f"message {count} cannot be read ({error}); was the file cut short?")


def _enter_headers(available: AvailableFields, message: Message, handle: int, place: str) -> None:
    name, kind, level = text(handle, "shortName"), text(handle, "typeOfLevel"), integer(handle, "level")
    on_pressure = kind in HECTOPASCALS and level is not None
    pressure, remainder = divmod(level or 0, HECTOPASCALS[kind]) if on_pressure else (None, 0)
    available.contents[name].add(pressure)
    times = times_of(handle)
    if times is not None:
        available.times.add(times.valid_time)
    grid, fields = message.grid_and_count()
    available.fields_in_one_message = max(available.fields_in_one_message, fields)
    param, factor = ALIASES.get(name, (name, 1.0))
    channel = INDEX_OF.get((param, pressure))
    if channel is None or remainder:
        return
    what = kind_of(handle)
    if not what.is_state:
        available.products[str(what)] += 1
    elif times is None:
        available.damages.append(f"{place}, {CHANNELS[channel].label}, does not say when it is valid")
    else:
        available.add(
            AvailableField(
                source=message,
                channel=channel,
                valid_time=times.valid_time,
                lead_time_s=times.lead_time_s,
                number=number_of(handle),
                grid=hashlib.sha256(grid).hexdigest(),
                grid_type=text(handle, "gridType"),
                factor=factor,
                is_alias=name in ALIASES,
                alternating=bool(integer(handle, "alternativeRowScanning")),
                origin=origin_of(handle),
                process=process_of(handle),
            )
        )


def list_fields(levels_of: Mapping[str, set[int | None]]) -> str:
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
