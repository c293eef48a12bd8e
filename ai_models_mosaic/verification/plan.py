"""What is verified: channels, lead times, events, and the date that pictures show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from ..arrays import FloatArray
from ..channels import CHANNELS, Channel
from ..errors import OptionError
from ..params import CHANNEL_FIELDS, named

DEFAULT_CHANNELS = ("z500", "t850", "2t", "10u", "q700")
"""What is verified unless something else is asked for."""

EVENT_PROBABILITIES = (0.1, 0.9)
"""Climatological quantiles below or above which an event is verified."""


def find_channels(names: Iterable[str], option: str = "--channels") -> tuple[Channel, ...]:
    """Channels by name, as `params.named` takes them, or ``all``.

    Parameters
    ----------
    names : iterable of str
        In the order wanted; doubles count once.
    option : str
        Where they were typed, for the message.

    Returns
    -------
    tuple of Channel
        A parameter alone means all its levels.

    Raises
    ------
    OptionError
        If a name is no channel's.
    """
    found: dict[int, Channel] = {}
    for name in names:
        fields = CHANNEL_FIELDS if name == "all" else named(name, option, CHANNEL_FIELDS)
        found |= {index: CHANNELS[index] for field in fields for index in field.channels}
    return tuple(found.values())


def require_seed(seed: int) -> None:
    """Refuse a seed that a counter cannot have.

    Raises
    ------
    OptionError
        Says which.
    """
    if not 0 <= seed < 2**64:
        raise OptionError(f"expected a seed from 0 to 2**64 - 1, got {seed}")


@dataclass(frozen=True)
class Event:
    """A value beyond a quantile of the climatology of its place and month.

    Parameters
    ----------
    probability : float
        Of the quantile, between 0 and 1: below it the event is to be lower if it is under a half, else higher.

    Raises
    ------
    OptionError
        If it is not a probability.
    """

    probability: float

    def __post_init__(self) -> None:
        if not 0 < self.probability < 1:
            raise OptionError(f"expected quantiles between 0 and 1, got {self.probability:g}")

    @property
    def name(self) -> str:
        """``below_q10``, ``above_q90``."""
        return f"{'below' if self.probability < 0.5 else 'above'}_q{100 * self.probability:g}"

    @property
    def chance(self) -> float:
        """How often it happens in the climatology."""
        return min(self.probability, 1 - self.probability)

    def happens(self, values: FloatArray, threshold: FloatArray) -> FloatArray:
        """1 where it does, else 0."""
        return (values < threshold if self.probability < 0.5 else values > threshold).astype(np.float64)


@dataclass(frozen=True)
class Plan:
    """What is verified.

    Parameters
    ----------
    channels : tuple of Channel
        All scores are made of these.
    spectra : tuple of Channel
        Those of them whose power spectra are made too.
    lead_hours : tuple of int
        Lead times; all that the forecasts have if empty.
    events : tuple of Event
        Need a climatology.
    seed : int
        Of the order of equal values in rank histograms.
    illustrated : datetime or None
        The date that maps and plumes show; None for the first that is verified.
    point_deg : (float, float)
        Latitude and longitude of the plumes.

    Raises
    ------
    OptionError
        If there are no channels, or spectra of others, or a number is out of range.
    """

    channels: tuple[Channel, ...] = find_channels(DEFAULT_CHANNELS)
    spectra: tuple[Channel, ...] = find_channels(DEFAULT_CHANNELS)
    lead_hours: tuple[int, ...] = ()
    events: tuple[Event, ...] = tuple(Event(probability) for probability in EVENT_PROBABILITIES)
    seed: int = 0
    illustrated: datetime | None = None
    point_deg: tuple[float, float] = (50.0, 10.0)

    def __post_init__(self) -> None:
        if not self.channels:
            raise OptionError("expected at least one channel to verify")
        if not all(lead > 0 and float(lead).is_integer() for lead in self.lead_hours):
            raise OptionError(f"expected lead times of whole hours above 0, got {', '.join(map(str, self.lead_hours))}")
        require_seed(self.seed)
        others = [channel.label for channel in self.spectra if channel not in self.channels]
        if others:
            raise OptionError(f"spectra of {', '.join(others)} need these among the channels that are verified")
