"""Time from the start of the process to the first step of a forecast, by part, with a cold and a warm cache.

``python benchmarks/start_up.py --checkpoint FILE [--variant era5] [--without-neighbours] [--json FILE]``

The runner's own program runs, in a process of its own, until it asks the engine for the first step. The cache
meant is that of neighbours and regridding weights; the checkpoint itself may or may not be in the system's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

SAMPLE = Path(__file__).parent.parent / "examples" / "mini-input.grib"

PARTS = (
    ("ai_models_mosaic.plugin", "MosaicModel._read_input", "read and regrid the input"),
    ("ai_models_mosaic.inputs.states", "ConservativeRegridder.__init__", "regridding weights"),
    ("ai_models_mosaic.plugin", "check_assets", "check the files"),
    ("ai_models_mosaic.engines.torch", "read_checkpoint", "map the weights"),
    ("ai_models_mosaic.engines.torch", "build_network", "make the network"),
    ("ai_models_mosaic.model.buffers", "kept_neighbours", "neighbours"),
    ("ai_models_mosaic.checkpoints.format", "make_buffers", "other buffers"),
    ("ai_models_mosaic.forecast.series", "gather", "provenance, with the digest of the weights"),
    ("ai_models_mosaic.plugin", "Outputs.__init__", "begin the output"),
)
"""Functions whose time is told, less that of those within; where they are looked up when called."""


CLOCKS = {"wall": time.perf_counter, "processor": time.thread_time}
"""What parts are measured by: on a machine with other work, the main thread's processor time tells more."""


class Clock:
    """Self times of parts that may lie within each other.

    Parameters
    ----------
    kind : str
        A name in `CLOCKS`.
    """

    def __init__(self, kind: str = "wall") -> None:
        self.now = CLOCKS[kind]
        self.parts: dict[str, float] = {}
        self._within = [0.0]

    def lap(self, name: str, seconds: float) -> None:
        """Add to a part."""
        self.parts[name] = self.parts.get(name, 0.0) + seconds
        self._within[-1] += seconds

    def wrap(self, module: str, path: str, name: str) -> None:
        """Measure a function whenever it is called."""
        *owners, attribute = path.split(".")
        owner: Any = sys.modules[module]
        for part in owners:
            owner = getattr(owner, part)
        function: Callable[..., Any] = getattr(owner, attribute)

        @wraps(function)
        def measured(*arguments: Any, **more: Any) -> Any:
            start = self.now()
            self._within.append(0.0)
            try:
                return function(*arguments, **more)
            finally:
                whole, within = self.now() - start, self._within.pop()
                self.parts[name] = self.parts.get(name, 0.0) + whole - within
                self._within[-1] += whole

        setattr(owner, attribute, measured)


def child(options: argparse.Namespace) -> None:
    """The runner's program, up to the first step."""
    clock, started = Clock(options.clock), float(options.started)
    clock.lap("start Python", time.time() - started if options.clock == "wall" else time.thread_time())
    for name, modules in (
        ("import the runner and the plugin", ("ai_models.__main__", "ai_models_mosaic.plugin")),
        ("import torch", ("torch",)),
        ("import the engine", ("ai_models_mosaic.engines.torch", "ai_models_mosaic.forecast.series")),
    ):
        start = clock.now()
        for module in modules:
            __import__(module)
        clock.lap(name, clock.now() - start)
    for part in PARTS:
        clock.wrap(*part)
    from ai_models_mosaic.engines.torch import TorchEngine

    make = TorchEngine.advance

    def reached(*arguments: Any) -> Any:
        reached_after = time.time() - started if options.clock == "wall" else time.thread_time()
        found: dict[str, Any] = {"first step begins": reached_after, "processor time": time.process_time()}
        if options.step:
            start = time.perf_counter()
            make(*arguments)
            found["first step"] = time.perf_counter() - start
        found["parts"] = {**clock.parts, "the rest": found["first step begins"] - sum(clock.parts.values())}
        options.json.write_text(json.dumps(found))
        raise SystemExit(0)

    TorchEngine.advance = reached  # type: ignore[assignment, method-assign]
    from ai_models.__main__ import main as run

    words = ["mosaic", "--variant", options.variant, "--file", str(options.input), "--lead-time", "24"]
    words += ["--assets", str(options.assets), "--path", str(options.json.parent / "out.grib")]
    sys.argv = ["ai-models", *words, *(["--checkpoint", str(options.checkpoint)] if options.checkpoint else [])]
    run()


def bare(checkpoint: Path, folder: Path) -> Path:
    """A copy of a checkpoint without the neighbours that it carries."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(checkpoint, framework="pt") as file:
        metadata = file.metadata()
    tensors = {key: tensor for key, tensor in load_file(checkpoint).items() if not key.endswith("neighbors")}
    save_file(tensors, folder / "bare.safetensors", metadata=metadata)
    return folder / "bare.safetensors"


def measure(options: argparse.Namespace, cache: str) -> dict[str, Any]:
    """One start, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "parts.json"
        command = [sys.executable, __file__, "--variant", options.variant, "--input", options.input]
        command += ["--assets", options.assets, "--json", result, *(["--step"] if options.step else [])]
        command += ["--checkpoint", options.checkpoint] if options.checkpoint else []
        command += ["--clock", options.clock]
        words = [*(str(word) for word in command), "--started", repr(time.time())]
        done = subprocess.run(  # noqa: S603
            words, env={**os.environ, "AI_MODELS_MOSAIC_CACHE": cache}, capture_output=True, text=True, check=False
        )
        if not result.exists():
            raise SystemExit(f"the forecast ended early:\n{done.stderr}")
        return dict(json.loads(result.read_text()))


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--variant", default="era5")
    made.add_argument("--checkpoint", type=Path)
    made.add_argument("--assets", type=Path, default=Path())
    made.add_argument("--input", type=Path, default=SAMPLE, help="any GRIB file of the variant's history")
    made.add_argument("--without-neighbours", action="store_true", help="drop those that the checkpoint carries")
    made.add_argument("--step", action="store_true", help="make the first step as well")
    made.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    made.add_argument("--json", type=Path, help="write raw figures")
    made.add_argument("--started", help=argparse.SUPPRESS)
    options = made.parse_args()
    if options.started:
        child(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.without_neighbours:
            options.checkpoint = bare(options.checkpoint, Path(folder))
        # The first start of all brings Python's and torch's files into memory, and is not shown.
        measure(options, f"{folder}/unused")
        found = {cache: measure(options, f"{folder}/cache") for cache in ("cold", "warm")}
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    print("| seconds | cold cache | warm cache |\n|---|---|---|")
    for name in found["cold"]["parts"]:
        print(f"| {name} | " + " | ".join(f"{found[cache]['parts'].get(name, 0):.2f}" for cache in found) + " |")
    for name in ("first step begins", "processor time", "first step")[: 2 + options.step]:
        print(f"| **{name}** | " + " | ".join(f"{found[cache][name]:.2f}" for cache in found) + " |")


if __name__ == "__main__":
    main()
