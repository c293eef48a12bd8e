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
from .option_parser import AUTO, parser
from .outputs.options import OutputOptions, output_options


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
        ``auto``, ``reference``, ``sdpa``, ``tiled``, ``flex`` or ``triton``.
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
    _check_ranges(known)
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


def _check_ranges(known: argparse.Namespace) -> None:
    """Refuse numbers that make no sense."""
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
