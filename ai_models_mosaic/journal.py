"""What an unfinished run leaves on disk, so that another process can go on with it.

A folder beside the output holds ``run.json``, which says what the run is, how far it is and how long
every file of the output was then, and the states that the next step starts from. Everything is
written under another name, brought to disk and renamed; states that ``run.json`` still needs are
never touched. So whatever instant a run dies at, the folder describes one whole point of it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock, Timeout

from .arrays import Float32Array
from .errors import OutputError, ResumeError
from .outputs.files import PARTIAL_SUFFIX, tail_digest
from .state import ForecastStep

LOG = logging.getLogger(__name__)

FORMAT = 2
"""Version of what is in the folder."""

SUFFIX = ".state"
INDEX = "run.json"
LOCK = "lock"

SHARE = 0.05
"""Greatest share of a run's time that is spent on keeping its state."""


@dataclass(frozen=True)
class Record:
    """One whole point of a run.

    Parameters
    ----------
    identity : mapping of str to object
        What must be the same for going on: options, inputs, weights; as JSON gives it back.
    backend : mapping of str to object
        What must be the same for going on to the bit.
    units : int
        Batches of members whose steps are done, counted through step 0, step 1 and so on.
    positions : mapping of str to int
        Length in bytes of every file of the output.
    finished : bool
        All steps are done; the files may have their final names.
    format : int
        Version of this record.
    tails : mapping of str to str or None
        Digest of what every file ended with; None in records of before there were any.
    """

    identity: Mapping[str, Any]
    backend: Mapping[str, Any]
    units: int = 0
    positions: Mapping[str, int] | None = None
    finished: bool = False
    format: int = FORMAT
    tails: Mapping[str, str | None] | None = None


def state_folder(path: str, initial_time: datetime) -> Path:
    """Where the state of an unfinished run is kept: beside its output, or above folders with placeholders.

    Parameters
    ----------
    path : str
        The output; may hold GRIB keys in braces.
    initial_time : datetime
        Of the run: several may write to the same path with placeholders.
    """
    parts = Path(path).parts
    whole = next((index for index, part in enumerate(parts) if "{" in part), len(parts) - 1)
    return Path(*parts[:whole]) / f"{'_'.join(parts[whole:])}.{initial_time:%Y%m%dT%H%M}{SUFFIX}"


