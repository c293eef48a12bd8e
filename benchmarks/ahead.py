"""What `docs/ahead.md` shows: every command there on `mini`, what it gave, and the time and memory that it took.

Equality is of bytes or values in files. The ensemble that is started from and the earlier start are the bundled sample,
a little warmer.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import eccodes
import numpy as np
import xarray

from ai_models_mosaic.outputs.variance import PARTS

SAMPLE = Path(__file__).parent.parent / "examples" / "mini-input.grib"
COMMON = "--variant mini --lead-time 240 --output-params 2t,z500 --num-threads 1 --quiet"
FORECAST = f"forecast {COMMON} --file {SAMPLE} --path"
MEMBERS = 24


@dataclass(frozen=True)
class Cost:
    """What a process took, and what it printed."""

    seconds: float
    core_s: float
    gigabytes: float
    said: str


def command(folder: Path, words: str) -> Cost:
    """Run ``ai-models-mosaic`` in a process of its own.

    Raises
    ------
    RuntimeError
        If it fails.
    """
    start = "import sys; from ai_models_mosaic.cli import main; sys.exit(main(sys.argv[1:]))"
    line, began = [sys.executable, "-c", start, *words.split()], time.monotonic()
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(line, cwd=folder, stdout=said, stderr=errors)  # noqa: S603
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        for file in (said, errors):
            file.seek(0)
        if child.returncode:
            raise RuntimeError(f"{words}: status {child.returncode}\n{errors.read().decode()}")
        took = time.monotonic() - began
        return Cost(took, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6, said.read().decode())


def messages(path: Path) -> Iterator[int]:
    """Handles of a file, one after the other."""
    with path.open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            yield handle
            eccodes.codes_release(handle)


def fields(path: Path) -> dict[tuple[int, int, int, str], np.ndarray]:
    """Values by member, time of validity and field."""
    names = ("number", "validityDate", "validityTime")
    return {
        (*(eccodes.codes_get_long(handle, name) for name in names), eccodes.codes_get(handle, "shortName")): (
            eccodes.codes_get_values(handle)
        )
        for handle in messages(path)
    }


def changed(days: int, number: int, factor: float, *, date: int | None = None) -> bytes:
    """The sample, or what it has of one date, as another day or member, and warmer."""
    made = []
    for handle in messages(SAMPLE):
        then = eccodes.codes_get_long(handle, "dataDate")
        if date in (None, then):
            if number:
                eccodes.codes_set(handle, "productDefinitionTemplateNumber", 1)
                eccodes.codes_set(handle, "type", "pf")
                eccodes.codes_set(handle, "number", number)
            eccodes.codes_set(handle, "dataDate", then + days)
            eccodes.codes_set_values(handle, eccodes.codes_get_values(handle) * factor)
            made.append(eccodes.codes_get_message(handle))
    return b"".join(made)


def with_inputs(folder: Path) -> None:
    """Write an ensemble of four starts, and the sample with a day before it."""
    (folder / "starts.grib").write_bytes(b"".join(changed(0, one, 1 + 1e-3 * (one - 1)) for one in range(1, 5)))
    (folder / "days.grib").write_bytes(changed(-1, 0, 1.0001, date=20080425) + SAMPLE.read_bytes())


def card(folder: Path, name: str) -> dict[str, dict[str, Any]]:
    """What stands beside an output."""
    found: dict[str, dict[str, Any]] = json.loads((folder / f"{name}.grib.provenance.json").read_text())
    return found


# What each gave.


def ordinary(folder: Path, _: Cost) -> str:
    return counted(folder, "whole")


def earlier(folder: Path, _: Cost) -> str:
    return counted(folder, "earlier")


def counted(folder: Path, name: str) -> str:
    there = fields(folder / f"{name}.grib")
    return f"{len({member for member, *_ in there})} members, {len(there)} fields"


def deadline(folder: Path, cost: Cost) -> str:
    growth = card(folder, "late")["growth"]
    return f"{growth['members']} of {growth['most']} members, process over after {cost.seconds:.1f} s"


def extend(folder: Path, _: Cost) -> str:
    same = (folder / "late.grib").read_bytes() == (folder / "whole.grib").read_bytes()
    return f"{'the' if same else 'NOT THE'} bytes of an ordinary run of {MEMBERS}"


def tolerance(folder: Path, _: Cost) -> str:
    growth = card(folder, "frost")["growth"]
    (error,) = growth["mc_error"]
    return f"reached {error['reached']:.3f} with {growth['members']} of {growth['most']} members"


def crossed(folder: Path, _: Cost) -> str:
    """How the variance of z500 is split, and how far the file is from numpy's mean squares."""
    store = xarray.open_zarr(folder / "crossed.zarr").isel(time=0).squeeze("level")
    members = np.moveaxis(store["geopotential"].values, 1, 0).astype(np.float64)
    cross = members.reshape(6, 4, *members.shape[1:]).swapaxes(0, 1)
    mean, of_start, of_noise = cross.mean((0, 1)), cross.mean(1), cross.mean(0)
    rest = ((cross - of_start[:, None] - of_noise + mean) ** 2).sum((0, 1)) / 15
    wanted = np.stack([of_start.var(0, ddof=1) - rest / 6, of_noise.var(0, ddof=1) - rest / 4, rest])
    parts = np.stack([store[f"geopotential_{part}"].values for part in PARTS])
    area = np.cos(np.radians(store["latitude"].values))
    said = []
    for hours, step in ((24, 1), (240, 10)):
        shares = (parts[:, step] * area).mean(axis=(-1, -2))
        said.append(f"{', '.join(f'{share:.0%}' for share in shares / shares.sum())} at +{hours} h")
    off = np.abs(parts - wanted).max() / wanted.sum(axis=0).max()
    return f"z500 from starts, model, both: {' and '.join(said)}; off from numpy by {off:.0e} of the largest variance"


