"""Time, peak memory and difference of steps: the PyTorch engine and graphs, each in a process of its own.

``python benchmarks/onnx_step.py --variant era5 --checkpoint FILE.safetensors --onnx-model FILE.onnx [--steps 5]``

All go on from their own states, with the same noise. Differences are of float32 fields, over the standard
deviation of the PyTorch engine's field over the globe. With ``--keep FOLDER`` what an engine made stays,
and it goes on from there the next time: long runs can be made in parts, and engine by engine with ``--engines``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import earthkit.data
import numpy as np

from ai_models_mosaic.arrays import FloatArray
from ai_models_mosaic.channels import CHANNELS
from ai_models_mosaic.engines import Engine
from ai_models_mosaic.inputs.states import read_initial_state
from ai_models_mosaic.variants import VARIANTS, Variant

SAMPLE = Path(__file__).parent.parent / "examples" / "mini-input.grib"
PROGRESS = (0.25, 0.7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", choices=sorted(VARIANTS), default="mini")
    parser.add_argument("--assets", type=Path, default=Path())
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--onnx-model", type=Path, nargs="+", required=True, help="also several, such as in float16")
    parser.add_argument("--file", type=Path, default=SAMPLE, help="where to start")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--engines", nargs="+", help="torch, or names of graphs: run only these")
    parser.add_argument("--keep", type=Path, help="folder for what the engines made")
    parser.add_argument("--channels", action="store_true", help="the differences of every channel, too")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run(options)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(exist_ok=True)
        for name in options.engines or ("torch", *(path.name for path in options.onnx_model)):
            command = [sys.executable, *sys.argv, "--one", name, "--keep", str(folder)]
            subprocess.run(command, check=True)  # noqa: S603
        report(folder, options)


def run(options: argparse.Namespace) -> None:
    """One engine; states, times and memory go to files as they come."""
    started = time.perf_counter()
    variant = VARIANTS[options.variant]
    engine = _torch(variant, options) if options.one == "torch" else _onnx(variant, options)
    found = {"engine": engine.description, "load_s": round(time.perf_counter() - started, 1)}
    found["estimate_gb"] = round(engine.memory_bytes(1) / 1e9, 2)
    source = earthkit.data.from_source("file", str(options.file))
    history = read_initial_state(source, variant.architecture.grid, variant.lags_hours).values[None]
    noise = np.random.default_rng(1).normal(size=(options.steps, 1, engine.noise_width)).astype(np.float32)
    times: list[float] = []
    for step in range(options.steps):
        place = options.keep / f"{options.one}-{step + 1}.npy"
        if place.exists():
            history = np.concatenate([history[:, 1:], np.load(place)[None, None]], axis=1)
            continue
        before = time.perf_counter()
        state = engine.step(history, (PROGRESS[0] + step * variant.step_hours / 24, PROGRESS[1]), noise[step])
        times.append(round(time.perf_counter() - before, 2))
        np.save(place, state[0])
        history = np.concatenate([history[:, 1:], state[:, None]], axis=1)
        found |= {"step_s": times, "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)}
        (options.keep / f"{options.one}.json").write_text(json.dumps(found))


def report(folder: Path, options: argparse.Namespace) -> None:
    """Print what all engines that ran took, and how far graphs are from the PyTorch engine."""
    names = [
        name for name in ("torch", *(path.name for path in options.onnx_model)) if (folder / f"{name}.json").exists()
    ]
    for name in names:
        print(name, (folder / f"{name}.json").read_text())
    for name in names[1:]:
        for step in range(1, options.steps + 1):
            ours, theirs = (folder / f"{one}-{step}.npy" for one in (name, "torch"))
            if ours.exists() and theirs.exists():
                compare(f"{name}, step {step}", np.load(ours), np.load(theirs), every=options.channels)


def compare(what: str, ours: FloatArray, theirs: FloatArray, *, every: bool) -> None:
    """Print the differences of two states, (lon, lat, channel)."""
    std = theirs.std(axis=(0, 1), dtype=np.float64)
    apart = np.abs(ours.astype(np.float64) - theirs) / np.where(std > 0, std, 1)
    largest, mean = apart.max(axis=(0, 1)), np.sqrt((apart**2).mean(axis=(0, 1)))
    print(
        f"{what}: largest difference over std {largest.max():.1e} ({CHANNELS[largest.argmax()].label}), root mean "
        f"square {np.sqrt((mean**2).mean()):.1e}, all finite: {bool(np.isfinite(ours).all())}"
    )
    for channel, one, other in zip(CHANNELS, largest, mean, strict=True) if every else ():
        print(f"  {channel.label:6} largest {one:.1e}, root mean square {other:.1e}")


def _torch(variant: Variant, options: argparse.Namespace) -> Engine:
    import torch

    from ai_models_mosaic.checkpoints.files import locate
    from ai_models_mosaic.engines.torch import load_engine

    return load_engine(variant, locate(variant, options.assets, options.checkpoint), torch.device("cpu"), "float32")


def _onnx(variant: Variant, options: argparse.Namespace) -> Engine:
    from ai_models_mosaic.engines.onnx import load_engine

    return load_engine(variant, next(path for path in options.onnx_model if path.name == options.one))


if __name__ == "__main__":
    main()
