"""Where a forecast goes: what is written, under which labels, by any command and by the API."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from ..outputs.grib.keys import EXPVER, Labels, labels_of_weights
from ..outputs.plan import OutputPlan
from ..outputs.writer import Outputs
from ..state import InitialState
from ..variants import Variant
from .options import Options
from .series import SeriesSettings

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
        plan.check(any_time, archived=self.archive is not None, source=file)
        plan.check_apart(any_time, starts)

    def settings(self, source: str) -> SeriesSettings:
        """What a series of forecasts has in common.

        Parameters
        ----------
        source : str
            Where the input comes from, for people and for replay.
        """
        plan = self.plan
        templates = plan.templates(self._labels(datetime(2000, 1, 1), EXPVER)) if plan.anchor is not None else ()
        return SeriesSettings(self.variant, self.options, self.steps, dict(self.metadata), templates, source)

    def open(self, initial: InitialState, untrained: bool, resuming: bool, run: str | None) -> Outputs:
        """The outputs of one initial time; arguments as of `ForecastSeries`'s ``output``."""
        labels = self._labels(initial.initial_time, EXPVER)
        labels = replace(labels, **labels_of_weights(untrained=untrained, bundled=self.variant.bundled))
        return Outputs(self.plan, labels, self.archive, resuming=resuming, run=run)

    def _labels(self, initial_time: datetime, expver: str) -> Labels:
        return Labels(initial_time, self.options.ensemble_size, self.metadata, expver, self.options.output.packing)
