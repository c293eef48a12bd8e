"""The flight recorder itself: hears of every step of every batch, on the first of the processes of a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from ... import __version__
from ...engines import NormalisedEngine
from ...engines.vitals import Probe
from ...errors import HealthError, MosaicError
from ...files import named_errors, place_of
from ...state import ForecastStep, InitialState
from ...variants import Variant
from ...wording.numbers import counted
from ..console import status_of
from .bands import Bands, read_bands
from .options import HealthOptions
from .record import Line, Record
from .signs import Reference, digest_of, twins

if TYPE_CHECKING:
    from ..options import Options
    from ..run import EnsembleJob

LOG = logging.getLogger(__name__)


class Recorder:
    """Records the health of members, and warns of those that leave their bands.

    Parameters
    ----------
    options : HealthOptions
        With a file.
    variant : str
        What runs.
    resume : bool
        Whether to go on with what the file holds.
    """

    def __init__(self, options: HealthOptions, variant: str, *, resume: bool) -> None:
        if options.file is None:
            raise ValueError("expected a file to record in")
        self._options, self._variant, self._file, self._resume = options, variant, options.file, resume
        self._probe: Probe | None = None
        self._references: dict[int, Reference] = {}
        self._may_be_equal = self._in_groups = False
        self._step, self._hours, self._members, self._seen = 0, 0, 0, 0
        self._digests: dict[int, dict[int, bytes]] = {}
        self._complaints: list[tuple[int, str]] = []
        self._alarms = 0

    @cached_property
    def _record(self) -> Record:
        with named_errors(self._file):
            place = place_of(self._file)
        return Record(place, resume=self._resume)

    def check(self) -> None:
        """See, before anything is made, that the file can be written.

        Raises
        ------
        OutputError
            If not, or if something else has its name.
        """
        _ = self._record

    def begin(self, job: EnsembleJob, engine: object, units: int) -> None:
        """A run begins, or goes on after so many batches of members and steps.

        Raises
        ------
        MosaicError
            If something else is in the file, or the bands cannot be read.
        """
        header = self.prepare(job, engine)
        done = [
            (step, member)
            for batch, numbers in enumerate(job.batches)
            for step in range(job.steps_done(units, batch))
            for member in numbers
        ]
        self._alarms += self._record.begin(header, done).alarms

    def prepare(self, job: EnsembleJob, engine: object, *, in_groups: bool = False) -> Line:
        """Get ready for the members of a run; returns what the record says of it.

        Parameters
        ----------
        job : EnsembleJob
            The run.
        engine : Engine
            Makes its steps.
        in_groups : bool
            Whether some members go through all steps before others, so that every step is met several times.

        Raises
        ------
        MosaicError
            If the bands cannot be read.
        """
        starts, members = job.starts, job.ensemble.members
        start = starts[members[0]]
        probe = probe_of(starts)
        path = self._options.bands
        self._bands = Bands.default(probe) if path is None else read_bands(path, probe, self._variant)
        climate = engine.climate if isinstance(engine, NormalisedEngine) else None
        distinct = {id(state): state for state in starts.values()}
        references = {key: Reference(probe, state, climate) for key, state in distinct.items()}
        self._references = {member: references[id(starts[member])] for member in members}
        # Without noise, members of one start are one forecast, as was asked for; also where each was led on from it.
        origins = {state.digest or id(state) for state in starts.values()}
        self._may_be_equal = len(origins) < len(starts) and job.ensemble.noise_factor == 0
        self._probe, self._in_groups = probe, in_groups
        self._step, self._digests, self._complaints = 0, {}, []
        self.expect(len(members))
        return {
            "ai-models-mosaic": __version__,
            "initial_time": start.initial_time.isoformat(),
            "variant": self._variant,
            "members": list(members),
            "steps": job.steps,
            "step_hours": job.step_hours,
            "climate": "start" if climate is None else "weights",
            "waves": [list(group) for group in probe.waves],
            "bands": self._bands.as_json(),
        }

    def expect(self, members: int) -> None:
        """So many members make every step from now on, one after the other."""
        self._step, self._members, self._seen = 0, members, 0

    def skip(self, initial_time: str) -> None:
        """A run is complete already: what was recorded of it counts."""
        section = self._record.section(initial_time)
        self._alarms += 0 if section is None else section.alarms

    def recall(self, forecast: ForecastStep) -> None:
        """A step of a batch was recorded before the run was interrupted, within that step."""
        if self._probe is not None and forecast.step > 0:
            digests = self._turn_to(forecast)
            extremes = self._probe.extremes(self._probe.measure(forecast.values))
            digests |= {m: digest_of(one) for m, one in zip(forecast.members, extremes, strict=True)}

    def advance(self, forecast: ForecastStep) -> None:
        """A batch of members made a step; the first states are what they are compared with."""
        lines = self.lines_of(forecast)
        self._alarms += sum(bool(line["alarms"]) for line in lines)
        self._record.add(lines)

    def lines_of(self, forecast: ForecastStep) -> list[Line]:
        """What the record says of a step of a batch; warns if that is the last of its step, and members are ill."""
        probe, vitals = self._probe, forecast.vitals
        if probe is None or vitals is None or forecast.step == 0:
            return []
        digests = self._turn_to(forecast)
        extremes = probe.extremes(vitals)
        copies = {} if self._may_be_equal else twins(extremes, digests, forecast.members)
        lines: list[Line] = []
        for at, member in enumerate(forecast.members):
            (signs,) = self._references[member].signs(vitals[at : at + 1])
            alarms = [f"it is a copy of member {copies[member]}"] if member in copies else []
            alarms += self._bands.complaints(signs)
            self._complaints += [(member, alarm) for alarm in alarms]
            digests[member] = digest_of(extremes[at])
            place = {"step": forecast.step, "lead_time_hours": forecast.lead_time_hours, "member": member}
            lines.append({"event": "step", **place, **signs.as_json(), "alarms": alarms})
        if self._seen == self._members:
            self.warn()
        return lines

    def rewrite(self, header: Line, lines: Sequence[Line]) -> None:
        """Have these lines, and no others, of a run in the record; alarms that count are theirs."""
        self._alarms = self._record.replace(header, lines).alarms

    def end(self) -> None:
        """A run is complete."""
        self._close({"event": "end"})

    def fail(self, error: BaseException) -> None:
        """A run ended otherwise."""
        status = status_of(error) if isinstance(error, MosaicError | KeyboardInterrupt) else None
        self.warn()
        self._close({"event": "failed", "exit_status": status, "message": str(error) or type(error).__name__})

    def verdict(self) -> None:
        """All runs are over.

        Raises
        ------
        HealthError
            If something left its band, and that is to be told by the exit status.
        """
        if self._alarms and self._options.exits:
            raise HealthError(
                f"--health-exit: the forecast is complete, and {counted(self._alarms, 'step')} of members left their "
                f"bands: see alarms in {self._file}"
            )

    def _turn_to(self, forecast: ForecastStep) -> dict[int, bytes]:
        """Begin with a step if it is another one, and count its members; what tells those before them apart."""
        if forecast.step != self._step:
            self._step, self._hours, self._seen = forecast.step, forecast.lead_time_hours, 0
            self._complaints = []
            if not self._in_groups:
                self._digests = {}
        self._seen += len(forecast.members)
        return self._digests.setdefault(forecast.step, {})

    def warn(self) -> None:
        """One line per step."""
        if not self._complaints:
            return
        (member, first), rest = self._complaints[0], len(self._complaints) - 1
        ill = len({number for number, _ in self._complaints})
        LOG.warning(
            "Health at step %d (+%d h): %d of %d members left their bands; member %d: %s%s",
            *(self._step, self._hours, ill, self._members, member, first),
            f"; {rest} more in {self._file}" if rest else "",
        )
        self._complaints = []

    def _close(self, line: Line) -> None:
        if self._probe is not None:
            self._record.add([line])
            self._probe = None


def recorder_of(options: Options, variant: Variant) -> Recorder | None:
    """The recorder that options ask for, if they do."""
    health = options.listeners.health
    return None if health.file is None else Recorder(health, variant.name, resume=options.resume)


def probe_of(starts: Mapping[int, InitialState]) -> Probe:
    """What is measured of a run from these states."""
    start = next(iter(starts.values()))
    return Probe(start.grid, start.values.shape[-1])


def check(options: HealthOptions, variant: Variant, *, resume: bool) -> None:
    """Refuse, before a forecast, what could not be recorded or read.

    Raises
    ------
    MosaicError
        As of `Recorder`, and if the bands are of another variant.
    """
    if options.file is not None:
        Recorder(options, variant.name, resume=resume).check()
    if options.bands is not None:
        read_bands(options.bands, Probe(variant.architecture.grid, variant.architecture.channels), variant.name)
