"""Forecasts and truth in GRIB files, ours or anyone's: what a message is, is read from its keys, never from its name.

Files are scanned once for their initial dates, and then only those of the current date are looked at message by
message; values are decoded channel by channel.
"""

from __future__ import annotations

import glob
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import eccodes
import numpy as np

from ..arrays import FloatArray, IntArray
from ..channels import Channel
from ..errors import InputError
from ..grid import LatLonGrid, alternated, grid_of_points
from ..holdings import ALIASES, HECTOPASCALS
from .cases import Case

SUFFIXES = (".grib", ".grib2", ".grib1", ".grb", ".grb2", ".grb1")
"""Files of a folder that are taken for GRIB."""

CONTROL = "cf"
"""Type of an unperturbed member, which is not exchangeable with the others."""

CONTROL_NUMBER = 0


@dataclass(frozen=True)
class Message:
    """Where a message is, and what it is.

    Parameters
    ----------
    path : Path
    offset, length : int
        Bytes.
    kind : str
        ECMWF's type, such as ``pf``, ``cf``, ``fc`` or ``an``.
    number : int
        Ensemble member; 0 if there is none.
    initial_time, valid_time : datetime
        UTC, without zone.
    field : (str, int or None)
        Parameter and level in hPa.
    factor : float
        What makes the channel's values of the message's.
    """

    path: Path
    offset: int
    length: int
    kind: str
    number: int
    initial_time: datetime
    valid_time: datetime
    field: tuple[str, int | None]
    factor: float

    @property
    def lead_hours(self) -> int:
        """Valid time less initial time, h."""
        return int((self.valid_time - self.initial_time).total_seconds()) // 3600


def find_files(pattern: str) -> list[Path]:
    """The files that a name, a folder or a pattern such as ``out/*.grib`` stands for, by name.

    Raises
    ------
    InputError
        If there are none.
    """
    path = Path(pattern)
    if path.is_dir():
        found = [file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file()]
    else:
        found = [path] if path.is_file() else [Path(name) for name in glob.glob(pattern, recursive=True)]  # noqa: PTH207
    if not found:
        raise InputError(
            f"{pattern}: expected a GRIB file, a folder of files that end in {', '.join(SUFFIXES)}, a pattern that "
            "matches some, or a Zarr store (.zarr); found none"
        )
    return sorted(found)


def scan(path: Path) -> Iterator[Message]:
    """The messages of a file that may be channels; their values are not read.

    Raises
    ------
    InputError
        If the file cannot be read as GRIB.
    """
    try:
        with path.open("rb") as file:
            while (handle := eccodes.codes_grib_new_from_file(file, headers_only=True)) is not None:
                try:
                    message = _message(path, handle)
                finally:
                    eccodes.codes_release(handle)
                if message is not None:
                    yield message
    except (OSError, eccodes.CodesInternalError) as error:
        raise InputError(f"{path} cannot be read as GRIB: {error}. Expected complete messages") from error


def _message(path: Path, handle: int) -> Message | None:
    name, kind = eccodes.codes_get_string(handle, "shortName"), eccodes.codes_get_string(handle, "typeOfLevel")
    level, remainder = divmod(eccodes.codes_get_long(handle, "level"), HECTOPASCALS.get(kind, 1))
    if remainder:
        return None
    param, factor = ALIASES.get(name, (name, 1.0))
    has_type = eccodes.codes_is_defined(handle, "dataType")
    return Message(
        path=path,
        offset=eccodes.codes_get_message_offset(handle),
        length=eccodes.codes_get_long(handle, "totalLength"),
        kind=eccodes.codes_get_string(handle, "dataType") if has_type else "",
        number=eccodes.codes_get_long(handle, "number") if eccodes.codes_is_defined(handle, "number") else 0,
        initial_time=_time(handle, "dataDate", "dataTime"),
        valid_time=_time(handle, "validityDate", "validityTime"),
        field=(param, level if kind in HECTOPASCALS else None),
        factor=factor,
    )


