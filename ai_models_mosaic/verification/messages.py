"""Messages of GRIB files, ours or anyone's: what one is, is read from its keys, never from its name."""

from __future__ import annotations

import glob
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import eccodes
import numpy as np

from ..arrays import FloatArray, IntArray
from ..errors import InputError
from ..geometry.grid import LatLonGrid, alternated, grid_of_points
from ..inputs.field_kinds import FieldKind, kind_of
from ..inputs.fields import ALIASES, HECTOPASCALS
from ..inputs.netcdf import is_netcdf

Name = tuple[str, int | None]
"""Parameter and level in hPa."""

SUFFIXES = (".grib", ".grib2", ".grib1", ".grb", ".grb2", ".grb1")
"""Files of a folder that are taken for GRIB."""

CONTROL = "cf"
"""Type of an unperturbed member, which is not exchangeable with the others."""

UNNUMBERED_TYPES = ("", "fc")
"""Types of GRIB1 whose number 0 says that there is no ensemble."""


@dataclass(frozen=True)
class ScannedMessage:
    """Where a message is, and what it is.

    Parameters
    ----------
    path : Path
    offset, length : int
        Bytes.
    kind : str
        ECMWF's type, such as ``pf``, ``cf``, ``fc`` or ``an``.
    number : int or None
        Ensemble member; None for a deterministic forecast or an analysis.
    initial_time, valid_time : datetime
        UTC, without zone.
    field : (str, int or None)
        Parameter and level in hPa.
    factor : float
        What makes the channel's values of the message's.
    holds : FieldKind
        Whether it is a state at all, and what else it is.
    """

    path: Path
    offset: int
    length: int
    kind: str
    number: int | None
    initial_time: datetime
    valid_time: datetime
    field: Name
    factor: float
    holds: FieldKind

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


def scan(path: Path, fields: Collection[Name] | None = None) -> Iterator[ScannedMessage]:
    """The messages of a file that bear the name of one of some fields, or any; their values are not read.

    Raises
    ------
    InputError
        If the file cannot be read as GRIB.
    """
    try:
        _refuse_netcdf(path)
        with path.open("rb") as file:
            while (handle := eccodes.codes_grib_new_from_file(file, headers_only=True)) is not None:
                try:
                    message = message_of(path, handle, fields)
                finally:
                    eccodes.codes_release(handle)
                if message is not None:
                    yield message
    except (OSError, ValueError, eccodes.CodesInternalError) as error:
        raise InputError(f"{path} cannot be read as GRIB: {error}. Expected complete messages") from error


def message_of(path: Path, handle: int, fields: Collection[Name] | None = None) -> ScannedMessage | None:
    """What a message is; None if it is on a level of fractions, or bears no name of some fields."""
    found = _name(handle)
    if found is None or (fields is not None and found[0] not in fields):
        return None
    return _message(path, handle, *found)


def _refuse_netcdf(path: Path) -> None:
    if is_netcdf(path):
        raise InputError(f"{path} is a NetCDF file among GRIB files: expected files of one kind")


def _name(handle: int) -> tuple[Name, float] | None:
    """Which field a message names, and the factor that makes the channel's values of its own."""
    name, kind = eccodes.codes_get_string(handle, "shortName"), eccodes.codes_get_string(handle, "typeOfLevel")
    level, remainder = divmod(eccodes.codes_get_long(handle, "level"), HECTOPASCALS.get(kind, 1))
    if remainder:
        return None
    param, factor = ALIASES.get(name, (name, 1.0))
    return (param, level if kind in HECTOPASCALS else None), factor


def _message(path: Path, handle: int, field: Name, factor: float) -> ScannedMessage:
    has_type = eccodes.codes_is_defined(handle, "dataType")
    kind = eccodes.codes_get_string(handle, "dataType") if has_type else ""
    return ScannedMessage(
        path=path,
        offset=eccodes.codes_get_message_offset(handle),
        length=eccodes.codes_get_long(handle, "totalLength"),
        kind=kind,
        number=_number(handle, kind),
        initial_time=_time(handle, "dataDate", "dataTime"),
        valid_time=_time(handle, "validityDate", "validityTime"),
        field=field,
        factor=factor,
        holds=kind_of(handle),
    )


def _number(handle: int, kind: str) -> int | None:
    if not eccodes.codes_is_defined(handle, "number"):
        return None
    number = eccodes.codes_get_long(handle, "number")
    # ECMWF's local section of GRIB1 has a number for everything.
    alone = number == 0 and kind in UNNUMBERED_TYPES and eccodes.codes_get_long(handle, "edition") == 1
    return None if alone else number


def _time(handle: int, day: str, time: str) -> datetime:
    text = f"{eccodes.codes_get_long(handle, day):08d}{eccodes.codes_get_long(handle, time):04d}"
    return datetime.strptime(text, "%Y%m%d%H%M")


Used = TypeVar("Used")


class Decoder:
    """Decodes messages on one grid to ``(lon, lat)``, south to north."""

    def __init__(self, first: ScannedMessage) -> None:
        self.grid, self._order, self._key = with_handle(first, _grid)

    def __call__(self, message: ScannedMessage) -> FloatArray:
        """Values in the channel's units; NaN where the message has none.

        Raises
        ------
        InputError
            If the message is on another grid, or cannot be decoded.
        """
        values, key = with_handle(message, values_of)
        if key != self._key:
            raise InputError(
                f"{message.path}: {message.field[0]} from {message.initial_time} UTC is on another grid than the first "
                f"message, {self.grid}. Expected all on one"
            )
        return (values[self._order] * message.factor).astype(np.float32)


def with_handle(message: ScannedMessage, use: Callable[[int, ScannedMessage], Used]) -> Used:
    """What a function of ecCodes' handle and the message gives.

    Raises
    ------
    InputError
        If the message cannot be read or decoded.
    """
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


def _grid(handle: int, message: ScannedMessage) -> tuple[LatLonGrid, IntArray, str]:
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


def values_of(handle: int, _: ScannedMessage) -> tuple[FloatArray, str]:
    """Values in the message's order, NaN where it has none, and what tells its grid from others."""
    missing = 1e30
    eccodes.codes_set(handle, "missingValue", missing)
    values = eccodes.codes_get_values(handle)
    if eccodes.codes_get_long(handle, "numberOfMissing"):
        values = np.where(values == missing, np.nan, values)
    return values, eccodes.codes_get_string(handle, "md5GridSection")
