"""One run of an ensemble: step by step, by one process or several, with a state to go on from.

Steps follow each other; within a step, batches of members. The ranks take batches in turn, and
what they make goes to rank 0, which writes it in that order: so the output and the state on disk
are the same for any number of ranks, and a run may go on with another number of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from ..arrays import Float32Array
from ..engines import Engine
from ..errors import MosaicError, ResumeError, TerminatedError
from ..state import ForecastStep, InitialState
from .health.recorder import probe_of
from .progress import Watch
from .ranks import Ranks
from .resume import ResumeState
from .rollout import Ensemble, initial_step, later_step, rollout
from .saving import StateSaver

LOG = logging.getLogger(__name__)


class StepWriter(Protocol):
    """Where the steps of a forecast go."""

    def write(self, forecast: ForecastStep) -> None:
        """Take a step of a batch of members; it may be brought to disk later."""

    def recall(self, forecast: ForecastStep) -> None:
        """Take a step of a batch that was written before the run was interrupted, within that step."""

    def mark(self) -> Callable[[], Mapping[str, int]]:
        """Note where all that was taken so far ends.

        Returns
        -------
        callable
            Brings that to disk, and gives the length in bytes of every file there, by name; from any thread, and
            beside what is written afterwards.
        """

    def close(self) -> None:
        """Give the files their names; nothing more will come."""

    def abort(self) -> None:
        """Leave what is there as it is; nothing more will come."""


class Listener(Protocol):
    """Who hears of members' health, on the first of the processes."""

    def begin(self, job: EnsembleJob, engine: Engine, units: int) -> None:
        """A run begins, or goes on after so many batches of members and steps."""

    def recall(self, forecast: ForecastStep) -> None:
        """A step of a batch was heard of before the run was interrupted, within that step."""

    def advance(self, forecast: ForecastStep) -> None:
        """A batch of members made a step."""

    def end(self) -> None:
        """The run is complete."""

    def fail(self, error: BaseException) -> None:
        """The run ended otherwise."""


class NoWriter:
    """A writer that keeps nothing."""

    def write(self, forecast: ForecastStep) -> None:
        """Forget it."""

    def recall(self, forecast: ForecastStep) -> None:
        """Forget it."""

    def mark(self) -> Callable[[], Mapping[str, int]]:
        """No files."""
        return dict

    def close(self) -> None:
        """Nothing to do."""

    def abort(self) -> None:
        """Nothing to do."""


@dataclass(frozen=True)
class EnsembleJob:
    """What to run.

    Parameters
    ----------
    starts : mapping of int to InitialState
        Where every member starts; all at the same initial time.
    ensemble : Ensemble
        Members and noise.
    step_hours : int
        Length of a step, h.
    steps : int
        Steps to make after step 0.
    """

    starts: Mapping[int, InitialState]
    ensemble: Ensemble
    step_hours: int
    steps: int

    @cached_property
    def batches(self) -> tuple[tuple[int, ...], ...]:
        """Members that go through the network together, in order."""
        return tuple(self.ensemble.batches())

    @property
    def history(self) -> int:
        """States that a step starts from."""
        return len(next(iter(self.starts.values())).times)

    @property
    def units(self) -> int:
        """Batches times steps, step 0 included."""
        return len(self.batches) * (self.steps + 1)

    def shape_of(self, batch: int) -> tuple[int, ...]:
        """Shape of the states of a batch, (member, lon, lat, channel)."""
        return (len(self.batches[batch]), *next(iter(self.starts.values())).values.shape[1:])

    def made(self, batch: int, step: int, values: Float32Array) -> ForecastStep:
        """What was made of a batch at a step."""
        return later_step(self.starts, step, self.step_hours, self.batches[batch], values)

    def steps_done(self, units: int, batch: int) -> int:
        """Steps of a batch among the first `units`, step 0 included."""
        return (units + len(self.batches) - 1 - batch) // len(self.batches)

    def rounds(self, units: int, size: int) -> Iterator[tuple[int, range]]:
        """Steps, and batches that so many ranks make at the same time, after the first `units`."""
        count = len(self.batches)
        for step in range(self.steps + 1):
            for first in range(max(0, units - step * count), count, size):
                yield step, range(first, min(first + size, count))


