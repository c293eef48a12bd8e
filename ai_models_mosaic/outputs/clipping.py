"""Specific humidity without values below zero, which no program for moist air takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..channels import CHANNELS
from ..state import ForecastStep

HUMIDITY = [index for index, channel in enumerate(CHANNELS) if channel.param == "q"]
"""Channels of specific humidity."""

NOTE = "specific humidity below zero was written as zero (--clip-humidity)"
"""What stores say of themselves."""


def clipped(forecast: ForecastStep) -> ForecastStep:
    """A step in which no specific humidity is below zero; the one that was given, which the model goes on from, stays.

    Parameters
    ----------
    forecast : ForecastStep
        On any grid.
    """
    values = forecast.values.copy()
    values[..., HUMIDITY] = np.maximum(values[..., HUMIDITY], np.float32(0))
    return replace(forecast, values=values)
