"""Tilings that were tuned on a device of the user's, in a file of the cache folder.

One file for every device, precision and set of versions; one that is damaged, or of another device or version, is
passed over with a word in the log.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import astuple
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ... import __version__
from ...files import parse_json, read_own, write_whole
from ...geometry.disk_cache import cache_folder
from .tilings import BOUNDS, Tiling

LOG = logging.getLogger(__name__)

FORMAT = 1
"""Version of what is in a file."""

MOST_BYTES = 2**20
"""Of a file that is looked at."""

Tilings = Mapping[str, Tiling]
"""By the text of a `tilings.StageShape`."""


def tuning_key(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """What a tuned tiling is good for, as JSON gives it back.

    Parameters
    ----------
    device : torch.device
        Where it was timed.
    dtype : torch.dtype
        Of queries, keys and values.

    Returns
    -------
    dict
        Device, precision and versions.
    """
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else device.type,
        "capability": list(torch.cuda.get_device_capability(device)) if on_gpu else None,
        "precision": str(dtype).removeprefix("torch."),
        "torch": str(torch.__version__),
        "triton": _version("triton"),
        "ai-models-mosaic": __version__,
    }


def tuned_file(key: Mapping[str, Any]) -> Path | None:
    """Where the tilings for a key are kept; None where nothing is, with ``AI_MODELS_MOSAIC_CACHE=off``."""
    folder = cache_folder()
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    return None if folder is None else folder / f"attention-tiles-{digest}.json"


def read_tuned(key: Mapping[str, Any]) -> Tilings:
    """The tilings that were tuned for a key; none where there is no file that can be used.

    Parameters
    ----------
    key : mapping
        As `tuning_key` gives it.

    Returns
    -------
    mapping of str to Tiling
        By shape.
    """
    path = tuned_file(key)
    if path is None or not path.exists():
        return {}
    try:
        return _checked(path, key)
    except (OSError, ValueError) as error:
        LOG.warning("Cannot use %s (%s): taking the tiles of the table", path, error)
        return {}


def _checked(path: Path, key: Mapping[str, Any]) -> Tilings:
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"expected at most {MOST_BYTES} bytes")
    said = parse_json(read_own(path))
    if not isinstance(said, dict) or said.get("format") != FORMAT or said.get("key") != key:
        raise ValueError("it is of another device or version")
    return tilings_from_lists(said.get("tilings"))


def write_tuned(key: Mapping[str, Any], tilings: Tilings) -> Path | None:
    """Keep tilings beside those that were kept for other shapes.

    Parameters
    ----------
    key : mapping
        As `tuning_key` gives it.
    tilings : mapping of str to Tiling
        By shape.

    Returns
    -------
    Path or None
        Where; None where nothing is kept.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    path = tuned_file(key)
    if path is None:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {"format": FORMAT, "key": dict(key), "tilings": lists_from_tilings({**read_tuned(key), **tilings})}
    write_whole(path, [json.dumps(kept, indent=1).encode() + b"\n"])
    return path


def lists_from_tilings(tilings: Tilings) -> dict[str, list[int]]:
    """Tilings as JSON holds them: by shape, the numbers of every one in their order."""
    return {shape: list(astuple(tiling)) for shape, tiling in tilings.items()}


def tilings_from_lists(said: object) -> dict[str, Tiling]:
    """The reverse of `lists_from_tilings`, for what may be anything.

    Parameters
    ----------
    said : object
        What JSON gave.

    Returns
    -------
    dict of str to Tiling
        By shape.

    Raises
    ------
    ValueError
        If it is something else; says what was expected.
    """
    if not isinstance(said, Mapping):
        raise ValueError("expected tiles by shape")
    tilings = {}
    for shape, numbers in said.items():
        whole = isinstance(numbers, list) and all(type(number) is int for number in numbers)
        if not isinstance(shape, str) or not whole or len(numbers) != len(BOUNDS):
            raise ValueError("expected five whole numbers for every shape")
        tilings[shape] = Tiling(*numbers)
    return tilings


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
