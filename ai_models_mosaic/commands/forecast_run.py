"""The forecast of ``ai-models mosaic``, without the runner: its options, and what they ask for."""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ..channels import LEVELS_HPA, PRESSURE_LEVEL_PARAMS, SINGLE_LEVEL_PARAMS
from ..errors import OptionError, OutputError
from ..files import named_errors, place_of, write_whole
from ..forecast import options
from ..forecast.console import hush
from ..forecast.runner_options import refuse_other_input
from ..forecast.setup import ForecastSetup
from ..inputs.initial_times import AskedTimes
from ..inputs.requests import parse_extra
from ..inputs.services import SOURCES
from ..outputs.grib.files import is_stream
from ..wording.log_lines import log_as
from .archive_requests import ArchiveRequests, request_text
from .config import read_config, write_config
from .surroundings import check_surroundings

PROGRAM = "ai-models-mosaic forecast"


def parser() -> argparse.ArgumentParser:
    """The parser of all options, those of the runner first, under its names."""
    return _Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [options]",
        description="The same forecast as of ai-models mosaic, with the same options, without the runner.",
        epilog="Abbreviations are not accepted. Where the rest is: other commands in ai-models-mosaic --help; what the "
        "options do at length in docs/forecast.md, docs/input.md, docs/output.md and docs/operations.md.",
        parents=[_runner_options(), options.parser()],
        allow_abbrev=False,
    )


def run(words: Sequence[str]) -> str:
    """Do what was asked for; returns what is to be printed.

    Parameters
    ----------
    words : sequence of str
        As typed after the name of the command.

    Raises
    ------
    MosaicError
        If something cannot be honoured.
    SystemExit
        In place of an error of the forecast itself, after it was shown.
    """
    typed = parser().parse_args(list(words))
    if typed.config is not None:
        words = [*read_config(typed.config, parser()), *words]
    if typed.write_config is not None:
        write_config(typed.write_config, parser(), words)
        return f"{typed.write_config}: to run it, {PROGRAM} --config {typed.write_config}\n"
    known, others = _runner_options().parse_known_args(words)
    if known.debug:
        logging.getLogger().setLevel("DEBUG")
    archive = ArchiveRequests(parse_extra(known.requests_extra)) if known.archive_requests else None
    setup = _setup(known, others, archive)
    if known.download_assets:
        setup.fetch_assets()
    text = _information(known, setup)
    if text is not None:
        return text
    provenance = setup.run(verbose=bool(known.verbose), debug=known.debug)
    if archive is not None:
        _report("--archive-requests", known.archive_requests, archive.text(as_json=known.json))
    if known.dump_provenance is not None:
        found = provenance[0] if len(provenance) == 1 else {"initial_times": provenance}
        _report("--dump-provenance", known.dump_provenance, json.dumps(found, indent=4))
    return ""


def _report(option: str, name: str, text: str) -> None:
    """Write what is told of a forecast that is complete."""
    path = Path(name)
    try:
        if is_stream(path):
            with named_errors(path):
                path.write_text(text, encoding="utf-8")
        else:
            with named_errors(path):
                path = place_of(path)
            write_whole(path, [text.encode()])
    except OutputError as error:
        raise OutputError(f"{option}: the forecast is complete, but this is not: {error}") from error


class _Parser(argparse.ArgumentParser):
    """Refuses what it cannot parse as everything else is refused."""

    def error(self, message: str) -> NoReturn:
        raise OptionError(f"{message}. All options: {PROGRAM} --help")


def _setup(known: argparse.Namespace, others: Sequence[str], archive: ArchiveRequests | None) -> ForecastSetup:
    if known.requests_extra and not (known.retrieve_requests or known.archive_requests):
        raise OptionError("--requests-extra: expected --retrieve-requests or --archive-requests with it")
    assets = known.assets / "mosaic" if known.assets_sub_directory else known.assets
    chosen = options.parse_options(others)
    if chosen.listeners.log_format is not None:
        log_as(chosen.listeners.log_format)
    hush(quiet=chosen.quiet)
    check_surroundings()
    return ForecastSetup(
        options=chosen,
        source=_source(known),
        file=known.file,
        times=AskedTimes(known.date, known.time, staging_dates=known.staging_dates),
        lead_time_hours=known.lead_time,
        path=known.path if known.output == "file" else None,
        metadata=_metadata(known),
        assets=assets,
        threads=known.num_threads,
        only_gpu=known.only_gpu,
        deterministic=known.deterministic,
        requests_extra=known.requests_extra,
        reports={"--archive-requests": known.archive_requests, "--dump-provenance": known.dump_provenance},
        archive=None if archive is None else archive.add,
        program=PROGRAM.split()[0],
    )


def _source(known: argparse.Namespace) -> str:
    """Where the input comes from: a file, if one is named."""
    refuse_other_input(known.input, known.file)
    return "file" if known.file is not None else known.input or "mars"


