"""A store as an xarray dataset of which every value that is used was really read."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...arrays import FloatArray
from ...errors import InputError, MosaicError
from ...wording.redaction import redacted
from .places import place_of
from .reading import METADATA_FILES, StoreReader

if TYPE_CHECKING:
    import xarray

SUFFIX = ".zarr"

OF_ZARR_3 = (2026, 8)
"""The first xarray that does without zarr 2."""

MOST_BYTES = 2**36
"""More than any field of any archive takes: a shape that asks for it is damaged."""


def is_zarr(path: str) -> bool:
    """Whether a path or URL names a Zarr store: by what is in it, or by its ending if nothing is there."""
    if "://" in path:
        return True
    local = Path(path)
    if local.is_dir():
        return local.suffix == SUFFIX or any((local / name).is_file() for name in METADATA_FILES)
    if not local.is_file():
        return local.suffix == SUFFIX
    if not zipfile.is_zipfile(local):
        return False
    with zipfile.ZipFile(local) as archive:
        return any(name.rpartition("/")[2] in METADATA_FILES for name in archive.namelist())


def open_dataset(path: str, extra: str = "zarr") -> xarray.Dataset:
    """Open a store; its fields are read when they are asked for, with `values_of`.

    Parameters
    ----------
    path : str
        A folder, a zip file, or a URL that fsspec knows.
    extra : str
        Of this package, that brings what is needed.

    Raises
    ------
    InputError
        If a package is missing or too old for another, or the store cannot be opened.
    """
    try:
        import xarray
        import zarr
    except ImportError as error:
        raise InputError(
            f"reading {redacted(path)} needs xarray and zarr: pip install 'ai-models-mosaic[{extra}]'"
        ) from error
    installed = int(zarr.__version__.partition(".")[0])
    # No requirement can say that: extras do not know what else is installed.
    if installed == 2 and tuple(map(int, xarray.__version__.split(".")[:2])) >= OF_ZARR_3:
        raise InputError(
            f"reading {redacted(path)}: xarray {xarray.__version__} needs zarr 3, and zarr {zarr.__version__} is "
            "installed: pip install 'zarr>=3' or 'xarray<2026.8'"
        )
    reader = StoreReader(place_of(path), redacted(path))
    if reader.zarr_format > installed:
        raise InputError(
            f"{redacted(path)} is a store of Zarr format {reader.zarr_format}, and zarr {zarr.__version__} is "
            f"installed: write it "
            f"with zarr_format={installed}, for instance xarray's to_zarr(…, zarr_format={installed})"
        )
    store, options = _store_of(reader, installed)
    try:
        return xarray.open_dataset(
            store, engine="zarr", chunks=None, consolidated=reader.consolidated, decode_timedelta=True, **options
        )
    except MosaicError:
        raise
    except Exception as error:
        raise InputError(
            f"{redacted(path)} cannot be opened as a Zarr store: {type(error).__name__}: {error}"
        ) from error


def _store_of(reader: StoreReader, installed: int) -> tuple[Any, dict[str, Any]]:
    """The store for the installed zarr, and what xarray has to be told."""
    if installed == 2:
        from .version2 import Zarr2Store

        return Zarr2Store(reader), {}
    from .version3 import Zarr3Store

    return Zarr3Store(reader), {"zarr_format": reader.zarr_format}


def values_of(array: xarray.DataArray, path: str) -> FloatArray:
    """The values of a part of a store, in the array's shape and units.

    Raises
    ------
    InputError
        If a chunk is not there, cannot be read, or cannot be decoded.
    """
    if array.nbytes > MOST_BYTES:
        raise InputError(f"{redacted(path)}: expected fields of a usual size, got {array.name} of shape {array.shape}")
    try:
        values: FloatArray = array.values
    except MosaicError:
        raise
    except Exception as error:
        raise InputError(
            f"{redacted(path)}: {array.name}{_label(array)} cannot be decoded; is a chunk damaged? "
            f"{type(error).__name__}: {error}"
        ) from error
    return values


def _label(array: xarray.DataArray) -> str:
    time = array.coords.get("time")
    return "" if time is None or time.ndim else f" valid {str(time.values)[:16]}"
