"""What an unfinished run leaves on disk, so that another process can go on with it.

A folder beside the output holds ``run.json``, which says what the run is, how far it is and how long
every file of the output was then, and the states that the next step starts from. Everything is
written under another name, brought to disk and renamed; states that ``run.json`` still needs are
never touched. So whatever instant a run dies at, the folder describes one whole point of it.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import Any

from ..arrays import Float32Array
from ..errors import ResumeError
from ..files import (
    PARTIAL_SUFFIX,
    TakenError,
    claim_lock,
    is_named,
    named_errors,
    read_own,
    refuse_planted,
    sync,
    write_whole,
)
from ..outputs.grib.files import tail_digest
from ..state import ForecastStep
from .comparison import check_same
from .record_file import seal, unseal
from .state_files import read_state, save_state

LOG = logging.getLogger(__name__)

FORMAT = 2
"""Version of what is in the folder."""

SUFFIX = ".state"
INDEX = "run.json"
LOCK = "lock"

OWN_FILES = re.compile(r"(run\.json|step-\d{5,}-batch-\d{5,}\.npy)(\.partial)?")
"""Names of all that a run puts into its folder beside the lock; nothing else is ever removed from it."""

MOST_ATTEMPTS = 5
"""To open a folder that the run before is just removing."""

INTERVAL_S = 20.0
"""Between two states, where nobody said anything else."""

SHARE = 0.05
"""Greatest share of a run's time that keeping its state takes: what is written beside a step slows it, too."""

Noted = Sequence[deque[ForecastStep]]
"""What was made since the last state, by batch."""


