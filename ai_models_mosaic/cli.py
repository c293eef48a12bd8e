"""The package's own command: what there is to do beside a forecast."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from . import __version__
from .checkpoints.files import LICENCE
from .commands.surroundings import check_surroundings
from .errors import MosaicError, OptionError, ReplayError
from .forecast.console import report, say, show_all_characters
from .training import command as training_command
from .variants import VARIANTS
from .verification.options import add_options as _add_verify_options
from .wording.numbers import counted
from .wording.redaction import redact_process
from .world import command as world_command

Command = Callable[[argparse.Namespace], None]

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class _Parser(argparse.ArgumentParser):
    """A parser whose help may be piped to what reads the beginning only."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is sys.stdout:
            say(message, end="")
        else:
            super()._print_message(message, file)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status: 0, or that of the kind of error that was shown."""
    show_all_characters()
    redact_process()
    try:
        parser = _parser()
        known, others = parser.parse_known_args(arguments)
        if others and known.command is not _forecast:
            parser.error(f"unrecognized arguments: {' '.join(others)}")
        known.words = others
        logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(message)s")
        command: Command = known.command
        command(known)
    except (MosaicError, KeyboardInterrupt) as error:
        return report("ai-models-mosaic", error)
    return 0


def _parser() -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = _Parser(
        prog="ai-models-mosaic", description="Beside the forecast: ai-models mosaic …"
    )
    made.add_argument("--version", action="version", version=__version__)
    commands = made.add_subparsers(required=True, metavar="COMMAND")

    # Its own parser reads its options: to build that takes imports which no other command should wait for.
    forecast = commands.add_parser("forecast", add_help=False, help="a forecast, as of ai-models mosaic but without it")
    forecast.set_defaults(command=_forecast)
    _add_looking(commands)
    _add_weights(commands)
    _add_export(commands)
    _add_replay(commands)
    training_command.add(commands)
    world_command.add(commands)
    verify = commands.add_parser("verify", help="scores, spectra and pictures of forecasts against truth")
    _add_verify_options(verify)
    verify.set_defaults(command=_verify)
    return made


def _add_looking(commands: Commands) -> None:
    show = commands.add_parser("options", help="list the options that the plugin adds to ai-models")
    show.add_argument("--markdown", action="store_true", help="as the table of the README")
    show.set_defaults(command=_options)

    inspect = commands.add_parser("inspect", help="say what an ensemble in GRIB files holds, and what it lacks")
    inspect.add_argument("files", nargs="+", type=Path, metavar="FILE")
    inspect.set_defaults(command=_inspect)

    doctor = commands.add_parser("doctor", help="check this installation, and say what would go wrong with a forecast")
    doctor.add_argument("--variant", choices=sorted(VARIANTS), default="mini")
    doctor.add_argument("--assets", type=Path, default=Path(os.environ.get("AI_MODELS_ASSETS", ".")), metavar="FOLDER")
    doctor.add_argument("--members", type=int, default=1, metavar="N")
    doctor.add_argument("--lead-time", type=int, default=240, metavar="HOURS")
    doctor.add_argument("--output", type=Path, default=Path(), metavar="FOLDER", help="where the output would go")
    doctor.set_defaults(command=_doctor)


def _add_weights(commands: Commands) -> None:
    download = commands.add_parser("download", help="fetch what a variant needs from the hub, without a forecast")
    download.add_argument("--variant", choices=sorted(VARIANTS), required=True)
    download.add_argument(
        "--assets",
        type=Path,
        default=Path(os.environ.get("AI_MODELS_ASSETS", ".")),
        metavar="FOLDER",
        help="where to (default: AI_MODELS_ASSETS, else this folder)",
    )
    download.add_argument(
        "--revision", metavar="COMMIT", help="another state of the hub than the one that this version is made for"
    )
    download.set_defaults(command=_download)

    convert = commands.add_parser("convert-checkpoint", help="write a released .pt checkpoint as safetensors")
    convert.add_argument("--variant", choices=sorted(VARIANTS), required=True, help="whose weights they are")
    convert.add_argument("--licence", default=LICENCE, help=f"of the weights, if no record tells (default: {LICENCE})")
    convert.add_argument("source", type=Path, metavar="IN.pt")
    convert.add_argument("target", type=Path, metavar="OUT.safetensors")
    convert.set_defaults(command=_convert_checkpoint)

    random = commands.add_parser(
        "random-checkpoint", help="write untrained weights, to try an installation or a machine's memory"
    )
    random.add_argument("--variant", choices=sorted(VARIANTS), required=True)
    random.add_argument(
        "--sample",
        type=Path,
        required=True,
        metavar="GRIB",
        help="input whose mean and spread serve as normalisation",
    )
    random.add_argument("--output", type=Path, required=True, metavar="FILE.safetensors")
    random.add_argument("--seed", type=int, default=0)
    random.set_defaults(command=_random_checkpoint)


def _add_export(commands: Commands) -> None:
    export = commands.add_parser("export-onnx", help="write a step of the network as an ONNX model, for --engine onnx")
    export.add_argument("--variant", choices=sorted(VARIANTS), required=True)
    export.add_argument("--assets", type=Path, default=Path(os.environ.get("AI_MODELS_ASSETS", ".")), metavar="FOLDER")
    export.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights to use instead of the variant's")
    export.add_argument("--output", type=Path, required=True, metavar="FILE.onnx")
    export.add_argument("--precision", choices=["float32", "float16"], default="float32")
    export.add_argument("--batch", type=int, metavar="N", help="members per call, if fixed (default: any number)")
    export.set_defaults(command=_export_onnx)


def _add_replay(commands: Commands) -> None:
    replay = commands.add_parser("replay", help="make some fields of a forecast again, from the card beside its output")
    replay.add_argument("card", type=Path, metavar="NAME.grib.provenance.json")
    replay.add_argument("--member", type=int, required=True, metavar="N")
    replay.add_argument("--steps", required=True, metavar="HOURS", help="such as 24 or 96-120")
    replay.add_argument("--params", metavar="LIST", help="such as 2t,z500,u (default: all)")
    replay.add_argument("--output", type=Path, required=True, metavar="FILE")
    replay.add_argument("--file", help="the input, if it is elsewhere than it was")
    replay.add_argument("--assets", type=Path, metavar="FOLDER", help="of the weights, if they are elsewhere")
    replay.set_defaults(command=_replay)


def _forecast(known: argparse.Namespace) -> None:
    from .commands.forecast import run

    say(run(known.words), end="")


def _options(known: argparse.Namespace) -> None:
    from .forecast.options import option_table, parser

    say(option_table() if known.markdown else parser().format_help(), end="")


def _inspect(known: argparse.Namespace) -> None:
    check_surroundings()
    from .commands.inspect import inspect_ensemble

    say(inspect_ensemble(known.files))


def _doctor(known: argparse.Namespace) -> None:
    from .commands.doctor import FAILURE, IntendedForecast, examine

    variant = VARIANTS[known.variant]
    plan = IntendedForecast(variant, known.assets, known.members, known.lead_time // variant.step_hours, known.output)
    failures = 0
    for finding in examine(plan):
        say(str(finding))
        failures += finding.level == FAILURE
    if failures:
        raise MosaicError(f"{failures} of these checks failed: a forecast with variant {variant.name} would not work")


def _download(known: argparse.Namespace) -> None:
    from .checkpoints.hub import REVISION, fetch

    fetch(VARIANTS[known.variant], known.assets, revision=known.revision or REVISION)


def _convert_checkpoint(known: argparse.Namespace) -> None:
    from .checkpoints.convert import convert_checkpoint

    convert_checkpoint(VARIANTS[known.variant], known.source, known.target, known.licence)


def _verify(known: argparse.Namespace) -> None:
    check_surroundings()
    from .verification.command import run
    from .verification.report import OVERVIEW

    paths = run(known)
    say((known.output / OVERVIEW).read_text(encoding="utf-8"))
    say(f"{len(paths)} files in {known.output}")


def _export_onnx(known: argparse.Namespace) -> None:
    from .checkpoints.files import locate
    from .engines.onnx_export import Form, export_onnx

    variant = VARIANTS[known.variant]
    assets = locate(variant, known.assets, known.checkpoint)
    card = export_onnx(variant, assets, known.output, Form(known.precision, known.batch))
    members = "any number of members" if card.batch is None else counted(card.batch, "member")
    untrained = ", UNTRAINED" if card.untrained else ""
    say(f"{known.output}: variant {variant.name}, {card.precision}, {members}, opset {card.opset}{untrained}")


def _replay(known: argparse.Namespace) -> None:
    check_surroundings()
    from .forecast.recorded import read_card
    from .forecast.replay import choose_channels, choose_hours, replay

    card = read_card(known.card)
    hours, channels = choose_hours(known.steps, card), choose_channels(known.params)
    found = replay(card, known.member, hours, channels, known.output, file=known.file, assets=known.assets)
    say(f"{known.output}: {found}")
    if found.differing:
        raise ReplayError(f"{len(found.differing)} fields are not those of the original")


def _random_checkpoint(known: argparse.Namespace) -> None:
    check_surroundings()
    from .checkpoints.random_weights import make_random_checkpoint
    from .inputs.grib_messages import find_messages
    from .inputs.requests import check_file
    from .inputs.states import read_initial_state

    variant = VARIANTS[known.variant]
    if known.output.suffix != ".safetensors" or not known.output.parent.is_dir():
        raise OptionError(
            f"--output: expected the name of a .safetensors file in a folder that exists, got {known.output}"
        )
    fields = find_messages(Path(check_file(str(known.sample))))
    sample = read_initial_state(fields, variant.architecture.grid, variant.lags_hours)
    make_random_checkpoint(variant, sample, known.output, known.seed)
    say(f"{known.output}: variant {variant.name}, UNTRAINED, {known.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(main())