class Journal:
    """Keeps the state of one run. Only `open` makes one.

    Parameters
    ----------
    folder : Path
        Where.
    record : Record
        The point from which the run goes on.
    history : int
        States that a step starts from.
    batches : int
        Batches of members.
    share : float
        Greatest share of the time spent here; 1 keeps every step.
    clock : callable
        Gives seconds.
    """

    def __init__(
        self,
        folder: Path,
        record: Record,
        history: int,
        batches: int,
        share: float = SHARE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self.record = folder, record
        self._history, self._batches, self._share, self._clock = history, batches, share, clock
        self._unsaved: list[deque[ForecastStep]] = [deque(maxlen=history) for _ in range(batches)]
        self._cost = 0.0
        self._saved_at = clock()

    @property
    def is_due(self) -> bool:
        """Whether the state may be saved again without taking more than its share of the time."""
        return (self._clock() - self._saved_at) * self._share >= self._cost * (1 - self._share)

    def note(self, batch: int, forecast: ForecastStep) -> None:
        """Keep a step of a batch in mind for the next `save`."""
        if forecast.step > 0:
            self._unsaved[batch].append(forecast)

    def save(self, units: int, positions: Mapping[str, int], *, finished: bool = False) -> None:
        """Bring to disk how far the run is; what the output says to hold must be on disk already.

        Raises
        ------
        OutputError
            If it cannot be written; the record before it still stands.
        """
        start = self._clock()
        for batch, steps in enumerate(self._unsaved):
            for made in steps:
                _write_durably(self._state(batch, made.step), partial(_save_array, values=made.values))
            steps.clear()
        tails = {name: tail_digest(Path(name), length) for name, length in positions.items()}
        record = Record(self.record.identity, self.record.backend, units, dict(positions), finished, tails=tails)
        text = json.dumps(asdict(record)).encode()
        _write_durably(self.folder / INDEX, lambda file: file.write(text))
        sync_folder(self.folder)
        self.record = record
        needed = {self._state(batch, step) for batch, step in self.kept()}
        for path in self.folder.glob("*.npy*"):
            if path not in needed:
                path.unlink(missing_ok=True)
        self._saved_at = self._clock()
        self._cost = self._saved_at - start

    def check_output(self) -> None:
        """Refuse to go on with files that are there, but end otherwise than this run left them.

        Raises
        ------
        ResumeError
            If another run wrote to one: from another initial time, to the same name.
        """
        for name, length in (self.record.positions or {}).items():
            before, now = (self.record.tails or {}).get(name), tail_digest(Path(name), length)
            if before is not None and now is not None and before != now:
                raise ResumeError(
                    f"{name}{PARTIAL_SUFFIX} is not what the unfinished run in {self.folder} wrote: another run has "
                    "written to it since. Run without --resume to begin again, and name outputs by their initial time, "
                    "such as {dataDate}{dataTime:04d}.grib"
                )

    def kept(self) -> Iterator[tuple[int, int]]:
        """Batch and step of every state that the record needs, steps ascending."""
        for batch in range(self._batches):
            # Step 0 is a unit too, whose state is the input.
            newest = (self.record.units + self._batches - 1 - batch) // self._batches - 1
            for step in range(max(1, newest - self._history + 1), newest + 1):
                yield batch, step

    def load(self, batch: int, step: int) -> Float32Array:
        """A state that was kept, (member, lon, lat, channel).

        Raises
        ------
        ResumeError
            If it cannot be read.
        """
        path = self._state(batch, step)
        try:
            values: Float32Array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ResumeError(
                f"{path} cannot be read ({error}): the state of the unfinished run is damaged. Run without --resume"
            ) from error
        return values

    def remove(self) -> None:
        """Remove the folder: the run is complete, or is to begin again."""
        (self.folder / INDEX).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _state(self, batch: int, step: int) -> Path:
        return self.folder / f"step-{step:05d}-batch-{batch:05d}.npy"


@contextmanager
def open_journal(
    folder: Path, fresh: Record, history: int, batches: int, *, resume: bool, share: float = SHARE
) -> Iterator[Journal]:
    """The journal of a run that begins, or goes on; nobody else can open it meanwhile.

    Parameters
    ----------
    folder : Path
        As `state_folder` gives it.
    fresh : Record
        What the run is, at its beginning.
    history, batches : int
        As of `Journal`.
    resume : bool
        Go on with what is there, if anything is.
    share : float
        As of `Journal`.

    Raises
    ------
    ResumeError
        If another run is at it, or what is there is damaged or of a run of another kind.
    OutputError
        If the folder cannot be made.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ResumeError(f"{folder} is in use by another run: wait for it to end, or choose another --path") from None
    except OSError as error:
        raise OutputError(f"cannot write {folder / LOCK}: {error.strerror or error}") from error
    try:
        yield Journal(folder, _point(folder, fresh, resume=resume), history, batches, share)
    finally:
        lock.release()
        # Without a record there is nothing to go on with.
        if folder.is_dir() and not (folder / INDEX).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _point(folder: Path, fresh: Record, *, resume: bool) -> Record:
    found = read_record(folder) if resume or (folder / INDEX).exists() else None
    if found is None:
        if resume:
            LOG.info("%s has no unfinished run to go on with: beginning from the start", folder)
        return fresh
    if not resume:
        LOG.warning("Discarding the unfinished run in %s (--resume would go on with it)", folder)
        (folder / INDEX).unlink()
        return fresh
    check_same(folder, found, fresh)
    return found


def read_record(folder: Path) -> Record | None:
    """The record in a folder; None if there is none.

    Raises
    ------
    ResumeError
        If it cannot be read, or is of another version.
    """
    path = folder / INDEX
    try:
        found = json.loads(path.read_bytes())
        if found["format"] != FORMAT:
            raise ResumeError(
                f"{path}: expected format {FORMAT}, got {found['format']}: it is of another version of this package. "
                "Go on with that, or run without --resume"
            )
        return Record(**found)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ResumeError(f"{path} cannot be read ({error}): run without --resume") from error


def check_same(folder: Path, found: Record, wanted: Record) -> None:
    """Refuse to go on with a run of another kind; say when the result may differ in the last bits.

    Raises
    ------
    ResumeError
        If an option, the input or the weights differ; names all that do.
    """
    differing = differences(found.identity, wanted.identity)
    if differing:
        listed = "\n".join(f"  {name}: it began with {began}, now {now}" for name, began, now in differing)
        raise ResumeError(
            f"the unfinished run in {folder} is another than this one:\n{listed}\n"
            "Give the same options, input and weights, or run without --resume to begin again"
        )
    for name, began, now in differences(found.backend, wanted.backend):
        LOG.warning(
            "The run began with %s %s and goes on with %s: fields may differ in the last bits", name, began, now
        )


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Names whose values are not the same, with both values; None where one lacks a name.

    Parameters
    ----------
    first, second : mapping of str to object
        What is a mapping at the top of both is a section, whose names are compared.
    """
    found = []
    for name in dict.fromkeys([*first, *second]):
        one, other = first.get(name), second.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            both = dict.fromkeys([*one, *other])
            found += [(key, one.get(key), other.get(key)) for key in both if one.get(key) != other.get(key)]
        elif one != other:
            found.append((name, one, other))
    return found


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _save_array(file: BinaryIO, values: Float32Array) -> None:
    np.save(file, np.ascontiguousarray(values))


def _write_durably(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    unfinished = path.with_name(path.name + ".partial")
    try:
        with unfinished.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
