"""Progress of an ensemble, counted in members and steps: for people, for scripts, and whether to stop."""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import Any

from ..errors import INTERRUPTED, MosaicError, OutputError
from ..outputs.grib.files import is_stream
from ..state import ForecastStep, InitialState
from .bulletin import Bulletin
from .rollout import Ensemble

LOG = logging.getLogger(__name__)

QUIET_SECONDS = 15.0
"""Longest silence while members of a step are still to come."""


class Progress:
    """Logs what is done and how long the rest will take.

    Parameters
    ----------
    members, steps : int
        What there is to do.
    clock : callable
        Gives seconds.
    done : int
        Members times steps that were done before.
    """

    def __init__(self, members: int, steps: int, clock: Callable[[], float] = time.monotonic, *, done: int = 0) -> None:
        self._members, self._steps, self._clock = members, steps, clock
        self._done = 0
        self._done_before, self._done_of_step = done, done % members
        self._start = self._said = clock()

    def advance(self, forecast: ForecastStep) -> None:
        """Count a batch of members of a step; logs at the end of a step, and when it was quiet for long."""
        if self._done_of_step == self._members:
            self._done_of_step = 0
        self._done += len(forecast.members)
        self._done_of_step += len(forecast.members)
        now = self._clock()
        if self._done_of_step < self._members and now - self._said < QUIET_SECONDS:
            return
        self._said = now
        each = (now - self._start) / self._done
        left = self._members * self._steps - self._done - self._done_before
        LOG.info(
            "Step %d of %d (+%d h), %d of %d members; %s per member and step, %s",
            forecast.step,
            self._steps,
            forecast.lead_time_hours,
            self._done_of_step,
            self._members,
            duration(each),
            f"ETA {duration(each * left)}" if left else f"all done in {duration(now - self._start)}",
            extra={
                "step": forecast.step,
                "steps": self._steps,
                "lead_time_hours": forecast.lead_time_hours,
                "members_done": self._done_of_step,
                "members": self._members,
                "seconds_per_member_step": each,
            },
        )


class Watch:
    """Follows a run: logs it, notes it in a file for scripts, and hears signals that ask it to stop.

    Parameters
    ----------
    path : Path or None
        Where to append one line of JSON per event, each with ``time`` (UTC) and ``event``.
    bulletin : Bulletin or None
        Who else is told.

    Raises
    ------
    OutputError
        If the file cannot be written, or is something else.
    """

    def __init__(self, path: Path | None = None, bulletin: Bulletin | None = None) -> None:
        self.stopping = False
        self._shielded = self._interrupted = False
        self._path, self._bulletin = path, bulletin
        self._deadly: Any = signal.SIG_DFL
        self._progress: Progress | None = None
        if path is not None:
            try:
                path.open("a").close()
                beginning = _first_byte(path)
            except OSError as error:
                raise OutputError(f"--progress-file {path}: cannot be written: {error.strerror or error}") from error
            if beginning not in (b"", b"{"):
                raise OutputError(f"--progress-file {path}: expected no file, or lines of JSON, which are added to")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While this lasts, the first SIGTERM asks the run to stop in good order; the second ends it at once.

        Ctrl-C ends it at once, too, but for what is `shielded`, and a note is made of that.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._hear)
        self._deadly = before if callable(before) else signal.SIG_DFL
        interrupted = signal.getsignal(signal.SIGINT)
        if interrupted is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield
        except KeyboardInterrupt:
            self.note("failed", exit_status=INTERRUPTED, message="interrupted")
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
            if interrupted is signal.default_int_handler:
                signal.signal(signal.SIGINT, interrupted)

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """While this lasts, the first Ctrl-C waits for its end: what is begun here must not be left half done.

        Raises
        ------
        KeyboardInterrupt
            At the end, if there was one.
        """
        self._shielded = True
        try:
            yield
        finally:
            self._shielded = False
            if self._interrupted:
                self._interrupted = False
                raise KeyboardInterrupt

    def begin(self, starts: Mapping[int, InitialState], ensemble: Ensemble, steps: int, units: int) -> None:
        """A run begins, or goes on after so many units: batches of members, step 0 included."""
        members, batches = len(ensemble.members), list(ensemble.batches())
        whole, rest = divmod(units, len(batches))
        done = members * whole + sum(len(batch) for batch in batches[:rest])
        self._progress = Progress(members, steps, done=max(0, done - members))
        if done:
            LOG.info("Going on after %d of %d member-steps", max(0, done - members), members * steps)
        start = next(iter(starts.values())).initial_time
        if self._bulletin is not None:
            self._bulletin.begin(start, members, steps, max(0, done - members))
        self.note("begin", initial_time=start.isoformat(), members=members, steps=steps, done=done)

    def advance(self, forecast: ForecastStep) -> None:
        """A batch of members made a step."""
        if self._progress is not None and forecast.step > 0:
            self._progress.advance(forecast)
        LOG.debug("Step %d of members %s", forecast.step, forecast.members)
        if self._bulletin is not None:
            self._bulletin.advance(forecast)
        hours, members = forecast.lead_time_hours, list(forecast.members)
        self.note("step", step=forecast.step, lead_time_hours=hours, members=members)

    def begin_group(self, ensemble: Ensemble, steps: int) -> None:
        """Some members of a run begin, which are carried to the end before the next."""
        LOG.info("Members %d to %d", ensemble.members[0], ensemble.members[-1])
        self._progress = Progress(len(ensemble.members), steps)

    def end(self) -> None:
        """A run is complete."""
        self.note("end")

    def settle(self, members: int, steps: int) -> None:
        """A run is complete with other members than it might have had."""
        if self._bulletin is not None:
            self._bulletin.settle(members, steps)
        self.note("end", members=members)

    def wrote(self, paths: Iterable[Path]) -> None:
        """All that a run writes is in these files, which have their names."""
        if self._bulletin is not None:
            self._bulletin.wrote(paths)

    def fail(self, error: MosaicError) -> None:
        """A run ended otherwise."""
        if self._bulletin is not None:
            self._bulletin.fail()
        self.note("failed", exit_status=error.exit_status, message=str(error))

    def note(self, event: str, **more: Any) -> None:
        """Append a line to the file; one that cannot be written is no reason to end a forecast."""
        if self._path is None:
            return
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": event, **more}) + "\n"
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            LOG.warning("--progress-file %s: %s; nothing more is noted there", self._path, error.strerror or error)
            self._path = None

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if not self._shielded or self._interrupted:
            signal.default_int_handler(number, frame)
        self._interrupted = True

    def _hear(self, number: int, _: object) -> None:
        LOG.warning("Signal %d: stopping when this step is done; another one ends the run at once", number)
        self.stopping = True
        signal.signal(number, self._deadly)


def duration(seconds: float) -> str:
    """Seconds in words: ``0.12 s``, ``48 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _first_byte(path: Path) -> bytes:
    """Of a file; none of a pipe, from which it would be taken away, and of the log that a shell made of a stream."""
    if is_stream(path):
        return b""
    with path.open("rb") as file:
        return file.read(1)
