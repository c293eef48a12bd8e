"""Threads and how they wait, in turn in processes of their own, idle and beside two busy loops.

``python benchmarks/threads.py [--variant era5 --checkpoint FILE --shallow] [--rounds 9]``. Libraries read how their
threads wait when they are loaded, so every way has a process, which stays and makes its steps when it is its turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}

WAYS: dict[str, tuple[int, dict[str, str]]] = {
    "1 thread": (1, {}),
    "2 threads": (2, {}),
    "2 threads, passive": (2, PASSIVE),
}
"""Threads and environment."""

BUSY = "while True: pass"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="mini")
    parser.add_argument("--checkpoint", type=Path, help="default: the bundled one, or random weights")
    parser.add_argument("--shallow", action="store_true", help="one block per resolution: for the full size")
    parser.add_argument("--onnx", type=Path, metavar="FILE", help="a graph, for ONNX Runtime in place of PyTorch")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4, help="of one member, in every turn")
    parser.add_argument("--loops", type=int, default=2, help="busy ones, in every other round")
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--spinning", default="1", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.checkpoint is None and options.onnx is None and (options.shallow or options.variant != "mini"):
            options.checkpoint = _random(options, Path(folder))
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """Print the medians of all ways, idle and busy."""
    times: dict[tuple[str, str], list[list[float]]] = {}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(worker(options, *way)) for name, way in WAYS.items()}
        for turn in range(options.rounds):
            for load in ("idle", "busy"):
                with busy(options.loops if load == "busy" else 0):
                    order = list(workers) if turn % 2 else list(workers)[::-1]
                    for name in order:
                        times.setdefault((name, load), []).append(_turn(workers[name]))
    print(f"{options.variant}, {options.rounds} rounds of {options.steps} steps, {options.loops} loops")
    print("| | idle: s | CPU s | busy: s | CPU s |\n|---|---|---|---|---|")
    for name in WAYS:
        cells = [
            f"{statistics.median(column) / options.steps:.3g}"
            for load in ("idle", "busy")
            for column in zip(*times[name, load], strict=True)
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def _turn(process: subprocess.Popen[str]) -> list[float]:
    assert process.stdin is not None  # noqa: S101
    assert process.stdout is not None  # noqa: S101
    process.stdin.write("\n")
    process.stdin.flush()
    taken: list[float] = json.loads(process.stdout.readline())
    return taken


@contextmanager
def worker(options: argparse.Namespace, threads: int, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that makes steps whenever it gets a line; it has made some when this begins."""
    command = [sys.executable, __file__, "--work", str(threads), "--variant", options.variant]
    command += ["--steps", str(options.steps), *["--shallow"] * options.shallow]
    command += ["--spinning", "0" if environment else "1"]
    for name in ("checkpoint", "onnx"):
        command += [] if getattr(options, name) is None else [f"--{name}", str(getattr(options, name))]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "MKL_"))}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=kept | environment, **pipes)  # noqa: S603
    try:
        _turn(process)
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """So many loops beside, for as long as this lasts."""
    started = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(loops)]  # noqa: S603
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def work(options: argparse.Namespace) -> None:
    """Make steps when asked to; print how long they took, by the clock and of the processor."""
    import numpy as np
    from member_step import progress_of, variant_of

    variant = variant_of(options)
    engine = _onnx_engine(variant, options) if options.onnx else _torch_engine(variant, options)
    architecture = variant.architecture
    generator = np.random.default_rng(0)
    shape = (1, architecture.history, *architecture.grid.shape, architecture.channels)
    history = generator.normal(size=shape).astype(np.float32)
    noise = generator.normal(size=(1, architecture.noise_width)).astype(np.float32)
    done = 0
    for _ in sys.stdin:
        start = time.perf_counter(), time.process_time()
        for _ in range(options.steps):
            done += 1
            engine.step(history, progress_of(done), noise)
        print(json.dumps([time.perf_counter() - start[0], time.process_time() - start[1]]), flush=True)


def _torch_engine(variant: Any, options: argparse.Namespace) -> Any:
    import torch

    from ai_models_mosaic.checkpoints.files import locate
    from ai_models_mosaic.engines.torch import load_engine

    torch.set_num_threads(options.work)
    assets = locate(variant, Path(), options.checkpoint)
    return load_engine(variant, assets, torch.device("cpu"), "float32")


def _onnx_engine(variant: Any, options: argparse.Namespace) -> Any:
    from ai_models_mosaic.engines.onnx import load_engine

    return load_engine(variant, options.onnx, threads=options.work, spinning=options.spinning == "1")


def _random(options: argparse.Namespace, folder: Path) -> Path:
    from member_step import random_checkpoint, variant_of

    return random_checkpoint(variant_of(options), folder)


if __name__ == "__main__":
    main()
