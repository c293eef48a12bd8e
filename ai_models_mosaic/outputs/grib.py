"""The ensemble as GRIB2: one message per member, step and channel.

Messages are made from templates of our own and not from the input's, so that they are the same
whatever the input was encoded in. Labels: class ml, stream enfo, type pf, number from 1.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import eccodes
import numpy as np

from ..arrays import FloatArray
from ..channels import CHANNELS, Channel
from ..errors import OutputError
from ..grid import LatLonGrid, to_grib_order
from .files import MessageFiles, check_writable

if TYPE_CHECKING:
    from ..state import ForecastStep
LOG = logging.getLogger(__name__)

FILES_SHOWN = 4
"""Files that a log line names."""

BITS_PER_VALUE = 16
"""Simple packing: the error is at most the field's range / 65 535."""

EXPVER, UNTRAINED_EXPVER = "mosa", "untr"
"""Default experiment versions, of trained and of random weights; four characters, as ecCodes demands."""

UNKNOWN_SIZE, UNKNOWN_SIZE_LARGE = 255, 65_535
"""GRIB2's missing value in templates 4.1 and 4.117, where the size of the ensemble was not said."""

LARGEST_NUMBER = 254
"""Largest member of template 4.1, whose numbers have one octet; 4.117 has two."""

TABLES_VERSION = 33
"""The first version with template 4.117."""

RESERVED = {
    **dict.fromkeys(("edition",), "the output is GRIB2: GRIB1 can lose the member number"),
    **dict.fromkeys(("number", "perturbationNumber"), "members are chosen with --member-number"),
    **dict.fromkeys(("numberOfForecastsInEnsemble", "totalNumber"), "it is set with --num-ensemble-members"),
    **dict.fromkeys(("date", "dataDate", "time", "dataTime"), "the initial time is that of the input"),
    **dict.fromkeys(("step", "stepRange", "startStep", "endStep", "forecastTime"), "steps follow from the variant"),
    **dict.fromkeys(("param", "paramId", "shortName", "level", "levelist", "levtype"), "it differs by field"),
}
"""Keys of --metadata that are refused, and why."""

GUARDED = (
    *("edition", "paramId", "typeOfLevel", "level", "stepType", "dataDate", "dataTime", "step", "number"),
    *("productDefinitionTemplateNumber", "numberOfForecastsInEnsemble", "gridType", "Ni", "Nj"),
    *("latitudeOfFirstGridPoint", "longitudeOfFirstGridPoint", "latitudeOfLastGridPoint", "longitudeOfLastGridPoint"),
    *("iScansNegatively", "jScansPositively", "jPointsAreConsecutive", "alternativeRowScanning"),
)
"""Keys that no key of --metadata may change by another name."""


@dataclass(frozen=True)
class Labels:
    """What all messages of a run have in common.

    Parameters
    ----------
    initial_time : datetime
        UTC, without zone.
    ensemble_size : int or None
        ``numberOfForecastsInEnsemble``; None if it was not said.
    metadata : mapping of str to str
        Keys of the user's, which win over ours.
    expver : str
        Experiment version where the user gives none.
    """

    initial_time: datetime
    ensemble_size: int | None
    metadata: Mapping[str, str]
    expver: str = EXPVER


