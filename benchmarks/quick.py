"""``gpu.py --quick``: sections that each measure one thing, one after another, on a machine that is soon gone.

The network is made once, for the sections that need it: an engine prepares its network for good.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sections
import torch
from bench import Bench, NotThereError


@dataclass(frozen=True)
class Section:
    """One thing to measure.

    Parameters
    ----------
    measure : callable
        Gives plain values; raises `NotThereError` where the device has nothing of the kind.
    seconds : float
        Its share of the time. What is left of it is asked for between the parts of a section, and bounds processes.
    """

    measure: Callable[[Bench], dict[str, Any]]
    seconds: float


SECTIONS = {
    "device": Section(sections.device, 5),
    "rates": Section(sections.rates, 8),
    "network": Section(sections.network, 35),
    "step": Section(sections.step, 15),
    "parts": Section(sections.parts, 10),
    "resident": Section(sections.resident, 25),
    "command": Section(sections.command, 70),
    "parity": Section(sections.parity, 40),
    "tiles": Section(sections.tiles, 40),
}
"""The most wanted first: later ones have what time is left."""


SECONDS = 150.0
"""Of all sections, unless the command says otherwise; their shares grow and shrink with it."""


class Report:
    """What was found so far, in a file that is always whole.

    Parameters
    ----------
    path : Path
        Of the JSON file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, Any] = {"begun": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}

    def add(self, name: str, found: dict[str, Any]) -> None:
        """Take a section in, and print it."""
        self._found[name] = found
        self._path.write_text(json.dumps(self._found, indent=1) + "\n", encoding="utf-8")
        print(f"\n{name}: {found['seconds']:.1f} s")
        for line in lines({key: value for key, value in found.items() if key != "seconds"}):
            print(f"  {line}", flush=True)


def lines(found: Any, head: str = "") -> list[str]:
    """Nested values as lines, the keys before the last value joined."""
    if not isinstance(found, dict):
        return [f"{head}: {found:.4g}" if isinstance(found, float) else f"{head}: {found}"]
    if found and not any(isinstance(value, dict) for value in found.values()):
        row = "; ".join(lines(value, str(key))[0] for key, value in found.items())
        return [f"{head}: {row}" if head else row]
    return [line for key, value in found.items() for line in lines(value, f"{head} {key}".strip())]


def run(options: argparse.Namespace) -> int:
    """All sections that were asked for.

    Parameters
    ----------
    options : argparse.Namespace
        Of ``gpu.py``.

    Returns
    -------
    int
        1 if a section failed.
    """
    begun, failed = time.monotonic(), False
    name = torch.cuda.get_device_name() if options.device == "cuda" else options.device
    report = Report(options.json or Path(f"gpu-{re.sub('[^A-Za-z0-9]+', '-', name)}.json"))
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder))
        for name in options.sections:
            section, start = SECTIONS[name], time.monotonic()
            share = section.seconds * options.seconds / SECONDS
            bench.until = min(start + share, begun + options.seconds)
            try:
                bench.check_time()
                found = section.measure(bench)
            except NotThereError as reason:
                found = {"not there": str(reason)}
            except Exception as error:  # whatever a new device does: the next section may still tell something
                failed = True
                found = {"failed": f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"}
            report.add(name, {"seconds": time.monotonic() - start, **found})
    print(f"\n{time.monotonic() - begun:.0f} s in all")
    return int(failed)
