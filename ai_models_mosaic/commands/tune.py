"""``ai-models-mosaic tune``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..errors import OptionError
from ..forecast.console import say
from ..variants import VARIANTS
from . import Commands, add_command, add_variant

if TYPE_CHECKING:
    from ..model.attention.tuning import Timing

HEADER = "| stage | rows × keys/local keys | ms | TFLOP/s |\n|---|---|---|---|"


def add(commands: Commands) -> None:
    """Add the command to the subparsers."""
    tune = add_command(commands, "tune", "time how attention may be cut on this GPU, and keep what was fastest")
    add_variant(tune, "whose stages are timed (default: era5)", default="era5")
    tune.add_argument(
        "--precision", choices=("float16", "bfloat16"), default="float16", help="of the products (default: float16)"
    )
    tune.add_argument("--members", type=int, default=4, metavar="N", help="members in a batch (default: 4)")
    tune.set_defaults(command=run)


def run(known: argparse.Namespace) -> None:
    """Time, show and keep.

    Raises
    ------
    OptionError
        If there is no GPU, or nothing that runs on it.
    """
    import torch

    from ..model.attention.tuned import tuning_key, write_tuned
    from ..model.attention.tuning import event_timer, fastest, timings

    if known.members < 1:
        raise OptionError(f"--members: expected at least 1, got {known.members}")
    if not torch.cuda.is_available():
        raise OptionError(
            f"tune: expected an NVIDIA GPU, found none that PyTorch {torch.__version__} can use; check nvidia-smi and "
            "that this PyTorch was built for CUDA. On a CPU there is nothing to tune"
        )
    device, dtype = torch.device("cuda"), getattr(torch, known.precision)
    architecture = VARIANTS[known.variant].architecture
    say(f"{torch.cuda.get_device_name(device)}, {known.precision}, {known.members} members of {known.variant}")
    say(HEADER)
    measured = []
    with torch.inference_mode():
        for one in timings(architecture, device, dtype, event_timer(device), members=known.members):
            say(_line(one))
            measured.append(one)
    best = fastest(measured)
    if not best:
        raise OptionError(f"tune: no way to cut attention runs here: {measured[0].failure}")
    for shape, tiling in best.items():
        say(f"{shape}: {tiling}")
    path = write_tuned(tuning_key(device, dtype), best)
    say("Kept nowhere: AI_MODELS_MOSAIC_CACHE is off" if path is None else f"Kept in {path}")


def _line(one: Timing) -> str:
    if one.milliseconds is None:
        return f"| {one.shape} | {one.tiling} | does not run: {one.failure} | |"
    return f"| {one.shape} | {one.tiling} | {one.milliseconds:.3f} | {one.teraflops:.0f} |"
