"""Run the real runner with the plugin, in this process or another, and read what it wrote."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import eccodes
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "examples" / "mini-input.grib"
MINI = ("mosaic", "--variant", "mini", "--file", str(SAMPLE))
BIN = Path(sys.executable).parent

HAS_RUNNER = importlib.util.find_spec("ai_models") is not None
"""Whether ai-models is installed: it is not where NumPy 2 is."""


def need_runner() -> None:
    """Skip the test where the runner is not installed."""
    if not HAS_RUNNER:
        pytest.skip("the ai-models runner is not installed")


@dataclass(frozen=True)
class Refused:
    """A run that ended with an error message."""

    status: int
    message: str


class Runner:
    """Runs ``ai-models`` in this process, as typed in a folder of its own."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self._patch, self._capture = folder, patch, capture

    def __call__(self, *words: object) -> str:
        """Run with the given words; returns what was printed on standard output."""
        from ai_models.__main__ import _main

        arguments = [str(word) for word in words]
        self._patch.chdir(self.folder)
        self._patch.setattr(sys, "argv", ["ai-models", *arguments])
        self._capture.readouterr()
        try:
            _main(arguments)
        except SystemExit as error:
            if error.code not in (0, None):
                raise
        return self._capture.readouterr().out

    def refused(self, *words: object) -> Refused:
        """Run what must fail."""
        with pytest.raises(SystemExit) as caught:
            self(*words)
        return Refused(int(str(caught.value.code)), self._capture.readouterr().err)

    def path(self, name: str) -> Path:
        return self.folder / name


def elsewhere(folder: Path, *words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run ``ai-models`` in a process of its own."""
    need_runner()
    command = [str(BIN / "ai-models"), *(str(word) for word in words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, **options)


def messages(path: Path) -> list[bytes]:
    """The GRIB messages of a file, as they stand in it."""
    found = []
    with path.open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            found.append(eccodes.codes_get_message(handle))
            eccodes.codes_release(handle)
    return found


def keys(message: bytes, *names: str) -> tuple[Any, ...]:
    """Some keys of a message, in their native types."""
    handle = eccodes.codes_new_from_message(message)
    found = tuple(eccodes.codes_get(handle, name) for name in names)
    eccodes.codes_release(handle)
    return found


def values(message: bytes) -> np.ndarray:
    handle = eccodes.codes_new_from_message(message)
    found = eccodes.codes_get_values(handle)
    eccodes.codes_release(handle)
    return found


def changed(source: bytes, new_values: np.ndarray | None = None, **new: Any) -> bytes:
    """A message with other keys, and perhaps other values."""
    handle = eccodes.codes_new_from_message(source)
    for key, value in new.items():
        eccodes.codes_set(handle, key, value)
    if new_values is not None:
        eccodes.codes_set_values(handle, new_values)
    found = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return found


def of_member(path: Path, member: int) -> list[bytes]:
    """A member's messages, in the order of the file."""
    return [message for message in messages(path) if keys(message, "number") == (member,)]