def _time(handle: int, day: str, time: str) -> datetime:
    text = f"{eccodes.codes_get_long(handle, day):08d}{eccodes.codes_get_long(handle, time):04d}"
    return datetime.strptime(text, "%Y%m%d%H%M")


Used = TypeVar("Used")


class Decoder:
    """Decodes messages on one grid to ``(lon, lat)``, south to north."""

    def __init__(self, first: Message) -> None:
        self.grid, self._order, self._key = _with_handle(first, _grid)

    def __call__(self, message: Message) -> FloatArray:
        """Values in the channel's units; NaN where the message has none.

        Raises
        ------
        InputError
            If the message is on another grid, or cannot be decoded.
        """
        values, key = _with_handle(message, _values)
        if key != self._key:
            raise InputError(
                f"{message.path}: {message.field[0]} from {message.initial_time} UTC is on another grid than the first "
                f"message, {self.grid}. Expected all on one"
            )
        return (values[self._order] * message.factor).astype(np.float32)


def _with_handle(message: Message, use: Callable[[int, Message], Used]) -> Used:
    try:
        with message.path.open("rb") as file:
            file.seek(message.offset)
            handle = eccodes.codes_new_from_message(file.read(message.length))
        try:
            return use(handle, message)
        finally:
            eccodes.codes_release(handle)
    except (OSError, eccodes.CodesInternalError) as error:
        raise InputError(f"{message.path}: a message at byte {message.offset} cannot be decoded: {error}") from error


def _grid(handle: int, message: Message) -> tuple[LatLonGrid, IntArray, str]:
    longitude, latitude = (eccodes.codes_get_array(handle, key) for key in ("longitudes", "latitudes"))
    try:
        if eccodes.codes_is_defined(handle, "alternativeRowScanning") and eccodes.codes_get_long(
            handle, "alternativeRowScanning"
        ):
            longitude = alternated(longitude, latitude)
        grid, order = grid_of_points(longitude, latitude)
    except ValueError as error:
        raise InputError(f"{message.path} is not on a usable grid: {error}") from error
    if not isinstance(grid, LatLonGrid):
        raise InputError(
            f"{message.path} is on a reduced grid ({grid}): expected longitudes × latitudes. Interpolate it first"
        )
    return grid, order, eccodes.codes_get_string(handle, "md5GridSection")


def _values(handle: int, _: Message) -> tuple[FloatArray, str]:
    missing = 1e30
    eccodes.codes_set(handle, "missingValue", missing)
    values = eccodes.codes_get_values(handle)
    if eccodes.codes_get_long(handle, "numberOfMissing"):
        values = np.where(values == missing, np.nan, values)
    return values, eccodes.codes_get_string(handle, "md5GridSection")