class EnsembleRun:
    """Makes a job, or what is left of it.

    Parameters
    ----------
    job : EnsembleJob
        What to run.
    engine : Engine
        Makes the steps.
    ranks : Ranks
        The processes.
    writer : StepWriter
        Where the steps go; of rank 0 only.
    resume_state : ResumeState or None
        Keeps the state, on rank 0; None where there is nothing to keep it beside.
    watch : Watch
        Told of all progress, and says when to stop.
    recorder : Listener or None
        Told of members' health on rank 0; on the others it says that somebody is.
    is_group : bool
        Whether these are some members of a run, whose begin and end somebody else tells of.
    """

    def __init__(
        self,
        job: EnsembleJob,
        engine: Engine,
        ranks: Ranks,
        writer: StepWriter,
        resume_state: ResumeState | None,
        watch: Watch,
        recorder: Listener | None = None,
        *,
        is_group: bool = False,
    ) -> None:
        self._is_group = is_group
        self._recorder = recorder
        self._probe = None if recorder is None else probe_of(job.starts)
        self._job, self._ranks, self._writer, self._resume_state, self._watch = job, ranks, writer, resume_state, watch
        self._engine = engine
        self._saver = None if resume_state is None else StateSaver(resume_state, writer.mark)
        self._steps: Iterator[ForecastStep] = iter(())
        self._units = 0

    def __call__(self) -> None:
        """Make all steps, and complete the output.

        Raises
        ------
        MosaicError
            Whatever went wrong on any rank, on all of them; `TerminatedError` after a signal to stop.
        """
        try:
            self._restore()
            for step, batches in self._job.rounds(self._units, self._ranks.size):
                if self._round(step, batches):
                    self._stop(step)
            self._finish()
        except BaseException as error:
            if self._recorder is not None:
                self._recorder.fail(error)
            try:
                if self._saver is not None:
                    self._saver.save_after(error, self._units)
            finally:
                self._writer.abort()
            raise
        finally:
            if self._saver is not None:
                self._saver.close()

    def _restore(self) -> None:
        """Take the newest states of every batch from the resume state to the rank that resumes it."""
        resume_state = self._resume_state
        self._units, kept = self._ranks.share(
            lambda: (0, []) if resume_state is None else (resume_state.record.units, list(resume_state.kept()))
        )
        # With the run itself, what the rollout is told to heed would keep states and their buffers in a circle.
        job, watch = self._job, self._watch
        if self._units > job.units:
            raise ResumeError(
                f"expected at most {job.units} batches and steps done, got {self._units}: the state of the "
                "unfinished run was changed. Run without --resume"
            )
        # More ranks than batches leave some without any.
        mine = range(self._ranks.rank, len(job.batches), self._ranks.size)
        self._steps = rollout(
            self._engine,
            job.starts,
            job.ensemble,
            job.step_hours,
            job.steps,
            batches=[job.batches[batch] for batch in mine],
            restored=[made for batch, step in kept if (made := self._handed_out(batch, step)) is not None],
            done=sum(job.steps_done(self._units, batch) for batch in mine),
            lend=True,
            probe=self._probe,
            stopping=lambda: watch.stopping,
        )
        if self._recorder is not None and self._ranks.rank == 0:
            self._recorder.begin(job, self._engine, self._units)
        if resume_state is not None:
            self._recall(resume_state)
        if self._is_group:
            self._watch.begin_group(job.ensemble, job.steps)
        elif self._ranks.rank == 0:
            self._watch.begin(job.starts, job.ensemble, job.steps, self._units)

    def _handed_out(self, batch: int, step: int) -> ForecastStep | None:
        """A state of the resume state, on the rank that resumes it; None on the others."""
        resume_state, ranks = self._resume_state, self._ranks
        owner = batch % ranks.size
        values = resume_state.load(batch, step, self._job.shape_of(batch)) if resume_state is not None else None
        if resume_state is not None and owner != ranks.rank:
            ranks.send(values, owner)
            return None
        if owner == ranks.rank and values is None:
            values = ranks.receive(0, self._job.shape_of(batch))
        return None if values is None else self._job.made(batch, step, values)

    def _recall(self, resume_state: ResumeState) -> None:
        """Show the writer what it wrote of a step that is not complete."""
        step, done = divmod(self._units, len(self._job.batches))
        for batch, members in enumerate(self._job.batches[:done]):
            made = (
                initial_step(self._job.starts, members)
                if step == 0
                else self._job.made(batch, step, resume_state.load(batch, step, self._job.shape_of(batch)))
            )
            self._writer.recall(made)
            if self._recorder is not None:
                self._recorder.recall(made)

    def _round(self, step: int, batches: range) -> bool:
        """Make one step of as many batches as there are ranks; whether to stop after it."""
        error, made = None, None
        mine = next((batch for batch in batches if batch % self._ranks.size == self._ranks.rank), None)
        if mine is not None:
            try:
                made = next(self._steps)
            except MosaicError as failure:
                error = failure
        if self._ranks.rank == 0:
            error = self._collect(step, batches, mine, made, error)
        elif mine is not None and step > 0:
            self._ranks.send(None if made is None else made.values, 0)
            if made is not None and made.vitals is not None:
                self._ranks.send(made.vitals, 0)
        return self._ranks.agree(error, stop=self._watch.stopping)

    def _collect(
        self, step: int, batches: range, mine: int | None, made: ForecastStep | None, error: MosaicError | None
    ) -> MosaicError | None:
        """Write what all ranks made, in order; returns what went wrong first."""
        whole = True
        for batch in batches:
            forecast = made if batch == mine else self._take(step, batch)
            # What follows one that is missing would be counted as if that were there.
            whole = whole and forecast is not None
            if forecast is None or not whole:
                continue
            try:
                with self._watch.shielded():
                    self._hand_over(step, batch, forecast)
            except MosaicError as failure:
                error, whole = error or failure, False
        try:
            if self._saver is not None and error is None and whole:
                with self._watch.shielded():
                    self._saver.save_if_due(self._units)
        except MosaicError as failure:
            error = failure
        return error

    def _hand_over(self, step: int, batch: int, forecast: ForecastStep) -> None:
        """Write a step of a batch, and count it."""
        self._writer.write(forecast)
        if self._saver is not None:
            self._saver.note(batch, forecast)
        self._units = step * len(self._job.batches) + batch + 1
        self._watch.advance(forecast)
        if self._recorder is not None:
            self._recorder.advance(forecast)

    def _take(self, step: int, batch: int) -> ForecastStep | None:
        """What another rank made; None if that went wrong, which is said later."""
        if step == 0:
            return initial_step(self._job.starts, self._job.batches[batch])
        rank = batch % self._ranks.size
        values = self._ranks.receive(rank, self._job.shape_of(batch))
        if values is None:
            return None
        forecast = self._job.made(batch, step, values)
        if self._probe is None:
            return forecast
        return replace(forecast, vitals=self._ranks.receive(rank, (len(values), self._probe.size)))

    def _stop(self, step: int) -> None:
        """End in good order because a signal asked for it."""
        if self._saver is not None:
            self._saver.save(self._units)
        done = f"stopped by a signal after step {step} (+{step * self._job.step_hours} h), as asked"
        hint = (
            "run again with --resume to go on"
            if self._resume_state is not None or self._ranks.rank
            else "nothing was kept"
        )
        raise TerminatedError(f"{done}; {hint}")

    def _finish(self) -> None:
        if self._saver is not None:
            self._saver.save(self._units, finished=True)
        self._writer.close()
        if self._recorder is not None:
            self._recorder.end()
        if not self._is_group:
            self._watch.end()
