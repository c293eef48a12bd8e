"""What can be written: the channels of the state, and the wind speeds that follow from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..arrays import FloatArray
from ..channels import CHANNELS, LEVELS_HPA
from ..errors import OptionError

WIND_SPEED, SURFACE_WIND_SPEED = "ws", "10si"
"""ECMWF's short names of the derived wind speeds, on pressure levels and at 10 m."""

ALIASES = {"10ws": SURFACE_WIND_SPEED, "mean_sea_level_pressure": "msl"}
"""Other names that are in use."""


@dataclass(frozen=True)
class Field:
    """One field of the output.

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
    channels : tuple of int
        The channel that it is, or the two components of the wind whose speed it is.
    """

    param: str
    level_hpa: int | None
    variable: str
    units: str
    channels: tuple[int, ...]

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
        """
        first = components[..., 0, :, :].astype(np.float64)
        return first if len(self.channels) == 1 else np.hypot(first, components[..., 1, :, :])


def _all_fields() -> tuple[Field, ...]:
    fields = [
        Field(channel.param, channel.level_hpa, channel.variable, channel.units, (index,))
        for index, channel in enumerate(CHANNELS)
    ]
    index_of = {field.label: field.channels[0] for field in fields}
    fields.append(Field(SURFACE_WIND_SPEED, None, "10m_wind_speed", "m s**-1", (index_of["10u"], index_of["10v"])))
    for level in LEVELS_HPA:
        components = (index_of[f"u{level}"], index_of[f"v{level}"])
        fields.append(Field(WIND_SPEED, level, "wind_speed", "m s**-1", components))
    return tuple(fields)


FIELDS = _all_fields()
"""All fields: the channels in their order, then the wind speeds."""

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
