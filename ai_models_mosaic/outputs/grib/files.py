"""Files of whole GRIB messages that appear under their name only when they are complete."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import resource
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from threading import RLock
from typing import TypeVar

from ...errors import OutputError
from ...files import claim, claim_new, is_named, named_errors, partial_of, place_of, refuse_strange, sync

LOG = logging.getLogger(__name__)

T = TypeVar("T")

OPEN_AT_ONCE = 64
"""Most files held open; a path with placeholders may name thousands."""

SHARE_OF_LIMIT = 4
"""One in so many of the files that the process may have open is one of these."""

DEVICES = re.compile(r"/dev(/fd)?|/proc/(self|\d+)/fd")
"""Folders in which no file is made."""

TAIL_BYTES = 4096
"""Of what an unfinished run wrote last, to know it again."""

FILES_SHOWN = 4
"""Files that a log line names."""


@dataclass(slots=True)
class _File:
    """What is known of a file.

    Parameters
    ----------
    final : Path
        Where it is when it is complete.
    place : Path
        Where it is until then; the same for pipes and devices.
    """

    final: Path
    place: Path
    size: int = 0
    messages: int = 0
    identity: tuple[int, int] | None = None
    begun: bool = False
    unsynced: bool = False
    named: bool = False

    @property
    def is_stream(self) -> bool:
        return self.place == self.final


class MessageFiles:
    """Appends messages to files that bear the suffix ``.partial`` until `finish`.

    A run that fails leaves the partial files, each valid up to its last whole message, and never
    touches a complete file of the same name from before. Pipes and devices are written to directly,
    and what a symbolic link leads to is written in its place.

    Every file is locked while it is open. Of more files than may be open at once, the first stays
    locked for all: runs that share the others mostly share that one. What else is written to a file
    that is closed meanwhile is noticed when it is opened again, and never given its name.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[Path, FileIO] = OrderedDict()
        self._files: dict[Path, _File] = {}
        self._most_open = _most_open()
        # Messages are appended by one thread, and may be brought to disk by another.
        self._lock = RLock()

    @property
    def paths(self) -> list[Path]:
        """Every file written to, in the order of first use."""
        return [path for path, file in self._files.items() if file.begun]

    @property
    def messages(self) -> int:
        """Messages in all files, as far as is known."""
        return sum(file.messages for file in self._files.values())

    def append(self, path: Path, message: bytes) -> None:
        """Write one whole message, or none of it.

        Raises
        ------
        OutputError
            If the file cannot be written, such as for want of space, or is not what was written to it before.
        """
        with self._lock, named_errors(path):
            known = self._files.get(path) or self._known(path)
            file = self._opened(path, known)
            is_stream = known.is_stream
            if not is_stream:
                _check(file, known)
            try:
                written = file.write(message)
                if written != len(message):
                    raise OSError(0, f"only {written} of {len(message)} bytes were taken; is the disk full?")
            except OSError:
                if not is_stream:
                    file.truncate(known.size)
                raise
            known.size += len(message)
            known.messages += 1
            known.unsynced = not is_stream

    def flush(self) -> None:
        """Bring all messages to disk; others may be appended meanwhile.

        Raises
        ------
        OutputError
            If the system cannot.
        """
        folders = set()
        for path, known in list(self._files.items()):
            if known.unsynced:
                # Before it is so: what is appended meanwhile may be missed.
                known.unsynced = False
                with named_errors(path):
                    self._with_room(partial(sync, known.place))
                folders.add(known.place.parent)
        for folder in folders:
            with named_errors(folder):
                self._with_room(partial(sync, folder))

    def positions(self) -> dict[str, int]:
        """Bytes written to every file, by the name that it will have; pipes and devices have none."""
        return {str(path): known.size for path, known in self._files.items() if known.begun and not known.is_stream}

    def resume(self, positions: Mapping[str, int], *, finished: bool = False) -> list[Path]:
        """Go on with the files of an unfinished run, cutting off what came after these positions.

        Parameters
        ----------
        positions : mapping of str to int
            As `positions` gave them.
        finished : bool
            The run had written everything, so that some files may have their final names.

        Returns
        -------
        list of Path
            Where the messages are now, in the order of `positions`.

        Raises
        ------
        OutputError
            If a file is gone, is shorter than it was, has another name too, or is being written by another run.
        """
        found = []
        for name, length in positions.items():
            path = Path(name)
            with named_errors(path):
                known = self._known(path)
                # A death while files were being named has left some with their final name.
                known.named = finished and not known.place.exists()
                place = known.final if known.named else known.place
                size = place.stat().st_size if place.exists() else 0
                if size < length or (known.named and size != length):
                    raise OSError(0, f"expected {length} bytes of an unfinished run in {place}, got {size}")
                known.size, known.begun = length, True
                if not known.named:
                    self._cut(path, known)
            found.append(place)
        return found

    def count(self, path: Path, messages: int) -> None:
        """Take note of how many messages a file holds that was resumed."""
        self._files[path].messages = messages

    def finish(self) -> list[Path]:
        """Give every file its name; returns the files.

        Raises
        ------
        OutputError
            If one cannot be renamed, or is not what was written.
        """
        for path, known in self._files.items():
            if known.begun and not known.is_stream and not known.named:
                with named_errors(path):
                    # Open, and so locked, until it has its name.
                    file = self._opened(path, known)
                    _check(file, known)
                    if not is_named(known.place, file):
                        raise OSError(0, f"{known.place} was exchanged for another file while it was being written")
                    known.place.replace(known.final)
                known.named = True
                self._open.pop(path).close()
        self.abandon()
        return self.paths

    def abandon(self) -> list[Path]:
        """Close all files as they are; returns the partial ones."""
        while self._open:
            self._open.popitem()[1].close()
        return [known.place for known in self._files.values() if known.begun and not known.named]

    def _known(self, path: Path) -> _File:
        """Where a file is written until it is complete: looked up once, since it is asked for with every message."""
        if path not in self._files:
            if is_stream(path):
                self._files[path] = _File(path, path)
            else:
                self._files[path] = _File(place_of(path), partial_of(path))
                if self._files[path].final != path:
                    LOG.info("%s is a symbolic link: writing %s", path, self._files[path].final)
        return self._files[path]

    def _opened(self, path: Path, known: _File) -> FileIO:
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        while len(self._open) >= self._most_open and self._close_one():
            pass
        file = self._with_room(partial(_open, known))
        self._open[path] = file
        known.begun = True
        return file

    def _with_room(self, open_something: Callable[[], T]) -> T:
        """Open something, though others of this process may have taken what its limit leaves."""
        while True:
            try:
                return open_something()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._close_one():
                    raise

    def _close_one(self) -> bool:
        """Close the file used longest ago, but for the first and for pipes, whose readers would take it for the end."""
        with self._lock:
            first = next(iter(self._files))
            for path in self._open:
                if path != first and not self._files[path].is_stream:
                    self._open.pop(path).close()
                    return True
        return False

    def _cut(self, path: Path, known: _File) -> None:
        """Lock what is resumed, then take off what came after its position."""
        found = known.place.lstat()
        known.identity = (found.st_dev, found.st_ino)
        file = self._opened(path, known)
        names = os.fstat(file.fileno()).st_nlink
        if names > 1:
            raise OSError(0, f"{known.place} has {names} names; expected a file of this run alone")
        os.truncate(file.fileno(), known.size)


