"""A machine on which assets are fetched from the stand-in of the hub, in processes of its own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hub_standin import SIGNATURE, Hub
from running import BIN

CHECKPOINT, STATISTICS, STATICS = "checkpoints/era5_best.pt", "data/norm_stats_era5.npz", "data/static_vars.npz"
CLIENT_BLOCK = 10 * 2**20
"""The client hands on what it receives in blocks of this size; what is less is lost when it dies."""
LIMIT_SECONDS = 60

PROGRAM = """
import json, logging, sys
from dataclasses import replace
from pathlib import Path
from ai_models_mosaic.errors import MosaicError
from ai_models_mosaic.checkpoints.hub import fetch
from ai_models_mosaic.variants import ERA5

logging.basicConfig(level="INFO", format="%(levelname)s %(message)s", stream=sys.stdout)
try:
    fetch(replace(ERA5, sha256=tuple(json.loads(sys.argv[1]).items())), Path("assets"))
except MosaicError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""
"""Fetch the files of era5 with other digests pinned: the released files are not ours to pass on."""


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


FILES = {
    CHECKPOINT: bytes(range(256)) * ((CLIENT_BLOCK + 2**20) // 256),
    STATISTICS: b"statistics" * 100,
    STATICS: b"statics" * 100,
}
PINS = {name: digest(FILES[name]) for name in (STATISTICS, STATICS)}


class Machine:
    """A folder, and an environment in which only the stand-in can be reached."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self.folder, self.assets = folder, folder / "assets"
        kept = {key: value for key, value in os.environ.items() if not key.upper().endswith("_PROXY")}
        self.environment = {
            **{key: value for key, value in kept.items() if not key.startswith("HF_")},
            "HOME": str(folder),
            "HF_HOME": str(folder / "hf"),
            "HF_ENDPOINT": hub.address,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": "hf_token-of-the-user",
        }

    def start(self, pins: dict[str, str] = PINS, **environment: str) -> subprocess.Popen[str]:
        """Begin to fetch in another process."""
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(pins)],
            cwd=self.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def fetch(self, pins: dict[str, str] = PINS, **environment: str) -> str:
        """Fetch; returns what was logged."""
        done = finish(self.start(pins, **environment))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, pins: dict[str, str] = PINS, **environment: str) -> str:
        """Fetch what cannot be had; returns the message."""
        done = finish(self.start(pins, **environment))
        assert done.returncode == 1, done.stdout
        assert "Traceback" not in done.stderr
        return done.stderr.replace(str(self.folder), "")

    def command(self, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run one of the two commands, as a user would."""
        return subprocess.run(
            [str(BIN / str(words[0])), *(str(word) for word in words[1:])],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_SECONDS,
        )

    def partial(self) -> list[Path]:
        return list(self.assets.rglob("*.partial"))

    def record(self, name: str = CHECKPOINT) -> dict[str, object]:
        return json.loads((self.assets / f"{name}.json").read_text())

    def has(self, *names: str) -> bool:
        """Whether exactly these assets are there, each whole."""
        found = {name for name in FILES if (self.assets / name).exists()}
        return found == set(names) and all((self.assets / name).read_bytes() == FILES[name] for name in names)


def finish(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    try:
        stdout, stderr = process.communicate(timeout=LIMIT_SECONDS)
    finally:
        process.kill()
    # Neither the user's token nor what the hub signs may be seen.
    assert "hf_token-of-the-user" not in stdout + stderr
    assert SIGNATURE not in stdout + stderr
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def wait_until(true: Callable[[], object]) -> None:
    """Look again and again, but not for ever."""
    end = time.monotonic() + LIMIT_SECONDS
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)
