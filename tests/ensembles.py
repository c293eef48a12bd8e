"""Small ensembles in memory, of smooth fields that differ in every member and at every time."""

from __future__ import annotations

import numpy as np
import xarray

START = np.datetime64("2020-01-02T12", "ns")

FIELDS = {
    "msl": (101_000.0, 1500.0, "Pa"),
    "2t": (285.0, 25.0, "K"),
    "10u": (3.0, 8.0, "m s**-1"),
    "10v": (-2.0, 8.0, "m s**-1"),
}
LEVELS = {"z": (50_000.0, 3000.0, "m**2 s**-2"), "t": (270.0, 20.0, "K"), "u": (5.0, 15.0, "m s**-1")}


def ensemble(
    members: int = 4,
    hours: tuple[int, ...] = (0, 24, 48),
    spacing: float = 10.0,
    levels: tuple[int, ...] = (500, 850),
) -> xarray.Dataset:
    """Global, by ECMWF's short names, in the order of dimensions that reports have."""
    latitude, longitude = np.arange(-90, 90.1, spacing), np.arange(0, 359.9, spacing)
    number, lead = np.arange(1, members + 1), np.array(hours)
    phase = 0.4 * number[:, None] * (0.1 + lead / 48)
    wave = np.sin(np.radians(2 * longitude) + phase[..., None, None]) * np.cos(np.radians(latitude))[:, None]
    wave = wave - 0.8 * np.sin(np.radians(latitude))[:, None] ** 2
    axes = ("number", "step", "latitude", "longitude")
    found = {name: (axes, mean + size * wave, {"units": units}) for name, (mean, size, units) in FIELDS.items()}
    stack = np.stack([wave * (1 + level / 1000) for level in levels], axis=2)
    for name, (mean, size, units) in LEVELS.items():
        found[name] = ((*axes[:2], "level", *axes[2:]), mean + size * stack, {"units": units})
    return xarray.Dataset(
        {name: (dims, values.astype(np.float32), attributes) for name, (dims, values, attributes) in found.items()},
        {
            "number": number,
            "step": lead.astype("timedelta64[h]").astype("timedelta64[ns]"),
            "level": ("level", list(levels), {"units": "hPa"}),
            "latitude": latitude,
            "longitude": longitude,
            "time": START,
        },
    )
