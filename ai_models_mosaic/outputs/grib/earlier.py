"""Messages of members that were written before, under the labels of a larger ensemble: values are not packed again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import eccodes

from ...errors import OutputError
from ...files import named_errors
from .encoder import GribEncoder
from .templates import EncodedMessage

HEAD_BYTES = 16
"""Section 0, with the length of the message in its last eight."""

FIRST_OF_VALUES = 5
"""Sections from this one on say how values are packed, and hold them; those before are labels."""

TOTAL_LENGTH = slice(8, 16)


@dataclass
class _Place:
    """How far a file was read.

    Parameters
    ----------
    offset : int
        Of the next message, bytes.
    hours : int or None
        Its lead time; None before it was looked at.
    """

    offset: int = 0
    hours: int | None = None


class EarlierMembers:
    """The members of a finished ensemble, lead time by lead time.

    Parameters
    ----------
    paths : sequence of Path
        Files of members and of nothing else, each with ascending lead times.
    encoder : GribEncoder
        Makes the labels; nobody else may use it.
    """

    def __init__(self, paths: Sequence[Path], encoder: GribEncoder) -> None:
        self._encoder = encoder
        self._places = {path: _Place() for path in paths}
        self._channels = {_field_of(encoder.first_message(1, 0, channel)): channel for channel in encoder.channels}

    def messages(self, lead_time_hours: int) -> Iterator[tuple[EncodedMessage, bytes]]:
        """Labels and whole messages of a lead time, in the order of their files; those of earlier ones are passed over.

        Parameters
        ----------
        lead_time_hours : int
            Not smaller than that asked for before.

        Raises
        ------
        OutputError
            If a file cannot be read, or holds something else.
        """
        for path, place in self._places.items():
            if place.hours is not None and place.hours > lead_time_hours:
                continue
            with named_errors(path), FileIO(path) as file:
                file.seek(place.offset)
                while message := _next(path, file):
                    labels = EncodedMessage(handle := eccodes.codes_new_from_message(message))
                    try:
                        place.hours = int(labels.get("step"))
                        if place.hours == lead_time_hours:
                            yield self._labelled(path, labels, message)
                    finally:
                        eccodes.codes_release(handle)
                    if place.hours > lead_time_hours:
                        break
                    place.offset += len(message)

    def close(self) -> None:
        """Give the labels back to ecCodes."""
        self._encoder.close()

    def _labelled(self, path: Path, old: EncodedMessage, message: bytes) -> tuple[EncodedMessage, bytes]:
        channel = self._channels.get(_field_of(old))
        if channel is None:
            raise OutputError(f"{path} holds {old.get('shortName')} at level {old.get('level')}, which is not written")
        labels = self._encoder.first_message(old.get("number"), old.get("step"), channel)
        head, values = _split(labels.to_bytes())[0], _split(message)[1]
        whole = bytearray(head + values)
        whole[TOTAL_LENGTH] = len(whole).to_bytes(8, "big")
        return labels, bytes(whole)


def _field_of(message: EncodedMessage) -> tuple[int, str, int]:
    return message.get("paramId"), message.get("typeOfLevel"), message.get("level")


def _next(path: Path, file: FileIO) -> bytes:
    """The message where a file is; nothing at its end."""
    head = file.read(HEAD_BYTES)
    message = head + file.read(max(0, int.from_bytes(head[TOTAL_LENGTH], "big") - HEAD_BYTES))
    if head and (head[:4] != b"GRIB" or message[-4:] != b"7777"):
        raise OutputError(f"expected whole GRIB messages in {path}, got something else: it was changed")
    return message


def _split(message: bytes) -> tuple[bytes, bytes]:
    """Labels of a message, and what holds its values."""
    position = HEAD_BYTES
    while message[position + 4] < FIRST_OF_VALUES:
        position += int.from_bytes(message[position : position + 4], "big")
    return message[:position], message[position:]
