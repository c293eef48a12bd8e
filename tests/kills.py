"""Kills runs of the real command, goes on with them, lets two get in each other's way, and compares all bytes.

``kills.py --single 40 --double 10 --device 20 --ranks 5 --interleaved 20 --whole 3 [--seed SEED]``. What `faults.py` does
to a toy run with one file, this does to the command with members, products, a Zarr store and NetCDF.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed  # noqa: F401 - once, and not in every child
import toy_command
import xarray
import zarr  # noqa: F401
from late_device import use_late_device
from running import BIN, MINI
from toy_command import RUN, Child, Ended

BEGIN = (*RUN, "--file", "in.grib", "--date", "20200102", "--time", "12", "--checkpoint", "toy.safetensors")
LONG = (*BEGIN, "--lead-time", "72", "--num-ensemble-members", "3", "--products", "mean,quantile:20@2t")
ALL = (*LONG, "--path", "out.grib", "--zarr", "out.zarr")
MANY = ("--path", "{step}-{number}.grib", "--products-path", "products.grib")
FORMS = (ALL, (*LONG, "--path", "out.grib", "--netcdf", "out.nc"), (*LONG, *MANY))
"""Everything in one file each, a store that is only on its way to NetCDF, and many files."""

INTERVALS = (("--state-interval", "0"), ("--state-interval", "0.05"), ())
"""Between two states: so that every step has one, or some, or none but at an end in good order."""

STEPS = 9
"""That the engine makes: members times steps."""

DEAD = -signal.SIGKILL
STOPPED = {signal.SIGKILL: DEAD, signal.SIGTERM: 143, signal.SIGINT: 130}
"""How a run ends when it gets a signal at a step."""

LOST, REFUSALS = 8, (6, 7)

Contents = dict[str, bytes]
Blow = Callable[[], None]


def contents(folder: Path) -> Contents:
    """All that runs left, but for what says when they ran."""
    return {
        str(path.relative_to(folder)): _content(path)
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(".provenance.json")
    }


def _content(path: Path) -> bytes:
    if path.suffix != ".nc":
        return path.read_bytes()
    with xarray.open_dataset(path) as found:
        return str(found).encode() + b"".join(found[name].values.tobytes() for name in sorted(found.variables))


def unlike(found: Contents, wanted: Contents) -> list[str]:
    """Names of what differs."""
    return sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))


class FaultError(Exception):
    """What must not be."""


def expect(condition: object, what: str, *ended: Ended) -> None:
    if not condition:
        raise FaultError("\n".join([what, *(f"  status {one.status}:\n{one.said[-3000:]}" for one in ended)]))


# Deaths.


def at_operation(count: int, counts: Path | None = None) -> Blow:
    """For a child: die before the so-manieth thing that it does to files; or count them."""

    def install() -> None:
        done = 0

        def passes() -> None:
            nonlocal done
            done += 1
            if done == count:
                os.kill(os.getpid(), signal.SIGKILL)
            if counts is not None:
                with counts.open("ab", buffering=0) as file:
                    file.write(b".")

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            # A descriptor was counted when it was opened.
            if event == "open" and (isinstance(arguments[0], int) or not _writes(arguments[2])):
                return
            if event == "open" and arguments[0] == str(counts):
                return
            if event == "open" or event in ("os.rename", "os.remove", "os.mkdir", "os.truncate", "os.rmdir"):
                passes()

        ordinary = os.fsync

        def fsync(descriptor: int) -> None:
            passes()
            ordinary(descriptor)

        os.fsync = fsync  # type: ignore[assignment]
        sys.addaudithook(hook)

    return install


def _writes(flags: int) -> bool:
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))


@dataclass(frozen=True)
class Death:
    """How a run is to die: at a step, at something that it does to files, or after some time."""

    what: str
    before: Blow = lambda: None
    after_s: float | None = None

    def strike(self, folder: Path, words: Sequence[object]) -> Ended:
        """Start a run, and let it come to that, or to its end."""
        child = Child(folder, words, self.before)
        if self.after_s is not None:
            time.sleep(self.after_s)
            child.kill()
        return child.wait()


def at_step(random: np.random.Generator, steps: int, *signals: int) -> Death:
    """A step at which a run gets one of some signals."""
    at, number = int(random.integers(steps)) + 1, signal.Signals(int(random.choice(signals)))
    return Death(f"{number.name} at step {at}", toy_command.at_step(at, toy_command.end_by(number)))


def choose_death(random: np.random.Generator, operations: int, seconds: float, steps: int = STEPS) -> Death:
    """Any of the three; of those that touch no file, one of two."""
    kind = random.integers(3 if operations else 2)
    if kind == 0:
        return at_step(random, steps, signal.SIGKILL, *((signal.SIGTERM, signal.SIGINT) if operations else ()))
    if kind == 1:
        after = float(random.uniform(0, seconds))
        return Death(f"{after:.3f} of {seconds:.3f} s", after_s=after)
    # The first and the last are where beginnings and ends go wrong.
    near = [1, 2, operations, operations - int(random.integers(20))]
    at = int(random.choice([*near, *random.integers(1, operations, 4)]))
    return Death(f"operation {at} of {operations}", at_operation(at))


# Runs that die.


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing happened to: what it left, how many things it did to files, and how long it took."""

    made: Contents
    operations: int
    seconds: float


