"""Steps of forecasts as outputs and progress get them, on a grid that fits the values."""

from __future__ import annotations

from datetime import datetime

import numpy as np

from ai_models_mosaic.geometry.grid import LatLonGrid
from ai_models_mosaic.state import ForecastStep


def forecast_step(
    step: int,
    lead_time_hours: int,
    members: tuple[int, ...],
    values: np.ndarray | None = None,
    start: datetime = datetime(2020, 2, 29, 18),
) -> ForecastStep:
    """A step with these values ``(member, lon, lat, channel)``; with none, of a state of one number."""
    values = np.zeros((len(members), 4, 3, 1), dtype=np.float32) if values is None else values
    columns, rows = values.shape[1:3]
    longitudes = tuple(360.0 * column / columns for column in range(columns))
    latitudes = tuple(np.linspace(-90, 90, rows).tolist())
    return ForecastStep(step, lead_time_hours, members, values, LatLonGrid(longitudes, latitudes), start)
