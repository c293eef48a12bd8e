"""Time, peak memory and difference of one step: the PyTorch engine and the ONNX engine, each in its own process.

``python benchmarks/onnx_step.py --variant era5 --checkpoint FILE.safetensors --onnx-model FILE.onnx [--steps 5]``
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

import numpy as np

from ai_models_mosaic.engines import Engine
from ai_models_mosaic.variants import VARIANTS, Variant

PROGRESS = (0.25, 0.7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", choices=sorted(VARIANTS), default="mini")
    parser.add_argument("--assets", type=Path, default=Path())
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--onnx-model", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--one", choices=["torch", "onnx"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in ("torch", "onnx"):
            subprocess.run([sys.executable, *sys.argv, "--one", name, "--folder", folder], check=True)  # noqa: S603
        outputs = {name: np.load(Path(folder) / f"{name}.npy") for name in ("torch", "onnx")}
        std = np.load(Path(folder) / "std.npy")
        for name in outputs:
            print(name, json.loads((Path(folder) / f"{name}.json").read_text()))
    for step, (ours, theirs) in enumerate(zip(outputs["onnx"], outputs["torch"], strict=True), start=1):
        worst = np.abs((ours - theirs) / std)
        print(
            f"after step {step}: largest difference over std {worst.max():.1e}, root mean square "
            f"{np.sqrt((worst**2).mean()):.1e}, all finite: {bool(np.isfinite(ours).all())}"
        )


def run(options: argparse.Namespace) -> None:
    """One engine, its time and memory to a file; the torch engine also makes the input for both."""
    started = time.perf_counter()
    variant = VARIANTS[options.variant]
    engine = _torch(variant, options) if options.one == "torch" else _onnx(variant, options.onnx_model)
    loaded = time.perf_counter()
    history = np.load(options.folder / "history.npy")
    noise = np.random.default_rng(1).normal(size=(1, engine.noise_width)).astype(np.float32)
    states, times = [], []
    for step in range(options.steps):
        before = time.perf_counter()
        state = engine.step(history, (PROGRESS[0] + step * variant.step_hours / 24, PROGRESS[1]), noise)
        times.append(time.perf_counter() - before)
        states.append(state[0])
        history = np.concatenate([history[:, 1:], state[:, None]], axis=1)
    np.save(options.folder / f"{options.one}.npy", np.stack(states))
    found = {
        "engine": engine.description,
        "load_s": round(loaded - started, 1),
        "step_s": [round(seconds, 2) for seconds in times],
        "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "estimate_gb": round(engine.memory_bytes(1) / 1e9, 2),
    }
    (options.folder / f"{options.one}.json").write_text(json.dumps(found))


def _torch(variant: Variant, options: argparse.Namespace) -> Engine:
    import torch

    from ai_models_mosaic.assets import locate, read_statistics
    from ai_models_mosaic.checkpoint import read_checkpoint
    from ai_models_mosaic.engines.torch import load_engine

    assets = locate(variant, options.assets, options.checkpoint)
    statistics = read_statistics(variant, assets, read_checkpoint(assets.checkpoint))
    shape = (1, variant.architecture.history, *variant.architecture.grid.shape, variant.architecture.channels)
    values = statistics.mean + statistics.std * np.random.default_rng(0).normal(size=shape)
    np.save(options.folder / "history.npy", values.astype(np.float32))
    np.save(options.folder / "std.npy", statistics.std)
    return load_engine(variant, assets, torch.device("cpu"), "float32")


def _onnx(variant: Variant, path: Path) -> Engine:
    from ai_models_mosaic.engines.onnx import load_engine

    return load_engine(variant, path)


if __name__ == "__main__":
    main()
