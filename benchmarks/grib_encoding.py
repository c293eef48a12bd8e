"""Time to write a state as GRIB: from prepared templates, against the runner's own way.

``python benchmarks/grib_encoding.py [--variant era5]``
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from datetime import datetime
from pathlib import Path

import earthkit.data
import numpy as np
from pairs import compare

from ai_models_mosaic.channels import CHANNELS
from ai_models_mosaic.outputs.grib.files import MessageFiles
from ai_models_mosaic.outputs.grib.output import EXPVER, GribEncoder, GribOutput, Labels
from ai_models_mosaic.state import ForecastStep
from ai_models_mosaic.variants import VARIANTS

START = datetime(2020, 1, 1)


def write(path: Path, encoder: GribEncoder, forecast: ForecastStep) -> None:
    """A step into a file of its own, in turn."""
    files = MessageFiles()
    for job in GribOutput(str(path), encoder, files=files).jobs(forecast):
        commit = job()
        if commit is not None:
            commit()
    files.finish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", choices=sorted(VARIANTS), default="era5")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    grid = VARIANTS[options.variant].architecture.grid
    shape = (1, *grid.shape, len(CHANNELS))
    values = np.random.default_rng(0).normal(280, 20, shape).astype(np.float32)
    forecast = ForecastStep(1, 24, (1,), values, grid, START)
    with tempfile.TemporaryDirectory() as folder, GribEncoder(grid, Labels(START, 1, {})) as encoder:
        template = Path(folder) / "template.grib"
        write(template, encoder, ForecastStep(0, 0, (1,), values, grid, START))
        fields = earthkit.data.from_source("file", str(template))

        def ours() -> None:
            write(Path(f"{folder}/ours.grib"), encoder, forecast)

        def runners() -> None:
            labels = {"class": "ml", "stream": "enfo", "type": "pf", "expver": EXPVER}
            target = earthkit.data.new_grib_output(f"{folder}/runners.grib", split_output=True, edition=2, **labels)
            rows = np.swapaxes(values[0], 0, 1)[::-1]
            for channel, field in enumerate(fields):
                member = {"number": 1, "numberOfForecastsInEnsemble": 1}
                target.write(rows[..., channel], template=field, step=24, **member)
            target.close()

        ratio = compare({"templates": ours, "runner's way": runners}, options.repeats)
    print(f"{len(CHANNELS)} fields on {grid}, GRIB2, one core: runner's way / templates = {ratio:.1f}")


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)
    main()