class Kills:
    """Runs in folders below one."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._inputs = folder, folder / "inputs"
        self._inputs.mkdir()
        toy_command.write_inputs(self._inputs)
        self._known: dict[tuple[str, ...], Undisturbed] = {}
        self.deaths = 0

    def fresh(self) -> Path:
        """A folder with the inputs, always of the same name."""
        place = self._folder / "run"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self._inputs, place)
        return place

    def undisturbed(self, words: Sequence[str]) -> Undisturbed:
        key = tuple(words)
        if key not in self._known:
            place, counts, start = self.fresh(), self._folder / "counts", time.monotonic()
            ended = toy_command.run(place, *words, before=at_operation(0, counts))
            took = time.monotonic() - start
            expect(ended.status == 0, "an undisturbed run failed", ended)
            self._known[key] = Undisturbed(contents(place), counts.stat().st_size, took)
            counts.unlink()
        return self._known[key]

    def killed(self, trial: int, deaths: int, seed: int) -> None:
        """One run that dies so often, and goes on."""
        random = np.random.default_rng([seed, deaths, trial])
        words = (*FORMS[trial % len(FORMS)], *INTERVALS[trial // len(FORMS) % len(INTERVALS)])
        whole, place, said = self.undisturbed(words), self.fresh(), []
        for count in range(deaths):
            death = choose_death(random, whole.operations, whole.seconds)
            said.append(death.what)
            ended = death.strike(place, (*words, *(("--resume",) if count else ())))
            expect(ended.status in (0, *STOPPED.values()), f"{said}: neither died nor ended well", ended)
            self.deaths += ended.status != 0
        ended = toy_command.run(place, *words, "--resume")
        expect(ended.status == 0, f"{said}, then resumed: failed", ended)
        other = unlike(contents(place), whole.made)
        expect(not other, f"{said}, {words[-4:]}: {other} differ from those of an undisturbed run", ended)

    def on_a_device(self, trial: int, _: int, seed: int) -> None:
        """One run on a stand-in for a GPU, which gets a signal at a step, and goes on, on the CPU or there."""
        random = np.random.default_rng([seed, 400, trial])
        words = (*FORMS[trial % len(FORMS)], *INTERVALS[trial % 2], "--members-per-batch", str(1 + trial % 3))
        whole, place = self.undisturbed(words), self.fresh()
        death, room = at_step(random, STEPS // (1 + trial % 3), *STOPPED), int(random.integers(4))

        def both() -> None:
            use_late_device(room)
            death.before()

        ended = Death(death.what, both).strike(place, words)
        what = f"{death.what}, with room for {room} members, {words}"
        expect(ended.status in STOPPED.values(), f"{what}: did not end by it", ended)
        self.deaths += 1
        again = (lambda: use_late_device(3 - room)) if trial % 2 else (lambda: None)
        ended = toy_command.run(place, *words, "--resume", before=again)
        expect(ended.status == 0, f"{what}, then resumed: failed", ended)
        other = unlike(contents(place), whole.made)
        expect(not other, f"{what}: {other} differ from those of an undisturbed run on the CPU", ended)

    def of_ranks(self, trial: int, _: int, seed: int) -> None:
        """One run of two or three ranks, one of which dies; any number goes on."""
        random = np.random.default_rng([seed, 100, trial])
        size, again = int(random.integers(2, 4)), int(random.integers(1, 4))
        words = (*ALL, *INTERVALS[trial % 2])
        whole, place, lost = self.undisturbed(words), self.fresh(), int(random.integers(size))
        death = choose_death(random, whole.operations if lost == 0 else 0, whole.seconds, STEPS // size)
        what = f"rank {lost} of {size} died at {death.what}, {again} went on"
        ended = self._together(place, size, words, lost, death)
        known = (0, LOST, DEAD)
        expect(all(one.status in known for one in ended), f"{what}: with other statuses", *ended)
        self.deaths += any(one.status == DEAD for one in ended)
        ended = self._together(place, again, (*words, "--resume"), -1, Death("never"))
        expect(not any(one.status for one in ended), f"{what}: and failed", *ended)
        other = unlike(contents(place), whole.made)
        expect(not other, f"{what}: {other} differ", *ended)

    def _together(self, place: Path, size: int, words: Sequence[str], lost: int, death: Death) -> list[Ended]:
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            port = held.getsockname()[1]
        shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        if size == 1:
            return [toy_command.run(place, *words)]
        installs = [death.before if rank == lost else lambda: None for rank in range(size)]
        children = [
            Child(place, words, before, shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank, before in enumerate(installs)
        ]
        if lost >= 0 and death.after_s is not None:
            time.sleep(death.after_s)
            children[lost].kill()
        return [child.wait() for child in children]

    # Runs that share something.

    def interleaved(self, trial: int, _: int, seed: int) -> None:
        """Two runs that share a path, a store or both; one of them may die and be resumed after the other."""
        random = np.random.default_rng([seed, 200, trial])
        pair = choose_pair(random, trial)
        for one in pair:
            self.undisturbed(one.words)
        place = self.fresh()
        (place / "out.zarr.old").mkdir()
        (place / "out.zarr.old" / "mine").write_text("the user's")
        seconds = self.undisturbed(pair[0].words).seconds
        offset, dies = float(random.uniform(0, 1.3 * seconds)), random.random() < 0.4
        what = f"{pair[0]}, after {offset:.2f} s {pair[1]}" + (", the first killed and resumed" if dies else "")
        pace = toy_command.at_step(0, lambda: None, dawdle_s=0.02)
        first = Child(place, pair[0].typed, pace)
        if dies:
            time.sleep(float(random.uniform(0.3, 1)) * seconds)
            first.kill()
            ended = [first.wait(), toy_command.run(place, *pair[1].typed, before=pace)]
            self.deaths += 1
            ended[0] = toy_command.run(place, *pair[0].words, "--resume")
        else:
            time.sleep(offset)
            second = Child(place, pair[1].typed, pace)
            ended = [first.wait(), second.wait()]
        expect(all(one.status in (0, *REFUSALS) for one in ended), f"{what}: ended otherwise", *ended)
        expect(not any("Traceback (most" in one.said for one in ended), f"{what}: a traceback", *ended)
        self._check_shared(place, pair, ended, what, killed=pair[:1] if dies else ())

    def _check_shared(
        self, place: Path, pair: tuple[One, One], ended: Sequence[Ended], what: str, killed: Sequence[One]
    ) -> None:
        """Every name holds all of one run that ended well; those that two share, the same one.

        A run may have been killed when all was written, or some of it had its name. That is whole, too.
        """
        expect((place / "out.zarr.old" / "mine").is_file(), f"{what}: the user's own folder is gone", *ended)
        found = {name: content for name, content in contents(place).items() if ".partial" not in name}
        good = [one for one, how in zip(pair, ended, strict=True) if how.status == 0]
        whole = {one: self.undisturbed(one.words).made for one in pair}
        shared = None
        for name in sorted({name for one in pair for name in one.names}):
            mine = _below(found, name)
            users = [one for one in good if name in one.names]
            if not users:
                done = [one for one in killed if name in one.names and mine == _below(whole[one], name)]
                expect(not mine or done, f"{what}: {name} is there, and no run of it ended well", *ended)
                continue
            of = [one for one in users if mine == _below(whole[one], name)]
            expect(of, f"{what}: {name} is that of neither run", *ended)
            if len(users) > 1:
                shared = set(of) if shared is None else shared & set(of)
                expect(shared, f"{what}: {name} is of another run than the rest", *ended)
            card = json.loads((place / f"{name}.provenance.json").read_text())
            expect(card["seed"] in [one.seed for one in of], f"{what}: the card of {name} is of another run", *ended)

    def of_the_whole_command(self, trial: int, _: int, seed: int) -> None:
        """The bundled variant, by a process of its own from the start of Python on."""
        random = np.random.default_rng([seed, 300, trial])
        words = ("--lead-time", "72", "--num-ensemble-members", "2", "--path", "out.grib", "--zarr", "out.zarr")
        command = [str(BIN / "ai-models"), *MINI, *words]
        whole, place = self._folder / "mini", self._folder / "run"
        if not whole.exists():
            whole.mkdir()
            start = time.monotonic()
            subprocess.run(command, cwd=whole, check=True, capture_output=True)
            self._mini_s = time.monotonic() - start
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        after = float(random.uniform(0.4, 1)) * self._mini_s
        begun = subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(after)
        begun.kill()
        self.deaths += begun.wait() == DEAD
        done = subprocess.run([*command, "--resume"], cwd=place, check=False, capture_output=True, text=True)
        ended = Ended(done.returncode, done.stderr)
        expect(ended.status == 0, f"killed after {after:.1f} of {self._mini_s:.1f} s, then resumed: failed", ended)
        other = unlike(contents(place), contents(whole))
        expect(not other, f"killed after {after:.1f} of {self._mini_s:.1f} s: {other} differ", ended)


def _below(found: Contents, name: str) -> Contents:
    """A file, or all of a store."""
    return {path: content for path, content in found.items() if path == name or path.startswith(f"{name}/")}


@dataclass(frozen=True)
class One:
    """One of two runs: its seed, its file, its store, and whether it would go on."""

    seed: int
    path: str
    store: str | None
    resume: bool

    @property
    def words(self) -> tuple[str, ...]:
        """Without ``--resume``."""
        return (*LONG, "--seed", str(self.seed), "--path", self.path, *(("--zarr", self.store) if self.store else ()))

    @property
    def typed(self) -> tuple[str, ...]:
        return (*self.words, "--resume") if self.resume else self.words

    @property
    def names(self) -> tuple[str, ...]:
        """All that it makes."""
        products = (self.path.replace(".grib", f"-{name}.grib") for name in ("mean", "quantile_20"))
        return (self.path, *products, *([self.store] if self.store else []))

    def __str__(self) -> str:
        return f"seed {self.seed} to {self.path} and {self.store}{' --resume' if self.resume else ''}"


def choose_pair(random: np.random.Generator, trial: int) -> tuple[One, One]:
    first = One(0, "a.grib", "out.zarr", bool(random.integers(2)))
    how = ("path", "store", "both")[trial % 3]
    second = {
        "path": replace(first, store=None if random.random() < 0.5 else "other.zarr"),
        "store": replace(first, path="b.grib"),
        "both": first,
    }[how]
    return first, replace(second, seed=int(random.integers(2)), resume=bool(random.integers(2)))


def main(words: list[str] | None = None) -> int:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = {
        "single": ("runs killed once", 1, Kills.killed),
        "double": ("runs killed twice", 2, Kills.killed),
        "device": ("runs on a stand-in for a GPU that get a signal", 1, Kills.on_a_device),
        "ranks": ("runs of several ranks, one of them killed", 1, Kills.of_ranks),
        "interleaved": ("pairs of runs that share a path or a store", 0, Kills.interleaved),
        "whole": ("runs of the bundled variant killed, from the start of Python on", 1, Kills.of_the_whole_command),
    }
    for name, (help_, _, _) in kinds.items():
        made.add_argument(f"--{name}", type=int, default=0, metavar="COUNT", help=help_)
    made.add_argument("--seed", type=int, default=0)
    known = made.parse_args(words)
    toy_command.prepare()
    faults: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="kills") as folder:
        kills = Kills(Path(folder))
        for name, (_, deaths, what) in kinds.items():
            count, before, start = getattr(known, name), kills.deaths, time.monotonic()
            for trial in range(count):
                try:
                    what(kills, trial, deaths, known.seed)
                except FaultError as fault:
                    faults[name] += 1
                    print(f"{name} {trial}: {fault}", flush=True)
            if count:
                figures = f"{count} trials, {kills.deaths - before} deaths, {faults[name]} faults"
                print(f"{name}: {figures}, {time.monotonic() - start:.0f} s", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
