"""One initial time whose ensemble is as large as its time, or the error that is asked for, makes it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LateError
from ..state import InitialState
from .deadline import Budget, process_start
from .growing import Bounds, GrowingRun
from .health.groups import GroupRecorder
from .health.recorder import Recorder
from .identity import digest_of_run, identity_of
from .kept_steps import KeptSteps
from .progress import Watch, duration
from .provenance import card_of, write_cards
from .ranks import Ranks
from .run import EnsembleJob
from .tolerance import SamplingError

if TYPE_CHECKING:
    from ..engines import LoadedEngine
    from .series import FileWriter, SeriesSettings

LOG = logging.getLogger(__name__)


class OpenRun:
    """Makes an ensemble of a size that is found on the way, and writes it as an ordinary run of that size does.

    Parameters
    ----------
    settings : SeriesSettings
        Options, of which the size is the most that there may be.
    ranks : Ranks
        The processes.
    watch : Watch
        Told of all progress.
    starts : mapping of int to InitialState
        Where every member starts.
    output : callable
        As of `ForecastSeries`.
    recorder : Recorder or None
        Told of members' health, if anybody is.
    """

    def __init__(
        self,
        settings: SeriesSettings,
        ranks: Ranks,
        watch: Watch,
        starts: Mapping[int, InitialState],
        output: Callable[..., AbstractContextManager[FileWriter | None]],
        recorder: Recorder | None = None,
    ) -> None:
        self._settings, self._ranks, self._watch, self._starts = settings, ranks, watch, starts
        self._output = output
        growth, grid = settings.options.growth, next(iter(starts.values())).grid
        self._budget = Budget(None if growth.deadline is None else growth.deadline.at(process_start()))
        self._errors = [SamplingError(tolerance, grid) for tolerance in growth.mc_error]
        self._kept: KeptSteps | None = None
        self._recorder = None if recorder is None else GroupRecorder(recorder)
        self.found: dict[str, Any] = {}
        """The card of what was written."""

    def __call__(self, engine: LoadedEngine, job_of: Callable[[Sequence[int]], EnsembleJob]) -> None:
        """Make it.

        Parameters
        ----------
        engine : Engine
            Makes the steps.
        job_of : callable
            Gives the job of some members.

        Raises
        ------
        LateError
            If it is complete after its deadline.
        MosaicError
            If something cannot be made, or written.
        """
        options, ranks = self._settings.options, self._ranks
        whole = job_of(options.members)
        with ExitStack() as stack:
            ranks.share(lambda: self._begin(stack, whole, engine))
            bounds, write = Bounds(len(options.members), self._budget, self._errors), partial(self._write, engine)
            grow = GrowingRun(job_of, engine, ranks, self._watch, bounds, self._kept, write, self._recorder)
            size = grow(whole.ensemble.per_batch * ranks.size)
        if ranks.rank == 0:
            self._watch.settle(size, whole.steps)
            self._watch.wrote(Path(name) for name in self.found["files"])
            for error in self._errors:
                if not error.is_met:
                    LOG.warning("--mc-error %s is not met: %s", error.tolerance, _shown(error.reached))
        ranks.share(lambda: self._refuse_lateness(size))

    def _begin(self, stack: ExitStack, whole: EnsembleJob, engine: LoadedEngine) -> None:
        """Have ready what is told of members, on rank 0."""
        if self._recorder is not None:
            stack.enter_context(self._recorder.of(whole, engine))
        folder = self._settings.places(next(iter(self._starts.values())).initial_time).state.parent
        self._kept = stack.enter_context(KeptSteps(folder, *self._settings.kept))
        self._watch.begin(whole.starts, whole.ensemble, whole.steps, 0)

    def _write(self, engine: LoadedEngine, size: int, for_now: bool) -> float:
        """Write so many members, with their cards; see `GrowingRun`."""
        clock, kept = self._budget.clock, self._kept
        options = self._settings.options.of_size(size)
        found = card_of(self._settings, options, engine, self._starts)
        found |= {"run": digest_of_run(identity_of(found)), "growth": self._growth(size)}
        began, initial, untrained = clock(), self._starts[1], found["weights"]["untrained"]
        with self._output(initial, untrained, False, found["run"], size=size, for_now=for_now) as writer:
            fixed = clock() - began
            if writer is None or kept is None:
                return fixed
            per_batch = options.members_per_batch or 1
            for step in kept.steps:
                for first in range(0, size, per_batch):
                    writer.write(kept.read(step, options.members[first : first + per_batch]))
            writer.close()
            write_cards(writer.paths, found)
            if self._recorder is not None:
                self._recorder.wrote(size)
        self.found = found
        return fixed

    def _growth(self, size: int) -> dict[str, Any]:
        """What was asked for and reached, as JSON can hold it."""
        growth = self._settings.options.growth
        return {
            "members": size,
            "most": len(self._settings.options.members),
            "deadline": None if growth.deadline is None else growth.deadline.text,
            "mc_error": [
                {"asked": str(error.tolerance), "reached": error.reached, "met": error.is_met} for error in self._errors
            ],
        }

    def _refuse_lateness(self, size: int) -> None:
        late = self._budget.late_s
        if late > 0:
            raise LateError(
                f"the ensemble of {size} is complete {duration(late)} after its deadline, "
                f"{self._settings.options.growth.deadline}: expected a time in which one group of members can be made "
                "and written. What was written is whole; --extend adds members to it"
            )


def _shown(reached: float | None) -> str:
    return "too few members to tell" if reached is None else f"reached {reached:.2g}"
