"""Where the spread of a crossed ensemble comes from, by lead time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray
from matplotlib.figure import Figure

from ..arrays import FloatArray
from ..errors import InputError
from ..inputs.netcdf import netcdf_files, open_netcdf, with_steps
from ..inputs.zarr_store.opening import is_zarr
from ..inputs.zarr_store.opening import open_dataset as open_zarr
from ..outputs.variance import ERROR, PARTS
from ..params import NETCDF_NAMES, Field, named
from .drawing import lead_hours
from .options import Area
from .scenarios import weights_in
from .styles import style_of

COLOURS = ("#0b6fb8", "#d95f02", "#6a6a6a")
"""Of starts, model and both."""

LABELS = ("starts", "model", "both together")


def open_split(paths: Sequence[str]) -> xarray.Dataset:
    """What ``--crossed`` wrote, opened: its variances are read when they are drawn.

    Parameters
    ----------
    paths : sequence of str
        A Zarr store, or NetCDF files.

    Raises
    ------
    InputError
        If it is neither.
    """
    if len(paths) == 1 and is_zarr(paths[0]):
        dataset = open_zarr(paths[0], "plot").rename(prediction_timedelta="step")
        return dataset.isel(time=0) if "time" in dataset.dims else dataset
    if all(netcdf_files(path) for path in paths):
        return with_steps(open_netcdf([file for path in paths for file in netcdf_files(path)]))
    raise InputError(f"expected the Zarr store or NetCDF file of a run with --crossed, got {', '.join(paths)}")


def origins(dataset: xarray.Dataset, name: str, area: Area | None = None) -> Figure:
    """Means over a region of the parts of the variance, by lead time.

    Parameters
    ----------
    dataset : xarray.Dataset
        As `open_split` returns it.
    name : str
        Of the field, such as ``z500``.
    area : Area or None
        The region; all that there is if None.

    Raises
    ------
    InputError
        If the dataset has no split of this variance.
    OptionError
        If there is no such field, or no point in the region.
    """
    field = named(name, "--params")[0]
    kind = style_of(field.param, field.level_hpa, field.units)
    hours = lead_hours(dataset)
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axis = figure.subplots()
    for part, label, colour in zip(PARTS, LABELS, COLOURS, strict=True):
        values, errors = (
            kind.factor**2 * _mean(_variable(dataset, field, kind_of), area) for kind_of in (part, f"{part}{ERROR}")
        )
        axis.errorbar(hours, values, errors, color=colour, label=label, capsize=2, linewidth=1.8, elinewidth=0.8)
    axis.axhline(0, color="#999999", linewidth=0.6)
    axis.grid(color="#0000001f", linewidth=0.5)
    axis.set_xlabel("lead time (h)", fontsize=8)
    units = f"({kind.units})" if " " in kind.units else kind.units
    axis.set_ylabel(f"variance ({units}²)", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.set_title(
        f"{kind.title}: where its variance comes from\nbars: mean of the standard errors at points", fontsize=9
    )
    axis.legend(fontsize=8, frameon=False)
    return figure


def _variable(dataset: xarray.Dataset, field: Field, kind: str) -> xarray.DataArray:
    """A part of the variance of a field, by the names of Zarr stores and NetCDF files."""
    short = NETCDF_NAMES.get(field.param, field.param)
    level = "" if field.level_hpa is None else f"{field.level_hpa}"
    for base in (field.name, f"{short}{level}", field.variable, short):
        if (name := f"{base}_{kind}") in dataset:
            variable = dataset[name]
            return variable.sel(level=field.level_hpa) if "level" in variable.dims else variable
    there = [str(name).removesuffix(f"_{kind}") for name in dataset.data_vars if str(name).endswith(f"_{kind}")]
    raise InputError(
        f"expected the parts of the variance of {field.label}, as a run with --crossed writes them; there are those of "
        f"{', '.join(there) or 'nothing'}"
    )


def _mean(variable: xarray.DataArray, area: Area | None) -> FloatArray:
    """Means over a region, weighted by area, ``(step,)``."""
    weights = weights_in(variable["latitude"].values, variable["longitude"].values, area)
    values = variable.transpose("step", "latitude", "longitude").values.astype(np.float64)
    return (values * weights).sum(axis=(1, 2))
