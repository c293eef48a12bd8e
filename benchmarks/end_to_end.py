"""A whole ensemble through the runner, GRIB written: time by part, memory, and size of the output.

``python benchmarks/end_to_end.py [--variant mini] [--members 24] [--lead-time 240] [--json FILE] [-- OPTION …]``

What follows ``--`` goes to the plugin. GRIB is encoded in threads beside the network, so that the
parts are those of the main thread: what it waits for the output is what the output costs.
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
from typing import Any

from start_up import CLOCKS, SAMPLE, Clock

PARTS = (
    ("ai_models_mosaic.plugin", "MosaicModel._read_input", "read and regrid the input"),
    ("ai_models_mosaic.engines.torch", "load_engine", "load the weights"),
    ("ai_models_mosaic.engines.torch", "TorchEngine.advance", "network"),
    ("ai_models_mosaic.engines.tensor_states", "TensorStates.advance", "histories, check of the states"),
    ("ai_models_mosaic.outputs.writer", "Outputs.write", "hand fields to the output, or wait for it"),
    ("ai_models_mosaic.outputs.writer", "Outputs.close", "complete the output"),
    ("ai_models_mosaic.forecast.saving", "StateSaver.save", "wait for the output to be on disk, and the last state"),
)


def child(options: argparse.Namespace) -> None:
    """The runner's program, measured."""
    clock, started = Clock(options.clock), float(options.started)
    start = clock.now()
    for module in ("ai_models.__main__", "ai_models_mosaic.plugin", "ai_models_mosaic.engines.torch"):
        __import__(module)
    clock.lap("import", clock.now() - start)
    for part in PARTS:
        clock.wrap(*part)
    from ai_models.__main__ import main as run

    path = options.json.parent / "out.grib"
    words = ["mosaic", "--variant", options.variant, "--file", options.input, "--lead-time", options.lead_time]
    words += ["--num-ensemble-members", options.members, "--path", path, "--assets", options.assets]
    words += ["--checkpoint", options.checkpoint] if options.checkpoint else []
    words += ["--num-threads", options.threads] if options.threads else []
    sys.argv = ["ai-models", *(str(word) for word in words), *options.plugin]
    run()
    whole = time.time() - started if options.clock == "wall" else time.thread_time()
    used = resource.getrusage(resource.RUSAGE_SELF)
    found: dict[str, Any] = {
        "parts": {**clock.parts, "the rest": whole - sum(clock.parts.values())},
        "whole": whole,
        "processor seconds": used.ru_utime + used.ru_stime,
        "peak memory MB": used.ru_maxrss / 1000,
        "output MB": path.stat().st_size / 1e6,
    }
    options.json.write_text(json.dumps(found))


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--variant", default="mini")
    made.add_argument("--members", type=int, default=24)
    made.add_argument("--lead-time", type=int, default=240)
    made.add_argument("--checkpoint", type=Path)
    made.add_argument("--assets", type=Path, default=Path())
    made.add_argument("--input", type=Path, default=SAMPLE)
    made.add_argument("--threads", type=int)
    made.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    made.add_argument("--json", type=Path, help="write raw figures")
    made.add_argument("--started", help=argparse.SUPPRESS)
    made.add_argument("plugin", nargs="*", help="options of the plugin, after --")
    options = made.parse_args()
    if options.started:
        child(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        result, words = Path(folder) / "parts.json", sys.argv[1:]
        cut = words.index("--") if "--" in words else len(words)
        command = [sys.executable, __file__, *words[:cut], "--json", str(result), "--started", repr(time.time())]
        done = subprocess.run([*command, *words[cut:]], capture_output=True, text=True, check=False)  # noqa: S603
        if not result.exists():
            raise SystemExit(f"the forecast ended early:\n{done.stderr}")
        found = json.loads(result.read_text())
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    print(f"{options.variant}, {options.members} members, {options.lead_time} h\n")
    print("| part | seconds | share |\n|---|---|---|")
    for name, seconds in found["parts"].items():
        print(f"| {name} | {seconds:.2f} | {seconds / found['whole']:.1%} |")
    print(f"| **whole** | {found['whole']:.2f} | |\n")
    print(
        f"processor {found['processor seconds']:.1f} s, peak memory {found['peak memory MB']:.0f} MB, output "
        f"{found['output MB']:.1f} MB"
    )


if __name__ == "__main__":
    main()
