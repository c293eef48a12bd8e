"""States of a store as GRIB analyses, to start forecasts from and to verify them with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import eccodes

from ..arrays import FloatArray
from ..channels import CHANNELS, Channel
from ..files import named_errors, whole_file
from ..geometry.grid import LatLonGrid, to_grib_order
from ..training.archive import Archive

BITS_PER_VALUE = 16
LABELS = {"class": "rd", "stream": "oper", "type": "an", "expver": "simu"}
"""Research, and an experiment version that says where the fields come from."""


def write_sample(archive: Archive, times: Sequence[datetime], path: Path) -> None:
    """Write all channels of some times as GRIB2; the file appears when it is complete.

    Parameters
    ----------
    archive : Archive
        Where the states are.
    times : sequence of datetime
        UTC, without zone.
    path : Path
        The file.

    Raises
    ------
    InputError
        If the store lacks a time.
    """
    with named_errors(path), whole_file(path) as file:
        for time in times:
            state = archive.state(time)
            for index, channel in enumerate(CHANNELS):
                file.write(_message(channel, time, archive.grid, state[..., index]))


def _message(channel: Channel, time: datetime, grid: LatLonGrid, field: FloatArray) -> bytes:
    kind = "sfc" if channel.level_hpa is None else "pl"
    longitudes, latitudes = grid.shape
    handle = eccodes.codes_grib_new_from_samples(f"regular_ll_{kind}_grib2")
    keys = {
        "Ni": longitudes,
        "Nj": latitudes,
        "latitudeOfFirstGridPointInDegrees": 90.0,
        "longitudeOfFirstGridPointInDegrees": 0.0,
        "latitudeOfLastGridPointInDegrees": -90.0,
        "longitudeOfLastGridPointInDegrees": 360.0 - grid.spacing_deg,
        "iDirectionIncrementInDegrees": grid.spacing_deg,
        "jDirectionIncrementInDegrees": grid.spacing_deg,
        "setLocalDefinition": 1,
        **LABELS,
        "dataDate": int(f"{time:%Y%m%d}"),
        "dataTime": int(f"{time:%H%M}"),
        "shortName": channel.param,
        "bitsPerValue": BITS_PER_VALUE,
        **({} if channel.level_hpa is None else {"level": channel.level_hpa}),
    }
    try:
        for key, value in keys.items():
            eccodes.codes_set(handle, key, value)
        eccodes.codes_set_values(handle, to_grib_order(field))
        message: bytes = eccodes.codes_get_message(handle)
        return message
    finally:
        eccodes.codes_release(handle)
