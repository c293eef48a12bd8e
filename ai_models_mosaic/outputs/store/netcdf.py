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
from .cf import CONVENTIONS, Coordinate, Part, attributes_of, coordinates, name_of, scalars_of
from .layout import Layout, Variable, variables
from .zarr import RUN

LOG = logging.getLogger(__name__)

COMPRESSION_LEVEL = 1
"""zlib's fastest; higher ones gain nothing on the digits of weather."""


def convert(store: Path, path: Path, layout: Layout, part: Part | None = None) -> Path:
    """Copy a store, or a part of it, into a NetCDF-4 file, chunk by chunk; returns the file.

    Parameters
    ----------
    store : Path
        A complete Zarr store.
    path : Path
        The file, which bears the suffix ``.partial`` until it is complete.
    layout : Layout
        What the store holds.
    part : Part or None
        What of it goes into the file; None for all.

    Raises
    ------
    OutputError
        If it cannot be written, or netCDF4 is not installed.
    """
    netcdf = require("netCDF4", f"writing {path}")
    source = require("zarr", f"writing {path}").open_group(str(store), mode="r")
    part = Part(tuple(sorted(layout.members))) if part is None else part
    try:
        final, partial = place_of(path), partial_of(path)
        if final != path:
            LOG.info("%s is a symbolic link: writing %s", path, final)
        # The library would follow a link: it is given a file that is there, which it cuts to nothing.
        with FileIO(create(partial)) as made:
            with _begun(netcdf, partial) as target:
                attributes = {name: value for name, value in source.attrs.items() if name != RUN}
                target.setncatts({**attributes, "Conventions": CONVENTIONS, "history": _history(layout)})
                _fill(target, source, layout, part)
            sync(partial)
            if not is_named(partial, made):
                raise OSError(0, f"{partial} was exchanged for another file while it was being written")
            partial.replace(final)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    except RuntimeError as error:
        raise OutputError(f"cannot write {path}: {error}; is the disk full?") from error
    return path


def _begun(netcdf: Any, partial: Path) -> Any:
    """A dataset in a file that is there and may be written to."""
    try:
        return netcdf.Dataset(str(partial), "w", format="NETCDF4")
    except PermissionError as error:
        # So the library says whatever keeps it from its first bytes.
        raise OSError(0, "not even its first bytes could be written; is the disk full?") from error


def _history(layout: Layout) -> str:
    """What was done, without the time of it: the same run gives the same file."""
    source = dict(layout.attributes).get("source", "ai-models-mosaic")
    return f"{source}: forecast from {layout.initial_time:%Y-%m-%d %H:%M} UTC"


def _fill(target: Any, source: Any, layout: Layout, part: Part) -> None:
    chosen = [variable for variable in variables(layout) if part.holds(variable)]
    used = {name for variable in chosen for name in part.dimensions(variable)}
    for name, coordinate in coordinates(layout, part).items():
        if used.issuperset(coordinate[0]):
            if coordinate[0] == (name,):
                target.createDimension(name, coordinate[1].size)
            _put(target, name, coordinate)
    for variable in chosen:
        for name, coordinate in scalars_of(variable).items():
            if name not in target.variables:
                _put(target, name, coordinate)
        _copy(target, source[variable.name], variable, part, layout)


def _put(target: Any, name: str, coordinate: Coordinate) -> None:
    dimensions, values, attributes = coordinate
    made = target.createVariable(name, values.dtype, dimensions, fill_value=False)
    made[...] = values
    made.setncatts(attributes)


def _copy(target: Any, array: Any, variable: Variable, part: Part, layout: Layout) -> None:
    """Copy a variable chunk by chunk: of the store's one initial time, its members that are wanted, turned to CF."""
    dimensions = part.dimensions(variable)
    made = target.createVariable(
        name_of(variable),
        np.dtype(np.float32),
        dimensions,
        compression="zlib",
        complevel=COMPRESSION_LEVEL,
        shuffle=True,
        chunksizes=[1 if name in ("number", "time") else len(target.dimensions[name]) for name in dimensions],
        fill_value=np.float32(np.nan),
    )
    made.setncatts(attributes_of(variable, part))
    places = [layout.members.index(member) for member in part.members] if variable.product is None else [None]
    for (to, member), step in itertools.product(enumerate(places), range(len(layout.lead_times_hours))):
        values = np.asarray(array[(0, step) if member is None else (0, step, member)])
        turned = np.swapaxes(values, -1, -2)[..., ::-1, :]
        made[(to, step) if "number" in dimensions else step] = turned
