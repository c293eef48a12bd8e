"""The file of the flight recorder: lines of JSON, by initial time, of which a kill loses the last at most."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import InputError, MosaicError, OutputError
from ...files import parse_json, write_whole
from .signs import NUMBERS

LOG = logging.getLogger(__name__)

SCHEMA = "ai-models-mosaic health 1"

KEYS: Mapping[str, frozenset[str]] = {
    "begin": frozenset(("schema", "initial_time", "variant", "members", "waves")),
    "step": frozenset(("step", "lead_time_hours", "member", "power", "alarms", *NUMBERS)),
}
"""What lines have, by their event."""

Line = dict[str, Any]


@dataclass
class Section:
    """What is recorded of a run from one initial time.

    Parameters
    ----------
    header : dict
        Its first line.
    lines : list of dict
        One per step and member.
    ending : dict or None
        How it ended; None if that was not recorded.
    """

    header: Line
    lines: list[Line] = field(default_factory=list)
    ending: Line | None = None

    @property
    def alarms(self) -> int:
        """Lines of members that left their bands."""
        return sum(bool(line.get("alarms")) for line in self.lines)


def read_record(path: Path) -> list[Section]:
    """What a recorder has written; a last line that is not whole is left out.

    Raises
    ------
    InputError
        If it cannot be read, or is something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    sections: list[Section] = []
    for line in _parsed(path, content):
        kind = line.get("event")
        if kind == "begin" and line.get("schema") == SCHEMA:
            sections.append(Section(line))
        elif not sections:
            raise InputError(f"{path}: expected a record of --health ({SCHEMA}), got something else")
        elif kind == "step":
            sections[-1].lines.append(line)
        else:
            sections[-1].ending = line
    return sections


def _parsed(path: Path, content: bytes) -> Iterator[Line]:
    *whole, _ = content.split(b"\n")
    if content and not whole:
        raise InputError(f"{path}: expected a record of --health ({SCHEMA}), got something else")
    for number, text in enumerate(whole, 1):
        try:
            line = parse_json(text)
        except ValueError as error:
            raise InputError(f"{path}: line {number} is no JSON: {error}") from error
        if not isinstance(line, dict):
            raise InputError(f"{path}: expected an object of JSON in line {number}, got {text[:40]!r}")
        missing = KEYS.get(str(line.get("event")), frozenset()) - line.keys()
        if missing:
            raise InputError(f"{path}: line {number} lacks {', '.join(sorted(missing))}")
        yield line


class Record:
    """Writes the file.

    Parameters
    ----------
    path : Path
        The file.
    resume : bool
        Whether to go on with what is there; else it is written over when the first run begins.

    Raises
    ------
    OutputError
        If there is something else under this name, which is not written over.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self._path: Path | None = path
        if path.exists() and not path.is_file():
            raise OutputError(f"--health {path}: expected the name of a file, got a folder, pipe or device")
        try:
            there = read_record(path) if path.exists() else []
        except MosaicError as error:
            raise OutputError(f"--health {path}: not written over: {error}") from error
        self._sections = there if resume else []

    def section(self, initial_time: str) -> Section | None:
        """What is recorded of a run from an initial time, if anything."""
        return next((one for one in self._sections if one.header.get("initial_time") == initial_time), None)

    def begin(self, header: Line, done: Sequence[tuple[int, int]]) -> Section:
        """Begin a run, or go on with one after the members and steps that were done; returns what is kept of it."""
        before = self.section(header["initial_time"])
        kept = set(done)
        lines = [] if before is None else [line for line in before.lines if (line["step"], line["member"]) in kept]
        return self.replace(header, lines)

    def replace(self, header: Line, lines: Sequence[Line]) -> Section:
        """Have these lines of a run from its initial time, and no others; returns them."""
        section = Section({"event": "begin", "schema": SCHEMA, **header}, list(lines))
        before = self.section(header["initial_time"])
        self._sections = [one for one in self._sections if one is not before] + [section]
        if self._path is not None:
            try:
                write_whole(self._path, [_text(line) for one in self._sections for line in _lines(one)])
            except OutputError as error:
                self._give_up(str(error))
        return section

    def add(self, lines: Sequence[Line]) -> None:
        """Append lines to the newest run."""
        for line in lines:
            if line["event"] == "step":
                self._sections[-1].lines.append(line)
            else:
                self._sections[-1].ending = line
        if self._path is None:
            return
        try:
            with self._path.open("ab", buffering=0) as file:
                file.write(b"".join(map(_text, lines)))
        except OSError as error:
            self._give_up(f"{self._path}: {error.strerror or error}")

    def _give_up(self, reason: str) -> None:
        """No reason to end a forecast."""
        LOG.warning("--health %s; nothing more is recorded there", reason)
        self._path = None


def _lines(section: Section) -> Iterator[Mapping[str, Any]]:
    yield section.header
    yield from section.lines
    if section.ending is not None:
        yield section.ending


def _text(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"
