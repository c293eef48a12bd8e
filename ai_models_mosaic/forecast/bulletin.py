"""What a run is, how far it is and how it ended, for those who watch it from outside.

Metrics are in Prometheus' text format, in a file that is replaced as a whole: node exporter's textfile collector
reads it whenever it likes. The message is what `--notify` posts.
"""

from __future__ import annotations

import logging
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import MosaicError, OutputError
from ..files import read_own, write_whole
from ..state import ForecastStep
from ..wording.numbers import counted
from ..wording.redaction import redacted
from .listeners import Listeners
from .notices import post

LOG = logging.getLogger(__name__)

PREFIX = "ai_models_mosaic"

EVERY_S = 10.0
"""Metrics are written as often as this, at most, between the beginning and the end."""

LAST_SUCCESS = f"{PREFIX}_last_success_timestamp_seconds"
"""Of the only metric that a run takes over from the one before."""


@dataclass
class RunStatus:
    """What is known of a run, which may have several initial times.

    Parameters
    ----------
    program : str
        Who runs it, for people.
    started, ended : float or None
        Seconds since 1970.
    exit_status : int or None
        None while it runs.
    initial_time : datetime or None
        The newest that was begun, UTC without zone.
    members, steps : int
        Of every initial time.
    member_steps, member_steps_done : int
        Members times steps of the newest initial time, step 0 apart, and those done, before as well.
    lead_time_hours : int or None
        Of the newest step.
    seconds_per_member_step : float or None
        Mean of this run.
    begun, complete, failed : int
        Initial times.
    files : list of str
        All that was written.
    written_bytes : int
        Their sizes.
    last_success : float or None
        When a run that was told of in the same file last succeeded, s since 1970.
    """

    program: str
    started: float
    ended: float | None = None
    exit_status: int | None = None
    initial_time: datetime | None = None
    members: int = 0
    steps: int = 0
    member_steps: int = 0
    member_steps_done: int = 0
    lead_time_hours: int | None = None
    seconds_per_member_step: float | None = None
    begun: int = 0
    complete: int = 0
    failed: int = 0
    files: list[str] = field(default_factory=list)
    written_bytes: int = 0
    last_success: float | None = None


class Bulletin:
    """Keeps the metrics of a run, and posts how it ended.

    Parameters
    ----------
    listeners : Listeners
        Who is told.
    program : str
        Who runs, for people.
    clock : callable
        Gives seconds since 1970.
    """

    def __init__(self, listeners: Listeners, program: str, clock: Callable[[], float] = time.time) -> None:
        self._metrics_file, self._address, self._clock = listeners.metrics_file, listeners.notify, clock
        self.status = RunStatus(program, clock())
        self._pace_start, self._done_before, self._written = 0.0, 0, 0.0
        if self._metrics_file is not None:
            self.status.last_success = _last_success(self._metrics_file)

    @property
    def is_wanted(self) -> bool:
        """Whether anybody is told."""
        return self._metrics_file is not None or self._address is not None

    def check(self) -> None:
        """Write the metrics for the first time.

        Raises
        ------
        OutputError
            If they cannot be written.
        """
        if self._metrics_file is not None:
            try:
                write_whole(self._metrics_file, [metrics_text(self.status).encode()])
            except OutputError as error:
                raise OutputError(f"--metrics-file {self._metrics_file}: {error}") from error

    def begin(self, initial_time: datetime, members: int, steps: int, done: int) -> None:
        """An initial time begins, with so many members times steps done before, step 0 apart."""
        status = self.status
        status.initial_time, status.members, status.steps = initial_time, members, steps
        status.member_steps, status.member_steps_done = members * steps, done
        status.lead_time_hours, status.seconds_per_member_step = None, None
        status.begun += 1
        self._pace_start, self._done_before = self._clock(), done
        self._publish()

    def advance(self, forecast: ForecastStep) -> None:
        """A batch of members made a step."""
        status, now = self.status, self._clock()
        status.lead_time_hours = forecast.lead_time_hours
        if forecast.step > 0:
            status.member_steps_done += len(forecast.members)
            made = status.member_steps_done - self._done_before
            status.seconds_per_member_step = max(0.0, now - self._pace_start) / made
        if not 0 <= now - self._written < EVERY_S:
            self._publish()

    def settle(self, members: int, steps: int) -> None:
        """An initial time has so many members, and there are no more."""
        self.status.members, self.status.member_steps = members, members * steps
        self.status.member_steps_done = members * steps

    def wrote(self, paths: Iterable[Path]) -> None:
        """An initial time is complete, in these files."""
        self.status.complete += 1
        if self.is_wanted:
            for path in paths:
                self.status.files.append(str(path))
                self.status.written_bytes += _size(path)

    def fail(self) -> None:
        """An initial time ended otherwise."""
        self.status.failed += 1

    def close(self, exit_status: int, message: str = "") -> None:
        """The run ended: tell whoever wants to know.

        Parameters
        ----------
        exit_status : int
            Of the process.
        message : str
            What went wrong.
        """
        status = self.status
        status.ended, status.exit_status = self._clock(), exit_status
        if exit_status == 0:
            status.last_success = status.ended
        self._publish()
        if self._address is not None:
            post(self._address, notice(status, message))

    def _publish(self) -> None:
        """Write the metrics; that they cannot be written any more is no reason to end a forecast."""
        if self._metrics_file is None:
            return
        self._written = self._clock()
        try:
            self.check()
        except MosaicError as error:
            LOG.warning("%s; nothing more is written there", error)
            self._metrics_file = None


