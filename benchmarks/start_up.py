"""Time from the start of the process to the first step of a forecast, by part.

``python benchmarks/start_up.py [--variant era5 --checkpoint FILE] [--against CHECKOUT] [--repeats 5] [--json FILE]``

``ai-models-mosaic forecast`` runs, in a process of its own, until the noise of the first step is drawn. With
``--against`` another checkout's does so in turn, and the starts are compared pair by pair. Parts are of the main
thread: what runs beside it shows only in what it no longer waits for. The first start of all brings files into the
system's memory and fills the cache of neighbours and regridding weights, and is not counted.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "examples" / "mini-input.grib"

PARTS = {
    "ai_models_mosaic.inputs.reader": {"InputReader.read": "read and regrid the input"},
    "ai_models_mosaic.inputs.states": {"ConservativeRegridder.__init__": "regridding weights"},
    "ai_models_mosaic.engines.choice": {"check_assets": "check the files"},
    "ai_models_mosaic.engines.torch": {
        "choose_backend": "try the attention backend",
        "choose_form": "try the attention backend",
        "read_checkpoint": "read the weights",
        "build_network": "make the network",
        "TorchEngine.__init__": "prepare the network",
    },
    "ai_models_mosaic.model.buffers": {"kept_neighbours": "neighbours"},
    "ai_models_mosaic.checkpoints.format": {"make_buffers": "other buffers"},
    "ai_models_mosaic.forecast.series": {"card_of": "provenance, with the digest of the weights"},
    "ai_models_mosaic.forecast.destination": {"Destination.open": "begin the output"},
}
"""Functions whose time is told, less that of those within, by the module where they are looked up when called."""

IMPORTS = {"torch": "import torch", "numpy": "import NumPy", "scipy": "import SciPy", "eccodes": "import ecCodes"}
"""Packages whose import is told; all of this one's modules are one more."""

