"""The parser of the plugin's own options, beside those of the runner."""

from __future__ import annotations

import argparse
from pathlib import Path

from .outputs.options import add_arguments
from .variants import VARIANTS

AUTO = "auto"


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
    _add_ensemble(made.add_argument_group("ensemble"))
    _add_input(made.add_argument_group("input and weights"))
    _add_engine(made.add_argument_group("engine"))
    _add_noise(made.add_argument_group("noise"))
    _add_run_control(made.add_argument_group("run"))
    add_arguments(made.add_argument_group("output"))
    return made


def _add_ensemble(made: argparse._ArgumentGroup) -> None:
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


def _add_input(made: argparse._ArgumentGroup) -> None:
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


def _add_engine(made: argparse._ArgumentGroup) -> None:
    made.add_argument(
        "--engine",
        choices=["torch", "onnx"],
        default="torch",
        help="what runs the network: PyTorch, or ONNX Runtime with the graph of --onnx-model (default: torch)",
    )
    made.add_argument(
        "--precision",
        choices=["auto", "float32", "float16", "bfloat16"],
        default="auto",
        help="precision of the matrix products; auto is float16 on a GPU and float32 on a CPU (default: auto)",
    )
    made.add_argument(
        "--attention-backend",
        choices=[AUTO, "reference", "sdpa", "tiled", "flex", "triton"],
        default=AUTO,
        help="what computes attention for --engine torch; tried against reference before the run. auto is triton on a "
        "GPU in half precision, tiled for the full size in float32 on a CPU and else sdpa; the next best where one "
        "fails (default: auto)",
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


def _add_noise(made: argparse._ArgumentGroup) -> None:
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


def _add_run_control(made: argparse._ArgumentGroup) -> None:
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
