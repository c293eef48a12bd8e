"""Where weights, statistics and static fields are, and what may be wrong with them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..arrays import FloatArray
from ..errors import CheckpointError
from ..variants import Variant
from .held_file import held_bytes
from .integrity import Expected, check, digest_of_bytes, expected_digest, read_record, refuse_other, warn_if_unlisted
from .npz_file import npz_arrays

if TYPE_CHECKING:
    from .format import Checkpoint, Statistics
LOG = logging.getLogger(__name__)

HUB = "https://huggingface.co/maxxxzdn/mosaic"
LICENCE = "CC-BY-NC-4.0"
"""Licence of the released weights and of the files that go with them."""

STATISTICS, STATICS = "normalisation statistics", "static fields"
"""What may be read beside weights, by the names under which cards and refusals have it."""
MOST_BYTES = 2**30
"""Of a file of statistics or static fields, which have less than a thousandth of that."""


@dataclass(frozen=True)
class DataFile:
    """A file beside the weights that a forecast comes from.

    Parameters
    ----------
    what : str
        What it is, such as ``static fields``.
    path : Path
        Where it is.
    sha256 : str
        Its digest.
    """

    what: str
    path: Path
    sha256: str


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
    package = Path(__file__).parent.parent
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


def expected_weights(variant: Variant, assets: Assets) -> Expected | None:
    """The digest that the weights must have; None if nobody says."""
    return expected_digest(assets.checkpoint, assets.folder, dict(variant.sha256).get(variant.checkpoint))


def origin(checkpoint: Path) -> dict[str, str | None]:
    """Licence, source and revision of weights: from the record beside them, or what they say of themselves."""
    record = read_record(checkpoint)
    if record:
        return {"licence": record.licence, "source": record.source, "revision": record.revision}
    from .tensor_files import read_metadata

    said = read_metadata(checkpoint) if checkpoint.suffix == ".safetensors" else {}
    return {"licence": said.get("licence"), "source": said.get("source"), "revision": said.get("revision")}


@dataclass(frozen=True)
class Companions:
    """What belongs to weights, and the files that it was read from.

    Parameters
    ----------
    statistics : Statistics
        Normalisation.
    static_fields : array (lon, lat, 3) or None
        Raw static fields; None where the checkpoint carries the buffer made of them.
    files : tuple of DataFile
        What was read: nothing that the checkpoint carries itself.
    """

    statistics: Statistics
    static_fields: FloatArray | None
    files: tuple[DataFile, ...]


@dataclass(frozen=True)
class _Content:
    """A file of which the digest is right, and what it held then."""

    file: DataFile
    held: bytes


def read_companions(variant: Variant, assets: Assets, checkpoint: Checkpoint) -> Companions:
    """Normalisation and static fields of a checkpoint; errors as `read_statistics` and `read_static_fields`."""
    statistics, of_statistics = read_statistics(variant, assets, checkpoint)
    fields, of_fields = read_static_fields(variant, assets, checkpoint)
    return Companions(statistics, fields, tuple(file for file in (of_statistics, of_fields) if file is not None))


def read_statistics(variant: Variant, assets: Assets, checkpoint: Checkpoint) -> tuple[Statistics, DataFile | None]:
    """Normalisation of a checkpoint, its own, else that of the variant's file; and that file.

    Raises
    ------
    CheckpointError
        If there is none, or it is not what was released.
    """
    from .format import Statistics

    shape = (variant.architecture.channels,)
    if checkpoint.statistics is not None:
        if checkpoint.statistics.mean.shape != shape or checkpoint.statistics.std.shape != shape:
            got = checkpoint.statistics.mean.shape
            raise CheckpointError(f"{checkpoint.path}: expected statistics of {shape[0]} channels, got shape {got}")
        return checkpoint.statistics, None
    found = _needed(variant, assets, assets.statistics, variant.statistics, "normalisation statistics")
    arrays = npz_arrays(found.file.path, found.held, state_mean=shape, state_std=shape)
    return Statistics(arrays["state_mean"], arrays["state_std"]), found.file


def read_static_fields(
    variant: Variant, assets: Assets, checkpoint: Checkpoint
) -> tuple[FloatArray | None, DataFile | None]:
    """Raw static fields ``(lon, lat, 3)``, None where the checkpoint carries the buffer made of them; and their file.

    Raises
    ------
    CheckpointError
        If there are none, or they are not what was released.
    """
    if "static_vars" in checkpoint.state:
        return None, None
    found = _needed(variant, assets, assets.statics, variant.statics, "static fields")
    grid = variant.architecture.grid
    columns, rows = grid.shape
    path = found.file.path
    arrays = npz_arrays(path, found.held, data=(columns, rows, 3), latitude=(rows,), longitude=(columns,))
    if arrays["latitude"][0] > arrays["latitude"][-1]:
        raise CheckpointError(f"{path}: expected latitudes from south to north, got them from north to south")
    return arrays["data"], found.file


def _needed(variant: Variant, assets: Assets, path: Path | None, name: str | None, what: str) -> _Content:
    if path is None or name is None:
        where = f"; expected {name} in the assets folder (--download-assets fetches it from {HUB})" if name else ""
        raise CheckpointError(f"the checkpoint carries no {what}, and none were found{where}")
    content = held_bytes(path, MOST_BYTES)
    digest = digest_of_bytes(content)
    refuse_other(path, expected_digest(path, assets.folder, dict(variant.sha256).get(name)), digest)
    return _Content(DataFile(what, path, digest), content)


def find(folder: Path, name: str) -> Path | None:
    """A file by its path on the hub, or by its name alone."""
    candidates = (folder / name, folder / Path(name).name)
    return next((path for path in candidates if path.is_file()), None)
