"""Any ensemble, ours or others', in GRIB, Zarr or NetCDF, as one kind of xarray dataset.

Its dimensions are ``number``, ``step``, ``level`` (hPa), ``latitude`` (ascending), ``longitude`` (ascending), its
scalar ``time`` the initial time, and its variables bear ECMWF's short names. Values stay where they are until a part
is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import xarray

from ..channels import CHANNELS
from ..errors import InputError
from ..inputs.netcdf import LEVEL_HPA, REFERENCE_TIME, netcdf_files, open_netcdf, with_levels, with_steps
from ..inputs.zarr_store.attributes import refuse_other_units
from ..inputs.zarr_store.layout import (
    DIMENSIONS,
    HOURS,
    LEAD_TIME,
    MEMBER,
    levels_of,
    member_numbers,
)
from ..inputs.zarr_store.opening import is_zarr
from ..inputs.zarr_store.opening import open_dataset as open_zarr
from ..params import FIELDS
from ..verification.zarr_products import statistic_of
from .angles import axis_of_angles

INITIAL_TIME = (*REFERENCE_TIME, "time")
"""Names that the initial time may have."""

SHORT_NAMES = {
    **{channel.variable: channel.param for channel in CHANNELS},
    # cfgrib's, and those of others.
    "t2m": "2t",
    "d2m": "2d",
    "u10": "10u",
    "v10": "10v",
    "10si": "10ws",
    "si10": "10ws",
    "10m_wind_speed": "10ws",
    "wind_speed": "ws",
    "geopotential_height": "gh",
    "prmsl": "msl",
}
"""ECMWF's short names by those of WeatherBench 2, cfgrib and others."""

CANONICAL = "mosaic_ensemble"
"""Attribute of a dataset that is in order."""


def open_ensemble(paths: Sequence[str], time: datetime | None = None) -> xarray.Dataset:
    """Open an ensemble; fields are read when they are asked for.

    Parameters
    ----------
    paths : sequence of str
        GRIB files, folders or patterns, NetCDF files or patterns, or one Zarr store.
    time : datetime or None
        Initial time, if there are several.

    Raises
    ------
    InputError
        If it cannot be opened, or is no ensemble.
    """
    stores = [path for path in paths if is_zarr(path)]
    files = {path: netcdf_files(path) for path in paths if path not in stores}
    netcdf = [path for path in paths if files.get(path)]
    if (stores and len(paths) > 1) or (netcdf and len(netcdf) < len(paths)):
        raise InputError(f"expected GRIB files, NetCDF files, or one Zarr store; got {', '.join(paths)}")
    listed = ", ".join(paths)
    if stores:
        return canonical(open_zarr(stores[0], "report"), listed, time)
    if netcdf:
        return canonical(open_netcdf([file for path in netcdf for file in files[path]]), listed, time)
    from .grib_ensemble import open_grib

    return canonical(open_grib(paths, time), listed)


def canonical(dataset: xarray.Dataset, path: str = "the dataset", time: datetime | None = None) -> xarray.Dataset:
    """A dataset under the names of this module, whatever it came with.

    Parameters
    ----------
    dataset : xarray.Dataset
        With latitudes, longitudes and lead times; members and levels may be absent.
    path : str
        For messages.
    time : datetime or None
        Initial time, if there are several.

    Raises
    ------
    InputError
        If a dimension is missing, or there are several initial times.
    """
    if dataset.attrs.get(CANONICAL):
        return dataset
    dataset = with_levels(dataset)
    for wanted, names in {**DIMENSIONS, "number": MEMBER, "step": LEAD_TIME}.items():
        if wanted != "time":
            dataset = _named(dataset, names, wanted)
    dataset = _timed(dataset, path, time)
    for name in ("latitude", "longitude"):
        if name not in dataset.dims or name not in dataset.coords:
            raise InputError(f"{path}: expected latitudes × longitudes, got {_sizes(dataset)}")
    if "number" not in dataset.dims:
        # The variables go without: giving them one more dimension would read them.
        dataset = dataset.drop_vars("number", errors="ignore").assign_coords(number=[0])
    else:
        dataset = dataset.assign_coords(number=member_numbers(dataset.rename(number="member")))
    if "level" in dataset.dims:
        dataset = dataset.assign_coords(level=levels_of(dataset, path))
    variables = _members(dataset)
    if not variables:
        listed = ", ".join(str(name) for name in dataset.data_vars)
        raise InputError(f"{path}: expected fields by lead time, latitude and longitude; got {listed or 'none'}")
    chosen = dataset[list(variables)].assign_coords(number=dataset["number"])
    named = chosen.rename(variables)
    refuse_other_units(named, path, {field.param: field.units for field in FIELDS})
    return _ordered(named).assign_attrs({CANONICAL: 1})


