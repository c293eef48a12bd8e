"""What writing costs an ensemble of ``mini``, over the same forecast without output.

``python benchmarks/ensemble_output.py [--members 50] [--steps 10] [--only GRIB]``

Times of a busy machine drift; the processor's own do less, so both are printed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import earthkit.data
import torch

from ai_models_mosaic.checkpoints.files import locate
from ai_models_mosaic.engines.torch import load_engine
from ai_models_mosaic.forecast.rollout import Ensemble, rollout
from ai_models_mosaic.inputs.states import read_initial_state
from ai_models_mosaic.outputs.grib.keys import Labels
from ai_models_mosaic.outputs.grib.packing import Packing
from ai_models_mosaic.outputs.options import OutputOptions
from ai_models_mosaic.outputs.plan import OutputPlan
from ai_models_mosaic.outputs.products import parse_products
from ai_models_mosaic.outputs.writer import Outputs
from ai_models_mosaic.state import ForecastStep
from ai_models_mosaic.variants import VARIANTS

SAMPLE = Path(__file__).parent.parent / "examples" / "mini-input.grib"
PRODUCTS = parse_products("mean,spread,quantile:10,quantile:90,probability:10ws>15")


def kinds(folder: str, workers: int) -> dict[str, tuple[str | None, OutputOptions]]:
    """Path of GRIB and options of everything that is measured."""
    ccsds = OutputOptions(workers=workers, packing=Packing("ccsds"))
    return {
        "no output": (None, OutputOptions()),
        "GRIB": (f"{folder}/simple.grib", OutputOptions(workers=workers)),
        "GRIB in turn": (f"{folder}/serial.grib", OutputOptions(workers=0)),
        "GRIB, CCSDS": (f"{folder}/ccsds.grib", ccsds),
        "GRIB and products": (f"{folder}/both.grib", OutputOptions(workers=workers, products=PRODUCTS)),
        "products only": (f"{folder}/p.grib", OutputOptions(workers=workers, products=PRODUCTS, members=False)),
        "Zarr": (None, OutputOptions(workers=workers, grib=False, zarr=f"{folder}/x.zarr")),
        "NetCDF": (None, OutputOptions(workers=workers, grib=False, netcdf=f"{folder}/x.nc")),
    }


def run(plan: OutputPlan, made: Iterator[ForecastStep]) -> tuple[float, float]:
    """Seconds, and processor seconds, of a forecast and its output."""
    start, processor = time.perf_counter(), time.process_time()
    labels = Labels(datetime(2008, 4, 26, 6), len(plan.members), {}, packing=plan.options.packing)
    with Outputs(plan, labels) as outputs:
        for step in made:
            outputs.write(step)
    return time.perf_counter() - start, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=50)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", help="what to measure; always compared with no output")
    options = parser.parse_args()
    variant = VARIANTS["mini"]
    grid, members = variant.architecture.grid, tuple(range(1, options.members + 1))
    engine = load_engine(variant, locate(variant, Path(), None), torch.device("cpu"), "float32")
    initial = read_initial_state(earthkit.data.from_source("file", str(SAMPLE)), grid, variant.lags_hours)
    fields = options.members * options.steps * variant.architecture.channels
    print(f"{options.members} members × {options.steps} steps: {fields} fields on {grid}, {options.workers} workers")
    base = None
    with tempfile.TemporaryDirectory() as folder:
        for name, (path, output) in kinds(folder, options.workers).items():
            if base is not None and options.only is not None and name not in options.only:
                continue
            plan = OutputPlan(path, output, grid, variant.step_hours, options.steps, members)
            starts = dict.fromkeys(members, initial)
            steps = rollout(engine, starts, Ensemble(0, members), variant.step_hours, options.steps)
            wall, processor = run(plan, steps)
            base = base or (wall, processor)
            share = 1 - base[1] / processor
            print(
                f"{name}: {wall:.1f} s, processor {processor:.1f} s; {wall / base[0] - 1:+.0%} over no output; "
                f"share of the processor {share:.1%}, {(processor - base[1]) / fields * 1e3:.2f} ms per field",
                flush=True,
            )


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)
    main()
