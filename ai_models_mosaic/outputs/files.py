"""Files of whole GRIB messages that appear under their name only when they are complete."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import OutputError

LOG = logging.getLogger(__name__)

PARTIAL_SUFFIX = ".partial"

OPEN_AT_ONCE = 64
"""Files held open; a path with placeholders may name thousands."""

TAIL_BYTES = 4096
"""Of what an unfinished run wrote last, to know it again."""

FILES_SHOWN = 4
"""Files that a log line names."""


class MessageFiles:
    """Appends messages to files that bear the suffix ``.partial`` until `finish`.

    A run that fails leaves the partial files, each valid up to its last whole message, and never
    touches a complete file of the same name from before. Pipes and devices are written to directly.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[Path, BinaryIO] = OrderedDict()
        self._written: dict[Path, int] = {}
        self._unsynced: set[Path] = set()
        self._named: set[Path] = set()
        self._places: dict[Path, Path] = {}

    @property
    def paths(self) -> list[Path]:
        """Every file written to, in the order of first use."""
        return list(self._written)

    def append(self, path: Path, message: bytes) -> None:
        """Write one whole message, or none of it.

        Raises
        ------
        OutputError
            If the file cannot be written, such as for want of space.
        """
        with _named_errors(path):
            file = self._file(path)
            # What is written to a file without a name is lost, and no system call says so.
            if os.fstat(file.fileno()).st_nlink == 0:
                raise OSError(0, "its partial file was removed while it was being written")
            try:
                written = file.write(message)
                if written != len(message):
                    raise OSError(0, f"only {written} of {len(message)} bytes were taken; is the disk full?")
            except OSError:
                if self._place(path) != path:
                    file.truncate(self._written[path])
                    file.seek(self._written[path])
                raise
            self._written[path] += len(message)
            if self._place(path) != path:
                self._unsynced.add(path)

    def flush(self) -> None:
        """Bring all messages to disk.

        Raises
        ------
        OutputError
            If the system cannot.
        """
        for path in self._unsynced:
            with _named_errors(path):
                sync(self._place(path))
        for folder in {path.parent for path in self._unsynced}:
            with _named_errors(folder):
                sync(folder)
        self._unsynced.clear()

    def positions(self) -> dict[str, int]:
        """Bytes written to every file, by the name that it will have; pipes and devices have none."""
        return {str(path): written for path, written in self._written.items() if self._place(path) != path}

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
            If a file is gone, or shorter than it was.
        """
        found = []
        for name, length in positions.items():
            path = Path(name)
            partial = self._place(path)
            # A death while files were being named has left some with their final name.
            place = path if finished and not partial.exists() else partial
            with _named_errors(path):
                size = place.stat().st_size if place.exists() else 0
                if size < length:
                    raise OSError(0, f"expected {length} bytes of an unfinished run in {place}, got {size}")
                if place == partial:
                    os.truncate(place, length)
                else:
                    self._named.add(path)
            self._written[path] = length
            found.append(place)
        return found

    def finish(self) -> list[Path]:
        """Give every file its name; returns the files."""
        self.abandon()
        for path in self.paths:
            partial = self._place(path)
            if partial != path and path not in self._named:
                with _named_errors(path):
                    partial.replace(path)
                self._named.add(path)
        return self.paths

    def abandon(self) -> list[Path]:
        """Close all files as they are; returns the partial ones."""
        while self._open:
            self._open.popitem()[1].close()
        return [self._place(path) for path in self.paths if path not in self._named]

    def _place(self, path: Path) -> Path:
        """Where a file is written until it is complete: looked up once, since it is asked for with every message."""
        if path not in self._places:
            self._places[path] = _partial(path)
        return self._places[path]

    def _file(self, path: Path) -> BinaryIO:
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        if len(self._open) >= OPEN_AT_ONCE:
            self._open.popitem(last=False)[1].close()
        # Unbuffered, so that a death between two messages leaves whole ones only.
        file = self._place(path).open("ab", buffering=0)
        try:
            self._claim(path, file)
        except OSError:
            file.close()
            raise
        self._open[path] = file
        return file

    def _claim(self, path: Path, file: BinaryIO) -> None:
        """Refuse a file that another run is writing; what an older one left in it goes."""
        if self._place(path) == path:
            self._written.setdefault(path, 0)
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(0, "another run is writing it; wait for that to end, or choose another name") from None
        except OSError as error:
            # Some network file systems have no locks.
            LOG.debug("No lock on %s: %s", path, error)
        if path not in self._written:
            file.truncate(0)
            self._written[path] = 0


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
        If the folder is absent or not writable, or the path is a folder.
    """
    with _named_errors(path):
        is_folder = path.is_dir()
    if is_folder:
        raise OutputError(f"cannot write {path}: it is a folder; expected the name of a file")
    if not is_stream(path):
        check_folder(path)
    elif not os.access(path, os.W_OK):
        raise OutputError(f"cannot write {path}: it is not writable")


def check_folder(path: Path) -> None:
    """Raise before a long run if nothing of this name could be made.

    Raises
    ------
    OutputError
        If its folder is absent or not writable.
    """
    folder = path.parent
    with _named_errors(path):
        has_folder = folder.is_dir()
    if not has_folder:
        raise OutputError(f"cannot write {path}: there is no folder {folder}; create it first")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"cannot write {path}: the folder {folder} is not writable")


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to disk."""
    # Whichever descriptor wrote, and even when it is closed by now.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    partial = _partial(path)
    place = partial if partial.exists() else path
    if not place.is_file() or place.stat().st_size < length:
        return None
    with place.open("rb") as file:
        file.seek(max(0, length - TAIL_BYTES))
        return hashlib.sha256(file.read(min(length, TAIL_BYTES))).hexdigest()


def _partial(path: Path) -> Path:
    if is_stream(path):
        return path
    return path.with_name(path.name + PARTIAL_SUFFIX)


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def _summary(paths: Sequence[Path]) -> str:
    shown = ", ".join(str(path) for path in paths[:FILES_SHOWN])
    return shown if len(paths) <= FILES_SHOWN else f"{len(paths)} files: {shown}, …"
