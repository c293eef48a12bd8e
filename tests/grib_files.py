"""GRIB messages and files for tests, made with ecCodes from its samples.

A field is given as a function of longitude and latitude in degrees, so that a test can say what
it expects at a place without knowing in which order the message lists its points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path

import eccodes
import numpy as np

from ai_models_mosaic.inputs.grib_messages import Damage, FileMessage, find_messages

NOW = datetime(2020, 1, 2, 12)
YESTERDAY = NOW - timedelta(hours=24)

Field = Callable[[np.ndarray, np.ndarray], np.ndarray]
Key = tuple[datetime, str, int | None]

SINGLE_LEVEL = {"2t": 285.0, "10u": 3.0, "10v": -2.0, "msl": 101_000.0}
PRESSURE_LEVEL = {"z": None, "q": 5e-3, "t": 250.0, "u": 12.0, "v": -1.0, "w": 0.05}
STANDARD_HEIGHT_M = {
    50: 20576, 100: 16180, 150: 13608, 200: 11784, 250: 10363, 300: 9164, 400: 7185,
    500: 5574, 600: 4206, 700: 3012, 850: 1457, 925: 762, 1000: 111,
}  # fmt: skip
"""The ICAO standard atmosphere, as published."""

VARIATION = {
    "2t": 20.0, "10u": 8.0, "10v": 8.0, "msl": 1500.0,
    "z": 1500.0, "q": 4e-3, "t": 20.0, "u": 15.0, "v": 15.0, "w": 0.5,
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """The points of a regular grid, and the order in which a message lists them."""

    columns: int = 12
    rows: int = 7
    west: float = 0.0
    east: float | None = None
    """None: one step short of the whole circle."""
    north: float = 90.0
    south: float = -90.0
    from_east: bool = False
    from_south: bool = False
    by_columns: bool = False
    snaking: bool = False
    """Adjacent rows run in opposite directions (boustrophedon)."""

    @property
    def last_column(self) -> float:
        return self.west + 360 * (self.columns - 1) / self.columns if self.east is None else self.east

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Longitude and latitude of every value, in the order of the message."""
        longitudes = np.linspace(self.west, self.last_column, self.columns)[:: -1 if self.from_east else 1]
        latitudes = np.linspace(self.north, self.south, self.rows)[:: -1 if self.from_south else 1]
        outer, inner = (longitudes, latitudes) if self.by_columns else (latitudes, longitudes)
        lines = [
            [(slow, fast) for fast in (inner[::-1] if self.snaking and index % 2 else inner)]
            for index, slow in enumerate(outer)
        ]
        pairs = np.array(lines).reshape(-1, 2)
        return (pairs[:, 0], pairs[:, 1]) if self.by_columns else (pairs[:, 1], pairs[:, 0])


COARSE = Layout()
"""30°, 12 × 7 points with pole rows."""

MINI = Layout(columns=60, rows=31)
"""6°, the grid of the bundled variant."""


@lru_cache(maxsize=64)
def _template(sample: str, edition: int, layout: Layout | None) -> int:
    """An ecCodes handle with the grid set; messages are clones of it."""
    handle = eccodes.codes_grib_new_from_samples(f"{sample}_grib{edition}")
    # Without labels of ECMWF in either edition, so that both may be of one source.
    eccodes.codes_set(handle, "deleteLocalDefinition", 1)
    if layout is not None:
        rows = (layout.north, layout.south)
        columns = (layout.west, layout.last_column)
        if edition == 2:
            # GRIB2 has no negative longitudes; 360 stays, for a column given twice.
            columns = tuple(angle if angle >= 0 else angle % 360 for angle in columns)
        first, last = columns[:: -1 if layout.from_east else 1]
        top, bottom = rows[:: -1 if layout.from_south else 1]
        keys = {
            "Ni": layout.columns,
            "Nj": layout.rows,
            "longitudeOfFirstGridPointInDegrees": first,
            "longitudeOfLastGridPointInDegrees": last,
            "latitudeOfFirstGridPointInDegrees": top,
            "latitudeOfLastGridPointInDegrees": bottom,
            "iDirectionIncrementInDegrees": (layout.last_column - layout.west) / (layout.columns - 1),
            "jDirectionIncrementInDegrees": (layout.north - layout.south) / (layout.rows - 1),
            "iScansNegatively": int(layout.from_east),
            "jScansPositively": int(layout.from_south),
            "jPointsAreConsecutive": int(layout.by_columns),
        }
        if edition == 2:
            keys |= {"alternativeRowScanning": int(layout.snaking), "numberOfDataPoints": layout.columns * layout.rows}
        for key, value in keys.items():
            eccodes.codes_set(handle, key, value)
    return handle


def _label(
    handle: int, param: str, level: int | None, kind: str | None, base: datetime, step_hours: int, number: int | None
) -> None:
    edition = eccodes.codes_get_long(handle, "edition")
    if number is not None:
        keys = {"productDefinitionTemplateNumber": 1} if edition == 2 else {"setLocalDefinition": 1}
        eccodes.codes_set_key_vals(handle, keys)
        if edition == 1:
            eccodes.codes_set(handle, "localDefinitionNumber", 1)
        eccodes.codes_set(handle, "number", number)
    eccodes.codes_set(handle, "shortName", param)
    if kind is None and level is not None:
        kind = "isobaricInhPa"
    elif kind is None and edition == 1:
        kind = "surface"
    elif kind is None and param in ("msl", "prmsl"):
        kind = "meanSea"
    if kind is not None:
        eccodes.codes_set(handle, "typeOfLevel", kind)
        if kind not in ("meanSea", "surface"):
            eccodes.codes_set(handle, "level", level)
    eccodes.codes_set(handle, "dataDate", int(f"{base:%Y%m%d}"))
    eccodes.codes_set(handle, "dataTime", int(f"{base:%H%M}"))
    eccodes.codes_set(handle, "stepRange", str(step_hours))


