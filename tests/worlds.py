"""Small stores in the layout of a world, and a variant small enough to train in a test."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from ai_models_mosaic.channels import CHANNELS, LEVELS_HPA
from ai_models_mosaic.geometry.grid import LatLonGrid
from ai_models_mosaic.variants import VARIANTS, Architecture, Stage, Variant
from ai_models_mosaic.world.store import WorldStore, variables

GRID = LatLonGrid.regular(30.0)
TOY = Variant(
    name="toy",
    architecture=Architecture(
        grid=GRID,
        stages=(Stage(2, 16, 4, 16, 8, 2, 1, 1, mlp_ratio=2.0),),
        bottleneck=Stage(1, 16, 4, 12, 4, 2, 1, mlp_ratio=2.0),
        neighbours=4,
        history=2,
        noise_width=4,
    ),
    step_hours=24,
    checkpoint="toy.safetensors",
)
START = datetime(2001, 1, 1)


def register() -> None:
    """Make the variant known by name in this process."""
    VARIANTS[TOY.name] = TOY


def times(days: int, start: datetime = START) -> np.ndarray:
    """Every 6 h of some days."""
    hours = np.arange(0, 24 * days, 6).astype("timedelta64[h]")
    return np.datetime64(start.isoformat(), "s") + hours


def fields(days: int, seed: int, grid: LatLonGrid = GRID) -> dict[str, np.ndarray]:
    """Waves that travel, of another size for every variable, with some noise."""
    generator = np.random.default_rng(seed)
    longitude, latitude = (np.radians(axis) for axis in (grid.longitude_deg, grid.latitude_deg))
    made = {}
    for index, variable in enumerate(variables()):
        levels = np.arange(len(LEVELS_HPA) if variable.on_levels else 1)
        clock = np.arange(4 * days)[:, None, None, None] / 4
        wave = np.cos(2 * longitude[:, None] - clock - levels[:, None, None] / 5) * np.cos(latitude)
        noisy = wave + 0.1 * generator.normal(size=wave.shape)
        made[variable.name] = (10.0 ** (index % 3) * (noisy + index)).astype(np.float32)
        if not variable.on_levels:
            made[variable.name] = made[variable.name][:, 0]
    return made


def statics(grid: LatLonGrid = GRID) -> dict[str, np.ndarray]:
    """Static fields without constant ones."""
    generator = np.random.default_rng(0)
    names = ("geopotential_at_surface", "land_sea_mask", "soil_type")
    return {name: generator.uniform(size=grid.shape) for name in names}


def write_store(path: Path, days: int = 6, seed: int = 0, grid: LatLonGrid = GRID, start: datetime = START) -> Path:
    """A complete store."""
    store = WorldStore(path, grid, times(days, start), statics(grid), {"seed": seed})
    store.write(fields(days, seed, grid), times(days, start))
    store.finish()
    return path


def state(made: dict[str, np.ndarray], time: datetime) -> np.ndarray:
    """One time of `fields` as a state ``(lon, lat, channel)``, put together channel by channel."""
    index = (time - START) // timedelta(hours=6)
    channels = []
    for channel in CHANNELS:
        block = made[channel.variable][index]
        channels.append(block if channel.level_hpa is None else block[LEVELS_HPA.index(channel.level_hpa)])
    return np.stack(channels, axis=-1)