def _metadata(known: argparse.Namespace) -> dict[str, str]:
    """The user's GRIB keys; those with an option of their own win."""
    pairs = [pair.split("=") for pair in known.metadata or []]
    for pair in pairs:
        if len(pair) != 2:
            raise OptionError(f"--metadata: expected KEY=VALUE, got {'='.join(pair)!r}")
    own = {"expver": known.expver, "class": known.class_}
    return {**dict(pairs), **{key: value for key, value in own.items() if value is not None}}


def _information(known: argparse.Namespace, setup: ForecastSetup) -> str | None:
    """What was asked for in place of a forecast, if anything."""
    if known.fields:
        return _fields_text(setup)
    if known.retrieve_requests:
        constants = known.retrieve_fields_type == "constants"
        requests = [] if constants else setup.requests(only_newest=known.retrieve_only_one_date)
        if known.json:
            return json.dumps(requests, indent=4) + "\n"
        return "".join(request_text("retrieve", request) for request in requests)
    if known.assets_list:
        return "".join(f"{name}\n" for name in setup.variant.asset_files)
    return None


def _fields_text(setup: ForecastSetup) -> str:
    return (
        f"Grid: {[setup.input_grid_deg] * 2}\nArea: {setup.area}\n"
        f"Pressure levels:\n   Levels: {LEVELS_HPA}\n   Params: {PRESSURE_LEVEL_PARAMS}\n"
        f"Single levels:\n   Params: {SINGLE_LEVEL_PARAMS}\n"
    )


def _runner_options() -> argparse.ArgumentParser:
    """Those that the runner has for every model, with its defaults."""
    made = _Parser(prog=PROGRAM, add_help=False, allow_abbrev=False)
    for add in (_add_configuration, _add_start, _add_run, _add_result, _add_information):
        add(made)
    return made


def _add_configuration(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group("configuration")
    group.add_argument(
        "--config",
        type=Path,
        metavar="FILE.toml",
        help="options by their names without hyphens, such as lead-time = 240; what is typed wins",
    )
    group.add_argument(
        "--write-config", type=Path, metavar="FILE.toml", help="write such a file of all that was asked for, and end"
    )
    group.add_argument("--debug", action="store_true", help="log all, and let errors keep their traceback")
    group.add_argument("-v", "--verbose", action="store_true", help="log every batch")


def _add_start(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group("start")
    group.add_argument("--input", choices=["file", *SOURCES], help="where the input is from (default: mars)")
    group.add_argument("--file", help="a GRIB file or a Zarr store to start from")
    group.add_argument(
        "--date", help="initial date: YYYYMMDD, or days from today such as -1 (default: -1; of a file, its newest)"
    )
    group.add_argument(
        "--time", type=int, metavar="HOUR", help="initial hour, UTC (default: 12; of a file, its newest)"
    )
    group.add_argument("--staging-dates", metavar="FILE", help="several initial times, one in ISO format per line")


def _add_run(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group("length and machine")
    group.add_argument("--lead-time", type=int, default=240, metavar="HOURS", help="of the forecast (default: 240)")
    group.add_argument("--num-threads", type=int, metavar="N", help="of the CPU (default: what is fastest)")
    group.add_argument("--only-gpu", action="store_true", help="fail where there is no GPU")
    group.add_argument("--deterministic", action="store_true", help="algorithms that give the same bits every time")
    group.add_argument(
        "--assets",
        type=Path,
        default=Path(os.environ.get("AI_MODELS_ASSETS", ".")),
        metavar="FOLDER",
        help="of the weights (default: AI_MODELS_ASSETS, else this folder)",
    )
    group.add_argument(
        "--assets-sub-directory", action=argparse.BooleanOptionalAction, help="take the folder mosaic in --assets"
    )
    group.add_argument("--download-assets", action="store_true", help="fetch what is not there")


def _add_result(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group("result")
    group.add_argument("--output", choices=["file", "none"], default="file", help="whether GRIB is written")
    group.add_argument("--path", default="mosaic.grib", help="of GRIB, with keys in braces (default: mosaic.grib)")
    group.add_argument("--expver", help="experiment version of the output")
    group.add_argument("--class", dest="class_", metavar="CLASS", help="class of the output")
    group.add_argument("--metadata", action="append", metavar="KEY=VALUE", help="another GRIB key; may be repeated")
    group.add_argument("--archive-requests", metavar="FILE", help="MARS requests to archive the output")
    group.add_argument("--dump-provenance", metavar="FILE", help="what made the forecast, as JSON")


def _add_information(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group("information, in place of a forecast")
    group.add_argument("--fields", action="store_true", help="the input that is needed")
    group.add_argument("--assets-list", action="store_true", help="the files that are needed")
    group.add_argument("--retrieve-requests", action="store_true", help="the MARS requests of the input")
    group.add_argument("--requests-extra", metavar="KEY=VALUE,...", help="more keys, or others, of requests")
    group.add_argument("--json", action="store_true", help="requests as JSON")
    group.add_argument("--retrieve-fields-type", choices=["constants", "prognostics", "all"], default="all")
    group.add_argument("--retrieve-only-one-date", action="store_true", help="the last state only")