def message(
    param: str,
    level: int | None = None,
    *,
    values: Field | Sequence[float] | float | None = None,
    missing: Sequence[int] = (),
    base: datetime = NOW,
    step_hours: int = 0,
    edition: int = 2,
    kind: str | None = None,
    number: int | None = None,
    layout: Layout | None = COARSE,
    sample: str = "regular_ll_pl",
    packing: str = "grid_simple",
) -> bytes:
    """One field.

    `values` is a function of longitude and latitude, a list in the message's own order, one number
    for all points, or None for something plausible. `missing` are places in the message's order.
    `kind` is ecCodes' typeOfLevel, for anything but the usual one. Without a `layout`, the grid is
    the sample's own (Gaussian, reduced, spectral).
    """
    handle = eccodes.codes_clone(_template(sample, edition, layout))
    try:
        _label(handle, param, level, kind, base, step_hours, number)
        if values is None:
            values = plausible(param, level, base + timedelta(hours=step_hours))
        if callable(values):
            places = layout.points() if layout else (eccodes.codes_get_array(handle, key) for key in _COORDINATES)
            values = values(*places)
        elif np.isscalar(values):
            values = np.full(layout.columns * layout.rows, values)
        values = np.array(values, dtype=np.float64)
        precision = {"bitsPerValue": 24} if packing == "grid_simple" else {"packingType": packing}
        eccodes.codes_set_key_vals(handle, precision)
        if len(missing):
            eccodes.codes_set(handle, "bitmapPresent", 1)
            eccodes.codes_set(handle, "missingValue", -1e30)
            values[list(missing)] = -1e30
        eccodes.codes_set_values(handle, values)
        return eccodes.codes_get_message(handle)
    finally:
        eccodes.codes_release(handle)


_COORDINATES = ("longitudes", "latitudes")


def two_fields_in_one_message(first: bytes, second: bytes, path: Path) -> bytes:
    """A GRIB2 message that repeats sections 4 to 7, as some centres do for u and v."""
    multi = eccodes.codes_grib_multi_new()
    handles = [eccodes.codes_new_from_message(data) for data in (first, second)]
    try:
        for handle in handles:
            eccodes.codes_grib_multi_append(handle, 4, multi)
            eccodes.codes_release(handle)
        with path.open("wb") as file:
            eccodes.codes_grib_multi_write(multi, file)
    finally:
        eccodes.codes_grib_multi_release(multi)
        # Making one turns on, for the whole process, the reading of them: off again, as users have it.
        eccodes.codes_grib_multi_support_off()
    return path.read_bytes()


def centre(param: str, level: int | None) -> float:
    """A typical value."""
    if param in ("z", "gh") and level in STANDARD_HEIGHT_M:
        return STANDARD_HEIGHT_M[level] * (9.80665 if param == "z" else 1.0)
    alias = {"prmsl": "msl"}.get(param, param)
    return (SINGLE_LEVEL | PRESSURE_LEVEL).get(alias) or 0.0


def plausible(param: str, level: int | None = None, valid: datetime = NOW) -> Field:
    """A physically possible field that differs between any two places, channels and times.

    Neither symmetric nor the same along any axis, so that a flip, roll or mix-up shows.
    """
    variation = VARIATION.get(param, 100.0)
    # Between 0 and 1, other for every level and time.
    phase = ((level or 0) / 1013 + valid.toordinal() * 0.37 + valid.hour / 97) % 1

    def field(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
        east, north = np.radians(longitude), np.radians(latitude)
        wave = np.cos(east - 0.7 - phase) * np.cos(north) + 0.3 * np.sin(2 * east + 0.2)
        return centre(param, level) + variation * (0.5 * np.sin(north) * (0.5 + phase / 2) + 0.3 * wave)

    return field


def wanted_keys(times: Sequence[datetime]) -> list[Key]:
    """Time, parameter and level of every field of a complete history."""
    return [
        key
        for time in times
        for key in (
            *((time, param, None) for param in SINGLE_LEVEL),
            *((time, param, level) for param in PRESSURE_LEVEL for level in STANDARD_HEIGHT_M),
        )
    ]


def complete_history(
    *times: datetime,
    edition: int = 2,
    layout: Layout = COARSE,
    step_hours: int = 0,
    number: int | None = None,
) -> dict[Key, bytes]:
    """Messages of all 82 channels at every valid time (default: NOW), to drop from and to replace in."""
    return {
        key: _cached(*key, edition=edition, layout=layout, step_hours=step_hours, number=number)
        for key in wanted_keys(times or (NOW,))
    }


@lru_cache(maxsize=4096)
def _cached(
    time: datetime, param: str, level: int | None, *, edition: int, layout: Layout, step_hours: int, number: int | None
) -> bytes:
    return message(
        param,
        level,
        base=time - timedelta(hours=step_hours),
        step_hours=step_hours,
        edition=edition,
        layout=layout,
        number=number,
    )


def write(path: Path, messages: Iterable[bytes]) -> Path:
    path.write_bytes(b"".join(messages))
    return path


def fields_of(path: Path, messages: Iterable[bytes]) -> Iterator[FileMessage | Damage]:
    """The messages by way of a file, as the plugin reads them."""
    return find_messages(write(path, messages))
