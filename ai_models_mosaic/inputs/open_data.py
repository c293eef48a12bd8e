"""ECMWF's open data as they are published, made into fields as MARS has them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import eccodes
import numpy as np

from ..channels import STANDARD_GRAVITY
from ..errors import InputError

LISTED = 10
"""Missing fields that a message names before it counts the rest."""


def check_complete(path: Path, name: str, request: dict[str, Any]) -> None:
    """Refuse an answer that lacks fields; the client only leaves them out.

    Parameters
    ----------
    path : Path
        The answer.
    name : str
        Of the service, for messages.
    request : dict
        What was asked for.

    Raises
    ------
    InputError
        If some are not there.
    """
    levels = request.get("levelist", [0])
    wanted = dict.fromkeys(itertools.product(request["param"], levels))
    for handle in _handles(path):
        param = eccodes.codes_get_string(handle, "shortName")
        wanted.pop((param, eccodes.codes_get_long(handle, "level") if "levelist" in request else 0), None)
    if wanted:
        lacking = [f"{param}{level or ''}" for param, level in wanted]
        more = f" and {len(lacking) - LISTED} more" if len(lacking) > LISTED else ""
        raise InputError(
            f"{name} lack fields: {', '.join(lacking[:LISTED])}{more}, of {request['date']} {request['time']:02d} UTC. "
            "A run just published may not be complete yet: try again later"
        )


def turn_to_greenwich(source: Path, target: Path) -> None:
    """Write fields anew that begin at Greenwich, with geopotential in place of geopotential height.

    Parameters
    ----------
    source : Path
        As published: on longitudes from 180 to 179.75 degrees.
    target : Path
        Where they go.
    """
    with target.open("wb") as file:
        for handle in _handles(source):
            _turn(handle)
            eccodes.codes_write(handle, file)


def _turn(handle: Any) -> None:
    columns, rows = (eccodes.codes_get_long(handle, key) for key in ("Ni", "Nj"))
    values = eccodes.codes_get_values(handle).reshape(rows, columns)
    # As the runner labels them, so that the bytes are the same.
    keys: dict[str, Any] = {"generatingProcessIdentifier": 255}
    if eccodes.codes_get_double(handle, "longitudeOfFirstGridPointInDegrees") == 180.0:
        values = np.roll(values, columns // 2, axis=1)
        last = 360.0 - 360.0 / columns
        keys |= {"longitudeOfFirstGridPointInDegrees": 0, "longitudeOfLastGridPointInDegrees": last}
    if eccodes.codes_get_string(handle, "shortName") == "gh":
        values = values * STANDARD_GRAVITY
        keys["shortName"] = "z"
    eccodes.codes_set_key_vals(handle, keys)
    eccodes.codes_set_values(handle, values.ravel())


def _handles(path: Path) -> Iterator[Any]:
    """The messages of a file, each until the next."""
    with path.open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            try:
                yield handle
            finally:
                eccodes.codes_release(handle)
