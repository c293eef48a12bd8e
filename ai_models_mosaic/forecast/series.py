"""All that one call of the program runs: an ensemble from each of its initial times.

The network is loaded once. An initial time that fails does not stop those after it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import CheckpointError, DatesError, LostRankError, MosaicError, OptionError, ResumeError, TerminatedError
from ..inputs.fields import Wanted
from ..outputs.placeholders import PathTemplate
from ..state import InitialState
from ..variants import Variant
from ..wording.numbers import counted, size_of
from .extending import EXTENDED_FROM, EarlierEnsemble, find_earlier
from .fitted import refuse_other_fits
from .health.recorder import recorder_of
from .identity import Places, backend_of, digest_of_run, identity_of
from .lagged import brought_to_start
from .open_run import OpenRun
from .options import Options
from .progress import Watch
from .provenance import card_of, complete_files, write_cards
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
    kept : tuple of (steps, channels)
        What is written, or looked at, of every member.
    """

    variant: Variant
    options: Options
    steps: int
    metadata: Mapping[str, str]
    templates: tuple[PathTemplate, ...]
    source: str
    kept: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())

    @property
    def path(self) -> str | None:
        """The output beside which state is kept; may hold keys in braces."""
        return self.templates[0].text if self.templates else None

    def places(self, initial_time: datetime) -> Places:
        """What a run from an initial time writes."""
        return Places(self.templates, self.options.members, initial_time)

    @property
    def only_members(self) -> bool:
        """Whether all that is written is GRIB of members, each of which stands for itself."""
        output = self.options.output
        return not output.products and output.zarr is None and output.netcdf is None

    @property
    def ensemble(self) -> Ensemble:
        """Members and noise."""
        return self.ensemble_of(self.options.members)

    def ensemble_of(self, members: Sequence[int]) -> Ensemble:
        """Some members, and their noise."""
        options = self.options
        factor = options.noise_factor if options.perturbations == "on" else 0.0
        by_step = options.noise_factors.by_step(self.variant.step_hours, self.steps) if options.noise_factors else ()
        per_batch = options.members_per_batch or 1
        noise = (factor, options.antithetic, by_step, options.crossed, options.lagged)
        return Ensemble(options.seed, tuple(members), per_batch, *noise)


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
        resumed, and the digest of what the run is, and with keywords of `Destination.open`; called on rank 0 only.
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
        output: Callable[..., AbstractContextManager[FileWriter | None]],
        recount: Callable[[Sequence[Path]], None] = lambda _: None,
    ) -> None:
        self._settings, self._ranks, self._watch = settings, ranks, watch
        self._read, self._load, self._output, self._recount = read, load, output, recount
        self._best_batch: int | None = None
        self._own_tilings: Mapping[str, Any] | None = None
        self._earlier: EarlierEnsemble | None = None
        self._recorder = recorder_of(settings.options, settings.variant)
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
        if self._recorder is not None:
            self._ranks.share(self._recorder.verdict)

    @cached_property
    def _engine(self) -> LoadedEngine:
        engine = on_every_rank(self._ranks, self._load)
        if engine.untrained:
            LOG.warning(
                "These weights are UNTRAINED, random numbers: the forecast shows that all works, and nothing else"
            )
        refuse_other_fits(self._settings.options, weights=engine.checkpoint_sha256)
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
        if record is None:
            return None if self._earlier is None else self._earlier.card.get(TILINGS)
        return record.backend.get(TILINGS)

    def _record(self, starts: Starts) -> ResumeRecord | None:
        """What an unfinished run from there left, if one is to be resumed."""
        if self._settings.path is None or not self._settings.options.resume:
            return None
        return read_record(self._settings.places(next(iter(starts.values())).initial_time).state)

    def _begun_with(self, starts: Starts) -> int | None:
        record = self._record(starts)
        earlier = None if self._earlier is None else self._earlier.card
        begun = earlier if record is None else record.identity.get("run")
        found = begun.get("members_per_batch") if isinstance(begun, Mapping) else None
        return found if isinstance(found, int) and found > 0 else None

    def _run_one(self, wanted: Wanted) -> None:
        starts = self._ranks.share(lambda: self._read(wanted))
        engine = self._engine
        self._earlier = self._ranks.share(lambda: self._find_earlier(starts))
        self._settle_batch(starts)
        self._settle_tilings(starts, engine)
        if self._settings.options.growth.is_open:
            self._run_open(starts, engine)
            return
        job = self._job_of(starts, self._settings.options.members[self._taken :])
        found = self._gather(starts, engine) if self._ranks.rank == 0 else {}
        place = _Place()
        with ExitStack() as stack:
            if not self._ranks.share(lambda: self._open(stack, job, starts, found, place)):
                self._watch.wrote(Path(name) for name in found.get("files", []))
                return
            self._announce(job)
            job = self._brought_to_start(job)
            # Before and after there is nothing to bring into good order: a signal ends the process as ever.
            with self._watch.listening():
                writer = place.writer or NoWriter()
                EnsembleRun(job, engine, self._ranks, writer, place.resume_state, self._watch, self._recorder)()
            paths = place.writer.paths if place.writer is not None else []
            write_cards(paths, found)
            if place.resume_state is not None:
                place.resume_state.remove()
            self._watch.wrote(paths)

    def _job_of(self, starts: Starts, members: Sequence[int]) -> EnsembleJob:
        settings = self._settings
        own = {member: starts[member] for member in members}
        return EnsembleJob(own, settings.ensemble_of(members), settings.variant.step_hours, settings.steps)

    def _brought_to_start(self, job: EnsembleJob) -> EnsembleJob:
        """The job, whose members are all at the start of the run."""
        if self._settings.options.lagged is None:
            return job
        # Who counts the steps of the run hears nothing of those before it.
        with (watch := Watch()).listening():
            starts = brought_to_start(job.starts, job.ensemble, job.step_hours, self._engine, self._ranks, watch)
        return replace(job, starts=starts)

    def _run_open(self, starts: Starts, engine: LoadedEngine) -> None:
        """An ensemble whose size is found while it runs."""
        run = OpenRun(self._settings, self._ranks, self._watch, starts, self._output, self._recorder)
        try:
            with self._watch.listening():
                run(engine, partial(self._job_of, starts))
        finally:
            if run.found:
                self.provenance.append(run.found)

    def _find_earlier(self, starts: Starts) -> EarlierEnsemble | None:
        """The ensemble that members are added to, if any are."""
        settings, size = self._settings, self._settings.options.growth.extend
        if size is None or settings.path is None:
            return None
        record = self._record(starts)
        taken = 0 if record is None else record.identity["run"].get(EXTENDED_FROM, 0)
        if record is not None and (record.finished or not taken):
            # Files may have their names already, or all members are made here.
            return EarlierEnsemble(taken, {})
        return find_earlier(settings.places(next(iter(starts.values())).initial_time), settings.path, size)

    @property
    def _taken(self) -> int:
        """Members that are taken from files, and not made."""
        earlier, size = self._earlier, len(self._settings.options.members)
        return earlier.size if earlier is not None and earlier.size < size and self._settings.only_members else 0

    def _check_earlier(self, starts: Starts, path: str, backend: Mapping[str, Any]) -> list[Path]:
        """The files of the ensemble that members are added to, after a look at them."""
        earlier, options = self._earlier, self._settings.options
        if earlier is None or not earlier.card:
            return []
        before = {member: starts[member] for member in options.members[: earlier.size]}
        then = card_of(self._settings, options.of_size(earlier.size), self._engine, before)
        earlier.check_same(path, identity_of(then), backend)
        if not self._taken and earlier.size < len(options.members):
            LOG.info("Products and stores are made of all members: the %d that are there are made again", earlier.size)
        return earlier.files(path)

    def _gather(self, starts: Starts, engine: LoadedEngine) -> dict[str, Any]:
        found = card_of(self._settings, self._settings.options, engine, starts)
        self.provenance.append(found)
        return found

    def _open(self, stack: ExitStack, job: EnsembleJob, starts: Starts, found: dict[str, Any], place: _Place) -> bool:
        """The output, and the resume state beside it; False if all is done already."""
        initial = next(iter(job.starts.values()))
        path, options = self._settings.path, self._settings.options
        resume, interval_s = options.resume, options.state_interval_s
        if path is None:
            if resume:
                raise ResumeError("--resume: expected output in files to go on with; leave it out, or give --path FILE")
            place.writer = stack.enter_context(self._output(initial, found["weights"]["untrained"], False, None))
            return True
        backend = backend_of(found)
        identity = identity_of(found)
        found["run"] = digest_of_run(identity)
        earlier = self._check_earlier(starts, path, backend)
        if self._earlier is not None and self._earlier.card:
            found["extended_from"] = self._earlier.size
        if self._taken:
            identity["run"][EXTENDED_FROM] = self._taken
        fresh = ResumeRecord(identity, backend)
        places = self._settings.places(initial.initial_time)
        folder = places.state
        asks = resume or self._earlier is not None
        complete = complete_files(path, found["run"]) if asks and not folder.exists() else None
        if complete is not None:
            LOG.info("%s is complete already: nothing to do", path)
            self._watch.begin(job.starts, job.ensemble, job.steps, job.units)
            self._watch.end()
            self._recount(complete)
            if self._recorder is not None:
                self._recorder.skip(initial.initial_time.isoformat())
            found["files"] = [str(path) for path in complete]
            return False
        # Before the output, which would overwrite what another run is writing.
        resume_state = stack.enter_context(
            open_resume_state(folder, fresh, job.history, len(job.batches), resume=resume, interval_s=interval_s)
        )
        positions = resume_state.record.positions
        if resume and positions is None and self._earlier is None:
            places.refuse_others(fresh.identity)
        resuming = positions is not None
        more = {"earlier": earlier} if self._taken and earlier else {}
        untrained = found["weights"]["untrained"]
        place.writer = stack.enter_context(self._output(initial, untrained, resuming, found["run"], **more))
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
