"""What can be asked for: the channels of the state, and what follows from them.

A new parameter is one entry of `DERIVED`; where it is a channel, one row of `channels`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from .arrays import FloatArray
from .channels import CHANNELS, LEVELS_HPA
from .errors import OptionError

ALIASES = {"10ws": "10si", "mean_sea_level_pressure": "msl", "t2m": "2t", "u10": "10u", "v10": "10v"}
"""Other names that are in use."""

NETCDF_NAMES = {"2t": "t2m", "10u": "u10", "10v": "v10", "10si": "si10"}
"""Names of variables of NetCDF, which begin with a letter, where they are not ECMWF's short names; cfgrib's, too."""


@dataclass(frozen=True)
class Derived:
    """A parameter that follows from others, on every level that these are on.

    Parameters
    ----------
    param : str
        ECMWF short name, which GRIB messages carry.
    variable : str
        Name in WeatherBench 2's manner.
    units : str
        SI units.
    standard_name : str
        Of CF.
    of : tuple of str
        Short names of the parameters that it is made from.
    formula : callable
        Takes their values, float64, in that order.
    """

    param: str
    variable: str
    units: str
    standard_name: str
    of: tuple[str, ...]
    formula: Callable[..., FloatArray]


DERIVED = (
    Derived("10si", "10m_wind_speed", "m s**-1", "wind_speed", ("10u", "10v"), np.hypot),
    Derived("ws", "wind_speed", "m s**-1", "wind_speed", ("u", "v"), np.hypot),
)
"""Wind speeds, at 10 m and on pressure levels."""


@dataclass(frozen=True)
class Field:
    """A parameter on one level.

    Parameters
    ----------
    param : str
        ECMWF short name.
    level_hpa : int or None
        Pressure level, hPa; None for a single-level field.
    variable : str
        Name without the level, as in WeatherBench 2.
    units : str
        SI units.
    standard_name : str
        Of CF.
    channels : tuple of int
        The channel that it is, or those that it is made from.
    formula : callable or None
        Takes the values of these channels, float64; None for a channel itself.
    """

    param: str
    level_hpa: int | None
    variable: str
    units: str
    standard_name: str
    channels: tuple[int, ...]
    formula: Callable[..., FloatArray] | None = None

    @property
    def label(self) -> str:
        """Short form: ``z500``, ``2t``, ``ws850``."""
        return self.param if self.level_hpa is None else f"{self.param}{self.level_hpa}"

    @property
    def name(self) -> str:
        """``variable`` or ``variable_level``: ``geopotential_500``."""
        return self.variable if self.level_hpa is None else f"{self.variable}_{self.level_hpa}"

    def of(self, components: FloatArray) -> FloatArray:
        """The field's values, in float64.

        Parameters
        ----------
        components : array (..., len(channels), lon, lat)
            Values of its channels.

        Returns
        -------
        float64 array (..., lon, lat)
        """
        values = [components[..., index, :, :].astype(np.float64) for index in range(len(self.channels))]
        return values[0] if self.formula is None else self.formula(*values)


def netcdf_name(param: str) -> str:
    """Name of a parameter as a variable of NetCDF, by its short name: ``t2m`` for ``2t``."""
    return NETCDF_NAMES.get(param, param)


def _all_fields() -> tuple[Field, ...]:
    fields = [
        Field(channel.param, channel.level_hpa, channel.variable, channel.units, channel.standard_name, (index,))
        for index, channel in enumerate(CHANNELS)
    ]
    index_of = {(field.param, field.level_hpa): field.channels[0] for field in fields}
    for made in DERIVED:
        for level in (None, *LEVELS_HPA):
            if all((param, level) in index_of for param in made.of):
                channels = tuple(index_of[param, level] for param in made.of)
                fields.append(
                    Field(made.param, level, made.variable, made.units, made.standard_name, channels, made.formula)
                )
    return tuple(fields)


FIELDS = _all_fields()
"""All fields: the channels in their order, then what follows from them."""

CHANNEL_FIELDS = FIELDS[: len(CHANNELS)]
"""The fields that are channels."""


def named(name: str, option: str, fields: Iterable[Field] = FIELDS) -> tuple[Field, ...]:
    """The fields that a name means: one, or a parameter's at every level.

    Parameters
    ----------
    name : str
        ECMWF's short name (``z``, ``2t``), one with a level (``z500``), or WeatherBench 2's
        (``geopotential``, ``geopotential_500``).
    option : str
        Where it was typed, for the message.
    fields : iterable of Field
        Those to choose from.

    Returns
    -------
    tuple of Field
        In the order of `fields`; one, or one per level.

    Raises
    ------
    OptionError
        If there is no such field.
    """
    candidates = tuple(fields)
    wanted = ALIASES.get(name, name)
    found = tuple(field for field in candidates if wanted in (field.param, field.variable, field.label, field.name))
    if found:
        return found
    params = ", ".join(dict.fromkeys(field.param for field in candidates))
    raise OptionError(
        f"{option}: expected some of {params}, or one level such as z500, got {name!r}; "
        f"levels are {', '.join(str(level) for level in LEVELS_HPA)} hPa"
    )
