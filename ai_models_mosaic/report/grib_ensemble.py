"""An ensemble in GRIB files as an xarray dataset, of which every field is decoded when it is asked for."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

import eccodes
import numpy as np
import xarray
from xarray.backends import BackendArray
from xarray.core import indexing

from ..arrays import AnyArray, FloatArray, IntArray
from ..errors import InputError
from ..verification.messages import CONTROL, ScannedMessage, find_files, values_of, with_handle
from ..wording.numbers import counted
from .angles import axis_of_angles
from .fields import HELD_LEVELS, MISSING_FIELDS, WITHOUT
from .grib_index import index

LOG = logging.getLogger(__name__)

Key = tuple[int, int, int | None]
"""Member, lead time in hours, level in hPa."""


class Fields(BackendArray):
    """The messages of one parameter as an array ``(number, step, [level,] latitude, longitude)``.

    Parameters
    ----------
    held : dict of Key to ScannedMessage
        What there is; the rest is NaN.
    axes : tuple of sequences
        Members, lead times in hours, and levels in hPa or ``(None,)``.
    grid : GribGrid
        Of every message.
    """

    def __init__(
        self,
        held: dict[Key, ScannedMessage],
        axes: tuple[Sequence[int], Sequence[int], Sequence[int | None]],
        grid: GribGrid,
    ) -> None:
        self._held, self._axes, self._grid = held, axes, grid
        self._flat = axes[2] == (None,)
        sizes = [len(axis) for axis in axes[: 2 if self._flat else 3]]
        self.shape = (*sizes, len(grid.latitude), len(grid.longitude))
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> AnyArray:
        """What xarray asks for."""
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> FloatArray:
        *outer, rows, columns = key
        if self._flat:
            outer.append(slice(None))
        chosen = [np.atleast_1d(np.arange(len(axis))[part]) for axis, part in zip(self._axes, outer, strict=True)]
        numbers, steps, levels = ([axis[at] for at in part] for axis, part in zip(self._axes, chosen, strict=True))
        shape = tuple(len(part) for part in chosen) + self.shape[-2:]
        values = np.full(shape, np.nan, dtype=np.float32)
        for place in np.ndindex(*shape[:3]):
            message = self._held.get((numbers[place[0]], steps[place[1]], levels[place[2]]))
            if message is not None:
                values[place] = self._grid.values(message)
        # An index that is one number takes its dimension away.
        kept = tuple(
            0 if isinstance(part, (int, np.integer)) or (self._flat and place == 2) else slice(None)
            for place, part in enumerate(outer)
        )
        return values[kept][..., rows, :][..., columns]


class GribGrid:
    """The latitudes and longitudes of a message, and how its values lie on them.

    Parameters
    ----------
    first : ScannedMessage
        Whose grid it is.

    Raises
    ------
    InputError
        If its points are no latitudes × longitudes.
    """

    def __init__(self, first: ScannedMessage) -> None:
        latitude, longitude, self._key = with_handle(first, _points)
        self.latitude, rows = np.unique(np.round(latitude, 6), return_inverse=True)
        self.longitude, columns = axis_of_angles(np.round(longitude, 6))
        self._order: IntArray = rows * len(self.longitude) + columns
        count = len(self.latitude) * len(self.longitude)
        if len(self._order) < count or len(np.unique(self._order)) != count:
            raise InputError(
                f"{first.path} is on a grid of another kind: expected latitudes × longitudes. Interpolate it first"
            )

    def values(self, message: ScannedMessage) -> FloatArray:
        """Values ``(latitude, longitude)``, south to north; NaN where the message has none.

        Raises
        ------
        InputError
            If the message is on another grid, or cannot be decoded.
        """
        values, key = with_handle(message, values_of)
        if key != self._key:
            raise InputError(f"{message.path}: {message.field[0]} is on another grid than the rest: expected one grid")
        field = np.empty(len(self.latitude) * len(self.longitude), dtype=np.float32)
        field[self._order] = values * message.factor
        return field.reshape(len(self.latitude), len(self.longitude))


def open_grib(patterns: Collection[str], time: datetime | None = None) -> xarray.Dataset:
    """The members in GRIB files: ``number``, ``step``, ``level`` (hPa), ``latitude``, ``longitude``.

    Parameters
    ----------
    patterns : collection of str
        As for `find_files`.
    time : datetime or None
        Initial time, if there are several.

    Raises
    ------
    InputError
        If there are no members, or those of several initial times.
    """
    found: dict[datetime, list[ScannedMessage]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    for pattern in patterns:
        for path in find_files(pattern):
            for message in index(path):
                if not message.holds.is_state:
                    left_out[message.holds.name] += 1
                elif (message.valid_time - message.initial_time) % timedelta(hours=1):
                    left_out["lead times between whole hours"] += 1
                else:
                    found[message.initial_time].append(message)
    for name, count in left_out.most_common():
        LOG.info("Left out %s of %s", counted(count, "field"), name)
    listed = ", ".join(patterns)
    if not found:
        raise InputError(f"{listed}: expected members of an ensemble, got " + (", ".join(left_out) or "nothing"))
    if time is None and len(found) > 1:
        times = ", ".join(f"{each:%Y-%m-%dT%H}" for each in sorted(found)[:12])
        raise InputError(f"{listed}: expected one initial time, got {len(found)}; choose with --date: {times}")
    time = time or next(iter(found))
    if time not in found:
        raise InputError(f"{listed}: expected a forecast from {time:%Y-%m-%d %H} UTC, got none")
    return _dataset(found[time], time)


def _dataset(messages: list[ScannedMessage], time: datetime) -> xarray.Dataset:
    ensemble = [message for message in messages if message.number is not None or message.kind == CONTROL]
    grid = GribGrid((ensemble or messages)[0])
    held: dict[str, dict[Key, ScannedMessage]] = defaultdict(dict)
    doubles = 0
    for message in ensemble or messages:
        param, level = message.field
        # A control, and a forecast that is alone, are member 0.
        number = 0 if message.kind == CONTROL else message.number or 0
        doubles += held[param].setdefault((number, message.lead_hours, level), message) is not message
    if doubles:
        LOG.warning("%s there twice, of which the first counts", counted(doubles, "field"))
    numbers = sorted({key[0] for keys in held.values() for key in keys})
    steps = sorted({key[1] for keys in held.values() for key in keys})
    levels = sorted({key[2] for keys in held.values() for key in keys if key[2] is not None})
    variables = {}
    missing = 0
    for param, keys in held.items():
        flat = any(key[2] is None for key in keys)
        fields = Fields(keys, (numbers, steps, (None,) if flat else levels), grid)
        dimensions = ("number", "step", *(() if flat else ("level",)), "latitude", "longitude")
        held_levels = sorted({level for _, _, level in keys if level is not None})
        attributes = {} if flat else {HELD_LEVELS: held_levels}
        missing += len(numbers) * len(steps) * (len(held_levels) or 1) - len(keys)
        variables[param] = xarray.Variable(dimensions, indexing.LazilyIndexedArray(fields), attributes)
    if missing:
        LOG.warning("%s of members and lead times are missing: %s", counted(missing, "field"), WITHOUT)
    return xarray.Dataset(
        variables,
        {
            "number": numbers,
            "step": np.array(steps, dtype="timedelta64[h]").astype("timedelta64[ns]"),
            **({"level": levels} if levels else {}),
            "latitude": grid.latitude,
            "longitude": grid.longitude,
            "time": np.datetime64(time, "ns"),
        },
        {MISSING_FIELDS: missing},
    )


def _points(handle: int, _: ScannedMessage) -> tuple[FloatArray, FloatArray, str]:
    return (
        eccodes.codes_get_array(handle, "latitudes"),
        eccodes.codes_get_array(handle, "longitudes"),
        eccodes.codes_get_string(handle, "md5GridSection"),
    )
