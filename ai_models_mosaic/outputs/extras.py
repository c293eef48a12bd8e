"""Packages that only some outputs need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..errors import OutputError

EXTRAS = {"netCDF4": "netcdf", "numcodecs": "zarr", "zarr": "zarr"}
"""The extra of this package that brings another."""


def require(package: str, what: str) -> Any:
    """A package of `EXTRAS`, imported.

    Parameters
    ----------
    package : str
        Its name.
    what : str
        What needs it, for the message.

    Raises
    ------
    OutputError
        If it is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise OutputError(f"{what} needs {package}: pip install 'ai-models-mosaic[{EXTRAS[package]}]'") from error
