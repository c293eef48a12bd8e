"""An ensemble that is made group by group, each carried to the end, until it is large enough or its time is up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..engines import Engine
from ..errors import ForecastError, LostRankError, MosaicError, TerminatedError
from ..state import ForecastStep
from ..wording.numbers import counted
from .deadline import Budget
from .health.groups import GroupRecorder
from .kept_steps import KeptSteps
from .progress import Watch, duration
from .ranks import Ranks
from .run import EnsembleJob, EnsembleRun, NoWriter
from .tolerance import SamplingError, all_met

LOG = logging.getLogger(__name__)


class OutOfTimeError(ForecastError):
    """Members that cannot be complete in time; those before them are."""


@dataclass(frozen=True)
class Bounds:
    """What ends the growth of an ensemble.

    Parameters
    ----------
    most : int
        Members.
    budget : Budget
        Of time.
    errors : sequence of SamplingError
        That are to become small enough.
    """

    most: int
    budget: Budget
    errors: Sequence[SamplingError] = ()


class GrowingRun:
    """Makes members from 1 on, in groups, and has them written: the first group at once, all at the end.

    No group is half made: one that proves too slow is dropped whole, as is one that fails or is stopped, and those
    before it are written all the same.

    Parameters
    ----------
    job_of : callable
        Gives the job of some members.
    engine : Engine
        Makes the steps.
    ranks : Ranks
        The processes.
    watch : Watch
        Told of all progress.
    bounds : Bounds
        What ends it.
    kept : KeptSteps or None
        Keeps what is made, on rank 0.
    write : callable
        Writes so many members, on rank 0, and gives the time, s, of which that number says nothing.
    recorder : GroupRecorder or None
        Told of members' health.
    """

    def __init__(
        self,
        job_of: Callable[[Sequence[int]], EnsembleJob],
        engine: Engine,
        ranks: Ranks,
        watch: Watch,
        bounds: Bounds,
        kept: KeptSteps | None,
        write: Callable[[int, bool], float],
        recorder: GroupRecorder | None = None,
    ) -> None:
        self._job_of, self._engine, self._ranks, self._watch = job_of, engine, ranks, watch
        self._bounds, self._kept, self._write, self._recorder = bounds, kept, write, recorder
        self._complete = self._written = 0

    def __call__(self, per_group: int) -> int:
        """Make and write them.

        Parameters
        ----------
        per_group : int
            Members that are made together.

        Returns
        -------
        int
            How many there are.

        Raises
        ------
        MosaicError
            If one cannot be made, or written.
        """
        while upcoming := self._ranks.share(lambda: self._upcoming(per_group)):
            began = self._bounds.budget.clock()
            try:
                self._make(upcoming)
            except OutOfTimeError as error:
                LOG.warning("%s", error)
                break
            except TerminatedError as error:
                self._save_rest(error)
                raise self._told(error) from error
            except MosaicError as error:
                self._save_rest(error)
                if self._written:
                    LOG.warning("The run fails, with %s", self._there)
                raise
            self._complete += len(upcoming)
            self._ranks.share(lambda: self._take_stock(upcoming, began))  # noqa: B023 - called at once
        self._ranks.share(self._write_rest)
        return self._complete

    def _save_rest(self, error: MosaicError) -> None:
        """Write what is complete before the run ends with an error, which says more than one of writing."""
        try:
            if isinstance(error, LostRankError):
                # There is nobody to agree with.
                if self._ranks.rank == 0:
                    self._write_rest()
            else:
                self._ranks.share(self._write_rest)
        except MosaicError as second:
            LOG.error("%s complete, but not all could be written: %s", counted(self._complete, "member"), second)

    def _told(self, error: TerminatedError) -> TerminatedError:
        if not self._written:
            return error
        return TerminatedError(f"stopped by a signal, as asked, with {self._there}")

    @property
    def _there(self) -> str:
        return f"{counted(self._written, 'member')} written; --extend adds more"

    def _upcoming(self, per_group: int) -> range:
        """The next members; none if there are to be no more."""
        first, bounds = self._complete + 1, self._bounds
        upcoming = range(first, min(self._complete + per_group, bounds.most) + 1)
        if self._complete and (all_met(bounds.errors) or not bounds.budget.fits(upcoming.stop - 1)):
            return range(first, first)
        return upcoming

    def _make(self, members: range) -> None:
        job, bounds = self._job_of(members), self._bounds
        writer = NoWriter() if self._kept is None else Guarded(self._kept, bounds.budget, self._complete, job.steps)
        EnsembleRun(job, self._engine, self._ranks, writer, None, self._watch, self._recorder, is_group=True)()

    def _take_stock(self, members: range, began: float) -> None:
        """Look at a group that is complete, and write the first."""
        budget, kept = self._bounds.budget, self._kept
        budget.took(budget.clock() - began)
        if kept is not None:
            for step in kept.steps if self._bounds.errors else ():
                for member in members:
                    forecast = kept.read(step, [member])
                    for error in self._bounds.errors:
                        error.add(forecast)
        if not self._written:
            self._write_rest()

    def _write_rest(self) -> None:
        """Write all that is complete, if not all of it is written."""
        if self._written == self._complete:
            return
        clock = self._bounds.budget.clock
        began, complete = clock(), self._complete
        # There may be others later: what is written now is not what the run ends with.
        fixed = self._write(complete, complete < self._bounds.most)
        took = clock() - began
        self._bounds.budget.wrote(complete, fixed, max(0.0, took - fixed))
        self._written = complete
        LOG.info("%s complete and written in %s", counted(complete, "member"), duration(took))


class Guarded(NoWriter):
    """Keeps steps of a group, as long as the group can be complete before the members before it have to be written.

    Parameters
    ----------
    kept : KeptSteps
        Keeps them.
    budget : Budget
        Of time.
    complete : int
        Members that are complete.
    steps : int
        Of the forecast.
    """

    def __init__(self, kept: KeptSteps, budget: Budget, complete: int, steps: int) -> None:
        self._kept, self._budget, self._complete, self._steps = kept, budget, complete, steps
        self._step, self._reached, self._step_s = 0, budget.clock(), 0.0

    def write(self, forecast: ForecastStep) -> None:
        """Keep it.

        Raises
        ------
        OutOfTimeError
            If the next step, of the length of this, would be too long.
        OutputError
            If the disk is full.
        """
        if forecast.step > self._step:
            now = self._budget.clock()
            self._step_s, self._step, self._reached = now - self._reached, forecast.step, now
        next_s = self._step_s if forecast.step < self._steps else 0.0
        if self._complete and self._budget.is_spent(self._complete, next_s):
            raise OutOfTimeError(
                f"the deadline is near, and members {forecast.members[0]} to {forecast.members[-1]} are slower than "
                f"those before: they are dropped at step {forecast.step}"
            )
        self._kept.write(forecast)
