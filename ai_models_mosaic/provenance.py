"""What made a forecast: versions, weights, members, input."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from . import __version__
from .options import Options
from .state import InitialState

if TYPE_CHECKING:
    from .engines.torch import TorchEngine

PACKAGES = ("ai-models", "earthkit-data", "eccodes", "healpix", "numpy", "safetensors", "scikit-learn", "torch")


def gather(
    *,
    variant: str,
    options: Options,
    steps: int,
    initial: InitialState | None,
    engine: TorchEngine | None,
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
    engine : TorchEngine or None
        What ran it.
    metadata : mapping of str to str
        The user's GRIB keys.
    """
    found: dict[str, Any] = {
        "ai-models-mosaic": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "variant": variant,
        "seed": options.seed,
        "members": list(options.members),
        "ensemble_size": options.ensemble_size,
        "members_per_batch": options.members_per_batch,
        "steps": steps,
        "metadata": dict(metadata),
    }
    if initial is not None:
        found["input"] = {
            "initial_time": initial.initial_time.isoformat(),
            "states": [time.isoformat() for time in initial.times],
            "sha256": initial.digest,
        }
    if engine is not None:
        from .assets import LICENCE, origin
        from .integrity import sha256

        path = engine.checkpoint
        found["engine"] = engine.description
        found["weights"] = {
            "file": str(path),
            "sha256": sha256(path) if path else None,
            "untrained": engine.untrained,
            **(origin(path) if path else {}),
        }
        if options.checkpoint is None and not found["weights"].get("licence"):
            found["weights"]["licence"] = LICENCE
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
