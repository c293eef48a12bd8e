"""Damages files that a run reads, and looks at what comes of it.

``fuzz.py --many COUNT [--seed SEED] [KIND ...]`` makes so many cases of each kind; ``--case NUMBER`` one of them, with
all that it said. A case is refused with a status that says whose fault it is; or accepted with the same output; or with
another, and then the card beside it names another input. Anything else is a fault of this package.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import sys
import tempfile
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import toy_command
from fuzz_kinds import KINDS, Kind
from toy_command import TRACEBACK, Ended

EQUAL, TOLD, REFUSED = "accepted, equal output", "accepted, told by a digest", "refused"
BROKEN, SILENT, STRANGE = "TRACEBACK", "SILENTLY DIFFERENT", "REFUSED WITH ANOTHER STATUS"
OUTCOMES = (EQUAL, TOLD, REFUSED, BROKEN, SILENT, STRANGE)
FAULTS = (BROKEN, SILENT, STRANGE)

LINES_SHOWN = 6


@dataclass(frozen=True)
class Case:
    """What became of one.

    Parameters
    ----------
    number : int
        With the seed, it says what was damaged.
    what : str
        In words.
    outcome : str
        One of `OUTCOMES`.
    ended : Ended
        How the command did.
    """

    number: int
    what: str
    outcome: str
    ended: Ended

    def __str__(self) -> str:
        lines = self.ended.said.strip().splitlines()
        # Of a crash, the first lines of the trace are the innermost.
        crash = next((index for index, line in enumerate(lines) if line.startswith("Fatal Python error")), None)
        shown = lines[-LINES_SHOWN:] if crash is None else lines[crash : crash + 2 * LINES_SHOWN]
        last = "\n".join(f"    {line[:300]}" for line in shown)
        return f"  {self.outcome}: case {self.number} ({self.what[:200]}), status {self.ended.status}\n{last}"


@dataclass
class Figures:
    """Of all cases of a kind."""

    counts: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[Case] = field(default_factory=list)

    def add(self, case: Case) -> None:
        self.counts[case.outcome] += 1
        if case.outcome == REFUSED:
            self.statuses[case.ended.status] += 1
        if case.outcome in FAULTS:
            self.faults.append(case)

    def __str__(self) -> str:
        counts = ", ".join(f"{self.counts[outcome]} {outcome}" for outcome in OUTCOMES)
        return f"{counts}; statuses {dict(sorted(self.statuses.items()))}"


class Bench:
    """Makes cases of one kind.

    Parameters
    ----------
    kind : Kind
        Which.
    folder : Path
        For its files.
    seed : int
        With a case's number, it says what is damaged.
    """

    def __init__(self, kind: Kind, folder: Path, seed: int) -> None:
        self.kind, self._seed = kind, seed
        self._whole, self._place = folder / kind.name / "whole", folder / kind.name / "run"
        self._whole.mkdir(parents=True)
        # What is made there knows its name.
        self._place.mkdir()
        kind.prepare(self._place)
        shutil.copytree(self._place, self._whole, dirs_exist_ok=True)
        ended = toy_command.run(self._place, *kind.words)
        if ended.status != 0:
            raise SystemExit(f"{kind.name}: expected a run of what is whole, got status {ended.status}\n{ended.said}")
        self._output, self._told = self._made(), kind.told(self._place)

    def case(self, number: int) -> Case:
        """Make one."""
        shutil.rmtree(self._place)
        shutil.copytree(self._whole, self._place)
        random = np.random.default_rng([self._seed, zlib.crc32(self.kind.name.encode()), number])
        what = self.kind.damage(random, self._place)
        ended = toy_command.run(self._place, *self.kind.words)
        return Case(number, what, self._judge(ended, what), ended)

    def _judge(self, ended: Ended, what: str) -> str:
        known = (0, *self.kind.statuses)
        if ended.status < 0 or ended.status in (1, TRACEBACK) or re.search(r"^Traceback \(most", ended.said, re.M):
            return BROKEN
        if ended.status not in known:
            return STRANGE
        # What a refusal leaves of other files must be as it was, too: of the output it may leave nothing.
        made = self._made()
        if ended.status != 0:
            return REFUSED if self._untouched(made) else SILENT
        if made == self._output:
            return EQUAL
        told = self.kind.told(self._place) != self._told and not self.kind.needed(what)
        return TOLD if told else SILENT

    def _untouched(self, made: dict[str, str]) -> bool:
        return "other.txt" not in self._output or made.get("other.txt") == self._output["other.txt"]

    def _made(self) -> dict[str, str]:
        """Digests of what the kind's command makes, or must leave alone."""
        found = {path for pattern in self.kind.output for path in self._place.glob(pattern) if path.is_file()}
        return {
            str(path.relative_to(self._place)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(found)
        }


def fuzz(kind: Kind, folder: Path, numbers: range, seed: int) -> Figures:
    """Make cases of a kind."""
    bench, figures = Bench(kind, folder, seed), Figures()
    for number in numbers:
        figures.add(bench.case(number))
    return figures


def main(words: list[str] | None = None) -> int:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)} (default: all)")
    made.add_argument("--many", type=int, default=12, metavar="COUNT")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--case", type=int, metavar="NUMBER")
    known = made.parse_args(words)
    toy_command.prepare()
    faults = 0
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        for kind in [KINDS[name] for name in known.kinds or KINDS]:
            numbers = range(known.many) if known.case is None else range(known.case, known.case + 1)
            figures = fuzz(kind, Path(folder), numbers, known.seed)
            print(f"{kind.name}: {figures}", *figures.faults, sep="\n", flush=True)
            faults += len(figures.faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
