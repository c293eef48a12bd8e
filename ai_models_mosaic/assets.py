"""Where weights, statistics and static fields are, and what may be wrong with them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .arrays import FloatArray
from .errors import CheckpointError
from .integrity import check, read_record, warn_if_unlisted
from .variants import Variant

if TYPE_CHECKING:
    from .checkpoint import Checkpoint, Statistics
LOG = logging.getLogger(__name__)

HUB = "https://huggingface.co/maxxxzdn/mosaic"
LICENCE = "CC-BY-NC-4.0"
"""Licence of the released weights and of the files that go with them."""

STATISTICS, STATICS = "normalisation statistics", "static fields"
"""What may be read beside weights, by the names under which cards and refusals have it."""


@dataclass(frozen=True)
class Assets:
    """Files that a run uses.

    Parameters
    ----------
    checkpoint : Path
        Weights.
    statistics, statics : Path or None
        Normalisation and static fields, where the checkpoint does not carry them.
    folder : Path
        The assets folder.
    """

    checkpoint: Path
    statistics: Path | None
    statics: Path | None
    folder: Path


def bundled_folder() -> Path:
    """Where the weights that come with this package are: inside it, or beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "weights"
    return installed if installed.is_dir() else package.parent / "weights"


def locate(variant: Variant, folder: Path, checkpoint: Path | None = None) -> Assets:
    """The files of a variant, without reading them.

    Parameters
    ----------
    variant : Variant
        What to run.
    folder : Path
        The assets folder: laid out as on the hub, or flat.
    checkpoint : Path or None
        Weights to use instead of the variant's own.

    Raises
    ------
    CheckpointError
        If there are no weights; says where they come from.
    """
    if variant.bundled:
        folder = bundled_folder()
    if checkpoint is None:
        checkpoint = find(folder, str(Path(variant.checkpoint).with_suffix(".safetensors"))) or find(
            folder, variant.checkpoint
        )
        if checkpoint is None:
            names = ", ".join(variant.asset_files) or variant.checkpoint
            raise CheckpointError(
                f"variant {variant.name} needs {names} in the assets folder {folder}: "
                f"fetch them with --download-assets, or from {HUB} ({LICENCE}) and pass --assets FOLDER, or give "
                "--checkpoint FILE"
            )
    elif not checkpoint.is_file():
        raise CheckpointError(f"--checkpoint {checkpoint}: there is no such file; expected a .pt or .safetensors file")
    statistics, statics = (find(folder, name) if name else None for name in (variant.statistics, variant.statics))
    return Assets(checkpoint, statistics, statics, folder)


def check_assets(variant: Variant, assets: Assets, *, full: bool) -> None:
    """Refuse files that are not what was fetched, released or pinned.

    Parameters
    ----------
    variant : Variant
        What is to run.
    assets : Assets
        Its files.
    full : bool
        Hash all of them, even those whose size and time are as recorded.

    Raises
    ------
    CheckpointError
        If one has another digest; names both.
    """
    pins = dict(variant.sha256)
    names = (variant.checkpoint, variant.statistics, variant.statics)
    for path, name in zip((assets.checkpoint, assets.statistics, assets.statics), names, strict=True):
        if path and name:
            warn_if_unlisted(path, assets.folder)
            check(path, assets.folder, pins.get(name), full=full)


def origin(checkpoint: Path) -> dict[str, str | None]:
    """Licence, source and revision of weights: from the record beside them, or what they say of themselves."""
    record = read_record(checkpoint)
    if record:
        return {"licence": record.licence, "source": record.source, "revision": record.revision}
    from .checkpoint import read_metadata

    said = read_metadata(checkpoint) if checkpoint.suffix == ".safetensors" else {}
    return {"licence": said.get("licence"), "source": said.get("source"), "revision": said.get("revision")}


def read_statistics(variant: Variant, assets: Assets, checkpoint: Checkpoint) -> Statistics:
    """Normalisation of a checkpoint: its own, else that of the variant's file.

    Raises
    ------
    CheckpointError
        If there is none, or it is not what was released.
    """
    from .checkpoint import Statistics, read_npz

    shape = (variant.architecture.channels,)
    if checkpoint.statistics is not None:
        if checkpoint.statistics.mean.shape != shape or checkpoint.statistics.std.shape != shape:
            got = checkpoint.statistics.mean.shape
            raise CheckpointError(f"{checkpoint.path}: expected statistics of {shape[0]} channels, got shape {got}")
        return checkpoint.statistics
    path = _needed(variant, assets, assets.statistics, variant.statistics, "normalisation statistics")
    arrays = read_npz(path, state_mean=shape, state_std=shape)
    return Statistics(arrays["state_mean"], arrays["state_std"])


def read_static_fields(variant: Variant, assets: Assets, checkpoint: Checkpoint) -> FloatArray | None:
    """Raw static fields ``(lon, lat, 3)``; None where the checkpoint carries the buffer made of them.

    Raises
    ------
    CheckpointError
        If there are none, or they are not what was released.
    """
    from .checkpoint import read_npz

    if "static_vars" in checkpoint.state:
        return None
    path = _needed(variant, assets, assets.statics, variant.statics, "static fields")
    grid = variant.architecture.grid
    columns, rows = grid.shape
    arrays = read_npz(path, data=(columns, rows, 3), latitude=(rows,), longitude=(columns,))
    if arrays["latitude"][0] > arrays["latitude"][-1]:
        raise CheckpointError(f"{path}: expected latitudes from south to north, got them from north to south")
    return arrays["data"]


def files_beside(assets: Assets, checkpoint: Checkpoint) -> tuple[tuple[str, Path], ...]:
    """What is read beside a checkpoint, and from which file: nothing that it carries itself."""
    found = (
        (STATISTICS, None if checkpoint.statistics is not None else assets.statistics),
        (STATICS, None if "static_vars" in checkpoint.state else assets.statics),
    )
    return tuple((what, path) for what, path in found if path is not None)


def _needed(variant: Variant, assets: Assets, path: Path | None, name: str | None, what: str) -> Path:
    if path is None or name is None:
        where = f"; expected {name} in the assets folder (--download-assets fetches it from {HUB})" if name else ""
        raise CheckpointError(f"the checkpoint carries no {what}, and none were found{where}")
    check(path, assets.folder, dict(variant.sha256).get(name), full=True)
    return path


def find(folder: Path, name: str) -> Path | None:
    """A file by its path on the hub, or by its name alone."""
    candidates = (folder / name, folder / Path(name).name)
    return next((path for path in candidates if path.is_file()), None)
