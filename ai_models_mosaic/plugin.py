"""The surface towards ECMWF's ai-models runner: its options, its information, and nothing of the forecast.

The runner is archived upstream, so what it does wrong is worked around here and nothing below
this module knows of it. Its own inputs are built, but never asked: what reads for it is `input_reader`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ai_models.inputs import available_inputs
from ai_models.model import Model

from .channels import LEVELS_HPA, PRESSURE_LEVEL_PARAMS, SINGLE_LEVEL_PARAMS
from .commands.surroundings import check_surroundings
from .engines.threads import wait_passively
from .errors import OptionError
from .forecast.console import hush, plain_errors, printing
from .forecast.options import parse_options
from .forecast.runner_options import refuse_other_input
from .forecast.setup import ForecastSetup
from .inputs.initial_times import DEFAULT_DATE, DEFAULT_TIME, AskedTimes
from .inputs.services import SOURCES
from .outputs.grib.keys import EXPVER
from .wording.log_lines import log_as
from .wording.redaction import redact_process

RUNNER_DEFAULTS = {"--date": DEFAULT_DATE, "--time": DEFAULT_TIME, "--num-threads": 1}
"""What the runner hands on where nothing was typed."""

UNSUPPORTED = {
    "hindcast_reference_year": "run one date at a time, without it",
    "hindcast_reference_date": "run one date at a time, without it",
    "model_version": "--variant and --checkpoint say what runs",
}
"""Options of the runner that are refused rather than ignored, and what to do."""

LATEST = "latest"
"""The runner's default of ``--model-version``."""

REPORTS = ("--archive-requests", "--dump-provenance")
"""Files that the runner writes when the forecast is done."""


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
        wait_passively()
        redact_process()
        with plain_errors(debug=kwargs["debug"]):
            _refuse_unsupported(kwargs)
            refuse_other_input(_typed_input(), kwargs["file"])
            options = parse_options(kwargs["model_args"])
            if options.listeners.log_format is not None:
                log_as(options.listeners.log_format)
            hush(quiet=options.quiet)
            check_surroundings()
            self._setup = ForecastSetup(
                options=options,
                source=input,
                file=kwargs["file"],
                times=_times(kwargs),
                lead_time_hours=kwargs["lead_time"],
                path=kwargs["path"] if output != "none" else None,
                # The runner adds its own defaults to this very dict: copied, it still says what the user gave.
                metadata=dict(kwargs["metadata"]),
                assets=Path(kwargs["assets"]),
                threads=_typed("--num-threads", kwargs["num_threads"]),
                only_gpu=kwargs["only_gpu"],
                deterministic=kwargs["deterministic"],
                requests_extra=kwargs["requests_extra"],
                reports={option: kwargs[option[2:].replace("-", "_")] for option in REPORTS},
                archive=self._archive if kwargs["archive_requests"] else None,
                other=None if input in ("file", *SOURCES) else _OtherInput(self),
            )
            self.variant = self._setup.variant
            self._provenance: list[dict[str, Any]] = []
            super().__init__(input, output, download_assets, **kwargs)

    def parse_model_args(self, args: list[str]) -> None:
        """Nothing left to do: the options were read before the runner built its input and output."""

    # What the runner's information options, and inputs of third parties, ask for.

    @property
    def lagged(self) -> list[int]:
        """Hours of the input states relative to the initial time."""
        return list(self.variant.lags_hours)

    @property
    def grid(self) -> list[float]:
        """Grid to ask a service for, degrees."""
        return [self._setup.input_grid_deg] * 2

    @property
    def area(self) -> list[float]:
        """The whole globe: north, west, south, east."""
        return self._setup.area

    @property
    def download_files(self) -> list[str]:
        """Files that the variant needs in the assets folder."""
        return list(self.variant.asset_files)

    def print_requests(self) -> None:
        """Show the requests of ``--retrieve-requests``."""
        with plain_errors(debug=self.debug), printing():
            super().print_requests()

    def _requests(self) -> list[dict[str, Any]]:
        """MARS requests, each complete: the runner's own lack grid and area from the second on."""
        if self.retrieve_fields_type == "constants":
            return []
        return self._setup.requests(only_newest=self.retrieve_only_one_date)

    def download_assets(self, **kwargs: Any) -> None:
        """Fetch what the variant needs and the assets folder lacks; the runner calls this with its other options."""
        self._setup.fetch_assets()

    # The forecast.

    def run(self) -> None:
        """Read, forecast, write."""
        self._provenance = self._setup.run(verbose=bool(self.verbose), debug=self.debug)

    def provenance(self) -> dict[str, Any]:
        """What made this forecast, for ``--dump-provenance``; the runner's own form needs a module that is gone."""
        found = self._provenance
        return found[0] if len(found) == 1 else {"initial_times": found}

    def _archive(self, keys: dict[str, str], path: Path) -> None:
        self.archiving[str(path)].add(keys)


@dataclass(frozen=True)
class _OtherInput:
    """An input that a third party has added to the runner, as a `retrieve.Source`."""

    model: MosaicModel

    def fields(self, times: Sequence[datetime], folder: Path) -> Iterable[Any]:
        """What it gives for the newest of some times and the history of that, of which it asks the model."""
        model, start = self.model, times[-1]
        model.staging_dates, model.date, model.time = None, int(f"{start:%Y%m%d}"), start.hour
        for name in ("all_fields", "fields_pl", "fields_sfc", "fields_ml"):
            model.__dict__.pop(name, None)
            model.input.__dict__.pop(name, None)
        fields: Iterable[Any] = model.all_fields
        return fields


def _times(kwargs: dict[str, Any]) -> AskedTimes:
    date, time = _typed("--date", str(kwargs["date"])), _typed("--time", kwargs["time"])
    return AskedTimes(date, time, staging_dates=kwargs["staging_dates"])


def _refuse_unsupported(kwargs: dict[str, Any]) -> None:
    for name, instead in UNSUPPORTED.items():
        if kwargs.get(name) not in (None, "", LATEST):
            raise OptionError(f"--{name.replace('_', '-')} is not supported by mosaic: {instead}")


def _typed_input() -> str | None:
    """The last input that the user gave to the runner, which forgets it where a file is named; None if that is none.

    In a program that calls the runner, options of that program are typed, and ``--input`` may be anything.
    """
    words, option = sys.argv[1:], "--input"
    given = [
        value if sign else following
        for (word, sign, value), following in zip((w.partition("=") for w in words), [*words[1:], None], strict=True)
        if option.startswith(word) and len(word) > 2
    ]
    return given[-1] if given and given[-1] in available_inputs() else None


def _typed(option: str, value: Any) -> Any:
    """The value of an option of the runner, if the user gave it: one that is its default may still have been typed.

    The runner accepts abbreviations, so any beginning counts.
    """
    words = (word.split("=")[0] for word in sys.argv[1:])
    given = value != RUNNER_DEFAULTS[option] or any(option.startswith(word) and len(word) > 2 for word in words)
    return value if given else None
