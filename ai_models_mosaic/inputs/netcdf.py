"""Forecasts and analyses in NetCDF files, ours or others', as one dataset; fields are read when they are asked for."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import InputError
from .zarr_store.layout import MEMBER

if TYPE_CHECKING:
    import xarray

BEGINNINGS = (b"CDF\x01", b"CDF\x02", b"CDF\x05", b"\x89HDF")
"""First bytes of NetCDF files."""

LEVEL_HPA = "level_hpa"
"""Attribute of a variable on one level, in hPa."""

REFERENCE_TIME = ("init_time", "initial_time", "forecast_reference_time")
"""Names that only an initial time has."""

PRESSURES = {"hPa": 1.0, "mbar": 1.0, "millibar": 1.0, "Pa": 0.01}
"""hPa of a unit."""


def is_netcdf(path: Path) -> bool:
    """Whether a file is there that begins as NetCDF does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(BEGINNINGS[0])) in BEGINNINGS


def netcdf_files(pattern: str) -> list[str]:
    """The NetCDF files that a name or pattern stands for, by name; none if the first of them is no NetCDF.

    Parameters
    ----------
    pattern : str
        Such as ``out.nc`` or ``out-*.nc``.
    """
    matching = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
    return matching if matching and is_netcdf(Path(matching[0])) else []


def open_netcdf(paths: Sequence[str], *, grown: bool = False) -> xarray.Dataset:
    """Open files as one dataset: members that have one each, and several initial times, are put together.

    Valid times of one initial time are made lead times, ``step``. A variable on one pressure level, which CF gives as
    a scalar coordinate, says which in the attribute `LEVEL_HPA`.

    Parameters
    ----------
    paths : sequence of str
        NetCDF files of one kind.
    grown : bool
        Whether members and initial times that are scalars are made dimensions; they are, of several files.

    Raises
    ------
    InputError
        If one cannot be read, or they do not fit together.
    """
    try:
        import xarray

        # What is put together has to be of dask: xarray would read all of anything else.
        grown = grown or len(paths) > 1
        more: dict[str, Any] = {"chunks": {}} if grown else {}
        parts = [
            with_steps(with_levels(xarray.open_dataset(path, decode_timedelta=True, cache=False, **more)))
            for path in paths
        ]
        parts = [_grown(part) for part in parts] if grown else parts
        if len(parts) == 1:
            return parts[0]
        rules: dict[str, Any] = {"compat": "override", "data_vars": "minimal", "coords": "minimal", "join": "exact"}
        return cast("xarray.Dataset", xarray.combine_by_coords(parts, combine_attrs="override", **rules))
    except (OSError, ValueError, ImportError) as error:
        raise InputError(
            f"{', '.join(paths)} cannot be read as NetCDF: {error}. Reading it needs netCDF4: "
            "pip install 'ai-models-mosaic[netcdf]'"
        ) from error


def with_steps(dataset: xarray.Dataset) -> xarray.Dataset:
    """Valid times beside one reference time made lead times, ``step``; a scalar lead time made a dimension."""
    if "step" in dataset.dims:
        return dataset
    reference = next((name for name in REFERENCE_TIME if name in dataset.coords), None)
    axis = next((name for name in ("time", "valid_time") if name in dataset.dims), None)
    if reference is not None and axis is not None and dataset[reference].ndim == 0:
        steps = dataset[axis].values - dataset[reference].values
        return dataset.drop_vars(["step", axis], errors="ignore").rename({axis: "step"}).assign_coords(step=steps)
    return dataset.expand_dims("step") if "step" in dataset.coords else dataset


def with_levels(dataset: xarray.Dataset) -> xarray.Dataset:
    """Levels that are scalar coordinates of single variables, as attributes of these."""
    dataset = dataset.copy()
    levels: dict[Any, float] = {
        name: float(coordinate) * PRESSURES[coordinate.attrs["units"]]
        for name, coordinate in dataset.coords.items()
        if coordinate.ndim == 0
        and coordinate.attrs.get("standard_name") == "air_pressure"
        and coordinate.attrs.get("units") in PRESSURES
    }
    for variable in dataset.data_vars.values():
        for level in [level for name, level in levels.items() if name in _own_coordinates(variable)]:
            variable.attrs[LEVEL_HPA] = level
    return dataset


def _own_coordinates(variable: xarray.DataArray) -> list[str]:
    """Names that the file gives as coordinates of a variable; xarray gives every scalar to every variable."""
    return str(variable.encoding.get("coordinates", "")).split()


def _grown(dataset: xarray.Dataset) -> xarray.Dataset:
    """One of several files, with the dimensions along which they are put together."""
    names = (*MEMBER, *REFERENCE_TIME, *(["time"] if "step" in dataset.dims else []))
    for name in [name for name in names if name in dataset.coords and dataset[name].ndim == 0]:
        dataset = dataset.assign({field: dataset[field].expand_dims(name) for field in dataset.data_vars})
    return dataset