class GribEncoder:
    """Encodes fields from one prepared template per channel.

    Parameters
    ----------
    grid : LatLonGrid
        Geometry of the fields; regular, with pole rows, from Greenwich.
    labels : Labels
        What all messages have in common.

    Raises
    ------
    OutputError
        If ecCodes refuses one of the user's keys.
    """

    def __init__(self, grid: LatLonGrid, labels: Labels) -> None:
        _refuse_reserved(labels.metadata)
        self._labels = labels
        self._grid = grid
        self._templates = {
            (index, large): _template(channel, grid, labels, large=large)
            for index, channel in enumerate(CHANNELS)
            for large in ((False, True) if labels.ensemble_size is None else (labels.ensemble_size > LARGEST_NUMBER,))
        }
        self._bits = eccodes.codes_get_long(next(iter(self._templates.values())), "bitsPerValue")

    def encode(self, channel: int, member: int, lead_time_hours: int, values: FloatArray) -> Message:
        """One field of one member.

        Parameters
        ----------
        channel : int
            Index in `channels.CHANNELS`.
        member : int
            From 1.
        lead_time_hours : int
            Hours since the initial time.
        values : array (point,)
            From north to south, each row from west to east.
        """
        large = (self._labels.ensemble_size or member) > LARGEST_NUMBER
        # The template itself is filled: copying it takes longer than all the rest.
        handle = self._templates[channel, large]
        eccodes.codes_set(handle, "number", member)
        eccodes.codes_set(handle, "step", lead_time_hours)
        # A constant field before this one has left 0 bits.
        if eccodes.codes_get_long(handle, "bitsPerValue") != self._bits:
            eccodes.codes_set(handle, "bitsPerValue", self._bits)
        eccodes.codes_set_values(handle, values)
        return Message(handle)

    def first_message(self, member: int) -> Message:
        """A member's first field, without its values."""
        return self.encode(0, member, 0, np.zeros(self._grid.size))

    def close(self) -> None:
        """Give the templates back to ecCodes."""
        for handle in self._templates.values():
            eccodes.codes_release(handle)
        self._templates.clear()

    def __enter__(self) -> GribEncoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Message:
    """An encoded GRIB message that can be asked for its keys, until its encoder makes the next.

    Parameters
    ----------
    handle : int
        ecCodes handle, owned by the encoder.
    """

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def to_bytes(self) -> bytes:
        """The message as it goes into a file."""
        return eccodes.codes_get_message(self._handle)

    def get(self, key: str) -> Any:
        """A key in its native type.

        Raises
        ------
        OutputError
            If GRIB has no such key.
        """
        try:
            return eccodes.codes_get(self._handle, key)
        except eccodes.CodesInternalError as error:
            raise OutputError(f"GRIB messages have no key {key!r} ({error})") from error

    def mars(self) -> dict[str, str]:
        """The MARS keys, as for an archive request."""
        iterator = eccodes.codes_keys_iterator_new(self._handle, "mars")
        keys = {}
        while eccodes.codes_keys_iterator_next(iterator):
            name = eccodes.codes_keys_iterator_get_name(iterator)
            keys[name] = eccodes.codes_get_string(self._handle, name)
        eccodes.codes_keys_iterator_delete(iterator)
        return keys


