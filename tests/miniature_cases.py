"""A small world for tests of verification: forecasts, truth and a training period, as arrays, Zarr and GRIB."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import xarray
from zarr_cases import FORMAT_2

from ai_models_mosaic.channels import CHANNELS, Channel
from ai_models_mosaic.geometry.grid import LatLonGrid
from ai_models_mosaic.verification.cases import Case
from ai_models_mosaic.verification.plan import find_channels

GRID = LatLonGrid.regular(30)
START = datetime(2020, 1, 1)
LEADS = (24, 48, 72)
NAMES = ("z500", "t850", "2t")
SCALES = {"z500": (55_000.0, 900.0), "t850": (280.0, 8.0), "2t": (285.0, 10.0)}


def days(count: int, start: datetime = START) -> list[datetime]:
    return [start + timedelta(days=day) for day in range(count)]


def fields_of(channel: Channel, seeds: Sequence[object], spread: float = 1.0) -> np.ndarray:
    """One field per seed, the same whenever it is asked for, ``(seed, lon, lat)``."""
    mean, scale = SCALES[channel.label]
    made = []
    for seed in seeds:
        words = [abs(hash(part)) % 2**32 for part in (CHANNELS.index(channel), *np.atleast_1d(seed).tolist())]
        made.append(np.random.default_rng(words).normal(size=GRID.shape))
    return (mean + scale * spread * np.array(made)).astype(np.float32)


def _number(time: datetime) -> int:
    return int((time - START).total_seconds())


@dataclass
class World:
    """Truth by valid time, with times that are there; reads are counted.

    Parameters
    ----------
    times : list of datetime
        Valid times.
    """

    times: list[datetime]
    grid: LatLonGrid = GRID
    reads: list[tuple[str, int]] = field(default_factory=list)

    def read(self, channel: Channel, times: Sequence[datetime]) -> np.ndarray:
        self.reads.append((channel.label, len(times)))
        fields = fields_of(channel, [_number(time) for time in times])
        fields[[time not in self.times for time in times]] = np.nan
        return fields


def forecast(channel: Channel, time: datetime, members: int, leads: Sequence[int] = LEADS) -> np.ndarray:
    """Half truth, half noise of each member, ``(member, lead, lon, lat)``."""
    truth = fields_of(channel, [_number(time + timedelta(hours=lead)) for lead in leads])
    noise = [
        fields_of(channel, [(7, _number(time) % 10**6, member, lead) for lead in leads]) for member in range(members)
    ]
    return (truth + np.stack(noise)) / 2


def case(
    time: datetime,
    members: int = 4,
    leads: Sequence[int] = LEADS,
    change: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Case:
    def read(channel: Channel) -> np.ndarray:
        values = forecast(channel, time, members, leads)
        return change(values) if change else values

    return Case(time, tuple(range(1, members + 1)), tuple(leads), read)


def truth_dataset(times: Sequence[datetime], grid: LatLonGrid = GRID) -> xarray.Dataset:
    """In the layout of WeatherBench 2."""
    world = World(list(times))
    values = {channel.label: world.read(channel, times) for channel in find_channels(NAMES)}
    dimensions = ("time", "longitude", "latitude")
    upper = ("time", "level", "longitude", "latitude")
    empty = np.zeros_like(values["z500"])
    return xarray.Dataset(
        {
            "geopotential": (upper, np.stack([values["z500"], empty], axis=1)),
            "temperature": (upper, np.stack([empty, values["t850"]], axis=1)),
            "2m_temperature": (dimensions, values["2t"]),
        },
        {
            "time": np.array(times, dtype="datetime64[ns]"),
            "level": [500, 850],
            "longitude": list(grid.longitude_deg),
            "latitude": list(grid.latitude_deg),
        },
    )


def forecast_dataset(times: Sequence[datetime], members: int = 4, leads: Sequence[int] = LEADS) -> xarray.Dataset:
    """In the layout of WeatherBench 2's forecasts."""
    values = {
        channel.label: np.stack([np.swapaxes(forecast(channel, time, members, leads), 0, 1) for time in times])
        for channel in find_channels(NAMES)
    }
    dimensions = ("time", "prediction_timedelta", "number", "longitude", "latitude")
    upper = ("time", "prediction_timedelta", "number", "level", "longitude", "latitude")
    empty = np.zeros_like(values["z500"])
    return xarray.Dataset(
        {
            "geopotential": (upper, np.stack([values["z500"], empty], axis=3)),
            "temperature": (upper, np.stack([empty, values["t850"]], axis=3)),
            "2m_temperature": (dimensions, values["2t"]),
        },
        {
            "time": np.array(times, dtype="datetime64[ns]"),
            "prediction_timedelta": np.array(leads, dtype="timedelta64[h]").astype("timedelta64[ns]"),
            "number": np.arange(1, members + 1),
            "level": [500, 850],
            "longitude": list(GRID.longitude_deg),
            "latitude": list(GRID.latitude_deg),
        },
    )


def stored(dataset: xarray.Dataset, path: Path) -> str:
    dataset.to_zarr(path, mode="w", consolidated=True, **FORMAT_2)
    return str(path)
