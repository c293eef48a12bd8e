"""The GRIB files of a forecast that are beside its card, and the messages in them."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import eccodes
import numpy as np

from ..arrays import FloatArray
from ..errors import CheckError
from ..files import parse_json
from ..outputs.contents import count_messages
from ..outputs.grib.output import is_grib
from .provenance import SUFFIX
from .recorded import Card

LOG = logging.getLogger(__name__)

Key = tuple[int, int, str, int]
"""Member, hours, parameter and level of a message."""


def originals(card: Card) -> Iterator[Path]:
    """The files of the forecast that are beside the card."""
    for beside in sorted(card.path.parent.glob(f"*{SUFFIX}")):
        original = beside.with_name(beside.name.removesuffix(SUFFIX))
        try:
            run = parse_json(beside.read_bytes()).get("run")
        except (OSError, ValueError, AttributeError):
            continue
        if is_grib(original) and (beside == card.path or (run is not None and run == card.found.get("run"))):
            yield original


def refuse_cut(card: Card) -> None:
    """Refuse files of the forecast that end within a message; warn of those that hold fewer than their cards say.

    Raises
    ------
    CheckError
        Says which.
    """
    for path in originals(card):
        content = parse_json(path.with_name(path.name + SUFFIX).read_bytes()).get("content")
        expected = content.get("messages") if isinstance(content, Mapping) else None
        if not isinstance(expected, int):
            continue
        count = count_messages(path)
        if count is None:
            raise CheckError(
                f"{path}: expected {expected} whole GRIB messages, as its card says; it was cut, or changed"
            )
        if count < expected:
            LOG.warning(
                "%s holds %d of the %d messages that its card says; others are not compared", path, count, expected
            )


def read_messages(path: Path) -> Iterator[bytes]:
    """The messages of a file; of one that is cut or damaged, those before that."""
    with path.open("rb") as file:
        while True:
            try:
                handle = eccodes.codes_grib_new_from_file(file)
            except eccodes.CodesInternalError as error:
                LOG.warning("%s cannot be read to its end (%s); what follows is not compared", path, error)
                return
            if handle is None:
                return
            try:
                yield eccodes.codes_get_message(handle)
            finally:
                eccodes.codes_release(handle)


def key_of(message: bytes) -> Key:
    """What a message is of."""
    handle = eccodes.codes_new_from_message(message)
    try:
        return _key(handle)
    finally:
        eccodes.codes_release(handle)


def _key(handle: int) -> Key:
    number = eccodes.codes_get_long(handle, "number") if eccodes.codes_is_defined(handle, "number") else 0
    hours, level = (eccodes.codes_get_long(handle, name) for name in ("endStep", "level"))
    return number, hours, eccodes.codes_get_string(handle, "shortName"), level


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message stands.

    Parameters
    ----------
    path : Path
        Its file.
    offset, length : int
        Bytes.
    """

    path: Path
    offset: int
    length: int

    def read(self) -> bytes:
        """The message."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.length)


def places_of(card: Card) -> dict[Key, list[Place]]:
    """Where the messages of members stand in the files beside the card, in their order."""
    places: dict[Key, list[Place]] = defaultdict(list)
    for path in originals(card):
        with path.open("rb") as file:
            while (handle := eccodes.codes_grib_new_from_file(file, headers_only=True)) is not None:
                try:
                    offset = eccodes.codes_get_message_offset(handle)
                    place = Place(path, offset, eccodes.codes_get_long(handle, "totalLength"))
                    if (key := _key(handle))[0] > 0:
                        places[key].append(place)
                finally:
                    eccodes.codes_release(handle)
    return dict(places)


@dataclass(frozen=True)
class Distance:
    """How far two fields lie apart.

    Parameters
    ----------
    largest : float
        The largest difference, in the field's units.
    deviation : float
        The standard deviation of the first.
    packing : float
        The coarser of the two steps of packing, in the field's units; 0 where all values are one.
    rounding : float
        The distance of neighbouring float32 numbers at the largest value: GRIB packs from a float32 minimum on.
    """

    largest: float
    deviation: float
    packing: float
    rounding: float

    @property
    def share(self) -> float:
        """The difference over the standard deviation."""
        return self.largest / (self.deviation or 1.0)


def distance(first: bytes, second: bytes) -> Distance:
    """How far two messages of one grid lie apart."""
    (one, packing), (other, other_packing) = _decoded(first), _decoded(second)
    largest = float(np.abs(one - other).max()) if one.shape == other.shape else float("inf")
    rounding = float(np.spacing(np.float32(max(np.abs(one).max(), np.abs(other).max()))))
    return Distance(largest, float(one.std()), max(packing, other_packing), rounding)


def _decoded(message: bytes) -> tuple[FloatArray, float]:
    """Values, and the step of their packing."""
    handle = eccodes.codes_new_from_message(message)
    try:
        step = 0.0
        if eccodes.codes_get_long(handle, "bitsPerValue"):
            binary, decimal = (eccodes.codes_get_long(handle, f"{base}ScaleFactor") for base in ("binary", "decimal"))
            step = 2.0**binary * 10.0**-decimal
        return eccodes.codes_get_values(handle), step
    finally:
        eccodes.codes_release(handle)