def _open(known: _File) -> FileIO:
    if known.is_stream:
        return FileIO(known.place, "ab")
    if known.identity is None:
        file = claim_new(known.place)
        found = os.fstat(file.fileno())
        known.identity = (found.st_dev, found.st_ino)
        return file
    try:
        file = claim(known.place)
    except FileNotFoundError:
        raise OSError(0, "its partial file was removed while it was being written") from None
    return file


def _check(file: FileIO, known: _File) -> None:
    """Refuse a file that is not what was written; no system call says so when what is written is lost."""
    found = os.fstat(file.fileno())
    if found.st_nlink == 0:
        raise OSError(0, "its partial file was removed while it was being written")
    if (found.st_dev, found.st_ino) != known.identity:
        raise OSError(0, f"{known.place} was exchanged for another file while it was being written")
    if found.st_size != known.size:
        raise OSError(0, f"{known.place} was changed: expected {known.size} bytes, got {found.st_size}")


def _most_open() -> int:
    """Files to hold open, as the limit of the process allows."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return OPEN_AT_ONCE if limit == resource.RLIM_INFINITY else max(2, min(OPEN_AT_ONCE, limit // SHARE_OF_LIMIT))


def close_files(files: MessageFiles) -> None:
    """Give every file its name, and say so.

    Raises
    ------
    OutputError
        If one cannot be renamed.
    """
    paths = files.finish()
    if paths:
        LOG.info("Wrote %s", _summary(paths))


def abandon_files(files: MessageFiles) -> None:
    """Close all files as they are, and say so."""
    paths = files.abandon()
    if paths:
        LOG.error("The run did not finish; what it wrote is in %s", _summary(paths))


def check_writable(path: Path) -> None:
    """Raise before a long run if its output could not be written.

    Raises
    ------
    OutputError
        If the folder is absent or not writable, the path is a folder, or a link has the name of the partial file.
    """
    with named_errors(path):
        is_folder = path.is_dir()
    if is_folder:
        raise OutputError(f"cannot write {path}: it is a folder; expected the name of a file")
    if not is_stream(path):
        check_folder(path)
        with named_errors(path):
            refuse_strange(partial_of(path))
    elif not os.access(path, os.W_OK):
        raise OutputError(f"cannot write {path}: it is not writable")


def check_folder(path: Path) -> None:
    """Raise before a long run if nothing of this name could be made.

    Raises
    ------
    OutputError
        If its folder is absent or not writable, or is one of devices.
    """
    with named_errors(path):
        has_folder = (folder := place_of(path).parent).is_dir()
    if DEVICES.fullmatch(str(folder)):
        # Such as /dev/stdout where that is closed: what is opened next has its number, and would be written to.
        raise OutputError(f"cannot write {path}: there is no such device")
    if not has_folder:
        raise OutputError(f"cannot write {path}: there is no folder {folder}; create it first")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"cannot write {path}: the folder {folder} is not writable")


def is_stream(path: Path) -> bool:
    """Whether a path is written to as it is: a pipe, a device, or what a shell sent standard output to."""
    if not path.exists() or path.is_dir():
        return False
    # /dev/stdout leads to a file where it was redirected to one, and must stay what it is.
    places = [path.parent.resolve(), path.readlink() if path.is_symlink() else path]
    return not path.is_file() or any(str(place).startswith("/proc/") for place in places)


def tail_digest(path: Path, length: int) -> str | None:
    """SHA-256 of the last bytes before a position of a file or its partial; None if there are not so many.

    Parameters
    ----------
    path : Path
        Name of the complete file.
    length : int
        Position, bytes.
    """
    with named_errors(path):
        unfinished = path if is_stream(path) else partial_of(path)
    place = unfinished if unfinished.exists() else path
    return end_digest(place, length) if place.is_file() and place.stat().st_size >= length else None


def end_digest(place: Path, length: int) -> str:
    """SHA-256 of the last bytes before a position of a file.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with place.open("rb") as file:
        file.seek(max(0, length - TAIL_BYTES))
        return hashlib.sha256(file.read(min(length, TAIL_BYTES))).hexdigest()


def _summary(paths: Sequence[Path]) -> str:
    shown = ", ".join(str(path) for path in paths[:FILES_SHOWN])
    return shown if len(paths) <= FILES_SHOWN else f"{len(paths)} files: {shown}, …"
