"""What made a forecast: versions, weights, members, input."""

from __future__ import annotations

import glob
import json
import logging
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..files import named_errors, parse_json, write_whole
from ..inputs.states import input_digest
from ..outputs.contents import describe
from ..outputs.grib.files import is_stream
from ..state import InitialState
from ..wording.redaction import redacted
from .options import Options
from .tiles import tilings_of

if TYPE_CHECKING:
    from ..engines import LoadedEngine
    from .series import SeriesSettings

LOG = logging.getLogger(__name__)

SUFFIX = ".provenance.json"

CONTENT = "content"
"""Under which a card says what is in the file that it stands beside, to know it again."""

VERSIONS = ("ai-models-mosaic", "python", "platform")
"""What a card says at its top of the software that ran, beside the packages."""

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
        **versions(),
        "packages": packages(),
        "written": now(),
        "variant": variant,
        "seed": options.seed,
        "members": list(options.members),
        "ensemble_size": options.ensemble_size,
        "members_per_batch": options.members_per_batch,
        "steps": steps,
        "metadata": dict(metadata),
        # Who is told makes no forecast, and may be secret.
        "options": {name: _plain(value) for name, value in asdict(options).items() if name != "listeners"},
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
        found |= tilings_of(engine)
        found["weights"] = _weights(engine, released=options.checkpoint is None)
    return found


def card_of(
    settings: SeriesSettings, options: Options, engine: LoadedEngine, starts: Mapping[int, InitialState]
) -> dict[str, Any]:
    """Provenance of a run of a series, with all that it is known again by.

    Parameters
    ----------
    settings : SeriesSettings
        What it has in common with others.
    options : Options
        Of the run; its members are among those of `starts`.
    engine : LoadedEngine
        What runs it.
    starts : mapping of int to InitialState
        Where members start.
    """
    own = {member: starts[member] for member in options.members}
    found = gather(
        variant=settings.variant.name,
        options=options,
        steps=settings.steps,
        initial=next(iter(own.values())),
        engine=engine,
        metadata=settings.metadata,
    )
    found["input"] |= {"source": settings.source, "sha256": input_digest(own)}
    found["path"] = settings.path
    if options.lagged is not None:
        found["input"]["starts"] = [state.times[-1].isoformat() for state in own.values()]
    numbers = [state.number for state in own.values()]
    if len(set(numbers)) > 1:
        found["input"]["numbers"] = numbers
    return found


def _weights(engine: LoadedEngine, *, released: bool) -> dict[str, Any]:
    """What is known of the weights; those of the variant itself have its licence, if no record says another."""
    from ..checkpoints.files import LICENCE, origin

    path = engine.checkpoint
    found = {
        "file": str(path),
        "sha256": engine.checkpoint_sha256,
        "untrained": engine.untrained,
        **(engine.origin if engine.origin is not None else origin(path) if path else {}),
        "data": {file.what: {"file": str(file.path), "sha256": file.sha256} for file in engine.data},
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
    path = card_place(output)
    with named_errors(output):
        card = {**found, CONTENT: describe(output)}
    write_whole(path, [json.dumps(card, separators=(",", ":")).encode() + b"\n"])


def write_cards(paths: Sequence[Path], found: dict[str, Any]) -> None:
    """Note in a card what was written, and when, and put it beside every file.

    Parameters
    ----------
    paths : sequence of Path
        All that was written.
    found : dict of str to object
        As `gather` returns it.

    Raises
    ------
    OutputError
        If one cannot be written.
    """
    found |= {"written": now(), "files": [str(path) for path in paths]}
    for path in paths:
        write_beside(path, found)


def complete_files(path: str, run: str) -> list[Path] | None:
    """What a run wrote, if all of it is there as it was then, and no other run has written over any; None if not.

    Parameters
    ----------
    path : str
        Of the output; may hold GRIB keys in braces, which stand for anything.
    run : str
        Digest of what the run is, as its cards give it.
    """
    # Placeholders that touch are one: two stars would be a search of all folders below.
    pattern = "*".join(glob.escape(part) for part in re.split(r"(?:\{.*?\})+", path + SUFFIX))
    anchor, checked = Path(path).anchor, dict[Path, bool]()
    for card in Path(anchor).glob(pattern.removeprefix(anchor)):
        found = _card(card)
        names = found.get("files")
        if found.get("run") == run and isinstance(names, list) and all(isinstance(name, str) for name in names):
            files = [Path(name) for name in names]
            for file in files:
                # Every card lists all files, of which there may be thousands.
                if file not in checked:
                    checked[file] = _is_complete(file, run)
            if files and all(checked[file] for file in files):
                return files
    return None


def read_beside(output: Path) -> dict[str, Any]:
    """What the card beside a file of the output says; nothing if there is none that can be read."""
    return _card(card_place(output))


def _is_complete(file: Path, run: str) -> bool:
    """Whether a file is what a run made; says what differs if it was changed since."""
    card = _card(card_place(file))
    if card.get("run") != run:
        return False
    try:
        now = describe(file)
    except (OSError, ValueError) as error:
        LOG.warning("%s was complete, and cannot be read now (%s): it is made again", file, error)
        return False
    then = card.get(CONTENT)
    if now == then:
        return True
    then = then if isinstance(then, dict) else {}
    names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    differing = "; ".join(f"{name}: expected {then.get(name)}, got {now.get(name)}" for name in names)
    LOG.warning("%s was complete, and was changed since: it is made again (%s)", file, differing)
    return False


def card_place(output: Path) -> Path:
    """Where the card of a file of the output is."""
    return output.with_name(output.name + SUFFIX)


def _card(path: Path) -> dict[str, Any]:
    """What a card says; nothing if it cannot be read."""
    try:
        found = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def versions() -> dict[str, str]:
    """Of this package, of Python and of the system."""
    return dict(zip(VERSIONS, (__version__, platform.python_version(), platform.platform()), strict=True))


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