FIRST = ("ai_models_mosaic.forecast.rollout", "Ensemble.noise")
"""What the first step begins with."""

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

    @contextmanager
    def lap(self, name: str) -> Iterator[None]:
        """Add what is done within to a part."""
        start = self.now()
        self._within.append(0.0)
        try:
            yield
        finally:
            whole, within = self.now() - start, self._within.pop()
            self.parts[name] = self.parts.get(name, 0.0) + whole - within
            self._within[-1] += whole

    def wrap(self, module: ModuleType, path: str, name: str) -> None:
        """Measure a function whenever it is called."""
        _replace(module, path, lambda function: self._measured(function, name))

    def _measured(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        @wraps(function)
        def measured(*arguments: Any, **more: Any) -> Any:
            with self.lap(name):
                return function(*arguments, **more)

        return measured


class Watcher:
    """A finder of modules that has their imports measured, and their functions once they are there.

    Parameters
    ----------
    clock : Clock
        Measures.
    reached : callable
        Called where the first step begins.
    """

    def __init__(self, clock: Clock, reached: Callable[[], None]) -> None:
        self._clock, self._reached = clock, reached

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Where a module is, with a loader that is measured."""
        part = IMPORTS.get(name, "import this package" if name.startswith("ai_models_mosaic") else None)
        if part is None:
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in others if spec is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module
            spec.loader.exec_module = lambda module: self._execute(execute, module, part)  # type: ignore[method-assign]
        return spec

    def _execute(self, execute: Callable[[ModuleType], None], module: ModuleType, part: str) -> None:
        with self._clock.lap(part):
            execute(module)
        for path, name in PARTS.get(module.__name__, {}).items():
            # Another checkout may have it elsewhere.
            if hasattr(module, path.split(".")[0]):
                self._clock.wrap(module, path, name)
        if module.__name__ == FIRST[0]:
            _replace(module, FIRST[1], lambda function: lambda *arguments: self._reached())


def _replace(owner: Any, path: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    *owners, attribute = path.split(".")
    for part in owners:
        owner = getattr(owner, part)
    setattr(owner, attribute, make(getattr(owner, attribute)))


def child(options: argparse.Namespace) -> None:
    """The program, up to the first step."""
    clock, started = Clock(options.clock), float(options.started)
    clock.parts["start Python"] = time.time() - started if options.clock == "wall" else time.thread_time()

    def reached() -> None:
        after = time.time() - started if options.clock == "wall" else time.thread_time()
        parts = {**clock.parts, "the rest": after - sum(clock.parts.values())}
        found = {"first step begins": after, "processor time": time.process_time(), "parts": parts}
        options.json.write_text(json.dumps(found))
        # Nothing is to be brought into good order: all of it is in a folder that goes.
        os._exit(0)

    sys.meta_path.insert(0, Watcher(clock, reached))  # type: ignore[arg-type]
    from ai_models_mosaic.cli import main as run

    words = ["forecast", "--variant", options.variant, "--file", str(options.input), "--lead-time", "24"]
    words += ["--assets", str(options.assets), "--path", str(options.json.parent / "out.grib")]
    sys.argv = ["ai-models-mosaic", *words, *(["--checkpoint", str(options.checkpoint)] if options.checkpoint else [])]
    raise SystemExit(run())


def measure(options: argparse.Namespace, checkout: Path, cache: str) -> dict[str, Any]:
    """One start of a checkout, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "parts.json"
        command = [sys.executable, __file__, "--variant", options.variant, "--input", options.input]
        command += ["--assets", options.assets, "--json", result, "--clock", options.clock]
        command += ["--checkpoint", options.checkpoint] if options.checkpoint else []
        words = [*(str(word) for word in command), "--started", repr(time.time())]
        environment = {**os.environ, "AI_MODELS_MOSAIC_CACHE": cache, "PYTHONPATH": str(checkout)}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
        if not result.exists():
            raise SystemExit(f"the forecast ended early:\n{done.stdout}{done.stderr}")
        return dict(json.loads(result.read_text()))


def median(starts: list[dict[str, Any]], name: str) -> float:
    """Of a part, or of the whole."""
    return statistics.median(start.get(name, start["parts"].get(name, 0.0)) for start in starts)


def print_table(found: dict[str, list[dict[str, Any]]]) -> None:
    """Medians by part and checkout; with two of them, what the median pair gained."""
    print(f"| seconds, median of {len(next(iter(found.values())))} | {' | '.join(found)} |")
    print("|---" * (1 + len(found)) + "|")
    parts = dict.fromkeys(name for starts in found.values() for start in starts for name in start["parts"])
    for name in parts:
        print(f"| {name} | " + " | ".join(f"{median(starts, name):.2f}" for starts in found.values()) + " |")
    for name in ("first step begins", "processor time"):
        print(f"| **{name}** | " + " | ".join(f"{median(starts, name):.2f}" for starts in found.values()) + " |")
    if len(found) == 2:
        pairs = zip(*found.values(), strict=True)
        ratio = statistics.median(old["first step begins"] / new["first step begins"] for old, new in pairs)
        print(f"\nfirst over second, median of pairs: {ratio:.2f}")


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--variant", default="mini")
    made.add_argument("--checkpoint", type=Path)
    made.add_argument("--assets", type=Path, default=Path())
    made.add_argument("--input", type=Path, default=SAMPLE, help="any GRIB file of the variant's history")
    made.add_argument(
        "--against", type=Path, metavar="CHECKOUT", help="of this project, to start in turn with this one"
    )
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    made.add_argument("--json", type=Path, help="write raw figures")
    made.add_argument("--started", help=argparse.SUPPRESS)
    options = made.parse_args()
    if options.started:
        child(options)
        return
    checkouts = ({str(options.against): options.against} if options.against else {}) | {"this": ROOT}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory() as cache:
        for repeat in range(options.repeats + 1):
            for name, checkout in checkouts.items():
                start = measure(options, checkout.resolve(), cache)
                if repeat:
                    found[name].append(start)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    print_table(found)


if __name__ == "__main__":
    main()