def notice(status: RunStatus, message: str) -> dict[str, Any]:
    """What is posted of a run that ended, as JSON can hold it: nothing of the command line, and no secret."""
    ended = status.ended if status.ended is not None else status.started
    succeeded = status.exit_status == 0
    return {
        "event": "end" if succeeded else "failed",
        "exit_status": status.exit_status,
        "message": redacted(message) if message else _summary(status),
        "program": status.program,
        "version": __version__,
        "host": socket.gethostname(),
        "started": _iso(status.started),
        "ended": _iso(ended),
        "seconds": round(max(0.0, ended - status.started), 3),
        "initial_time": None if status.initial_time is None else status.initial_time.isoformat(),
        "initial_times_complete": status.complete,
        "initial_times_failed": status.failed,
        "members": status.members,
        "steps": status.steps,
        "files": [redacted(name) for name in status.files],
    }


def _summary(status: RunStatus) -> str:
    files = counted(len(status.files), "file")
    if status.complete == 1 and status.initial_time is not None:
        members, steps = counted(status.members, "member"), counted(status.steps, "step")
        return f"{members} × {steps} from {status.initial_time:%Y-%m-%d %H} UTC, complete; {files}"
    return f"{counted(status.complete, 'initial time')} complete; {files}"


def metrics_text(status: RunStatus) -> str:
    """The metrics of a run in Prometheus' text format; what is not known yet is not there.

    Parameters
    ----------
    status : RunStatus
        What is known.
    """
    lines = [*_metric("run_info", "The run that the other metrics are of.", 1, f'{{version="{__version__}"}}')]
    for name, help_text, value in _values(status):
        if value is not None:
            lines += _metric(name, help_text, value)
    return "\n".join(lines) + "\n"


def _values(status: RunStatus) -> Sequence[tuple[str, str, float | None]]:
    """Names with their units, what they say, and values."""
    start = None if status.initial_time is None else status.initial_time.replace(tzinfo=timezone.utc)
    lead = status.lead_time_hours
    valid = None if start is None or lead is None else (start + timedelta(hours=lead)).timestamp()
    return (
        ("run_active", "Whether the run is going on.", status.ended is None),
        ("run_start_timestamp_seconds", "When the run started.", status.started),
        ("run_end_timestamp_seconds", "When the run ended.", status.ended),
        ("run_exit_status", "Exit status of the run, 0 for success.", status.exit_status),
        (LAST_SUCCESS.removeprefix(f"{PREFIX}_"), "When a run last succeeded.", status.last_success),
        ("run_initial_times_begun", "Initial times that the run has begun.", status.begun),
        ("run_initial_times_complete", "Initial times that are complete.", status.complete),
        ("run_initial_times_failed", "Initial times that failed.", status.failed),
        ("run_initial_timestamp_seconds", "Initial time begun last.", None if start is None else start.timestamp()),
        ("run_valid_timestamp_seconds", "Valid time of the newest step.", valid),
        ("run_lead_time_seconds", "Lead time of the newest step.", None if lead is None else lead * 3600),
        ("run_members", "Members of the ensemble.", status.members),
        ("run_steps", "Steps of the forecast.", status.steps),
        ("run_member_steps", "Members times steps of the initial time.", status.member_steps),
        ("run_member_steps_done", "Members times steps that are done.", status.member_steps_done),
        ("run_member_step_seconds", "Mean time of one step of one member.", status.seconds_per_member_step),
        ("run_written_bytes", "Size of the output that is complete.", status.written_bytes),
    )


def _metric(name: str, help_text: str, value: float, labels: str = "") -> Iterator[str]:
    """The lines of a metric, whose value keeps its milliseconds."""
    yield f"# HELP {PREFIX}_{name} {help_text}"
    yield f"# TYPE {PREFIX}_{name} gauge"
    shown = f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(int(value))
    yield f"{PREFIX}_{name}{labels} {shown}"


def _last_success(path: Path) -> float | None:
    """What the file of an earlier run says of that; None if it says nothing."""
    try:
        kept = read_own(path).decode()
    except (OSError, UnicodeDecodeError):
        return None
    match = re.search(rf"^{LAST_SUCCESS} (\d+(?:\.\d+)?)$", kept, flags=re.MULTILINE)
    return None if match is None else float(match[1])


def _size(path: Path) -> int:
    """Bytes of a file, or of all files of a store; 0 of pipes and of what is gone."""
    try:
        if path.is_dir():
            return sum(inner.stat().st_size for inner in path.rglob("*") if inner.is_file())
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