class GribOutput:
    """Writes forecasts to the files that a path with placeholders names.

    Parameters
    ----------
    path : str
        May hold GRIB keys in braces, such as ``out-{number:03d}-{step}.grib``.
    encoder : GribEncoder
        Makes the messages.
    on_message : callable or None
        Called with every message and the path that it went to.

    """

    def __init__(
        self, path: str, encoder: GribEncoder, on_message: Callable[[Message, Path], None] | None = None
    ) -> None:
        self._path = path
        self._keys = tuple(dict.fromkeys(name.split(":")[0] for name in re.findall(r"\{(.*?)\}", path)))
        self._encoder = encoder
        self._on_message = on_message
        self._files = MessageFiles()

    def write(self, forecast: ForecastStep) -> None:
        """Append a step, member by member, channels in order.

        Raises
        ------
        OutputError
            If a file cannot be written.
        """
        for member, fields in zip(forecast.members, forecast.values, strict=True):
            flat = to_grib_order(np.moveaxis(fields, -1, 0)).astype(np.float64)
            for channel, values in enumerate(flat):
                message = self._encoder.encode(channel, member, forecast.lead_time_hours, values)
                path = self.path_of(message)
                self._files.append(path, message.to_bytes())
                if self._on_message is not None:
                    self._on_message(message, path)

    @property
    def paths(self) -> list[Path]:
        """Every file written to."""
        return self._files.paths

    def check_writable(self, members: Iterable[int]) -> None:
        """Raise if the first file of a member could not be written.

        Raises
        ------
        OutputError
            If its folder is absent or not writable, or as `path_of`.
        """
        for member in members:
            check_writable(self.path_of(self._encoder.first_message(member)))

    def flush(self) -> None:
        """Bring to disk all that was written."""
        self._files.flush()

    def positions(self) -> dict[str, int]:
        """Length in bytes of every file, by the name that it will have."""
        return self._files.positions()

    def resume(self, positions: Mapping[str, int], *, finished: bool = False) -> None:
        """Go on with the files of an unfinished run; see `MessageFiles.resume`.

        Raises
        ------
        OutputError
            If a file is gone, or shorter than it was.
        """
        places = self._files.resume(positions, finished=finished)
        if self._on_message is not None:
            for name, place in zip(positions, places, strict=True):
                for message in _messages(place):
                    self._on_message(message, Path(name))

    def close(self) -> None:
        """Give the files their names."""
        LOG.info("Wrote %s", _summary(self._files.finish()))

    def abort(self) -> None:
        """Leave the files as they are, under the names of partial ones."""
        if self._files.paths:
            LOG.error("The run did not finish; what it wrote is in %s", _summary(self._files.abandon()))

    def __enter__(self) -> GribOutput:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def path_of(self, message: Message) -> Path:
        """The file that a message goes to.

        Raises
        ------
        OutputError
            If a placeholder is no GRIB key, or its format does not suit the key.
        """
        if not self._keys:
            return Path(self._path)
        try:
            return Path(self._path.format(**{key: message.get(key) for key in self._keys}))
        except (ValueError, KeyError, IndexError) as error:
            raise OutputError(
                f"--path {self._path}: expected GRIB keys in braces, such as {{number:03d}} or {{step}} ({error})"
            ) from error


def check_output(path: str, grid: LatLonGrid, labels: Labels) -> None:
    """Raise before a long run if its messages could not be made, or not be written.

    Parameters
    ----------
    path : str
        May hold GRIB keys in braces.
    grid : LatLonGrid
        Geometry of the fields.
    labels : Labels
        What all messages have in common; any initial time will do.

    Raises
    ------
    OutputError
        If ecCodes refuses one of the user's keys, a placeholder is no GRIB key, or the folder is
        absent or not writable; a folder with placeholders is left for `GribOutput.check_writable`.
    """
    with GribEncoder(grid, labels) as encoder:
        output = GribOutput(path, encoder)
        if "{" in str(Path(path).parent):
            output.path_of(encoder.first_message(1))
        else:
            output.check_writable([1])


def check_apart(path: str, grid: LatLonGrid, labels: Labels, times: Sequence[datetime]) -> None:
    """Raise if two of several initial times would be written to the same file.

    Parameters
    ----------
    path, grid, labels
        As of `check_output`.
    times : sequence of datetime
        The initial times, UTC.

    Raises
    ------
    OutputError
        If the placeholders do not tell them apart.
    """
    seen: dict[Path, datetime] = {}
    for time in times if len(times) > 1 else ():
        with GribEncoder(grid, replace(labels, initial_time=time)) as encoder:
            place = GribOutput(path, encoder).path_of(encoder.first_message(1))
        if place in seen:
            raise OutputError(
                f"--path {path}: expected a file for every initial time, got {place} for {seen[place]} and for {time}; "
                "name it by them, such as {dataDate}-{dataTime:04d}-{number}.grib"
            )
        seen[place] = time


def _messages(path: Path) -> Iterator[Message]:
    """The messages of a file, each until the next."""
    with path.open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            yield Message(handle)
            eccodes.codes_release(handle)


