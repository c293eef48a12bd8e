"""The plugin's own options, beside those of the runner."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import OptionError
from ..options.declarations import add_arguments, built, may_change, option, section, table, told_by
from ..outputs.options import OutputOptions
from .engine_options import INPUT, EngineOptions
from .ensemble_options import EnsembleOptions
from .fitted import check_fitted
from .listeners import CONTROL, Listeners


def _seconds(minutes: str) -> float:
    return 60 * float(minutes)


@dataclass(frozen=True)
class Options(EngineOptions, EnsembleOptions):
    """What the user asked of the plugin.

    Raises
    ------
    OptionError
        If a value makes no sense, or two do not go together.
    """

    input_grid_deg: float | None = option(
        "--input-grid",
        group=INPUT,
        parse=float,
        metavar="DEGREES",
        help="grid to ask CDS or MARS for; regridded conservatively to the variant's",
        shown="0.25",
        resume=told_by("input", "the fields that came are compared"),
    )
    patience_s: float = option(
        "--patience",
        group=INPUT,
        parse=_seconds,
        metavar="MINUTES",
        default=600.0,
        help="how long a service may be out of reach, once it has been asked, before the run ends",
        shown="10",
        resume=may_change("the fields that came are compared"),
    )
    dates: str | None = option(
        "--dates",
        group=CONTROL,
        metavar="LIST",
        help="several initial times, one after the other: 20200101,20200105 or 20200101/to/20200131/by/7; THH after a "
        "date is its hour. --path must tell them apart, as by {dataDate}",
        resume=may_change("every initial time is a run of its own"),
    )
    resume: bool = option(
        "--resume",
        group=CONTROL,
        default=False,
        help="go on with a run of the same options that ended early, from the state that it kept last; else begin",
        resume=may_change("it is what asks for going on"),
    )
    state_interval_s: float = option(
        "--state-interval",
        group=CONTROL,
        parse=float,
        metavar="SECONDS",
        default=20.0,
        help="time between two states that --resume can go on from; 0 keeps one after every step of every batch of "
        "members",
        shown="20",
        resume=may_change("no output depends on it"),
    )
    progress_file: Path | None = option(
        "--progress-file",
        group=CONTROL,
        parse=Path,
        metavar="FILE",
        help="append one line of JSON for every step of every batch of members, and for how the run ended",
        resume=may_change("it is no output"),
    )
    quiet: bool = option(
        "--quiet",
        group=CONTROL,
        default=False,
        help="log warnings and errors only; the runner's -v logs more",
        resume=may_change("it is no output"),
    )
    listeners: Listeners = section(Listeners)
    output: OutputOptions = section(OutputOptions)

    def __post_init__(self) -> None:
        EnsembleOptions.__post_init__(self)
        EngineOptions.__post_init__(self)
        self._check_ranges()
        check_fitted(self)
        factor = self.noise_factor if self.perturbations == "on" else 0.0
        self.growth.check(resume=self.resume, dates=self.dates, antithetic=self.antithetic, noise_factor=factor)

    def _check_ranges(self) -> None:
        """Refuse numbers that make no sense."""
        grid = self.input_grid_deg
        if grid is not None and not (0.1 <= grid <= 30 and abs(180 / grid - round(180 / grid)) < 1e-6):
            raise OptionError(
                f"--input-grid: expected degrees from 0.1 to 30 that divide 180, such as 0.25, 1 or 1.5, got {grid:g}"
            )
        if not 0 <= self.state_interval_s < 1e6:
            raise OptionError(f"--state-interval: expected seconds from 0, got {self.state_interval_s:g}")
        if not 0 <= self.patience_s < 6e7:
            raise OptionError(f"--patience: expected minutes from 0, got {self.patience_s / 60:g}")


def parser() -> argparse.ArgumentParser:
    """The parser of the options that the runner passes on."""
    made = argparse.ArgumentParser(
        prog="ai-models mosaic",
        usage="ai-models mosaic [options of the runner] [options below]",
        description="Options of the mosaic plugin. Those of the runner are listed by: ai-models --help",
        epilog="Options follow the word mosaic; abbreviations are not accepted. Where the rest is: the options of the "
        "runner in ai-models --help, both together in ai-models-mosaic forecast --help, and what they do at length in "
        "docs/input.md, docs/output.md and docs/operations.md.",
        allow_abbrev=False,
        add_help=False,
    )
    add_arguments(made, Options)
    return made


def parse_options(arguments: Sequence[str]) -> Options:
    """Read the options that the runner did not know.

    Parameters
    ----------
    arguments : sequence of str
        As typed.

    Raises
    ------
    OptionError
        If an option is unknown, or a value makes no sense.
    """
    made = parser()
    made.error = _refuse  # type: ignore[assignment]
    known, unknown = made.parse_known_args(list(arguments))
    if unknown:
        raise OptionError(
            f"unknown option{'s' if len(unknown) > 1 else ''} {' '.join(unknown)}: neither the runner "
            "(ai-models --help) nor the plugin (ai-models-mosaic options) knows it"
        )
    return built(Options, vars(known))


def option_table() -> str:
    """All options as a table in Markdown."""
    return table(Options)


def _refuse(message: str) -> None:
    raise OptionError(f"{message}. All options: ai-models-mosaic options")
