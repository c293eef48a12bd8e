"""The ensemble as NetCDF, made in one go from the Zarr store when that is complete.

A file of HDF5 is worth nothing until it is closed, and takes one writer: a store can be written to
by many threads and processes, and survives their death.
"""

from __future__ import annotations

import itertools
import logging
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import OutputError
from ...files import create, is_named, partial_of, place_of, sync
from ..extras import require
from .layout import DIMENSIONS
from .zarr import RUN

LOG = logging.getLogger(__name__)

COMPRESSION_LEVEL = 1
"""zlib's fastest; higher ones gain nothing on the digits of weather."""


def convert(store: Path, path: Path) -> Path:
    """Copy a store into a NetCDF-4 file, chunk by chunk; returns the file.

    Parameters
    ----------
    store : Path
        A complete Zarr store.
    path : Path
        The file, which bears the suffix ``.partial`` until it is complete.

    Raises
    ------
    OutputError
        If it cannot be written, or netCDF4 is not installed.
    """
    netcdf = require("netCDF4", f"writing {path}")
    source = require("zarr", f"writing {path}").open_group(str(store), mode="r")
    attributes = {name: value for name, value in source.attrs.items() if name != RUN}
    try:
        final, partial = place_of(path), partial_of(path)
        if final != path:
            LOG.info("%s is a symbolic link: writing %s", path, final)
        # The library would follow a link: it is given a file that is there, which it cuts to nothing.
        with FileIO(create(partial)) as made:
            with netcdf.Dataset(str(partial), "w", format="NETCDF4") as target:
                target.setncatts(attributes)
                # zarr 3 gives them in any order.
                arrays = sorted(source.arrays())
                for _, array in arrays:
                    for name, size in zip(array.attrs[DIMENSIONS], array.shape, strict=True):
                        if name not in target.dimensions:
                            target.createDimension(name, size)
                for name, array in arrays:
                    _copy(target, name, array)
            sync(partial)
            if not is_named(partial, made):
                raise OSError(0, f"{partial} was exchanged for another file while it was being written")
            partial.replace(final)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    except RuntimeError as error:
        raise OutputError(f"cannot write {path}: {error}; is the disk full?") from error
    return path


def _copy(target: Any, name: str, array: Any) -> None:
    attributes = dict(array.attrs)
    dimensions = attributes.pop(DIMENSIONS)
    floating = np.issubdtype(array.dtype, np.floating) and len(dimensions) > 1
    made = target.createVariable(
        name,
        array.dtype.newbyteorder("="),
        dimensions,
        compression="zlib" if floating else None,
        complevel=COMPRESSION_LEVEL,
        shuffle=True,
        chunksizes=array.chunks if floating else None,
        fill_value=np.float32(np.nan) if floating else False,
    )
    made.setncatts(attributes)
    starts = (range(0, size, chunk) for size, chunk in zip(array.shape, array.chunks, strict=True))
    for start in itertools.product(*starts):
        where = tuple(slice(first, first + chunk) for first, chunk in zip(start, array.chunks, strict=True))
        made[where] = array[where]
