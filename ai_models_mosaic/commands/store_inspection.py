"""What an ensemble in NetCDF files or in a Zarr store holds, in a few lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..inputs.netcdf import LEVEL_HPA, REFERENCE_TIME, open_netcdf
from ..inputs.zarr_store.layout import DIMENSIONS, LEAD_TIME, MEMBER, STATISTICS, levels_of
from ..inputs.zarr_store.opening import open_dataset
from ..outputs.grib.keys import UNTRAINED_EXPVER
from ..wording.numbers import counted, series
from .inspection import UNTRAINED, field_lines

if TYPE_CHECKING:
    import xarray

NAMES = {**DIMENSIONS, "number": MEMBER, "step": LEAD_TIME, "time": (*REFERENCE_TIME, "time", "valid_time")}
"""Names that coordinates may have."""


def inspect_store(stores: Sequence[str], files: Sequence[str], *, long: bool) -> str:
    """Members, steps and fields, and what is missing.

    Parameters
    ----------
    stores : sequence of str
        One Zarr store, or none.
    files : sequence of str
        Else, NetCDF files.
    long : bool
        Whether every variable is named.

    Raises
    ------
    InputError
        If they cannot be read, or hold no fields.
    """
    with open_dataset(stores[0]) if stores else open_netcdf(files) as dataset:
        lines = [f"{', '.join([*stores, *files])}: {'Zarr store' if stores else 'NetCDF'}", *_told(dataset, long)]
        lines += _missing(stores[0], dataset) if stores else []
        if dataset.attrs.get("experiment_version") == UNTRAINED_EXPVER:
            lines.append(UNTRAINED)
    return "\n".join(lines)


def _told(dataset: xarray.Dataset, long: bool) -> Iterator[str]:
    names = {wanted: next((name for name in known if name in dataset.coords), None) for wanted, known in NAMES.items()}
    latitude, longitude, number, step = (names[name] for name in ("latitude", "longitude", "number", "step"))
    if latitude is None or longitude is None or names["time"] is None:
        raise InputError(f"expected fields with times, latitudes and longitudes; got {_sizes(dataset)}")
    starts = np.atleast_1d(dataset[names["time"]].values).astype("datetime64[m]").tolist()
    span = [f"{start:%Y%m%d %H%M} UTC" for start in (starts if len(starts) < 4 else (starts[0], starts[-1]))]
    yield f"  start    {', '.join(span) if len(starts) < 4 else f'{span[0]} to {span[1]}, {len(starts)} of them'}"
    yield f"  grid     {dataset.sizes[longitude]} × {dataset.sizes[latitude]}"
    fields = [variable for variable in dataset.data_vars.values() if {latitude, longitude} <= set(variable.dims)]
    alone = number is None or dataset[number].ndim == 0
    members = [variable for variable in fields if alone or number in variable.dims]
    members = [variable for variable in members if not {*STATISTICS} & {*variable.dims} and not _is_product(variable)]
    products = [variable for variable in fields if not any(variable is other for other in members)]
    if number is not None and members:
        yield f"  members  {series(sorted(np.atleast_1d(dataset[number].values).tolist()))}"
    if step is not None:
        hours = np.atleast_1d(dataset[step].values)
        if np.issubdtype(hours.dtype, np.timedelta64):
            hours = hours / np.timedelta64(1, "h")
        yield f"  steps    {series([round(float(hour)) for hour in hours])} h"
    if members:
        labels = [label for variable in members for label in _labels(variable, dataset, names["level"])]
        yield f"  fields   {len(labels)} per {'member and step' if step is not None else 'time'}"
        yield from field_lines(labels) if long else ()
    if products:
        yield f"  products {counted(len(products), 'variable')}"
        yield from (f"    {variable.name}" for variable in products) if long else ()


def _is_product(variable: xarray.DataArray) -> bool:
    from ..verification.zarr_products import PRODUCT_NAME, statistic_of

    name = str(variable.name)
    parts = (name[place + 1 :] for place, letter in enumerate(name) if letter == "_")
    return bool(statistic_of(variable.attrs)) or any(PRODUCT_NAME.fullmatch(part) for part in parts)


def _labels(variable: xarray.DataArray, dataset: xarray.Dataset, level: str | None) -> list[str]:
    """Short name and level of every field of a variable."""
    attributes: dict[Any, Any] = variable.attrs
    name = str(attributes.get("GRIB_shortName") or attributes.get("short_name") or variable.name)
    if level is not None and level in variable.dims:
        return [f"{name} {height:g}" for height in levels_of(dataset.rename({level: "level"}), "the dataset")]
    return [f"{name} {attributes.get(LEVEL_HPA, 0):g}"]


def _missing(store: str, dataset: xarray.Dataset) -> Iterator[str]:
    """Arrays of which not all chunks are there: what is not is missing values."""
    import zarr

    if "://" in store:
        return
    group = zarr.open_group(store, mode="r")
    for name in dataset.data_vars:
        array: Any = group[str(name)]
        if array.nchunks_initialized < array.nchunks:
            yield f"  INCOMPLETE: {array.nchunks_initialized} of {array.nchunks} chunks of {name}"


def _sizes(dataset: xarray.Dataset) -> str:
    return ", ".join(f"{name} ({size})" for name, size in dataset.sizes.items()) or "no dimensions"