@dataclass(frozen=True)
class ResumeRecord:
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
        Digest of what every file ended with.
    states : mapping of str to mapping
        Digest and shape of the values in every file of a state.
    """

    identity: Mapping[str, Any]
    backend: Mapping[str, Any]
    units: int = 0
    positions: Mapping[str, int] | None = None
    finished: bool = False
    format: int = FORMAT
    tails: Mapping[str, str | None] | None = None
    states: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


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


class ResumeState:
    """Keeps the state of one run. Only `open` makes one.

    Parameters
    ----------
    folder : Path
        Where.
    record : ResumeRecord
        The point from which the run goes on.
    history : int
        States that a step starts from.
    batches : int
        Batches of members.
    interval_s : float
        Between two states; 0 keeps every step.
    clock : callable
        Gives seconds.
    """

    def __init__(
        self,
        folder: Path,
        record: ResumeRecord,
        history: int,
        batches: int,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self.record = folder, record
        self.interval_s = interval_s
        self._history, self._batches, self._clock = history, batches, clock
        self._unsaved = self._none()
        self._states = dict(record.states)
        self._cost = 0.0
        self._saved_at = clock()

    @property
    def is_due(self) -> bool:
        """Whether it is time to save the state again."""
        since = self._clock() - self._saved_at
        enough = since >= self.interval_s and since * SHARE >= self._cost * (1 - SHARE)
        return enough or not self.interval_s

    def note(self, batch: int, forecast: ForecastStep) -> None:
        """Keep a step of a batch in mind for the next `save`."""
        if forecast.step > 0:
            self._unsaved[batch].append(forecast)

    def noted(self) -> Noted:
        """What `save` is to write, which may be called beside further steps: they are noted apart."""
        noted, self._unsaved = self._unsaved, self._none()
        return noted

    def save(
        self, units: int, positions: Mapping[str, int], *, finished: bool = False, noted: Noted | None = None
    ) -> None:
        """Bring to disk how far the run is; what the output says to hold must be on disk already.

        Parameters
        ----------
        units : int
            Batches of members whose steps are done.
        positions : mapping of str to int
            Length of every file of the output then.
        finished : bool
            All is done: no state is needed any more.
        noted : sequence of deque of ForecastStep, or None
            As `noted` gave it when so many units were done; None for now.

        Raises
        ------
        OutputError
            If it cannot be written; the record before it still stands.
        """
        start = self._clock()
        needed = set() if finished else {self._state(batch, step).name for batch, step in self._kept_after(units)}
        for batch, steps in enumerate(self.noted() if noted is None else noted):
            while steps:
                # Its buffer may be wanted.
                made = steps.popleft()
                path = self._state(batch, made.step)
                if path.name in needed:
                    self._states[path.name] = save_state(path, made.values)
        tails = {name: tail_digest(Path(name), length) for name, length in positions.items()}
        record = ResumeRecord(self.record.identity, self.record.backend, units, dict(positions), finished, tails=tails)
        self._states = {name: known for name, known in self._states.items() if name in needed}
        record = replace(record, states=self._states)
        write_whole(self.folder / INDEX, [seal(asdict(record))])
        with named_errors(self.folder):
            sync(self.folder)
            for path in _own_files(self.folder):
                if path.name not in needed and path.name != INDEX:
                    path.unlink(missing_ok=True)
        self.record = record
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
        return iter(()) if self.record.finished else self._kept_after(self.record.units)

    def _none(self) -> list[deque[ForecastStep]]:
        return [deque(maxlen=self._history) for _ in range(self._batches)]

    def _kept_after(self, units: int) -> Iterator[tuple[int, int]]:
        for batch in range(self._batches):
            # Step 0 is a unit too, whose state is the input.
            newest = (units + self._batches - 1 - batch) // self._batches - 1
            for step in range(max(1, newest - self._history + 1), newest + 1):
                yield batch, step

    def load(self, batch: int, step: int, shape: tuple[int, ...] | None = None) -> Float32Array:
        """A state that was kept, (member, lon, lat, channel).

        Parameters
        ----------
        batch, step : int
            Which, of those of `kept`.
        shape : tuple of int or None
            What the run needs, if that is to be checked.

        Raises
        ------
        ResumeError
            If it cannot be read, or is not what was kept.
        """
        path = self._state(batch, step)
        try:
            return read_state(path, self.record.states.get(path.name), shape)
        except (OSError, ValueError, EOFError) as error:
            raise ResumeError(
                f"{path} cannot be read ({error}): the state of the unfinished run is damaged. Run without --resume"
            ) from error

    def remove(self) -> None:
        """Remove what the run keeps: it is complete, or is to begin again."""
        _remove(self.folder)

    def _state(self, batch: int, step: int) -> Path:
        return self.folder / f"step-{step:05d}-batch-{batch:05d}.npy"


@contextmanager
def open_resume_state(
    folder: Path, fresh: ResumeRecord, history: int, batches: int, *, resume: bool, interval_s: float = INTERVAL_S
) -> Iterator[ResumeState]:
    """The resume state of a run that begins, or goes on; nobody else can open it meanwhile.

    Parameters
    ----------
    folder : Path
        As `state_folder` gives it.
    fresh : ResumeRecord
        What the run is, at its beginning.
    history, batches : int
        As of `ResumeState`.
    resume : bool
        Go on with what is there, if anything is.
    interval_s : float
        As of `ResumeState`.

    Raises
    ------
    ResumeError
        If another run is at it, or what is there is damaged or of a run of another kind.
    OutputError
        If the folder cannot be made.
    """
    lock = _locked(folder)
    try:
        yield ResumeState(folder, _point(folder, fresh, resume=resume), history, batches, interval_s)
    finally:
        # Without a record there is nothing to go on with. Who comes after a complete run has a lock of its own.
        if is_named(folder / LOCK, lock) and not (folder / INDEX).exists():
            _remove(folder)
        lock.close()
        # Network file systems keep the lock in it until now. What is not empty stays.
        with suppress(OSError):
            folder.rmdir()


def _locked(folder: Path) -> FileIO:
    """The lock of a run's folder, which is made where it is missing."""
    for _ in range(MOST_ATTEMPTS):
        with named_errors(folder):
            folder.mkdir(exist_ok=True)
            if not stat.S_ISDIR(folder.lstat().st_mode):
                raise OSError(0, "it is a symbolic link, where the state of a run is to be kept. Remove it")
            refuse_planted(folder)
        with named_errors(folder / LOCK), suppress(FileNotFoundError):
            try:
                return claim_lock(folder / LOCK)
            except TakenError:
                break
    raise ResumeError(f"{folder} is in use by another run: wait for it to end, or choose another --path")


def _point(folder: Path, fresh: ResumeRecord, *, resume: bool) -> ResumeRecord:
    if not resume:
        with named_errors(folder):
            if os.path.lexists(folder / INDEX):
                LOG.warning("Discarding the unfinished run in %s (--resume would go on with it)", folder)
                (folder / INDEX).unlink()
        return fresh
    found = read_record(folder)
    if found is None:
        LOG.info("%s has no unfinished run to go on with: beginning from the start", folder)
        return fresh
    check_same(folder, found, fresh)
    return found


def read_record(folder: Path) -> ResumeRecord | None:
    """The record in a folder; None if there is none.

    Raises
    ------
    ResumeError
        If it cannot be read, or is of another version.
    """
    path = folder / INDEX
    try:
        return ResumeRecord(**unseal(read_own(path), FORMAT))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise ResumeError(f"{path} cannot be used: {said}. Run without --resume") from error


def _own_files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if OWN_FILES.fullmatch(path.name)]


def _remove(folder: Path) -> None:
    """Remove what runs put into a folder, and the folder if that was all."""
    with suppress(OSError):
        # The record first: states without one are nothing to go on with.
        (folder / INDEX).unlink(missing_ok=True)
        for path in _own_files(folder):
            path.unlink(missing_ok=True)
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()