def representatives(_: Path, cost: Cost) -> str:
    medoid, _, *scenarios = cost.said.strip().splitlines()[-5:]
    shares = ", ".join(f"{words[1]} ({words[2]})" for words in (line.split() for line in scenarios))
    return f"{medoid}; for clusters: members {shares}"


def checked(_: Path, cost: Cost) -> str:
    return "; ".join(line.strip() for line in cost.said.strip().splitlines())


def lagged(folder: Path, _: Cost) -> str:
    here, whole = fields(folder / "lagged.grib"), fields(folder / "whole.grib")
    own = fields(folder / "earlier.grib") | {key: values for key, values in whole.items() if key[0] % 2}
    same = sum(bool((values == own[key]).all()) for key, values in here.items())
    return f"{same} of {len(here)} fields are those of ordinary runs from each member's own start"


ASKED = "0.08@probability:2t<273.15@mean:70/-10/35/40"
EVEN = ",".join(str(member) for member in range(2, MEMBERS + 1, 2))

ROWS: tuple[tuple[str, str, Callable[[Path, Cost], str]], ...] = (
    ("an ordinary run", f"{FORECAST} whole.grib --num-ensemble-members {MEMBERS}", ordinary),
    ("deadline", f"{FORECAST} late.grib --num-ensemble-members 20 --deadline 20s", deadline),
    ("more members later", f"{FORECAST} late.grib --extend {MEMBERS}", extend),
    (
        "sampling error",
        f"{FORECAST} frost.grib --num-ensemble-members {MEMBERS} --mc-error {ASKED}",
        tolerance,
    ),
    (
        "where spread comes from",
        f"forecast {COMMON} --file starts.grib --path crossed.grib --crossed 4x6 --zarr crossed.zarr",
        crossed,
    ),
    (
        "representatives",
        "representatives whole.grib --param z500 --lead-time 120 --area 72/-25/34/45 --clusters 3",
        representatives,
    ),
    ("a file checked", "replay whole.grib.provenance.json --check 20", checked),
    (
        "the same, from a day before",
        f"forecast {COMMON.replace('240', '264')} --file days.grib --date 20080425 --time 6 --path earlier.grib "
        f"--member-number {EVEN}",
        earlier,
    ),
    (
        "neighbours in time",
        f"forecast {COMMON} --file days.grib --path lagged.grib --lagged 0,-24 --num-ensemble-members {MEMBERS}",
        lagged,
    ),
)


def main(words: list[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--folder", type=Path, help="where files are left; none are if this is not given")
    known = made.parse_args(words)
    with tempfile.TemporaryDirectory() as temporary:
        folder = known.folder or Path(temporary)
        with_inputs(folder)
        print("| | command | gave | s of a core | GB |\n|---|---|---|---|---|")
        for name, line, gave in ROWS:
            cost = command(folder, line)
            shown = line.replace(str(SAMPLE), "mini-input.grib").replace(COMMON, "…").replace("|", "\\|")
            print(
                f"| {name} | `{shown}` | {gave(folder, cost)} | {cost.core_s:.0f} | {cost.gigabytes:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
