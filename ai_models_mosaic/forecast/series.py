"""All that one call of the program runs: an ensemble from each of its initial times.

The network is loaded once. An initial time that fails does not stop those after it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .. import __version__
from ..errors import CheckpointError, DatesError, LostRankError, MosaicError, OptionError, ResumeError, TerminatedError
from ..inputs.fields import Wanted
from ..inputs.states import input_digest
from ..outputs.placeholders import PathTemplate
from ..state import InitialState
from ..variants import Variant
from ..wording.numbers import counted, size_of
from .identity import Places, digest_of_run, identity_of
from .options import Options
from .progress import Watch
from .provenance import complete_files, gather, now, write_beside
from .ranks import Ranks, on_every_rank
from .resume import ResumeRecord, ResumeState, open_resume_state, read_record
from .rollout import Ensemble
from .run import EnsembleJob, EnsembleRun, NoWriter, StepWriter
from .tiles import NAME as TILINGS
from .tiles import take_tilings, tilings_of

if TYPE_CHECKING:
    from ..engines import LoadedEngine

LOG = logging.getLogger(__name__)

FATAL = (CheckpointError, OptionError, LostRankError, TerminatedError)
"""Failures that the next initial time would meet, too."""

Starts = dict[int, InitialState]


class FileWriter(StepWriter, Protocol):
    """A writer that writes files."""

    @property
    def paths(self) -> list[Path]:
        """Every file written to."""

    def resume(self, positions: Mapping[str, int], *, finished: bool = False) -> None:
        """Go on with the files of an unfinished run, cutting off what came after these positions."""


@dataclass(frozen=True)
class SeriesSettings:
    """What all initial times have in common.

    Parameters
    ----------
    variant : Variant
        What runs.
    options : Options
        The plugin's options.
    steps : int
        Steps to make.
    metadata : mapping of str to str
        The user's GRIB keys.
    templates : tuple of PathTemplate
        The paths of all outputs; beside the first, state is kept. None: there is nothing to go on with, as for
        pipes, devices and nowhere.
    source : str
        Where the input comes from, for people and for `replay`: a file, or the name of a service.
    """

    variant: Variant
    options: Options
    steps: int
    metadata: Mapping[str, str]
    templates: tuple[PathTemplate, ...]
    source: str

    @property
    def path(self) -> str | None:
        """The output beside which state is kept; may hold keys in braces."""
        return self.templates[0].text if self.templates else None

    def places(self, initial_time: datetime) -> Places:
        """What a run from an initial time writes."""
        return Places(self.templates, self.options.members, initial_time)

    @property
    def ensemble(self) -> Ensemble:
        """Members and noise."""
        options = self.options
        factor = options.noise_factor if options.perturbations == "on" else 0.0
        per_batch = options.members_per_batch or 1
        return Ensemble(options.seed, options.members, per_batch, factor, options.antithetic, options.crossed)


class ForecastSeries:
    """Runs an ensemble from each of some initial times.

    Parameters
    ----------
    settings : SeriesSettings
        What they have in common.
    ranks : Ranks
        The processes.
    watch : Watch
        Told of all progress.
    read : callable
        Gives where every member starts, for an initial time; called on rank 0 only.
    load : callable
        Gives the engine; called once, on every rank.
    output : callable
        Gives a context with the writer for a state, whether the weights are untrained, whether an unfinished run is
        resumed, and the digest of what the run is; called on rank 0 only.
    recount : callable
        Told of the files of a run that is complete already; called on rank 0 only.
    """

    def __init__(
        self,
        settings: SeriesSettings,
        ranks: Ranks,
        watch: Watch,
        *,
        read: Callable[[Wanted], Starts],
        load: Callable[[], LoadedEngine],
        output: Callable[[InitialState, bool, bool, str | None], AbstractContextManager[FileWriter | None]],
        recount: Callable[[Sequence[Path]], None] = lambda _: None,
    ) -> None:
        self._settings, self._ranks, self._watch = settings, ranks, watch
        self._read, self._load, self._output, self._recount = read, load, output, recount
        self._best_batch: int | None = None
        self._own_tilings: Mapping[str, Any] | None = None
        self.provenance: list[dict[str, Any]] = []
        """Of every initial time that was begun."""

    def run(self, dates: Sequence[Wanted]) -> None:
        """Run them, one after the other.

        Raises
        ------
        MosaicError
            That of the only initial time, or one that the others would meet, too.
        DatesError
            If some of several failed; names all that did, after the others are done.
        """
        failed: list[str] = []
        for wanted in dates:
            try:
                self._run_one(wanted)
            except MosaicError as error:
                self._watch.fail(error)
                if len(dates) == 1 or isinstance(error, FATAL):
                    raise
                LOG.error("%s failed with status %d; why is told after the others", wanted, error.exit_status)
                failed.append(f"{wanted}: {error}")
        if failed:
            listed = "\n".join(f"  {line}" for line in failed)
            raise DatesError(f"{len(failed)} of {len(dates)} initial times failed, the others are complete:\n{listed}")

    @cached_property
    def _engine(self) -> LoadedEngine:
        engine = on_every_rank(self._ranks, self._load)
        if engine.untrained:
            LOG.warning(
                "These weights are UNTRAINED, random numbers: the forecast shows that all works, and nothing else"
            )
        self._choose_batch(engine)
        return engine

    def _choose_batch(self, engine: LoadedEngine) -> None:
        """Choose a number of members per batch, the same on all ranks, where none was asked for."""
        options = self._settings.options
        if options.members_per_batch is None:
            share = -(-len(options.members) // self._ranks.size)
            self._best_batch = self._ranks.share(lambda: engine.best_batch(share))

    def _settle_batch(self, starts: Starts) -> None:
        """Take that number before anything records it; an unfinished run goes on with the one that it began with."""
        if self._best_batch is not None:
            settled = self._ranks.share(lambda: self._begun_with(starts) or self._best_batch)
            self._settings = replace(self._settings, options=replace(self._settings.options, members_per_batch=settled))

    def _settle_tilings(self, starts: Starts, engine: LoadedEngine) -> None:
        """Have all ranks cut their work as rank 0 does, and an unfinished run as it began."""
        if self._own_tilings is None:
            self._own_tilings = tilings_of(engine).get(TILINGS, {})
        take_tilings(engine, self._ranks.share(lambda: self._begun_tilings(starts) or self._own_tilings))

    def _begun_tilings(self, starts: Starts) -> Any:
        record = self._record(starts)
        return None if record is None else record.backend.get(TILINGS)

    def _record(self, starts: Starts) -> ResumeRecord | None:
        """What an unfinished run from there left, if one is to be resumed."""
        if self._settings.path is None or not self._settings.options.resume:
            return None
        return read_record(self._settings.places(next(iter(starts.values())).initial_time).state)

    def _begun_with(self, starts: Starts) -> int | None:
        record = self._record(starts)
        begun = None if record is None else record.identity.get("run")
        found = begun.get("members_per_batch") if isinstance(begun, Mapping) else None
        return found if isinstance(found, int) and found > 0 else None

    def _run_one(self, wanted: Wanted) -> None:
        starts = self._ranks.share(lambda: self._read(wanted))
        engine = self._engine
        self._settle_batch(starts)
        self._settle_tilings(starts, engine)
        job = EnsembleJob(starts, self._settings.ensemble, self._settings.variant.step_hours, self._settings.steps)
        found = self._gather(starts, engine) if self._ranks.rank == 0 else {}
        place = _Place()
        with ExitStack() as stack:
            if not self._ranks.share(lambda: self._open(stack, job, found, place)):
                self._watch.wrote(Path(name) for name in found.get("files", []))
                return
            self._announce(job)
            # Before and after there is nothing to bring into good order: a signal ends the process as ever.
            with self._watch.listening():
                EnsembleRun(job, engine, self._ranks, place.writer or NoWriter(), place.resume_state, self._watch)()
            paths = place.writer.paths if place.writer is not None else []
            found |= {"written": now(), "files": [str(path) for path in paths]}
            for path in paths:
                write_beside(path, found)
            if place.resume_state is not None:
                place.resume_state.remove()
            self._watch.wrote(paths)

    def _gather(self, starts: Starts, engine: LoadedEngine) -> dict[str, Any]:
        settings = self._settings
        found = gather(
            variant=settings.variant.name,
            options=settings.options,
            steps=settings.steps,
            initial=next(iter(starts.values())),
            engine=engine,
            metadata=settings.metadata,
        )
        found["input"]["source"] = settings.source
        found["input"]["sha256"] = input_digest(starts)
        found["path"] = settings.path
        numbers = {member: state.number for member, state in starts.items()}
        if len(set(numbers.values())) > 1:
            found["input"]["numbers"] = list(numbers.values())
        self.provenance.append(found)
        return found

    def _open(self, stack: ExitStack, job: EnsembleJob, found: dict[str, Any], place: _Place) -> bool:
        """The output, and the resume state beside it; False if all is done already."""
        initial = next(iter(job.starts.values()))
        path, options = self._settings.path, self._settings.options
        resume, interval_s = options.resume, options.state_interval_s
        if path is None:
            if resume:
                raise ResumeError("--resume: expected output in files to go on with; leave it out, or give --path FILE")
            place.writer = stack.enter_context(self._output(initial, found["weights"]["untrained"], False, None))
            return True
        backend = {"engine": found["engine"], "ai-models-mosaic": __version__, **found["packages"]}
        backend |= {TILINGS: found[TILINGS]} if TILINGS in found else {}
        fresh = ResumeRecord(identity_of(found), backend)
        found["run"] = digest_of_run(fresh.identity)
        places = self._settings.places(initial.initial_time)
        folder = places.state
        complete = complete_files(path, found["run"]) if resume and not folder.exists() else None
        if complete is not None:
            LOG.info("%s is complete already: nothing to do", path)
            self._watch.begin(job.starts, job.ensemble, job.steps, job.units)
            self._watch.end()
            self._recount(complete)
            found["files"] = [str(path) for path in complete]
            return False
        # Before the output, which would overwrite what another run is writing.
        resume_state = stack.enter_context(
            open_resume_state(folder, fresh, job.history, len(job.batches), resume=resume, interval_s=interval_s)
        )
        positions = resume_state.record.positions
        if resume and positions is None:
            places.refuse_others(fresh.identity)
        resuming = positions is not None
        place.writer = stack.enter_context(self._output(initial, found["weights"]["untrained"], resuming, found["run"]))
        if place.writer is not None and positions is not None:
            resume_state.check_output()
            place.writer.resume(positions, finished=resume_state.record.finished)
        place.resume_state = resume_state
        return True

    def _announce(self, job: EnsembleJob) -> None:
        ensemble, engine = job.ensemble, self._engine
        LOG.info("Running on %s%s", engine.description, f", {self._ranks.size} ranks" if self._ranks.size > 1 else "")
        architecture = self._settings.variant.architecture
        states = len(ensemble.members) * job.history * architecture.grid.size * architecture.channels * 4
        LOG.info(
            "%s × %s of %d h, %d per batch, seed %d; estimated memory %s",
            counted(len(ensemble.members), "member"),
            counted(job.steps, "step"),
            job.step_hours,
            ensemble.per_batch,
            ensemble.seed,
            size_of(engine.memory_bytes(min(ensemble.per_batch, len(ensemble.members))) + states),
        )


@dataclass
class _Place:
    """Where an initial time is written, on rank 0."""

    writer: FileWriter | None = None
    resume_state: ResumeState | None = None