def _summary(paths: Sequence[Path]) -> str:
    shown = ", ".join(str(path) for path in paths[:FILES_SHOWN])
    return shown if len(paths) <= FILES_SHOWN else f"{len(paths)} files: {shown}, …"


def _template(channel: Channel, grid: LatLonGrid, labels: Labels, *, large: bool) -> int:
    """A handle with every key but member, step and values."""
    kind = "sfc" if channel.level_hpa is None else "pl"
    handle: int = eccodes.codes_grib_new_from_samples(f"regular_ll_{kind}_grib2")
    columns, rows = grid.shape
    size = labels.ensemble_size
    keys: dict[str, Any] = {
        "tablesVersion": TABLES_VERSION,
        "Ni": columns,
        "Nj": rows,
        "latitudeOfFirstGridPointInDegrees": grid.latitude_deg[-1],
        "longitudeOfFirstGridPointInDegrees": grid.longitude_deg[0],
        "latitudeOfLastGridPointInDegrees": grid.latitude_deg[0],
        "longitudeOfLastGridPointInDegrees": grid.longitude_deg[-1],
        "iDirectionIncrementInDegrees": grid.spacing_deg,
        "jDirectionIncrementInDegrees": 180 / (rows - 1),
        "productDefinitionTemplateNumber": 117 if large else 1,
        "setLocalDefinition": 1,
        "class": "ml",
        "stream": "enfo",
        "type": "pf",
        "expver": labels.expver,
        "typeOfGeneratingProcess": 4,
        "generatingProcessIdentifier": 1,
        "dataDate": int(f"{labels.initial_time:%Y%m%d}"),
        "dataTime": int(f"{labels.initial_time:%H%M}"),
        "shortName": channel.param,
        "numberOfForecastsInEnsemble": (UNKNOWN_SIZE_LARGE if large else UNKNOWN_SIZE) if size is None else size,
        "bitsPerValue": BITS_PER_VALUE,
    }
    if channel.level_hpa is not None:
        keys["level"] = channel.level_hpa
    for key, value in keys.items():
        eccodes.codes_set(handle, key, value)
    _apply(labels.metadata, handle)
    return handle


def _apply(metadata: Mapping[str, str], handle: int) -> None:
    """Set the user's keys; see that they took, and that they left alone what they must not touch."""
    guarded = _guarded(handle)
    for key, value in metadata.items():
        try:
            eccodes.codes_set(handle, key, str(value))
            held = {eccodes.codes_get_string(handle, key), _as_number(handle, key)}
        except eccodes.CodesInternalError as error:
            raise OutputError(
                f"--metadata {key}={value}: ecCodes refuses it ({error}). Expected a GRIB2 key and a value it knows"
            ) from error
        if str(value) not in held and eccodes.codes_get_native_type(handle, key) is str:
            raise OutputError(f"--metadata {key}={value}: ecCodes made {eccodes.codes_get_string(handle, key)!r} of it")
        for name, now in _guarded(handle).items():
            if now != guarded[name]:
                raise OutputError(
                    f"--metadata {key}={value} cannot be honoured: it would change {name} from {guarded[name]} to {now}"
                )


def _guarded(handle: int) -> dict[str, str]:
    """What says which field, time, member and grid a message is of."""
    return {
        key: eccodes.codes_get_string(handle, key) if eccodes.codes_is_defined(handle, key) else "nothing"
        for key in GUARDED
    }


def _as_number(handle: int, key: str) -> str:
    """An integer key's number, where its string is a name for it."""
    try:
        return str(eccodes.codes_get_long(handle, key))
    except eccodes.CodesInternalError:
        return ""


def _refuse_reserved(metadata: Mapping[str, str]) -> None:
    for key in metadata:
        if key in RESERVED and not (key == "edition" and str(metadata[key]) == "2"):
            raise OutputError(f"--metadata {key}={metadata[key]} cannot be honoured: {RESERVED[key]}")
