"""NetCDF files under the names of WeatherBench 2: by CF as this package writes them, from CDS, or from cfgrib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..inputs.netcdf import LEVEL_HPA, open_netcdf
from ..params import ALIASES, FIELDS, netcdf_name

if TYPE_CHECKING:
    import xarray

VARIABLES = {
    **{netcdf_name(field.param): field.variable for field in FIELDS},
    **{field.param: field.variable for field in FIELDS},
    **{alias: field.variable for alias, param in ALIASES.items() for field in FIELDS if field.param == param},
}
"""Names of WeatherBench 2 by ECMWF's short names and those of cfgrib."""


def open_as_weatherbench(files: Sequence[str], *, forecast: bool) -> xarray.Dataset:
    """Files as one dataset whose variables bear WeatherBench 2's names, products ending in what they are.

    Parameters
    ----------
    files : sequence of str
        Of one kind.
    forecast : bool
        Whether it is to have a dimension of initial times.

    Raises
    ------
    InputError
        If they cannot be read.
    """
    return with_weatherbench_names(open_netcdf(files, grown=forecast))


def with_weatherbench_names(dataset: xarray.Dataset) -> xarray.Dataset:
    """A dataset whose variables bear WeatherBench 2's names, products ending in what they are.

    Parameters
    ----------
    dataset : xarray.Dataset
        With those names, ECMWF's short ones, or cfgrib's.
    """
    names = {str(name): _name(str(name), variable) for name, variable in dataset.data_vars.items()}
    free = {old: new for old, new in names.items() if old != new and new not in dataset.variables}
    # Of two that would bear one name, the first does.
    return dataset.rename({old: new for new, old in {new: old for old, new in reversed(free.items())}.items()})


def _name(name: str, variable: xarray.DataArray) -> str:
    short = str(variable.attrs.get("GRIB_shortName") or name)
    level = variable.attrs.get(LEVEL_HPA)
    ending = "" if level is None else f"{level:g}"
    known = VARIABLES.get(short)
    stem = next((stem for stem in (netcdf_name(short) + ending, short) if name.startswith(stem)), name)
    return name if known is None else known + (f"_{ending}" if ending else "") + name[len(stem) :]
