"""GRIB2 templates: messages with every key but those that differ from one to the next.

Templates are our own and not the input's, so that messages are the same whatever the input was
encoded in. Labels: class ml, stream enfo; type and number by what is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import eccodes

from ...arrays import FloatArray
from ...errors import OutputError
from ...geometry.grid import Region
from ...params import Field
from .packing import Packing

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
    *("derivedForecast", "percentileValue", "quantileValue", "totalNumberOfQuantiles", "probabilityType"),
    *("scaleFactorOfLowerLimit", "scaledValueOfLowerLimit", "scaleFactorOfUpperLimit", "scaledValueOfUpperLimit"),
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
    packing : Packing
        How values are packed, unless a key of the user's says otherwise.
    """

    initial_time: datetime
    ensemble_size: int | None
    metadata: Mapping[str, str]
    expver: str = EXPVER
    packing: Packing = field(default_factory=Packing)


class Template:
    """A message that is filled in place, again and again: copying it takes longer than all the rest.

    Parameters
    ----------
    field : Field
        Which field.
    base : Base
        What it has in common with other fields.
    labels : Labels
        What all messages have in common.

    Raises
    ------
    OutputError
        If ecCodes refuses one of the user's keys, or cannot pack as asked.
    """

    def __init__(self, field: Field, base: Base, labels: Labels) -> None:
        self.handle = _finished(field, base, labels)
        self._bits = eccodes.codes_get_long(self.handle, "bitsPerValue")

    def twin(self) -> Template:
        """Another, for another thread."""
        made = object.__new__(Template)
        made.handle, made._bits = eccodes.codes_clone(self.handle), self._bits
        return made

    def fill(self, values: FloatArray, **keys: int) -> EncodedMessage:
        """The message with its values.

        Parameters
        ----------
        values : float64 array (point,)
            From north to south, each row from west to east.
        **keys : int
            What differs from one message to the next.
        """
        for key, value in keys.items():
            eccodes.codes_set(self.handle, key, value)
        # A constant field before this one has left 0 bits.
        if eccodes.codes_get_long(self.handle, "bitsPerValue") != self._bits:
            eccodes.codes_set(self.handle, "bitsPerValue", self._bits)
        eccodes.codes_set_values(self.handle, values)
        return EncodedMessage(self.handle)

    def release(self) -> None:
        """Give the message back to ecCodes."""
        eccodes.codes_release(self.handle)


class EncodedMessage:
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
            # For some types ecCodes makes a text of the step, which no format such as 03d suits.
            return (
                eccodes.codes_get_long(self._handle, "endStep")
                if key == "step"
                else eccodes.codes_get(self._handle, key)
            )
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


class Base:
    """What messages of all fields have in common, kept by kind of level: setting keys takes most of the time.

    Parameters
    ----------
    region : Region
        Geometry; evenly spaced.
    labels : Labels
        What all messages have in common.
    keys : mapping
        What the messages are of: a member, a product.
    """

    def __init__(self, region: Region, labels: Labels, keys: Mapping[str, Any]) -> None:
        self._arguments = region, labels, keys
        self._handles: dict[str, int] = {}

    def handle(self, field: Field) -> int:
        """A new handle with every key but those of the field."""
        kind = "sfc" if field.level_hpa is None else "pl"
        if kind not in self._handles:
            self._handles[kind] = _based(kind, *self._arguments)
        return eccodes.codes_clone(self._handles[kind])

    def __enter__(self) -> Base:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles.values():
            eccodes.codes_release(handle)
        self._handles.clear()


def _based(kind: str, region: Region, labels: Labels, keys: Mapping[str, Any]) -> int:
    handle: int = eccodes.codes_grib_new_from_samples(f"regular_ll_{kind}_grib2")
    columns, rows = region.shape
    common: dict[str, Any] = {
        "tablesVersion": TABLES_VERSION,
        "Ni": columns,
        "Nj": rows,
        "latitudeOfFirstGridPointInDegrees": region.latitude_deg[-1],
        "longitudeOfFirstGridPointInDegrees": region.longitude_deg[0] % 360,
        "latitudeOfLastGridPointInDegrees": region.latitude_deg[0],
        "longitudeOfLastGridPointInDegrees": region.longitude_deg[-1] % 360,
        "iDirectionIncrementInDegrees": region.grid.spacing_deg,
        "jDirectionIncrementInDegrees": 180 / (region.grid.shape[1] - 1),
        # It decides which keys there are, so it comes before them.
        "productDefinitionTemplateNumber": keys["productDefinitionTemplateNumber"],
        "setLocalDefinition": 1,
        "class": "ml",
        "stream": "enfo",
        "type": keys["type"],
        "expver": labels.expver,
        "generatingProcessIdentifier": 1,
        "dataDate": int(f"{labels.initial_time:%Y%m%d}"),
        "dataTime": int(f"{labels.initial_time:%H%M}"),
    }
    for key, value in common.items():
        eccodes.codes_set(handle, key, value)
    for key, value in keys.items():
        if value == "MISSING":
            eccodes.codes_set_missing(handle, key)
        elif key not in common:
            eccodes.codes_set(handle, key, value)
    return handle


def _finished(field: Field, base: Base, labels: Labels) -> int:
    """A handle with every key but those that `Template.fill` sets."""
    handle = base.handle(field)
    eccodes.codes_set(handle, "shortName", field.param)
    if field.level_hpa is not None:
        eccodes.codes_set(handle, "level", field.level_hpa)
    _pack(labels.packing, field, handle)
    if labels.metadata:
        _apply(labels.metadata, handle)
    return handle


def _pack(packing: Packing, field: Field, handle: int) -> None:
    try:
        for key, value in packing.keys(field).items():
            eccodes.codes_set(handle, key, value)
    except eccodes.CodesInternalError as error:
        raise OutputError(f"--packing {packing.method}: this ecCodes cannot pack so ({error})") from error


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


def refuse_reserved(metadata: Mapping[str, str]) -> None:
    """Raise if the user's keys hold one that would mislabel the fields.

    Raises
    ------
    OutputError
        Says which, and why.
    """
    for key in metadata:
        if key in RESERVED and not (key == "edition" and str(metadata[key]) == "2"):
            raise OutputError(f"--metadata {key}={metadata[key]} cannot be honoured: {RESERVED[key]}")
