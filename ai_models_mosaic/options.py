"""The plugin's own options, beside those of the runner."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .engines.onnx import ANYWHERE, Provider
from .errors import OptionError
from .outputs.options import OutputOptions, add_arguments, output_options
from .variants import VARIANTS

AUTO = "auto"


@dataclass(frozen=True)
class Options:
    """What the user asked of the plugin.

    Parameters
    ----------
    variant : str
        A name in `VARIANTS`, or ``auto``.
    ensemble_size : int or None
        Members of the whole ensemble; None if it was not said.
    members : tuple of int
        Members to run, in this order.
    seed : int
        0 … 2⁶⁴ − 1.
    members_per_batch : int or None
        Members that go through the network together; None: as many as the engine finds best.
    precision : str
        ``auto``, ``float32``, ``float16`` or ``bfloat16``.
    checkpoint : Path or None
        Weights to use instead of the variant's.
    input_grid_deg : float or None
        Grid to ask a service for.
    patience_s : float
        How long a service may be out of reach once requests are queued.
    verify_assets : bool
        Hash all assets, not only those that changed.
    engine : str
        ``torch`` or ``onnx``.
    attention_backend : str
        ``auto``, ``reference``, ``sdpa``, ``flex`` or ``triton``.
    onnx_model : Path or None
        The graph that the engine ``onnx`` runs.
    onnx_provider : Provider
        Where it runs.
    perturbations : str
        ``on``, or ``off`` for ε = 0.
    noise_factor : float
        What ε is multiplied with.
    antithetic : bool
        Even members have the negated ε of the odd ones before them.
    dates : str or None
        Initial times, as `dates.parse_dates` reads them.
    resume : bool
        Go on with an unfinished run.
    progress_file : Path or None
        Where to note progress for scripts.
    quiet : bool
        Log warnings only.
    cuda_graphs : bool
        Record the step on a GPU and replay it.
    compiled : bool
        Compile the blocks of the network.
    output : OutputOptions
        What is written, in which form, and where.
    """

    variant: str
    ensemble_size: int | None
    members: tuple[int, ...]
    seed: int
    members_per_batch: int | None
    precision: str
    checkpoint: Path | None
    input_grid_deg: float | None
    patience_s: float = 600.0
    verify_assets: bool = False
    engine: str = "torch"
    attention_backend: str = AUTO
    onnx_model: Path | None = None
    onnx_provider: Provider = ANYWHERE
    perturbations: str = "on"
    noise_factor: float = 1.0
    antithetic: bool = False
    dates: str | None = None
    resume: bool = False
    progress_file: Path | None = None
    quiet: bool = False
    cuda_graphs: bool = False
    compiled: bool = False
    output: OutputOptions = field(default_factory=OutputOptions)


def parser() -> argparse.ArgumentParser:
    """The parser of the options that the runner passes on."""
    made = argparse.ArgumentParser(
        prog="ai-models mosaic",
        usage="ai-models mosaic [options of the runner] [options below]",
        description="Options of the mosaic plugin. Those of the runner are listed by: ai-models --help",
        epilog="Options follow the word mosaic; abbreviations are not accepted.",
        allow_abbrev=False,
        add_help=False,
    )
    made.add_argument(
        "--variant",
        choices=[AUTO, *VARIANTS],
        default=AUTO,
        help="weights and time step: era5 (24 h), hres (6 h) or mini (24 h, 6°, bundled). auto takes era5 for CDS, "
        "hres for MARS and open data, and for a file what its class suggests (default: auto)",
    )
    made.add_argument(
        "--num-ensemble-members",
        type=int,
        metavar="N",
        help="members of the ensemble, numbered 1 to N (default: 1, unless --member-number is given)",
    )
    made.add_argument(
        "--member-number",
        metavar="LIST",
        help="run only these members, in this order, such as 1,3,5-8; each is the same as in a run of all",
    )
    made.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the members' perturbations, 0 to 2**64 - 1; the initial time is part of it (default: 0)",
    )
    made.add_argument(
        "--members-per-batch",
        type=int,
        metavar="N",
        help="members that go through the network together. Where the memory does not suffice, half as many from "
        "then on (default: 1 on a CPU, on a GPU what fits into its free memory, up to 16)",
    )
    made.add_argument(
        "--precision",
        choices=["auto", "float32", "float16", "bfloat16"],
        default="auto",
        help="precision of the matrix products; auto is float16 on a GPU and float32 on a CPU (default: auto)",
    )
    made.add_argument(
        "--cuda-graphs",
        action="store_true",
        help="on an NVIDIA GPU, record the step once and replay it; goes on without where that fails",
    )
    made.add_argument(
        "--compile",
        action="store_true",
        dest="compiled",
        help="compile the blocks of the network with torch.compile, which takes minutes the first time, and is kept on "
        "disk; members are then equal to rounding only, with any number of them per batch",
    )
    made.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="weights to use instead of those in --assets: a released .pt or a .safetensors file",
    )
    made.add_argument(
        "--input-grid",
        type=float,
        metavar="DEGREES",
        help="grid to ask CDS or MARS for; regridded conservatively to the variant's (default: 0.25)",
    )
    made.add_argument(
        "--patience",
        type=float,
        default=10,
        metavar="MINUTES",
        help="how long a service may be out of reach, once it has been asked, before the run ends (default: 10)",
    )
    made.add_argument(
        "--verify-assets",
        action="store_true",
        help="hash weights and other assets before the run, even where size and time are as they were when checked",
    )
    made.add_argument(
        "--engine",
        choices=["torch", "onnx"],
        default="torch",
        help="what runs the network: PyTorch, or ONNX Runtime with the graph of --onnx-model (default: torch)",
    )
    made.add_argument(
        "--attention-backend",
        choices=[AUTO, "reference", "sdpa", "flex", "triton"],
        default=AUTO,
        help="what computes attention for --engine torch; tried against reference before the run. auto is triton on a "
        "GPU in half precision and else sdpa, and the next best where that fails (default: auto)",
    )
    made.add_argument(
        "--onnx-model",
        type=Path,
        metavar="FILE",
        help="graph for --engine onnx, with its weights inside, as ai-models-mosaic export-onnx writes it",
    )
    made.add_argument(
        "--onnx-provider",
        metavar="NAME[,KEY=VALUE...]",
        help="where --engine onnx runs, and options handed on, such as CUDA,device_id=1; what cannot be had is "
        "refused. Without it a GPU is taken where ONNX Runtime was built for one, else the CPU",
    )
    _add_noise(made)
    _add_run_control(made)
    add_arguments(made)
    return made


def _add_noise(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--perturbations",
        choices=["on", "off"],
        default="on",
        help="off gives the network no noise: the members differ by where they start, if at all (default: on)",
    )
    made.add_argument(
        "--noise-factor",
        type=float,
        default=1.0,
        metavar="F",
        help="multiply the noise of the members; the weights were trained with 1 (default: 1.0)",
    )
    made.add_argument(
        "--antithetic",
        action="store_true",
        help="members in pairs: 2 has the negated noise of 1, 4 that of 3, and so on",
    )


def _add_run_control(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--dates",
        metavar="LIST",
        help="several initial times, one after the other: 20200101,20200105 or 20200101/to/20200131/by/7; THH after a "
        "date is its hour. --path must tell them apart, as by {dataDate}",
    )
    made.add_argument(
        "--resume",
        action="store_true",
        help="go on with a run of the same options that ended early, from its last complete step; else begin",
    )
    made.add_argument(
        "--progress-file",
        type=Path,
        metavar="FILE",
        help="append one line of JSON for every step of every batch of members, and for how the run ended",
    )
    made.add_argument("--quiet", action="store_true", help="log warnings and errors only; the runner's -v logs more")


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
    size = known.num_ensemble_members
    if size is None and known.member_number is None:
        size = 1
    if size is not None and size < 1:
        raise OptionError(f"--num-ensemble-members: expected at least 1, got {size}")
    everyone = tuple(range(1, (size or 1) + 1))
    members = everyone if known.member_number is None else parse_members(known.member_number)
    if size is not None and max(members) > size:
        raise OptionError(
            f"--member-number: expected numbers from 1 to {size} (--num-ensemble-members), got {max(members)}"
        )
    grid = known.input_grid
    if grid is not None and not (0.1 <= grid <= 30 and abs(180 / grid - round(180 / grid)) < 1e-6):
        raise OptionError(
            f"--input-grid: expected degrees from 0.1 to 30 that divide 180, such as 0.25, 1 or 1.5, got {grid:g}"
        )
    if known.members_per_batch is not None and known.members_per_batch < 1:
        raise OptionError(f"--members-per-batch: expected at least 1, got {known.members_per_batch}")
    if not 0 <= known.seed < 2**64:
        raise OptionError(f"--seed: expected 0 to 2**64 - 1, got {known.seed}")
    if not 0 <= known.noise_factor <= 10:
        raise OptionError(f"--noise-factor: expected 0 to 10, got {known.noise_factor:g}")
    if not 0 <= known.patience < 1e6:
        raise OptionError(f"--patience: expected minutes from 0, got {known.patience:g}")
    _check_engine(known)
    return Options(
        variant=known.variant,
        ensemble_size=size,
        members=members,
        seed=known.seed,
        members_per_batch=known.members_per_batch,
        precision=known.precision,
        checkpoint=known.checkpoint,
        input_grid_deg=known.input_grid,
        patience_s=60 * known.patience,
        verify_assets=known.verify_assets,
        engine=known.engine,
        attention_backend=known.attention_backend,
        onnx_model=known.onnx_model,
        onnx_provider=parse_provider(known.onnx_provider),
        perturbations=known.perturbations,
        noise_factor=known.noise_factor,
        antithetic=known.antithetic,
        dates=known.dates,
        resume=known.resume,
        progress_file=known.progress_file,
        quiet=known.quiet,
        cuda_graphs=known.cuda_graphs,
        compiled=known.compiled,
        output=output_options(known),
    )


def parse_members(text: str) -> tuple[int, ...]:
    """Member numbers of a list such as ``1,3,5-8``, in the order given; ``8-5`` counts down.

    Parameters
    ----------
    text : str
        Numbers and ranges, separated by commas.

    Raises
    ------
    OptionError
        If it is no such list, or names a member twice.
    """
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match or int(match[1]) < 1 or int(match[2] or 1) < 1:
            raise OptionError(f"--member-number: expected numbers from 1 and ranges, such as 1,3,5-8, got {text!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        numbers.extend(range(first, last + 1) if first <= last else range(first, last - 1, -1))
    repeated = sorted(number for number, count in Counter(numbers).items() if count > 1)
    if repeated:
        raise OptionError(f"--member-number: expected each member once, got {repeated[0]} twice in {text!r}")
    return tuple(numbers)


def parse_provider(text: str | None) -> Provider:
    """A provider of ONNX Runtime and its options, from text such as ``CUDA,device_id=1``.

    Parameters
    ----------
    text : str or None
        A name, with or without its ending ``ExecutionProvider``, then options.

    Raises
    ------
    OptionError
        If it is of another form.
    """
    if text is None:
        return ANYWHERE
    name, *options = (part.strip() for part in text.split(","))
    pairs = tuple((key, value) for key, found, value in (option.partition("=") for option in options) if key and found)
    if not re.fullmatch(r"\w+", name) or len(pairs) != len(options):
        raise OptionError(
            f"--onnx-provider: expected a name and perhaps options, such as CPU or CUDA,device_id=1, got {text!r}"
        )
    return Provider(name.removesuffix("ExecutionProvider") + "ExecutionProvider", pairs)


def _check_engine(known: argparse.Namespace) -> None:
    """Refuse options of one engine that are given to the other."""
    if known.engine == "onnx":
        if known.onnx_model is None:
            raise OptionError(
                "--engine onnx: expected --onnx-model FILE as well, which ai-models-mosaic export-onnx makes of "
                "a checkpoint"
            )
        if known.checkpoint is not None:
            raise OptionError(
                "--checkpoint: the engine onnx takes its weights from --onnx-model; export that checkpoint, or give "
                "--engine torch"
            )
        for option, given in (("--cuda-graphs", known.cuda_graphs), ("--compile", known.compiled)):
            if given:
                raise OptionError(f"{option} is for --engine torch, and the engine is onnx; leave it out")
        if known.attention_backend != AUTO:
            raise OptionError("--attention-backend is for --engine torch, and the engine is onnx; leave one out")
        return
    for option in ("onnx_model", "onnx_provider"):
        if getattr(known, option) is not None:
            raise OptionError(f"--{option.replace('_', '-')} is for --engine onnx, and the engine is torch; give both")


def _refuse(message: str) -> None:
    raise OptionError(f"{message}. All options: ai-models-mosaic options")
