"""The surface towards ECMWF's ai-models runner: options, requests, wiring; no maths.

The runner is archived upstream, so what it does wrong is worked around here and nothing below
this module knows of it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai_models.model import Model

from . import __version__
from .assets import Assets, check_assets, locate
from .channels import LEVELS_HPA, PRESSURE_LEVEL_PARAMS, SINGLE_LEVEL_PARAMS
from .clients import talking_to
from .errors import InputError, MosaicError, OptionError
from .holdings import Wanted
from .inputs import read_initial_state
from .options import parse_options
from .outputs.plan import OutputPlan
from .outputs.sink import Outputs
from .outputs.templates import EXPVER, UNTRAINED_EXPVER, Labels
from .progress import Progress
from .provenance import gather, write_beside
from .rollout import Ensemble, forecast
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
from .state import ForecastStep, InitialState
from .zarr_input import is_zarr, read_zarr

if TYPE_CHECKING:
    from .engines.torch import TorchEngine

LOG = logging.getLogger(__name__)

RUNNER_DEFAULTS = {"--date": "-1", "--time": 12, "--num-threads": 1}
"""What the runner hands on where nothing was typed."""

UNSUPPORTED = ("hindcast_reference_year", "hindcast_reference_date", "staging_dates")
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
        with _plain_errors(debug=kwargs["debug"]):
            _refuse_unsupported(kwargs)
            self.options = parse_options(kwargs["model_args"])
            self._source = input
            self._file = check_file(kwargs["file"]) if input == "file" else None
            self.variant = choose_variant(self.options.variant, input, self._file)
            self._steps = _steps(kwargs["lead_time"], self.variant.step_hours)
            kwargs["date"] = self._start_date(kwargs)
            self._wanted = self._wanted_time(kwargs)
            self._extra = parse_extra(kwargs["requests_extra"])
            if input in SOURCES:
                check_grid(input, self.grid[0])
            # The runner adds its own defaults to this very dict: copied, it still says what the user gave.
            self._metadata = dict(kwargs["metadata"])
            self._writes = output != "none"
            self._initial: InitialState | None = None
            self._engine: TorchEngine | None = None
            self._provenance: dict[str, Any] | None = None
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
        with _plain_errors(debug=self.debug):
            if CLASS_OF_VARIANT[self.variant.name] == "od":
                check_hour(self.time)
            super().print_requests()

    def _requests(self) -> list[dict[str, Any]]:
        """MARS requests, each complete: the runner's own lack grid and area from the second on."""
        if self.retrieve_fields_type == "constants":
            return []
        times = self.datetimes()[-1 if self.retrieve_only_one_date else 0 :]
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
        with _plain_errors(debug=self.debug):
            self._provenance = None
            device, assets = self._prepare()
            self._initial = initial = self._read_input()
            self._engine = engine = self._load_engine(assets, device)
            ensemble = Ensemble(self.options.seed, self.options.members, self.options.members_per_batch)
            self._announce(engine, ensemble)
            with self._outputs(initial, untrained=engine.untrained) as outputs:
                for member in ensemble.members:
                    outputs.write(ForecastStep(0, 0, (member,), initial.values[-1:]))
                progress = Progress(len(ensemble.members), self._steps)
                for step in forecast(engine, initial, ensemble, self.variant.step_hours, self._steps):
                    outputs.write(step)
                    progress.advance(step)
            if outputs.paths:
                found = self.provenance()
                for path in outputs.paths:
                    write_beside(path, found)

    def provenance(self) -> dict[str, Any]:
        """What made this forecast, for ``--dump-provenance``; the runner's own form needs a module that is gone."""
        # Once per run: it hashes the weights, and both the files' neighbours and the runner ask for it.
        if self._provenance is None:
            self._provenance = gather(
                variant=self.variant.name,
                options=self.options,
                steps=self._steps,
                initial=self._initial,
                engine=self._engine,
                metadata=self._metadata,
            )
        return self._provenance

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

    def _prepare(self) -> tuple[Any, Assets]:
        """Everything that can fail before the first field is read."""
        assets = locate(self.variant, Path(self.assets), self.options.checkpoint)
        check_assets(self.variant, assets, full=self.options.verify_assets)
        self._plan().check(self._labels(datetime(2000, 1, 1), EXPVER), archived=bool(self.archive_requests))
        if self._source in SOURCES:
            self._service = self._check_service()
        import torch

        from .engines.torch import choose_device

        if _given("--num-threads", self.num_threads):
            torch.set_num_threads(self.num_threads)
        if self.deterministic:
            self.torch_deterministic_mode()
        return choose_device(only_gpu=self.only_gpu), assets

    def _check_service(self) -> Service:
        """The service to read from, found able to answer."""
        service = find_account(self._source)
        reanalysis = is_reanalysis(self._source, self.variant)
        if self._wanted.time is not None:
            check_times(self._wanted.time, self.lagged, _now(), reanalysis=reanalysis, kept_days=kept_days(service))
        check_reachable(service)
        return service

    def _read_input(self) -> InitialState:
        grid, lags = self.variant.architecture.grid, self.variant.lags_hours
        if self._file is not None and is_zarr(self._file):
            return read_zarr(self._file, grid, lags, self._wanted)
        with talking_to(self._service, self.options.patience_s) if self._service else nullcontext():
            fields = self.all_fields
        if not hasattr(fields, "__len__"):
            raise InputError(f"--file {self._file}: expected GRIB messages, got {type(fields).__name__}")
        return read_initial_state(fields, grid, lags, self._wanted)

    def _load_engine(self, assets: Assets, device: Any) -> TorchEngine:
        from .engines.torch import load_engine

        precision = self.options.precision
        if precision == "auto":
            precision = "float16" if device.type == "cuda" else "float32"
        LOG.info("Loading the weights of %s", assets.checkpoint)
        return load_engine(self.variant, assets, device, precision)

    def _announce(self, engine: TorchEngine, ensemble: Ensemble) -> None:
        if engine.untrained:
            LOG.warning(
                "These weights are UNTRAINED, random numbers: the forecast shows that all works, and nothing else"
            )
        LOG.info("Running on %s", engine.description)
        history = len(ensemble.members) * len(self.variant.lags_hours)
        states = history * self.variant.architecture.grid.size * self.variant.architecture.channels * 4
        LOG.info(
            "%d members × %d steps of %d h, %d per batch, seed %d; estimated memory %.1f GB",
            len(ensemble.members),
            self._steps,
            self.variant.step_hours,
            ensemble.per_batch,
            ensemble.seed,
            (engine.memory_bytes(min(ensemble.per_batch, len(ensemble.members))) + states) / 1e9,
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

    def _outputs(self, initial: InitialState, *, untrained: bool) -> Outputs:
        labels = self._labels(initial.initial_time, UNTRAINED_EXPVER if untrained else EXPVER)
        return Outputs(self._plan(), labels, self._archive if self.archive_requests else None)

    def _archive(self, keys: dict[str, str], path: Path) -> None:
        self.archiving[str(path)].add(keys)


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)


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


@contextmanager
def _plain_errors(*, debug: bool) -> Iterator[None]:
    """Show what a user can act on as one message without a traceback; exit with 1, or 2 for a bad option."""
    try:
        yield
    except MosaicError as error:
        if debug:
            raise
        sys.stderr.write(f"ai-models mosaic {__version__}: {error}\n")
        raise SystemExit(2 if isinstance(error, OptionError) else 1) from error
