"""What made a forecast: versions, weights, members, input."""

from __future__ import annotations

import glob
import json
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import OutputError
from .options import Options
from .outputs.files import is_stream
from .redaction import redacted
from .state import InitialState

if TYPE_CHECKING:
    from .engines import LoadedEngine

SUFFIX = ".provenance.json"

PACKAGES = (
    "ai-models",
    "earthkit-data",
    "eccodes",
    "healpix",
    "numpy",
    "onnxruntime",
    "safetensors",
    "scikit-learn",
    "torch",
)


def gather(
    *,
    variant: str,
    options: Options,
    steps: int,
    initial: InitialState | None,
    engine: LoadedEngine | None,
    metadata: Mapping[str, str],
) -> dict[str, Any]:
    """Provenance of a run, as JSON can hold it.

    Parameters
    ----------
    variant : str
        Name of the variant that ran.
    options : Options
        The plugin's options.
    steps : int
        Steps made.
    initial : InitialState or None
        Where the forecast started.
    engine : LoadedEngine or None
        What ran it.
    metadata : mapping of str to str
        The user's GRIB keys.
    """
    found: dict[str, Any] = {
        "ai-models-mosaic": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages(),
        "written": now(),
        "variant": variant,
        "seed": options.seed,
        "members": list(options.members),
        "ensemble_size": options.ensemble_size,
        "members_per_batch": options.members_per_batch,
        "steps": steps,
        "metadata": dict(metadata),
        "options": {name: _plain(value) for name, value in asdict(options).items()},
    }
    if initial is not None:
        found["input"] = {
            "initial_time": initial.initial_time.isoformat(),
            "states": [time.isoformat() for time in initial.times],
            "sha256": initial.digest,
        }
    if engine is not None:
        found["precision"] = engine.precision
        found["engine"] = engine.description
        found["weights"] = _weights(engine, released=options.checkpoint is None)
    return found


def _weights(engine: LoadedEngine, *, released: bool) -> dict[str, Any]:
    """What is known of the weights; those of the variant itself have its licence, if no record says another."""
    from .assets import LICENCE, origin

    path = engine.checkpoint
    found = {
        "file": str(path),
        "sha256": engine.checkpoint_sha256,
        "untrained": engine.untrained,
        **(engine.origin if engine.origin is not None else origin(path) if path else {}),
    }
    if engine.origin is None and released and not found.get("licence"):
        found["licence"] = LICENCE
    return found


def write_beside(output: Path, found: Mapping[str, Any]) -> None:
    """Put provenance, on one line, beside a file of the output: ``NAME.provenance.json``.

    Parameters
    ----------
    output : Path
        A file or store; nothing is put beside pipes and devices.
    found : mapping of str to object
        As `gather` returns it.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    if is_stream(output) or not output.exists():
        return
    path = _beside(output)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(json.dumps(dict(found), separators=(",", ":")) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def complete_files(path: str, run: str) -> list[Path] | None:
    """What a run wrote, if all of it is there and no other run has written over any; None if not.

    Parameters
    ----------
    path : str
        Of the output; may hold GRIB keys in braces, which stand for anything.
    run : str
        Digest of what the run is, as its cards give it.
    """
    # Placeholders that touch are one: two stars would be a search of all folders below.
    pattern = "*".join(glob.escape(part) for part in re.split(r"(?:\{.*?\})+", path + SUFFIX))
    anchor = Path(path).anchor
    for card in Path(anchor).glob(pattern.removeprefix(anchor)):
        found = _card(card)
        if found.get("run") == run:
            files = [Path(name) for name in found.get("files", [])]
            if files and all(file.exists() and _card(_beside(file)).get("run") == run for file in files):
                return files
    return None


def _beside(output: Path) -> Path:
    return output.with_name(output.name + SUFFIX)


def _card(path: Path) -> dict[str, Any]:
    """What a card says; nothing if it cannot be read."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def packages() -> dict[str, str | None]:
    """Versions of what a forecast depends on; None for what is not installed."""
    return {name: _version(name) for name in PACKAGES}


def now() -> str:
    """The time, as ISO 8601 in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _plain(value: object) -> object:
    """A value as JSON gives it back."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return [_plain(inner) for inner in value]
    return redacted(str(value)) if isinstance(value, str | Path) else value


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