def _named(dataset: xarray.Dataset, names: Sequence[str], wanted: str) -> xarray.Dataset:
    name = next((name for name in names if name in dataset.dims or name in dataset.coords), None)
    if name is None or name == wanted:
        return dataset
    return dataset.drop_vars(wanted, errors="ignore").rename({name: wanted})


def _timed(dataset: xarray.Dataset, path: str, time: datetime | None) -> xarray.Dataset:
    """One initial time, and lead times as durations."""
    dataset = with_steps(dataset)
    name = next((name for name in INITIAL_TIME if name in dataset.coords), None)
    if name is None or "step" not in dataset.dims:
        raise InputError(f"{path}: expected an initial time and lead times, got {_sizes(dataset)}")
    if name != "time":
        dataset = dataset.drop_vars("time", errors="ignore").rename({name: "time"})
    if "time" in dataset.dims:
        times = dataset["time"].values.astype("datetime64[s]").astype(datetime).tolist()
        if time is None and len(times) > 1:
            listed = ", ".join(f"{each:%Y-%m-%dT%H}" for each in times[:12])
            raise InputError(f"{path}: expected one initial time, got {len(times)}; choose with --date: {listed}")
        if time is not None and time not in times:
            raise InputError(f"{path}: expected a forecast from {time:%Y-%m-%d %H} UTC, got none")
        dataset = dataset.isel(time=0 if time is None else times.index(time))
    if not np.issubdtype(dataset["step"].dtype, np.timedelta64):
        units = str(dataset["step"].attrs.get("units", "hours"))
        if units not in HOURS:
            raise InputError(
                f"{path}: expected lead times as durations or in hours, got {dataset['step'].dtype} in {units}"
            )
        hours = np.rint(dataset["step"].values.astype(np.float64) * HOURS[units] * 3600).astype("timedelta64[s]")
        dataset = dataset.assign_coords(step=hours.astype("timedelta64[ns]"))
    return dataset


def _members(dataset: xarray.Dataset) -> dict[str, str]:
    """Variables that are fields of members, and their short names; without products."""
    found: dict[str, str] = {}
    known = {"number", "step", "level", "latitude", "longitude"}
    many = dataset.sizes["number"] > 1
    for name, variable in dataset.data_vars.items():
        dimensions = set(variable.dims)
        if not {"step", "latitude", "longitude"} <= dimensions <= known or (many and "number" not in dimensions):
            continue
        if statistic_of(variable.attrs):
            continue
        text = str(name)
        short = variable.attrs.get("GRIB_shortName") or variable.attrs.get("short_name") or text
        short = SHORT_NAMES.get(text, SHORT_NAMES.get(short, short))
        level = variable.attrs.get(LEVEL_HPA)
        short = short if level is None else f"{short}{level:g}"
        if short not in found.values():
            found[text] = short
    return found


def _ordered(dataset: xarray.Dataset) -> xarray.Dataset:
    """South to north, west to east, lead times ascending; each only where it is not so already."""
    axis, columns = axis_of_angles(dataset["longitude"].values.astype(np.float64))
    # The first of two columns that are one.
    _, first = np.unique(columns, return_index=True)
    if not np.array_equal(first, np.arange(dataset.sizes["longitude"])):
        dataset = dataset.isel(longitude=first)
    dataset = dataset.assign_coords(longitude=axis)
    for name in ("latitude", "step"):
        order = np.argsort(dataset[name].values)
        if not np.array_equal(order, np.arange(len(order))):
            dataset = dataset.isel({name: order})
    return dataset.assign_coords(latitude=dataset["latitude"].values.astype(np.float64))


def _sizes(dataset: xarray.Dataset) -> str:
    return ", ".join(f"{name} ({size})" for name, size in dataset.sizes.items()) or "no dimensions"
