"""Files of whole GRIB messages that appear under their name only when they are complete."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import OutputError

PARTIAL_SUFFIX = ".partial"

OPEN_AT_ONCE = 64
"""Files held open; a path with placeholders may name thousands."""


class MessageFiles:
    """Appends messages to files that bear the suffix ``.partial`` until `finish`.

    A run that fails leaves the partial files, each valid up to its last whole message, and never
    touches a complete file of the same name from before. Pipes and devices are written to directly.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[Path, BinaryIO] = OrderedDict()
        self._written: dict[Path, int] = {}

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
                if _partial(path).is_file():
                    file.truncate(self._written[path])
                    file.seek(self._written[path])
                raise
            self._written[path] += len(message)

    def finish(self) -> list[Path]:
        """Give every file its name; returns the files."""
        self.abandon()
        for path in self.paths:
            partial = _partial(path)
            if partial != path:
                with _named_errors(path):
                    partial.replace(path)
        return self.paths

    def abandon(self) -> list[Path]:
        """Close all files as they are; returns the partial ones."""
        while self._open:
            self._open.popitem()[1].close()
        return [_partial(path) for path in self.paths]

    def _file(self, path: Path) -> BinaryIO:
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        if len(self._open) >= OPEN_AT_ONCE:
            self._open.popitem(last=False)[1].close()
        # Unbuffered, so that a death between two messages leaves whole ones only.
        file = _partial(path).open("ab" if path in self._written else "wb", buffering=0)
        self._written.setdefault(path, 0)
        self._open[path] = file
        return self._open[path]


def check_writable(path: Path) -> None:
    """Raise before a long run if its output could not be written.

    Raises
    ------
    OutputError
        If the folder is absent or not writable, or the path is a folder.
    """
    folder = path.parent
    with _named_errors(path):
        is_folder, has_folder = path.is_dir(), folder.is_dir()
    if is_folder:
        raise OutputError(f"cannot write {path}: it is a folder; expected the name of a file")
    if not has_folder:
        raise OutputError(f"cannot write {path}: there is no folder {folder}; create it first")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"cannot write {path}: the folder {folder} is not writable")


def _partial(path: Path) -> Path:
    if path.exists() and not path.is_file():
        return path
    return path.with_name(path.name + PARTIAL_SUFFIX)


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
