"""Where a forecast goes: what is written, under which labels, by any command and by the API."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from ..errors import OptionError
from ..outputs.grib.keys import EXPVER, Labels, labels_of_weights
from ..outputs.plan import OutputPlan
from ..outputs.writer import Outputs
from ..state import InitialState
from ..variants import Variant
from ..wording.numbers import counted
from .fitted import refuse_other_fits
from .listeners import Listeners
from .options import Options
from .provenance import card_place
from .runner_options import check_side_files, refuse_shared_files
from .series import SeriesSettings
from .tolerance import check_tolerances

Archive = Callable[[dict[str, str], Path], None]
"""Told of the MARS keys of every message that is written, and of its file."""


@dataclass(frozen=True)
class Destination:
    """What a forecast writes.

    Parameters
    ----------
    variant : Variant
        What runs.
    options : Options
        Of this package.
    steps : int
        After step 0.
    path : str or None
        Of GRIB, with keys in braces; None for none.
    metadata : mapping of str to str
        The user's GRIB keys.
    archive : callable or None
        See `Archive`; None if nobody wants to know.
    """

    variant: Variant
    options: Options
    steps: int
    path: str | None
    metadata: Mapping[str, str] = field(default_factory=dict)
    archive: Archive | None = None

    @property
    def plan(self) -> OutputPlan:
        """What is written where."""
        output = self.options.output
        path = self.path if output.grib else None
        grid, hours = self.variant.architecture.grid, self.variant.step_hours
        return OutputPlan(path, output, grid, hours, self.steps, self.options.members, self.options.starts)

    def check(self, starts: Sequence[datetime], file: str | None) -> None:
        """Raise before a long run if something could not be written.

        Parameters
        ----------
        starts : sequence of datetime
            The initial times.
        file : str or None
            The input, which must not be written over.

        Raises
        ------
        MosaicError
            Says what, and what to do.
        """
        plan, any_time = self.plan, self._labels(datetime(2000, 1, 1), EXPVER)
        refuse_other_fits(self.options, variant=self.variant.name)
        plan.check(any_time, archived=self.archive is not None, source=file)
        plan.check_apart(any_time, starts)
        self._refuse_products_of_some(plan, any_time)
        check_tolerances(self.options.growth.mc_error, plan.grid, plan.lead_times_hours)
        if self.options.growth.is_open and len(starts) > 1:
            raise OptionError(f"--deadline and --mc-error: expected one initial time, got {len(starts)}")
        if (self.options.growth.is_open or self.options.growth.extend is not None) and plan.anchor is None:
            raise OptionError("--extend, --deadline and --mc-error: expected output in files, as it is written again")

    def check_side_files(
        self, files: Mapping[str, str | None], starts: Sequence[datetime], source: str | None, listeners: Listeners
    ) -> None:
        """Raise before a long run if what is written beside its output could not be, or would go over something.

        Parameters
        ----------
        files : mapping of str to str or None
            What is written when the forecast is done, by option.
        starts : sequence of datetime
            The initial times.
        source : str or None
            The file of the input.
        listeners : Listeners
            Those of them that have files.

        Raises
        ------
        OutputError
            Says which file, and what else it is.
        """
        health, metrics, progress = (
            None if file is None else str(file)
            for file in (listeners.health.file, listeners.metrics_file, self.options.progress_file)
        )
        written = {**files, "--health": health}
        check_side_files(written)
        kept = {} if source is None else {Path(source): f"--file {source}"}
        for start in starts:
            for typed, place, _ in self.plan.places(self._labels(start, EXPVER)):
                kept |= {place: typed, card_place(place): f"the card of {typed}"}
        # Whether these can be written is seen where they are begun.
        refuse_shared_files({**written, "--metrics-file": metrics, "--progress-file": progress}, kept)

    def _refuse_products_of_some(self, plan: OutputPlan, labels: Labels) -> None:
        """Refuse products of some members where files of others are told apart, and those of products are not."""
        members, size = self.options.members, self.options.ensemble_size
        if not plan.products or len(members) == size:
            return
        for template in plan.templates(labels):
            if template.tells_members_apart:
                raise OptionError(
                    f"--products: expected a run of all members, as --num-ensemble-members says, where files are named "
                    f"by member, such as {template.text}: runs of others would write their products to the same file. "
                    f"Got {counted(len(members), 'member')} of {size or 'an unknown number'}; leave --products out, or "
                    "{number}"
                )

    def settings(self, source: str) -> SeriesSettings:
        """What a series of forecasts has in common.

        Parameters
        ----------
        source : str
            Where the input comes from, for people and for replay.
        """
        plan = self.plan
        templates = plan.templates(self._labels(datetime(2000, 1, 1), EXPVER)) if plan.anchor is not None else ()
        steps = tuple(hours // self.variant.step_hours for hours in plan.lead_times_hours)
        fields = [*plan.fields, *(tolerance.field for tolerance in self.options.growth.mc_error)]
        channels = {channel for field in fields for channel in field.channels}.union(plan.channels)
        kept = (steps, tuple(sorted(channels)))
        return SeriesSettings(self.variant, self.options, self.steps, dict(self.metadata), templates, source, kept)

    def open(
        self,
        initial: InitialState,
        untrained: bool,
        resuming: bool,
        run: str | None,
        *,
        earlier: Sequence[Path] = (),
        size: int | None = None,
        for_now: bool = False,
    ) -> Outputs:
        """The outputs of one initial time; arguments as of `ForecastSeries`'s ``output``.

        Parameters
        ----------
        earlier : sequence of Path
            As of `Outputs`.
        size : int or None
            Of an ensemble whose size was not settled before; None for what was asked for.
        for_now : bool
            Whether all is written once more in this run, so that nothing is archived yet.
        """
        if size is not None:
            settled = replace(self, options=self.options.of_size(size), archive=None if for_now else self.archive)
            return settled.open(initial, untrained, resuming, run)
        labels = self._labels(initial.initial_time, EXPVER)
        labels = replace(labels, **labels_of_weights(untrained=untrained, bundled=self.variant.bundled))
        return Outputs(self.plan, labels, self.archive, resuming=resuming, run=run, earlier=earlier)

    def _labels(self, initial_time: datetime, expver: str) -> Labels:
        output = self.options.output
        calibrated = output.calibration is not None
        size = self.options.ensemble_size
        return Labels(initial_time, size, self.metadata, expver, output.packing, calibrated=calibrated)
