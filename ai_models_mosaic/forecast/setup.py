"""A forecast as it was asked for, by whichever command: checked, then run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engines.choice import prepare_engine
from ..errors import MosaicError
from ..inputs.initial_times import AskedTimes, InitialTimes, choose_times
from ..inputs.reader import InputReader
from ..inputs.requests import CLASS_OF_VARIANT, DEFAULT_GRID_DEG, check_file, choose_variant, mars_requests, parse_extra
from ..inputs.retrieve import Source
from ..inputs.services import SOURCES, check_grid, check_hour
from ..outputs.grib.output import recount
from ..variants import Variant
from ..wording.redaction import redacted
from .bulletin import Bulletin
from .console import PLUGIN, logging_as_asked, plain_errors
from .destination import Archive, Destination
from .endings import told
from .health.recorder import check as check_health
from .listeners import Listeners
from .options import Options
from .progress import Watch
from .ranks import connected, find_launch, on_every_rank
from .runner_options import check_runner_options, steps_of
from .series import ForecastSeries

if TYPE_CHECKING:
    from ..engines import LoadedEngine


@dataclass(frozen=True)
class ForecastSetup:
    """All that a forecast depends on.

    Parameters
    ----------
    options : Options
        Of this package.
    source : str
        ``file``, or one of `services.SOURCES`.
    file : str or None
        A GRIB file or a Zarr store, where the source is ``file``.
    times : AskedTimes
        The initial time, or several; those of ``options`` are added.
    lead_time_hours : int
        Length of the forecast, a multiple of the variant's step.
    path : str or None
        Of GRIB output, with keys in braces; None for none.
    metadata : mapping of str to str
        The user's GRIB keys.
    assets : Path
        Folder of weights and other assets.
    threads : int or None
        Of the CPU; None: what the engine finds best.
    only_gpu, deterministic : bool
        Raise where there is no GPU; only algorithms that give the same bits every time.
    requests_extra : str or None
        ``key1=value1,key2=value2``, to complete printed requests with.
    reports : mapping of str to str or None
        Files that are written when the forecast is done, by their options.
    archive : callable or None
        See `destination.Archive`; None if nobody wants to know.
    other : Source or None
        Where fields come from, where the source is none of those above.
    program : str
        Who was asked, for people.

    Raises
    ------
    MosaicError
        If something cannot be honoured.
    """

    options: Options
    source: str
    file: str | None = None
    times: AskedTimes = field(default_factory=AskedTimes)
    lead_time_hours: int = 240
    path: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    assets: Path = Path()
    threads: int | None = None
    only_gpu: bool = False
    deterministic: bool = False
    requests_extra: str | None = None
    reports: Mapping[str, str | None] = field(default_factory=dict)
    archive: Archive | None = None
    other: Source | None = None
    program: str = PLUGIN

    def __post_init__(self) -> None:
        with told(self._bulletin, success=False):
            self._check()

    def _check(self) -> None:
        check_runner_options(self.options, threads=self.threads, grib=self.path is not None)
        if self.source == "file":
            check_file(self.file)
        if self.options.lagged is not None:
            self.options.lagged.check(self.variant.step_hours)
        # These raise if they are not to be had.
        _ = self.variant, self.steps, self.initial_times, parse_extra(self.requests_extra)
        if self.source in SOURCES:
            check_grid(self.source, self.input_grid_deg)

    @cached_property
    def variant(self) -> Variant:
        """What runs."""
        return choose_variant(self.options.variant, self.source, self._input_file)

    @property
    def steps(self) -> int:
        """How many the forecast has.

        Raises
        ------
        OptionError
            As `runner_options.steps_of`.
        """
        return steps_of(self.lead_time_hours, self.variant.step_hours)

    @cached_property
    def initial_times(self) -> InitialTimes:
        """What to start from."""
        return choose_times(replace(self.times, dates=self.options.dates), self.source, self.variant)

    @property
    def input_grid_deg(self) -> float:
        """Grid to ask a service for, degrees."""
        asked = self.options.input_grid_deg
        return DEFAULT_GRID_DEG if asked is None else asked

    @property
    def area(self) -> list[float]:
        """The whole globe: north, west, south, east, degrees."""
        return [90, 0, -90, 360 - self.input_grid_deg]

    @property
    def _input_file(self) -> str | None:
        return self.file if self.source == "file" else None

    def requests(self, *, only_newest: bool = False) -> list[dict[str, Any]]:
        """The MARS requests for the input, each complete in itself.

        Parameters
        ----------
        only_newest : bool
            Of the last state alone.

        Raises
        ------
        OptionError
            If there is no analysis at one of the hours.
        """
        hours = (0,) if self.options.lagged is None else sorted(self.options.lagged.hours)
        starts = [start + timedelta(hours=before) for start in self.initial_times.starts for before in hours]
        if CLASS_OF_VARIANT[self.variant.name] == "od":
            for start in starts:
                check_hour(start.hour)
        states = dict.fromkeys(start + timedelta(hours=lag) for start in starts for lag in self.variant.lags_hours)
        times = [(int(f"{state:%Y%m%d}"), state.hour) for state in states][-1 if only_newest else 0 :]
        keys = {"grid": [self.input_grid_deg] * 2, "area": self.area}
        return mars_requests(self.variant, times, keys, parse_extra(self.requests_extra))

    def fetch_assets(self) -> None:
        """Fetch what the variant needs and the assets folder lacks.

        Raises
        ------
        CheckpointError
            If a file cannot be had, or is not what it should be.
        """
        if not self.variant.bundled:
            from ..checkpoints.hub import fetch

            fetch(self.variant, self.assets, own_checkpoint=self.options.checkpoint is not None)

    # The forecast.

    def run(self, *, verbose: bool = False, debug: bool = False) -> list[dict[str, Any]]:
        """Read, forecast, write; returns the provenance of every initial time.

        Parameters
        ----------
        verbose : bool
            Log more.
        debug : bool
            Let errors keep their traceback.

        Raises
        ------
        SystemExit
            In place of an error that a user can act on, after it was shown; and at the end of every process but the
            first of several.
        """
        with plain_errors(debug=debug, program=self.program), told(self._bulletin, success=False):
            launch = find_launch()
        with (
            logging_as_asked(launch, quiet=self.options.quiet, verbose=verbose),
            plain_errors(debug=debug, launch=launch, program=self.program),
            told(self._bulletin),
            connected(launch) as ranks,
        ):
            reader = self._reader()
            ranks.share(lambda: self._check_ends(reader))
            watch = Watch(self.options.progress_file if launch.rank == 0 else None, self._bulletin)
            session = ForecastSeries(
                self._destination.settings(self._source_shown),
                ranks,
                watch,
                read=reader.read,
                load=on_every_rank(ranks, lambda: self._prepare_engine(launch.local_rank)),
                output=self._destination.open,
                recount=lambda paths: None if self.archive is None else recount(paths, self.archive),
            )
            session.run(self.initial_times.wanted)
        if launch.rank > 0:
            # What is left to do, such as requests and provenance, is for rank 0.
            raise SystemExit(0)
        return session.provenance

    def _reader(self) -> InputReader:
        options = self.options
        return InputReader(
            source=self.source,
            file=self._input_file,
            variant=self.variant,
            members=options.members,
            grid_deg=self.input_grid_deg,
            patience_s=options.patience_s,
            other=self.other,
            starts=options.starts,
            lagging=options.lagged,
        )

    @cached_property
    def _destination(self) -> Destination:
        return Destination(self.variant, self.options, self.steps, self.path, self.metadata, self.archive)

    @cached_property
    def _bulletin(self) -> Bulletin:
        """Of several processes, the first tells how all ended."""
        try:
            first = find_launch().rank == 0
        except MosaicError:
            first = True
        return Bulletin(self.options.listeners if first else Listeners(), self.program)

    @property
    def _source_shown(self) -> str:
        """Where the input comes from, for people and for replay."""
        file = self._input_file
        return redacted(str(Path(file).resolve()) if file is not None and Path(file).exists() else file or self.source)

    def _check_ends(self, reader: InputReader) -> None:
        """All that can fail at the input's and the output's end before the first field is read."""
        starts, listeners = self.initial_times.starts, self.options.listeners
        self._destination.check(starts, self._input_file)
        self._destination.check_side_files(self.reports, starts, self._input_file, listeners)
        reader.check(self.initial_times.wanted)
        if self.options.progress_file is not None:
            Watch(self.options.progress_file)
        self._bulletin.check()
        check_health(listeners.health, self.variant, resume=self.options.resume)

    def _prepare_engine(self, local_rank: int) -> Callable[[], LoadedEngine]:
        choice = self.options.engine_choice(
            self.assets,
            only_gpu=self.only_gpu,
            threads=self.threads,
            deterministic=self.deterministic,
            local_rank=local_rank,
            own_process=True,
        )
        return prepare_engine(self.variant, choice)
