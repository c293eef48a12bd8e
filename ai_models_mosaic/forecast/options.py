"""The plugin's own options, beside those of the runner."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engines.choice import EngineChoice, parse_provider
from ..engines.providers import ANYWHERE, Provider
from ..errors import OptionError
from ..options.crossing import Crossing, parse_crossing
from ..options.declarations import add_arguments, built, may_change, option, section, table, told_by
from ..options.number_lists import parse_numbers
from ..outputs.options import OutputOptions
from ..variants import AUTO, VARIANTS
from .listeners import CONTROL, Listeners

ENSEMBLE, INPUT, NETWORK, NOISE = "ensemble", "input and weights", "engine", "noise"
"""Headings of the list of options."""

MOST_MEMBERS = 65_534
"""GRIB numbers members with two octets, the last of whose values is that for missing."""


def parse_members(text: str) -> tuple[int, ...]:
    """Member numbers of a list such as ``1,3,5-8``, in the order given; see `number_lists`.

    Raises
    ------
    OptionError
        If it is no such list, or names a member twice.
    """
    return parse_numbers(text, "--member-number", least=1)


def _seconds(minutes: str) -> float:
    return 60 * float(minutes)


@dataclass(frozen=True)
class Options:
    """What the user asked of the plugin.

    Raises
    ------
    OptionError
        If a value makes no sense, or two do not go together.
    """

    variant: str = option(
        "--variant",
        group=ENSEMBLE,
        choices=(AUTO, *VARIANTS),
        default=AUTO,
        help="weights and time step: era5 (24 h), hres (6 h) or mini (24 h, 6°, bundled). auto takes era5 for CDS, "
        "hres for MARS and open data, and for a file what its class suggests",
        resume=told_by("variant", "what it stands for may not change"),
    )
    ensemble_size: int | None = option(
        "--num-ensemble-members",
        group=ENSEMBLE,
        parse=int,
        metavar="N",
        help="members of the ensemble, numbered 1 to N",
        shown="1, unless --member-number is given",
    )
    members: tuple[int, ...] = option(
        "--member-number",
        group=ENSEMBLE,
        parse=parse_members,
        metavar="LIST",
        default=(),
        help="run only these members, in this order, such as 1,3,5-8; each is the same as in a run of all",
        shown="all",
    )
    crossed: Crossing | None = option(
        "--crossed",
        group=ENSEMBLE,
        parse=parse_crossing,
        metavar="MxK",
        help="M starts of an ensemble with the same K draws of noise each; --zarr or --netcdf has the variance split",
    )
    seed: int = option(
        "--seed",
        group=ENSEMBLE,
        parse=int,
        default=0,
        help="seed of the members' perturbations, 0 to 2**64 - 1; the initial time is part of it",
    )
    members_per_batch: int | None = option(
        "--members-per-batch",
        group=ENSEMBLE,
        parse=int,
        metavar="N",
        help="members that go through the network together. Where the memory does not suffice, half as many from "
        "then on",
        shown="1 on a CPU, on a GPU what fits into its free memory, up to 16",
        resume=told_by("members_per_batch", "without it, the run keeps the number that it began with"),
    )
    checkpoint: Path | None = option(
        "--checkpoint",
        group=INPUT,
        parse=Path,
        metavar="FILE",
        help="weights to use instead of those in --assets: a released .pt or a .safetensors file",
        resume=told_by("weights", "the same may lie elsewhere"),
    )
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
    verify_assets: bool = option(
        "--verify-assets",
        group=INPUT,
        default=False,
        help="hash weights and other assets before the run, even where size and time are as they were when checked",
        resume=may_change("digests are compared in any case"),
    )
    engine: str = option(
        "--engine",
        group=NETWORK,
        choices=("torch", "onnx"),
        default="torch",
        help="what runs the network: PyTorch, or ONNX Runtime with the graph of --onnx-model",
    )
    precision: str = option(
        "--precision",
        group=NETWORK,
        choices=("auto", "float32", "float16", "bfloat16"),
        default="auto",
        help="precision of the matrix products; auto is float16 on a GPU and float32 on a CPU",
        resume=told_by("precision", "what it stands for may not change"),
    )
    attention_backend: str = option(
        "--attention-backend",
        group=NETWORK,
        choices=(AUTO, "reference", "sdpa", "tiled", "flex", "triton", "fa4"),
        default=AUTO,
        help="what computes attention for --engine torch; tried against reference before the run. auto is triton on a "
        "GPU in half precision, tiled for the full size in float32 on a CPU and else sdpa; the next best where one "
        "fails",
    )
    cuda_graphs: bool = option(
        "--cuda-graphs",
        group=NETWORK,
        default=False,
        help="on an NVIDIA GPU, record the step once and replay it; goes on without where that fails",
        resume=may_change("the same kernels run"),
    )
    compiled: bool = option(
        "--compile",
        group=NETWORK,
        default=False,
        help="compile the blocks of the network with torch.compile, which takes minutes the first time, and is kept on "
        "disk; members are then equal to rounding only, with any number of them per batch",
    )
    onnx_model: Path | None = option(
        "--onnx-model",
        group=NETWORK,
        parse=Path,
        metavar="FILE",
        help="graph for --engine onnx, with its weights inside, as ai-models-mosaic export-onnx writes it",
        resume=told_by("weights", "the same may lie elsewhere"),
    )
    onnx_provider: Provider = option(
        "--onnx-provider",
        group=NETWORK,
        parse=parse_provider,
        metavar="NAME[,KEY=VALUE...]",
        default=ANYWHERE,
        help="where --engine onnx runs, and options handed on, such as CUDA,device_id=1; what cannot be had is refused",
        shown="a GPU where ONNX Runtime was built for one, else the CPU",
    )
    perturbations: str = option(
        "--perturbations",
        group=NOISE,
        choices=("on", "off"),
        default="on",
        help="off gives the network no noise: the members differ by where they start, if at all",
    )
    noise_factor: float = option(
        "--noise-factor",
        group=NOISE,
        parse=float,
        metavar="F",
        default=1.0,
        help="multiply the noise of the members; the weights were trained with 1",
    )
    antithetic: bool = option(
        "--antithetic",
        group=NOISE,
        default=False,
        help="members in pairs: 2 has the negated noise of 1, 4 that of 3, and so on",
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
        if self.crossed:
            self.crossed.refuse(self.ensemble_size, self.members, antithetic=self.antithetic)
            object.__setattr__(self, "ensemble_size", self.crossed.size)
        if self.ensemble_size is None and not self.members:
            object.__setattr__(self, "ensemble_size", 1)
        size = self.ensemble_size
        if size is not None and size < 1:
            raise OptionError(f"--num-ensemble-members: expected at least 1, got {size}")
        if size is not None and size > MOST_MEMBERS:
            raise OptionError(f"--num-ensemble-members: expected at most {MOST_MEMBERS}, got {size}")
        if not self.members:
            object.__setattr__(self, "members", tuple(range(1, (size or 1) + 1)))
        if min(self.members) < 1 or len(set(self.members)) < len(self.members):
            raise OptionError(f"--member-number: expected distinct numbers from 1, got {self.members}")
        if size is not None and max(self.members) > size:
            raise OptionError(
                f"--member-number: expected numbers from 1 to {size} (--num-ensemble-members), got {max(self.members)}"
            )
        self._check_ranges()
        if self.engine == "onnx":
            self._check_onnx()
        else:
            self._check_torch()

    def engine_choice(self, assets: Path, **machine: Any) -> EngineChoice:
        """What runs the network, and where.

        Parameters
        ----------
        assets : Path
            Folder of weights and other assets.
        **machine : object
            Fields of `EngineChoice` that are no options here.
        """
        return EngineChoice(
            name=self.engine,
            assets=assets,
            checkpoint=self.checkpoint,
            verify_assets=self.verify_assets,
            precision=self.precision,
            attention_backend=self.attention_backend,
            cuda_graphs=self.cuda_graphs,
            compiled=self.compiled,
            onnx_model=self.onnx_model,
            onnx_provider=self.onnx_provider,
            **machine,
        )

    @property
    def starts(self) -> int:
        """How many starts a crossed ensemble has; else 0."""
        return self.crossed.starts if self.crossed else 0

    def _check_ranges(self) -> None:
        """Refuse numbers that make no sense."""
        grid = self.input_grid_deg
        if grid is not None and not (0.1 <= grid <= 30 and abs(180 / grid - round(180 / grid)) < 1e-6):
            raise OptionError(
                f"--input-grid: expected degrees from 0.1 to 30 that divide 180, such as 0.25, 1 or 1.5, got {grid:g}"
            )
        if self.members_per_batch is not None and self.members_per_batch < 1:
            raise OptionError(f"--members-per-batch: expected at least 1, got {self.members_per_batch}")
        if not 0 <= self.seed < 2**64:
            raise OptionError(f"--seed: expected 0 to 2**64 - 1, got {self.seed}")
        if not 0 <= self.noise_factor <= 10:
            raise OptionError(f"--noise-factor: expected 0 to 10, got {self.noise_factor:g}")
        if not 0 <= self.state_interval_s < 1e6:
            raise OptionError(f"--state-interval: expected seconds from 0, got {self.state_interval_s:g}")
        if not 0 <= self.patience_s < 6e7:
            raise OptionError(f"--patience: expected minutes from 0, got {self.patience_s / 60:g}")

    def _check_onnx(self) -> None:
        """Refuse what is for PyTorch alone."""
        if self.onnx_model is None:
            raise OptionError(
                "--engine onnx: expected --onnx-model FILE as well, which ai-models-mosaic export-onnx makes of "
                "a checkpoint"
            )
        if self.checkpoint is not None:
            raise OptionError(
                "--checkpoint: the engine onnx takes its weights from --onnx-model; export that checkpoint, or give "
                "--engine torch"
            )
        for flag, given in (("--cuda-graphs", self.cuda_graphs), ("--compile", self.compiled)):
            if given:
                raise OptionError(f"{flag} is for --engine torch, and the engine is onnx; leave it out")
        if self.attention_backend != AUTO:
            raise OptionError("--attention-backend is for --engine torch, and the engine is onnx; leave one out")

    def _check_torch(self) -> None:
        """Refuse what is for ONNX Runtime alone."""
        given = {"--onnx-model": self.onnx_model is not None, "--onnx-provider": self.onnx_provider != ANYWHERE}
        for flag in (flag for flag, is_given in given.items() if is_given):
            raise OptionError(f"{flag} is for --engine onnx, and the engine is torch; give both")


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
