"""What a GPU makes of the network, and what it is asked to.

``python benchmarks/gpu.py --census`` counts one forward without a GPU: launches, bytes and operations by part, with the
time that follows from rates measured on an H100.

``python benchmarks/gpu.py --quick`` measures on a machine with a GPU in under 150 s: rates, parity, kernels, steps,
a whole run and the whole command. What it found so far is always in the JSON file; a section that fails is named there.
With ``--device cpu --variant mini`` it runs anywhere, without what only a GPU has.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import census
import quick
import torch

from ai_models_mosaic.engines.torch import PRECISIONS
from ai_models_mosaic.model.attention import BACKENDS
from ai_models_mosaic.variants import VARIANTS

AIMS = {"launches": 400, "GB per member": 15.0, "seconds per member": 0.031}
"""Of a forward of four members of era5, in float16; the second outside of products and attention."""


def print_census(options: argparse.Namespace) -> None:
    """The table, the aims, and all in JSON."""
    architecture = VARIANTS[options.variant].architecture
    counted = census.take(
        architecture, options.members, backend=options.backend or "triton", precision=PRECISIONS[options.precision]
    )
    print(f"Counted, not measured: {options.variant}, {options.members} members at once, {options.precision}; ", end="")
    print("launches of all of them, the rest per member.\n")
    print("\n".join(census.table(counted)))
    reached = (counted.launches, counted.bytes_per_member / 1e9, counted.seconds_per_member)
    print()
    for (name, aim), value in zip(AIMS.items(), reached, strict=True):
        print(f"{name}: {value:.4g}, aim {aim:g}: {'reached' if value <= aim else 'NOT reached'}")
    if options.json:
        options.json.write_text(json.dumps(counted.as_dict(), indent=1) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--census", action="store_true", help="count; needs no GPU")
    what.add_argument("--quick", action="store_true", help="measure")
    parser.add_argument("--variant", choices=sorted(VARIANTS), default="era5")
    parser.add_argument("--precision", choices=sorted(PRECISIONS), default="float16")
    parser.add_argument("--backend", choices=sorted(BACKENDS), help="of the attention (default: as a forecast has it)")
    parser.add_argument("--members", type=int, default=4, help="of the census, at once")
    parser.add_argument("--device", default="cuda", help="of --quick; cpu to try it")
    parser.add_argument("--seconds", type=float, default=quick.SECONDS, help="for all of --quick")
    parser.add_argument("--steps", type=int, default=10, help="of the whole run of --quick")
    parser.add_argument("--sections", nargs="+", choices=list(quick.SECTIONS), default=list(quick.SECTIONS))
    parser.add_argument("--json", type=Path, help="where raw figures go (default of --quick: gpu-DEVICE.json)")
    options = parser.parse_args()
    if options.census:
        print_census(options)
        return 0
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA GPU that PyTorch can use; --census counts without one, --device cpu tries --quick")
    return quick.run(options)


if __name__ == "__main__":
    raise SystemExit(main())
