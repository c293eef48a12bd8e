"""GRIB2 templates: messages with every key but those that differ from one to the next.

Which keys those are is said in `keys`; here ecCodes is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import eccodes

from ...arrays import FloatArray
from ...errors import OutputError
from ...geometry.grid import Region
from ...params import Field
from .keys import GUARDED, MISSING, Keys, Labels, field_keys, level_kind, packing_keys, shared_keys
from .packing import Packing


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

    def fill(self, values: FloatArray, keys: Mapping[str, int]) -> EncodedMessage:
        """The message with its values.

        Parameters
        ----------
        values : float64 array (point,)
            From north to south, each row from west to east.
        keys : mapping of str to int
            What differs from one message to the next: `keys.step_keys`.

        Raises
        ------
        OutputError
            If ecCodes cannot pack them so.
        """
        try:
            for key, value in keys.items():
                eccodes.codes_set(self.handle, key, value)
            # A constant field before this one has left 0 bits.
            if eccodes.codes_get_long(self.handle, "bitsPerValue") != self._bits:
                eccodes.codes_set(self.handle, "bitsPerValue", self._bits)
            eccodes.codes_set_values(self.handle, values)
        except eccodes.CodesInternalError as error:
            packing = eccodes.codes_get_string(self.handle, "packingType")
            raise OutputError(f"ecCodes cannot pack a field by {packing} ({error}): choose another packing") from error
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
        self.named: dict[str, str] = {}

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
        if key in self.named:
            return self.named[key]
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
        try:
            while eccodes.codes_keys_iterator_next(iterator):
                name = eccodes.codes_keys_iterator_get_name(iterator)
                keys[name] = eccodes.codes_get_string(self._handle, name)
        finally:
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

    def __init__(self, region: Region, labels: Labels, keys: Keys) -> None:
        self._keys = shared_keys(region, labels, keys)
        self._handles: dict[str, int] = {}

    def handle(self, field: Field) -> int:
        """A new handle with every key but those of the field."""
        kind = level_kind(field)
        if kind not in self._handles:
            handle = eccodes.codes_grib_new_from_samples(f"regular_ll_{kind}_grib2")
            # Before the keys: should ecCodes refuse one, it is released with the others.
            self._handles[kind] = handle
            _set(handle, self._keys)
        return eccodes.codes_clone(self._handles[kind])

    def __enter__(self) -> Base:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles.values():
            eccodes.codes_release(handle)
        self._handles.clear()


def _finished(field: Field, base: Base, labels: Labels) -> int:
    """A handle with every key but those that `Template.fill` sets."""
    handle = base.handle(field)
    try:
        _set(handle, field_keys(field))
        _pack(labels.packing, field, handle)
        if labels.metadata:
            _apply(labels.metadata, handle)
    except BaseException:
        eccodes.codes_release(handle)
        raise
    return handle


def _set(handle: int, keys: Keys) -> None:
    for key, value in keys.items():
        if value == MISSING:
            eccodes.codes_set_missing(handle, key)
        else:
            eccodes.codes_set(handle, key, value)


def _pack(packing: Packing, field: Field, handle: int) -> None:
    try:
        _set(handle, packing_keys(packing, field))
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
