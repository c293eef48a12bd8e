"""The 82 channels of a Mosaic state: order, GRIB identity, units and physical bounds.

Everything is derived from the two short tables below; no channel is listed twice.
Source: specification of the network, section 1 (order and names).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

STANDARD_GRAVITY = 9.80665
"""m s⁻², the value that ECMWF uses between geopotential and geopotential height."""

LEVELS_HPA = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
"""Pressure levels in channel order, hPa."""


@dataclass(frozen=True)
class Channel:
    """One field of the state.

    Parameters
    ----------
    name : str
        ``variable`` or ``variable_level``, as in the released statistics.
    param : str
        ECMWF short name, such as ``2t`` or ``z``.
    level_hpa : int or None
        Pressure level in hPa; None for a single-level field.
    units : str
        SI units of the values.
    standard_name : str
        Of CF.
    minimum, maximum : float
        Values outside are physically impossible, or in other units.
    """

    name: str
    param: str
    level_hpa: int | None
    units: str
    standard_name: str
    minimum: float
    maximum: float

    @property
    def variable(self) -> str:
        """Name without the level, as in WeatherBench 2: ``geopotential``."""
        return self.name if self.level_hpa is None else self.name.removesuffix(f"_{self.level_hpa}")

    @property
    def label(self) -> str:
        """Short form for messages: ``z500``, ``2t``."""
        return self.param if self.level_hpa is None else f"{self.param}{self.level_hpa}"


def standard_height_m(level_hpa: float) -> float:
    """Height of a pressure level in the ICAO standard atmosphere, m.

    Parameters
    ----------
    level_hpa : float
        Pressure, 10 … 1013 hPa.

    Returns
    -------
    float
        Metres above mean sea level.
    """
    tropopause_hpa, tropopause_m, stratosphere_k = 226.321, 11_000.0, 216.65
    if level_hpa >= tropopause_hpa:
        return float(288.15 / 0.0065 * (1 - (level_hpa / 1013.25) ** 0.190263))
    scale_height_m = 287.053 * stratosphere_k / STANDARD_GRAVITY
    return tropopause_m + scale_height_m * math.log(tropopause_hpa / level_hpa)


def _geopotential_bounds(level_hpa: int) -> tuple[float, float]:
    """Bounds around the standard atmosphere that the deepest lows and polar nights stay within.

    Heights given in place of geopotential fall outside them at every level above 850 hPa.

    Returns
    -------
    (float, float)
        Lower and upper, m² s⁻².
    """
    height = standard_height_m(level_hpa)
    margin = 1_500.0 + 0.15 * height
    return STANDARD_GRAVITY * (height - margin), STANDARD_GRAVITY * (height + margin)


# variable, param, units, CF standard name, minimum, maximum
_SINGLE_LEVEL = (
    ("2m_temperature", "2t", "K", "air_temperature", 170.0, 345.0),
    ("10m_u_component_of_wind", "10u", "m s**-1", "eastward_wind", -120.0, 120.0),
    ("10m_v_component_of_wind", "10v", "m s**-1", "northward_wind", -120.0, 120.0),
    ("mean_sea_level_pressure", "msl", "Pa", "air_pressure_at_mean_sea_level", 80_000.0, 115_000.0),
)

# As above; the bounds of geopotential depend on the level.
_PRESSURE_LEVEL = (
    ("geopotential", "z", "m**2 s**-2", "geopotential", None, None),
    ("specific_humidity", "q", "kg kg**-1", "specific_humidity", -0.01, 0.06),
    ("temperature", "t", "K", "air_temperature", 140.0, 350.0),
    ("u_component_of_wind", "u", "m s**-1", "eastward_wind", -250.0, 250.0),
    ("v_component_of_wind", "v", "m s**-1", "northward_wind", -250.0, 250.0),
    ("vertical_velocity", "w", "Pa s**-1", "lagrangian_tendency_of_air_pressure", -120.0, 120.0),
)


def _all_channels() -> tuple[Channel, ...]:
    channels = [Channel(row[0], row[1], None, *row[2:]) for row in _SINGLE_LEVEL]
    for variable, param, units, standard_name, low, high in _PRESSURE_LEVEL:
        for level in LEVELS_HPA:
            bounds = _geopotential_bounds(level) if low is None or high is None else (low, high)
            channels.append(Channel(f"{variable}_{level}", param, level, units, standard_name, *bounds))
    return tuple(channels)


CHANNELS = _all_channels()
"""All channels, in the order of the state's last dimension."""

SINGLE_LEVEL_PARAMS = tuple(row[1] for row in _SINGLE_LEVEL)
"""Short names of the single-level fields, in channel order."""

PRESSURE_LEVEL_PARAMS = tuple(row[1] for row in _PRESSURE_LEVEL)
"""Short names of the fields on pressure levels, in channel order."""

STATIC_FIELDS = ("geopotential_at_surface", "land_sea_mask", "soil_type")
"""Static fields, in the order of ``static_vars.npz``."""
