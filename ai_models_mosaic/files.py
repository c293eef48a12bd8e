"""Files of one's own in folders where others may write: made, locked, and given their name when they are whole.

A name that can be guessed may be taken by a link to somewhere else. So nothing is ever opened
through a link at such a name, and what is made is new: what an earlier run left goes first.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedWriter, FileIO, IOBase
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from .errors import OutputError

LOG = logging.getLogger(__name__)

PARTIAL_SUFFIX = ".partial"
"""Of what is not complete yet."""

MOST_LINKS = 40
"""Links that lead to links, as the kernel follows them."""

MOST_NESTED = 100
"""Containers in one another in a JSON text; those of this package have fewer than ten."""

MOST_ATTEMPTS = 5
"""To make what another process may make, or remove, at the same moment."""


class TakenError(OSError):
    """Another run has a file, or has just taken it."""

    def __init__(self) -> None:
        super().__init__(0, "another run is writing it; wait for that to end, or choose another name")


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Turn what the system says into an error that names what could not be written.

    Raises
    ------
    OutputError
        For every OSError within.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def place_of(path: Path) -> Path:
    """Where a file of this name is: what a symbolic link leads to, which need not be there yet.

    Raises
    ------
    OSError
        If somebody else put the link into a folder where all may write, or links lead in a circle.
    """
    place = path
    for _ in range(MOST_LINKS):
        if not place.is_symlink():
            return place
        refuse_planted(place)
        place = place.parent / place.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def partial_of(path: Path) -> Path:
    """Where a file or store is until it is complete: beside what a link leads to.

    Raises
    ------
    OSError
        As `place_of`.
    """
    place = place_of(path)
    return place.with_name(_partial_name(place))


def refuse_planted(path: Path) -> None:
    """Refuse what somebody else put into a folder where all may write, by the kernel's rule for links.

    Raises
    ------
    OSError
        If it belongs neither to the user nor to the owner of its folder.
    """
    folder = path.parent.stat()
    everybody = stat.S_ISVTX | stat.S_IWOTH
    if folder.st_mode & everybody == everybody and path.lstat().st_uid not in (os.geteuid(), folder.st_uid):
        raise OSError(0, f"{path} was put there by somebody else, in a folder where all may write: not used")


def refuse_strange(path: Path) -> None:
    """Refuse what no run leaves under the name of an unfinished file: links, folders, pipes.

    Raises
    ------
    OSError
        Says what is there; nothing is done if that is an ordinary file, or nothing.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "no file"
        raise OSError(0, f"{path} is {kind}; expected nothing there, or what a run left. Remove it")