class GribForecasts:
    """Forecasts in GRIB files, of any number of dates per file or files per date.

    Step 0 is never verified. An unperturbed control (type ``cf``) beside perturbed members is left out unless asked
    for: it is not exchangeable with them, which the fair CRPS and rank histograms take for granted.

    Parameters
    ----------
    pattern : str
        As for `find_files`.
    channels : sequence of Channel
        What will be read; dates, members or leads that lack one are skipped and reported.
    lead_hours : sequence of int
        Lead times wanted; all if empty.
    with_control : bool
        Whether an unperturbed control counts as a member.

    Raises
    ------
    InputError
        If there is no usable forecast field.
    """

    def __init__(
        self, pattern: str, channels: Sequence[Channel], lead_hours: Sequence[int] = (), with_control: bool = False
    ) -> None:
        self._fields = {(channel.param, channel.level_hpa) for channel in channels}
        self._leads = frozenset(lead_hours)
        self._files: dict[datetime, list[Path]] = defaultdict(list)
        first: Message | None = None
        perturbed: set[int] = set()
        control = False
        for path in find_files(pattern):
            for message in filter(self._wanted, scan(path)):
                first = first or message
                control |= message.kind == CONTROL
                if message.kind != CONTROL:
                    perturbed.add(message.number)
                if path not in self._files[message.initial_time][-1:]:
                    self._files[message.initial_time].append(path)
        if first is None:
            names = ", ".join(channel.label for channel in channels)
            leads = f" at {sorted(self._leads)} h" if self._leads else ""
            raise InputError(f"{pattern}: expected forecasts of {names}{leads}, got none beyond step 0")
        self._members = frozenset(perturbed)
        self._controls = int(control and (with_control or not perturbed))
        self._decode = Decoder(first)

    @property
    def grid(self) -> LatLonGrid:
        """Grid of every field."""
        return self._decode.grid

    def cases(self) -> Iterator[Case]:
        """One case per initial date, ascending."""
        for time in sorted(self._files):
            yield self._case(time)

    def _wanted(self, message: Message) -> bool:
        lead = message.lead_hours
        return message.field in self._fields and lead > 0 and lead in (self._leads or {lead})

    def _counts(self, message: Message) -> bool:
        """Whether a message's member is one: the control is if it stands alone, or is asked for."""
        return message.kind != CONTROL or self._controls > 0

    def _case(self, time: datetime) -> Case:
        held: dict[tuple[int, int], dict[tuple[str, int | None], Message]] = defaultdict(dict)
        left_out = 0
        for path in self._files[time]:
            for message in filter(self._wanted, scan(path)):
                if message.initial_time != time:
                    continue
                if self._counts(message):
                    # Some centres number the control like the first perturbed member.
                    number = message.number if message.kind != CONTROL else CONTROL_NUMBER
                    held[number, message.lead_hours].setdefault(message.field, message)
                else:
                    left_out += 1
        members = sorted({number for number, _ in held})
        found = sorted({lead for _, lead in held})
        leads = [lead for lead in found if all(self._fields <= held[number, lead].keys() for number in members)]
        notes = ["lead times that lack a member or a channel"] * (len(found) - len(leads))
        notes += ["fields of the unperturbed control, left out"] * left_out

        def read(channel: Channel) -> FloatArray:
            field = (channel.param, channel.level_hpa)
            return np.stack(
                [np.stack([self._decode(held[number, lead][field]) for lead in leads]) for number in members]
            )

        return Case(time, tuple(members), tuple(leads), read, tuple(notes), len(self._members) + self._controls)


class GribTruth:
    """Analyses in GRIB files, by valid time; of several for one time, the first counts.

    Parameters
    ----------
    patterns : sequence of str
        As for `find_files`.
    channels : sequence of Channel
        What will be read.

    Raises
    ------
    InputError
        If a channel is nowhere.
    """

    def __init__(self, patterns: Sequence[str], channels: Sequence[Channel]) -> None:
        fields = {(channel.param, channel.level_hpa) for channel in channels}
        self._where: dict[tuple[tuple[str, int | None], datetime], Message] = {}
        for path in (path for pattern in patterns for path in find_files(pattern)):
            for message in scan(path):
                if message.field in fields and message.lead_hours == 0:
                    self._where.setdefault((message.field, message.valid_time), message)
        there = {field for field, _ in self._where}
        missing = [channel.label for channel in channels if (channel.param, channel.level_hpa) not in there]
        if missing:
            raise InputError(f"{', '.join(patterns)}: expected analyses (step 0) of {', '.join(missing)}, got none")
        self._decode = Decoder(next(iter(self._where.values())))

    @property
    def grid(self) -> LatLonGrid:
        """Grid of every field."""
        return self._decode.grid

    def read(self, channel: Channel, times: Sequence[datetime]) -> FloatArray:
        """Values ``(time, lon, lat)``; NaN everywhere at a time that is not there."""
        fields = np.full((len(times), *self.grid.shape), np.nan, dtype=np.float32)
        for field, time in zip(fields, times, strict=True):
            message = self._where.get(((channel.param, channel.level_hpa), time))
            if message is not None:
                field[:] = self._decode(message)
        return fields
