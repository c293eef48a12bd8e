"""What flows between the rooms: states in physical units, with their grid and times."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from .arrays import Float32, Float32Array, Float64, FloatArray
from .errors import OptionError
from .geometry.grid import LatLonGrid
from .params import named


@dataclass(frozen=True)
class InitialState:
    """The input states of a forecast.

    Parameters
    ----------
    grid : LatLonGrid
        The variant's grid.
    times : tuple of datetime
        Valid time of every state, UTC without zone, ascending.
    values : float32 array (history, lon, lat, channel)
        Physical units of `channels.CHANNELS`, oldest state first.
    digest : str
        SHA-256 of the GRIB messages that the values came from, as hexadecimal digits.
    number : int
        The member of the input that they are of; 0 for an analysis.
    ahead_hours : int
        How long before the start of the run the last is valid, h: where members start at several times.

    Raises
    ------
    ValueError
        If the shapes do not fit, or times do not ascend.
    """

    grid: LatLonGrid
    times: tuple[datetime, ...]
    values: Float32[Float32Array, "history lon lat channel"]
    digest: str = ""
    number: int = 0
    ahead_hours: int = 0

    def __post_init__(self) -> None:
        if self.values.ndim != 4 or self.values.shape[:3] != (len(self.times), *self.grid.shape):
            raise ValueError(f"expected {len(self.times)} states of {self.grid}, got shape {self.values.shape}")
        if list(self.times) != sorted(set(self.times)):
            raise ValueError(f"expected ascending times, got {self.times}")

    @property
    def initial_time(self) -> datetime:
        """When the run starts: the valid time of the newest state, unless that is ahead."""
        return self.times[-1] + timedelta(hours=self.ahead_hours)


@dataclass(frozen=True)
class ForecastStep:
    """One step of some members.

    Parameters
    ----------
    step : int
        Model calls since the initial time; 0 is the initial state itself.
    lead_time_hours : int
        Hours since the initial time.
    members : tuple of int
        Member numbers, from 1.
    values : float32 array (member, lon, lat, channel)
        Physical units of `channels.CHANNELS`.
    grid : LatLonGrid
        Of the values.
    initial_time : datetime
        UTC, without zone.
    vitals : float32 array (member, number) or None
        What a flight recorder has measured of the values; None where there is no recorder.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """

    step: int
    lead_time_hours: int
    members: tuple[int, ...]
    values: Float32[Float32Array, "member lon lat channel"]
    grid: LatLonGrid
    initial_time: datetime
    vitals: Float32Array | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 4 or self.values.shape[:3] != (len(self.members), *self.grid.shape):
            raise ValueError(f"expected states of {len(self.members)} members on {self.grid}, got {self.values.shape}")

    @property
    def valid_time(self) -> datetime:
        """When it is valid, UTC without zone."""
        return self.initial_time + timedelta(hours=self.lead_time_hours)

    def field(self, name: str) -> Float64[FloatArray, "member lat lon"]:
        """One field of all members, as GRIB has it: from north to south, from Greenwich to the east.

        Parameters
        ----------
        name : str
            A parameter, with its level if it has one: ``z500``, ``2t``, ``10ws``, ``geopotential_500``.

        Returns
        -------
        float64 array (member, latitude, longitude)
            SI units, as of `params.FIELDS`; coordinates are `latitude_deg` and ``grid.longitude_deg``.

        Raises
        ------
        OptionError
            If there is no such field, or the name means several levels.
        """
        found = named(name, "field")
        if len(found) > 1:
            raise OptionError(
                f"field: expected one level, such as {found[-1].label}, got {name!r}, which is on several"
            )
        components = np.moveaxis(self.values[..., list(found[0].channels)], -1, 1)
        return np.swapaxes(found[0].of(components), -1, -2)[..., ::-1, :]

    @property
    def latitude_deg(self) -> tuple[float, ...]:
        """Latitudes of `field`, from north to south, degrees."""
        return self.grid.latitude_deg[::-1]
