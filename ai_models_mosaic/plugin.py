"""The surface towards ECMWF's ai-models runner: options, requests, wiring; no maths.

The runner is archived upstream, so what it does wrong is worked around here and nothing below
this module knows of it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime, time, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai_models.model import Model

from .assets import Assets, check_assets, locate
from .channels import LEVELS_HPA, PRESSURE_LEVEL_PARAMS, SINGLE_LEVEL_PARAMS
from .clients import talking_to
from .console import loudness, plain_errors
from .dates import parse_dates, read_dates
from .errors import InputError, OptionError
from .holdings import Holdings, Wanted, take_stock
from .inputs import initial_states_of
from .options import parse_options
from .outputs.grib import recount
from .outputs.plan import OutputPlan
from .outputs.sink import Outputs
from .outputs.templates import EXPVER, UNTRAINED_EXPVER, Labels
from .progress import Watch
from .ranks import Launch, connected, everywhere, find_launch
from .redaction import redact_process, redacted
from .services import (
    SOURCES,
    Service,
    check_grid,
    check_hour,
    check_reachable,
    check_times,
    find_account,
    kept_days,
    newest_era5,
)
from .session import Session, Settings
from .sources import (
    CLASS_OF_VARIANT,
    DEFAULT_GRID_DEG,
    check_file,
    choose_variant,
    is_reanalysis,
    mars_keys,
    mars_requests,
    parse_date,
    parse_extra,
    parse_hour,
    wanted_time,
)
from .state import InitialState
from .zarr_input import is_zarr, zarr_holdings

if TYPE_CHECKING:
    from .engines import LoadedEngine

LOG = logging.getLogger(__name__)

RUNNER_DEFAULTS = {"--date": "-1", "--time": 12, "--num-threads": 1}
"""What the runner hands on where nothing was typed."""

UNSUPPORTED = ("hindcast_reference_year", "hindcast_reference_date")
"""Options of the runner that are refused rather than ignored."""


class MosaicModel(Model):  # type: ignore[misc]
    """Mosaic as an ai-models model.

    Parameters
    ----------
    input, output : str
        The runner's names of source and destination.
    download_assets : bool
        Whether the runner was asked to fetch assets.
    **kwargs : object
        All other options of the runner, and ``model_args`` with those it does not know.
    """

    expver = EXPVER
    param_level_pl = (PRESSURE_LEVEL_PARAMS, LEVELS_HPA)
    param_sfc = SINGLE_LEVEL_PARAMS
    constant_fields = ()

    def __init__(self, input: str, output: str, download_assets: bool, **kwargs: Any) -> None:
        redact_process()
        with plain_errors(debug=kwargs["debug"]):
            _refuse_unsupported(kwargs)
            self.options = parse_options(kwargs["model_args"])
            self._source = input
            self._file = check_file(kwargs["file"]) if input == "file" else None
            self.variant = choose_variant(self.options.variant, input, self._file)
            self._steps = _steps(kwargs["lead_time"], self.variant.step_hours)
            several = self._several_times(kwargs)
            kwargs["date"] = self._start_date(kwargs)
            self._wanted = self._wanted_time(kwargs)
            self._dates = several or (self._wanted,)
            self._extra = parse_extra(kwargs["requests_extra"])
            if input in SOURCES:
                check_grid(input, self.grid[0])
            # The runner adds its own defaults to this very dict: copied, it still says what the user gave.
            self._metadata = dict(kwargs["metadata"])
            self._writes = output != "none"
            self._session: Session | None = None
            self._stock: Holdings | None = None
            kwargs["date"] = f"{parse_date(str(kwargs['date'])):%Y%m%d}"
            kwargs["time"] = parse_hour(kwargs["time"])
            self._service: Service | None = None
            super().__init__(input, output, download_assets, **kwargs)

    def parse_model_args(self, args: list[str]) -> None:
        """Nothing left to do: the options were read before the runner built its input and output."""

    # What the runner's inputs and information options ask for.

    @property
    def lagged(self) -> list[int]:
        """Hours of the input states relative to the initial time."""
        return list(self.variant.lags_hours)

    @property
    def grid(self) -> list[float]:
        """Grid to ask a service for, degrees."""
        asked = self.options.input_grid_deg
        return [DEFAULT_GRID_DEG if asked is None else asked] * 2

    @property
    def area(self) -> list[float]:
        """The whole globe: north, west, south, east."""
        return [90, 0, -90, 360 - self.grid[0]]

    @property
    def download_files(self) -> list[str]:
        """Files that the variant needs in the assets folder."""
        return list(self.variant.asset_files)

    def patch_retrieve_request(self, request: dict[str, Any]) -> None:
        """Complete a MARS request; the runner calls this for other services too, which know no such keys."""
        if self._source != "mars":
            return
        day, hour = str(request["date"]), int(request["time"])
        request.update(mars_keys(self.variant, datetime.strptime(day, "%Y%m%d").replace(hour=hour)))

    def print_requests(self) -> None:
        """Show the requests of ``--retrieve-requests``."""
        with plain_errors(debug=self.debug):
            if CLASS_OF_VARIANT[self.variant.name] == "od":
                check_hour(self.time)
            super().print_requests()

    def _requests(self) -> list[dict[str, Any]]:
        """MARS requests, each complete: the runner's own lack grid and area from the second on."""
        if self.retrieve_fields_type == "constants":
            return []
        starts = [] if self._dates[0] is self._wanted else [_time_of(wanted) for wanted in self._dates]
        staged = [start + timedelta(hours=lag) for start in starts for lag in self.lagged]
        times = [(int(f"{time:%Y%m%d}"), time.hour) for time in dict.fromkeys(staged)] or self.datetimes()
        times = times[-1 if self.retrieve_only_one_date else 0 :]
        return mars_requests(self.variant, times, {"grid": self.grid, "area": self.area}, self._extra)

    def download_assets(self, **kwargs: Any) -> None:
        """Fetch what the variant needs and the assets folder lacks; the runner calls this with its other options.

        Raises
        ------
        CheckpointError
            If a file cannot be had, or is not what it should be.
        """
        if not self.variant.bundled:
            from .hub import fetch

            fetch(self.variant, Path(self.assets), own_checkpoint=self.options.checkpoint is not None)

    # The forecast.

    def run(self) -> None:
        """Read, forecast, write."""
        with plain_errors(debug=self.debug):
            launch = find_launch()
        with (
            loudness(launch, quiet=self.options.quiet, verbose=self.verbose),
            plain_errors(debug=self.debug, launch=launch),
            connected(launch) as ranks,
        ):
            ranks.share(self._check_ends)
            watch = Watch(self.options.progress_file if launch.rank == 0 else None)
            load = everywhere(ranks, lambda: self._prepare_engine(launch))
            self._session = Session(
                self._settings(),
                ranks,
                watch,
                read=self._read_input,
                load=load,
                output=self._output,
                recount=lambda paths: recount(paths if self.archive_requests else (), self._archive),
            )
            self._session.run(self._dates)
        if launch.rank > 0:
            # The runner goes on to write archive requests and provenance, which is for rank 0.
            raise SystemExit(0)

    def provenance(self) -> dict[str, Any]:
        """What made this forecast, for ``--dump-provenance``; the runner's own form needs a module that is gone."""
        found = self._session.provenance if self._session is not None else []
        return found[0] if len(found) == 1 else {"initial_times": found}

    def _several_times(self, kwargs: dict[str, Any]) -> tuple[Wanted, ...]:
        """The initial times of ``--dates`` or ``--staging-dates``; none if ``--date`` and ``--time`` say it."""
        several, staged = self.options.dates, kwargs["staging_dates"]
        if several is None and staged is None:
            return ()
        if _given("--date", str(kwargs["date"])) or (several is not None and staged is not None):
            raise OptionError("expected one of --date, --dates and --staging-dates, got two of them")
        if several is None:
            return read_dates(Path(staged))
        exact = self._source != "file" or _given("--time", kwargs["time"])
        return parse_dates(several, parse_hour(kwargs["time"]) if exact else None)

    def _start_date(self, kwargs: dict[str, Any]) -> str:
        """The runner's ``--date``; ERA5 cannot have yesterday, the default, so it starts where it ends."""
        date = str(kwargs["date"])
        if _given("--date", date) or not is_reanalysis(self._source, self.variant):
            return date
        day = newest_era5(_now()) - timedelta(days=1)
        LOG.info("Starting from %s, about the newest date that ERA5 has (--date overrides)", day)
        return f"{day:%Y%m%d}"

    def _wanted_time(self, kwargs: dict[str, Any]) -> Wanted:
        """The initial time: exact for a service; for a file only as far as it was typed."""
        date, time = str(kwargs["date"]), kwargs["time"]
        if self._source == "file":
            return wanted_time(date if _given("--date", date) else None, time if _given("--time", time) else None)
        return wanted_time(date, time)

    def _settings(self) -> Settings:
        found = self._file and Path(self._file).exists()
        source = str(Path(str(self._file)).resolve()) if found else self._file or self._source
        return Settings(self.variant, self.options, self._steps, self._metadata, self._plan().anchor, redacted(source))

    def _check_ends(self) -> None:
        """All that can fail at the input's and the output's end before the first field is read."""
        plan, any_time = self._plan(), self._labels(datetime(2000, 1, 1), EXPVER)
        plan.check(any_time, archived=bool(self.archive_requests), source=self._file)
        plan.check_apart(any_time, [_time_of(wanted) for wanted in self._dates])
        if self._source in SOURCES:
            self._service = self._check_service()
        if self.options.progress_file is not None:
            Watch(self.options.progress_file)

    def _prepare_engine(self, launch: Launch) -> Callable[[], LoadedEngine]:
        """What may fail before the first field is read; gives what loads the weights after that."""
        return self._prepare_onnx() if self.options.engine == "onnx" else self._prepare_torch(launch)

    def _prepare_onnx(self) -> Callable[[], LoadedEngine]:
        """Open the graph at once: only its session tells what it is, and where it really runs."""
        from .engines.onnx import load_engine

        engine = load_engine(
            self.variant,
            self.options.onnx_model or Path(),
            provider=self.options.onnx_provider,
            only_gpu=self.only_gpu,
            threads=self.num_threads if _given("--num-threads", self.num_threads) else None,
            deterministic=self.deterministic,
            precision=self.options.precision,
        )
        return lambda: engine

    def _prepare_torch(self, launch: Launch) -> Callable[[], LoadedEngine]:
        """Check the weights and choose a device."""
        assets = locate(self.variant, Path(self.assets), self.options.checkpoint)
        check_assets(self.variant, assets, full=self.options.verify_assets)
        import torch

        from .engines.torch import choose_device

        device = choose_device(only_gpu=self.only_gpu, local_rank=launch.local_rank)
        if _given("--num-threads", self.num_threads):
            torch.set_num_threads(self.num_threads)
        if self.deterministic:
            self.torch_deterministic_mode()
        return lambda: self._load_torch(assets, device)

    def _check_service(self) -> Service:
        """The service to read from, found able to answer."""
        service = find_account(self._source)
        reanalysis = is_reanalysis(self._source, self.variant)
        # One of several that is out of reach fails alone, when it is its turn.
        if len(self._dates) == 1 and self._dates[0].time is not None:
            self._check_time(service, self._dates[0].time, reanalysis=reanalysis)
        check_reachable(service)
        return service

    def _check_time(self, service: Service, initial_time: datetime, *, reanalysis: bool) -> None:
        check_times(initial_time, self.lagged, _now(), reanalysis=reanalysis, kept_days=kept_days(service))

    def _read_input(self, wanted: Wanted) -> dict[int, InitialState]:
        grid, lags = self.variant.architecture.grid, self.variant.lags_hours
        return initial_states_of(self._take_stock(wanted), grid, lags, wanted, self.options.members)

    def _take_stock(self, wanted: Wanted) -> Holdings:
        """What the input holds: of a file once, of a store or service for every initial time."""
        if self._file is not None and is_zarr(self._file):
            return zarr_holdings(self._file, self.variant.lags_hours, wanted)
        if self._stock is not None and self._service is None:
            return self._stock
        if self._service is not None and self._dates[0] is not self._wanted:
            self._turn_to(self._service, wanted)
        with talking_to(self._service, self.options.patience_s) if self._service else nullcontext():
            fields = self.all_fields
        if not hasattr(fields, "__len__"):
            raise InputError(f"--file {self._file}: expected GRIB messages, got {type(fields).__name__}")
        self._stock = take_stock(fields)
        return self._stock

    def _turn_to(self, service: Service, wanted: Wanted) -> None:
        """Make the runner's input ask for another initial time."""
        initial_time = _time_of(wanted)
        self._check_time(service, initial_time, reanalysis=is_reanalysis(self._source, self.variant))
        self.staging_dates, self.date, self.time = None, int(f"{initial_time:%Y%m%d}"), initial_time.hour
        for name in ("all_fields", "fields_pl", "fields_sfc", "fields_ml"):
            self.__dict__.pop(name, None)
            self.input.__dict__.pop(name, None)

    def _load_torch(self, assets: Assets, device: Any) -> LoadedEngine:
        from .engines.torch import load_engine

        precision = self.options.precision
        if precision == "auto":
            precision = "float16" if device.type == "cuda" else "float32"
        LOG.info("Loading the weights of %s", assets.checkpoint)
        options = self.options
        return load_engine(
            self.variant,
            assets,
            device,
            precision,
            options.attention_backend,
            graphs=options.cuda_graphs,
            compiled=options.compiled,
        )

    def _plan(self) -> OutputPlan:
        """What is written where."""
        output = self.options.output
        path = self.path if self._writes and output.grib else None
        grid, hours = self.variant.architecture.grid, self.variant.step_hours
        return OutputPlan(path, output, grid, hours, self._steps, self.options.members)

    def _labels(self, initial_time: datetime, expver: str) -> Labels:
        output = self.options.output
        return Labels(initial_time, self.options.ensemble_size, self._metadata, expver, output.packing)

    def _output(self, initial: InitialState, untrained: bool, going_on: bool) -> Outputs:
        labels = self._labels(initial.initial_time, UNTRAINED_EXPVER if untrained else EXPVER)
        archive = self._archive if self.archive_requests else None
        return Outputs(self._plan(), labels, archive, going_on=going_on)

    def _archive(self, keys: dict[str, str], path: Path) -> None:
        self.archiving[str(path)].add(keys)


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)


def _time_of(wanted: Wanted) -> datetime:
    """An initial time; of one of which only the day is known, midnight."""
    return wanted.time or datetime.combine(wanted.day or datetime(2000, 1, 1), time())


def _steps(lead_time_hours: int, step_hours: int) -> int:
    if lead_time_hours < 0 or lead_time_hours % step_hours:
        raise OptionError(f"--lead-time: expected a multiple of the step of {step_hours} h, got {lead_time_hours}")
    return lead_time_hours // step_hours


def _refuse_unsupported(kwargs: dict[str, Any]) -> None:
    for name in UNSUPPORTED:
        if kwargs.get(name):
            raise OptionError(
                f"--{name.replace('_', '-')} is not supported by mosaic: run one date at a time, without it"
            )


def _given(option: str, value: object) -> bool:
    """Whether the user gave an option of the runner: a value that is its default may still have been typed.

    The runner accepts abbreviations, so any beginning counts.
    """
    words = (word.split("=")[0] for word in sys.argv[1:])
    return value != RUNNER_DEFAULTS[option] or any(option.startswith(word) and len(word) > 2 for word in words)