def create(path: Path) -> int:
    """Make an empty file, never through a link; what an earlier run left there goes. Returns its descriptor.

    Raises
    ------
    OSError
        If what is there was not left by a run, or it cannot be made.
    """
    refuse_strange(path)
    path.unlink(missing_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


@contextmanager
def whole_file(path: Path, *, shared: bool = False) -> Iterator[BinaryIO]:
    """A file to write to, that is whole and on disk as soon as it is there under its name.

    Parameters
    ----------
    path : Path
        Its name; a link of that name is replaced.
    shared : bool
        Whether others may write the same at the same time: then each under a name of its own, and the last wins.

    Yields
    ------
    BinaryIO
        Empty. What had the name before still has it if this ends in an error.

    Raises
    ------
    OSError
        If it cannot be written; `TakenError` if another run has begun the same meanwhile.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL_SUFFIX}" if shared else _partial_name(path))
    with BufferedWriter(FileIO(create(partial), "wb")) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if not is_named(partial, file):
                raise TakenError
            partial.replace(path)
        except BaseException:
            if is_named(partial, file):
                partial.unlink()
            raise


@contextmanager
def whole_path(path: Path) -> Iterator[Path]:
    """As `whole_file`, for what libraries write by a name: yields the name that it has until it is whole.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    partial = path.with_name(_partial_name(path))
    os.close(create(partial))
    mode = partial.stat().st_mode
    try:
        yield partial
        # Some make files that only their owner can read.
        partial.chmod(mode)
        sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _partial_name(path: Path) -> str:
    return path.name + PARTIAL_SUFFIX


def write_whole(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write what `whole_file` is.

    Parameters
    ----------
    path : Path
        Its name; a link of that name is replaced.
    parts : iterable of bytes or memoryview
        What it holds.

    Raises
    ------
    OutputError
        If it cannot be written; what had the name before still has.
    """
    with named_errors(path), whole_file(path) as file:
        for part in parts:
            file.write(part)


def read_own(path: Path) -> bytes:
    """What is in an ordinary file, not through a link.

    Raises
    ------
    OSError
        If it is not there, is no ordinary file, or cannot be read.
    """
    with open_own(path) as file:
        return file.readall()


def parse_json(text: bytes | str, *, finite: bool = False) -> Any:
    """What a JSON text says that somebody else may have written.

    Parameters
    ----------
    text : bytes or str
    finite : bool
        Whether to refuse NaN and Infinity, which are no JSON, but which Python and others write.

    Raises
    ------
    ValueError
        If it is none, or is nested so deeply that going through it would end in a RecursionError.
    """
    too_deep = f"expected at most {MOST_NESTED} containers in one another, got more"
    try:
        found = json.loads(text, parse_constant=_refuse_constant if finite else None)
    except RecursionError:
        raise ValueError(too_deep) from None
    inner = [found]
    for _ in range(MOST_NESTED + 1):
        inner = [value for each in inner if isinstance(each, dict | list) for value in _values(each)]
        if not inner:
            return found
    raise ValueError(too_deep)


def _values(found: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return found.values() if isinstance(found, dict) else found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"expected finite numbers, got {name}")


def open_own(path: Path) -> FileIO:
    """Open an ordinary file for reading, not through a link.

    Raises
    ------
    OSError
        As `read_own`.
    """
    refuse_strange(path)
    file = FileIO(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(0, f"{path} is no file")
    return file


def claim(path: Path) -> FileIO:
    """Open a file that is there, for appending, and lock it as long as it is open.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    OSError
        If it is no file of one name, or cannot be written; `TakenError` if another run has it.
    """
    return _locked(path, 0)


def claim_new(path: Path) -> FileIO:
    """As `claim`, of an empty file: what an earlier run left there goes.

    Raises
    ------
    OSError
        As `claim`.
    """
    for _ in range(MOST_ATTEMPTS):
        try:
            with claim(path):
                # Not cut to nothing: it may have another name, which somebody needs.
                path.unlink()
        except FileNotFoundError:
            pass
        try:
            return _locked(path, os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            continue
    raise TakenError


def claim_lock(path: Path) -> FileIO:
    """As `claim`, of a file that is only there to be locked, made where it is missing.

    Raises
    ------
    OSError
        As `claim`.
    """
    return _locked(path, os.O_CREAT)


def is_named(path: Path, file: IOBase) -> bool:
    """Whether an open file still has this name."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to disk."""
    # Whichever descriptor wrote, and even when it is closed by now.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked(path: Path, flags: int) -> FileIO:
    refuse_strange(path)
    # A pipe that appears this very moment must not make it wait.
    always = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    # Unbuffered, so that a death between two messages leaves whole ones only.
    file = FileIO(os.open(path, always | flags, 0o666), "ab")
    try:
        _lock(path, file)
    except BaseException:
        file.close()
        raise
    return file


def _lock(path: Path, file: FileIO) -> None:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise OSError(0, f"{path} is no file")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TakenError from None
    except OSError as error:
        # Some network file systems have no locks.
        LOG.debug("No lock on %s: %s", path, error)
    # Whoever had it before may have renamed or removed it.
    if not is_named(path, file):
        raise TakenError
