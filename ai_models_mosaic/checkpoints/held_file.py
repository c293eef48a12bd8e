"""Files of weights as they were when they were read, whatever becomes of them afterwards.

A file that is mapped changes under the forecast when somebody writes over it, and ends the process when somebody
cuts it short. So what is used is a copy of our own, in memory, and its digest is that of the copy: what was hashed
and what is computed with cannot differ.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import CheckpointError

if sys.platform == "linux":
    import fcntl

DESCRIPTORS = Path("/proc/self/fd")
"""Where Linux gives the open files of a process as paths."""

BLOCK = 2**24
"""Bytes that are copied or hashed at a time: for each, a thread waits until another lets go of Python's lock."""


class DigestAhead:
    """The SHA-256 of a private copy, hashed in a thread while the copy is put to use.

    Parameters
    ----------
    place : Path
        Where the copy is; it may be gone once this was made.
    """

    def __init__(self, place: Path) -> None:
        self._file = place.open("rb", buffering=0)
        self._digest = hashlib.sha256()
        self._error: OSError | None = None
        # A run that ends early does not wait for it.
        self._thread = threading.Thread(target=self._hash, name="SHA-256 of the weights", daemon=True)
        self._thread.start()

    def __call__(self) -> str:
        """The digest, hexadecimal.

        Raises
        ------
        OSError
            If the copy could not be read to its end.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._digest.hexdigest()

    def _hash(self) -> None:
        try:
            with self._file as file:
                while block := file.read(BLOCK):
                    self._digest.update(block)
        except OSError as error:
            self._error = error


@dataclass(frozen=True)
class Held:
    """A private copy of a file.

    Parameters
    ----------
    place : Path
        Where it can be opened and mapped as long as it is held; a mapping outlives that.
    digest : DigestAhead
        Its SHA-256.
    """

    place: Path
    digest: DigestAhead


@contextmanager
def held(path: Path) -> Iterator[Held]:
    """A private copy of a file, which nobody else can change.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    CheckpointError
        If it cannot be read, or is being written to.
    """
    with _room(path.name) as (copy, place):
        with _open(path) as file:
            _copy(path, file, copy)
        _seal(copy)
        yield Held(place, DigestAhead(place))


class HeldAhead:
    """A private copy that a thread makes while what will use it is still prepared.

    Parameters
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._room = ExitStack()
        self._copy: Future[Held] | None = Future()
        # A run that ends early does not wait for it.
        threading.Thread(target=self._hold, args=(self._copy,), name="copy of the weights", daemon=True).start()

    @contextmanager
    def __call__(self) -> Iterator[Held]:
        """The copy, once it is there; a second call makes another.

        Raises
        ------
        CheckpointError
            As `held`, whose errors wait until here.
        """
        copy, self._copy = self._copy, None
        if copy is None:
            with held(self._path) as another:
                yield another
            return
        with self._room:
            yield copy.result()

    def _hold(self, copy: Future[Held]) -> None:
        try:
            copy.set_result(self._room.enter_context(held(self._path)))
        except Exception as error:
            copy.set_exception(error)


def held_bytes(path: Path, most: int) -> bytes:
    """The content of a small file, read once.

    Parameters
    ----------
    path : Path
        The file.
    most : int
        Bytes that it may have.

    Raises
    ------
    CheckpointError
        If it cannot be read, is larger, or is being written to.
    """
    with _open(path) as file:
        before = _stamp(file)
        if before[0] > most:
            raise CheckpointError(f"{path}: expected a file of at most {most} bytes, got {before[0]}")
        try:
            content = file.read()
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
        _refuse_change(path, before, _stamp(file), len(content))
    return content


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error


@contextmanager
def _room(name: str) -> Iterator[tuple[IO[bytes], Path]]:
    """An empty file without a name in any folder that others see, and where this process finds it."""
    if sys.platform == "linux" and DESCRIPTORS.is_dir():
        # Linux allows 249 bytes.
        descriptor = os.memfd_create(name[:32], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            yield file, DESCRIPTORS / str(descriptor)
    else:
        with tempfile.NamedTemporaryFile(prefix="ai-models-mosaic-") as file:
            yield file, Path(file.name)


def _copy(path: Path, file: IO[bytes], copy: IO[bytes]) -> None:
    before = _stamp(file)
    try:
        shutil.copyfileobj(file, copy, BLOCK)
        copy.flush()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read into memory: {error.strerror or error}") from error
    _refuse_change(path, before, _stamp(file), copy.tell())


def _seal(copy: IO[bytes]) -> None:
    """Close the copy to all change, this process included."""
    if sys.platform == "linux" and DESCRIPTORS.is_dir():
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(copy, fcntl.F_ADD_SEALS, seals)


def _stamp(file: IO[bytes]) -> tuple[int, int]:
    """What changes when somebody writes to a file: size and time."""
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns


def _refuse_change(path: Path, before: tuple[int, int], after: tuple[int, int], count: int) -> None:
    if before != after or count != before[0]:
        raise CheckpointError(
            f"{path} changed while it was read: expected {before[0]} bytes that nobody writes to, got {count}; wait "
            "until the file is complete, and run the same command again"
        )
