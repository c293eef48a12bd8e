"""What vital signs say, beside those of the start and the climate that the weights were trained in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...arrays import FloatArray
from ...channels import CHANNELS
from ...engines.vitals import Probe, Vitals
from ...state import InitialState
from ...wording.numbers import rounded

Named = tuple[str, float]
"""A number with the field that it is of."""

RATIOS = ("moisture_ratio", "narrowest")
NUMBERS = ("mass_change", "moisture_ratio", "low", "high", "beyond", "narrowest")
"""Of `Signs`, those that have a band, but for the power; and which of these are ratios."""


@dataclass(frozen=True)
class Signs:
    """Health of one member at one step; NaN where there is nothing to tell.

    Parameters
    ----------
    power : mapping of str to tuple of float
        By field: power over that of the start, by group of zonal wavenumbers.
    mass, mass_change : float
        Mean pressure at sea level, and how much more it is than at the start, Pa.
    moisture, moisture_ratio : float
        Water in the column, kg m⁻², and that over the start's.
    low, high : (str, float)
        Extreme of all fields, and of which one, in standard deviations of the climate from its mean.
    beyond : (str, float)
        Farthest that a field reaches beyond its range at the start, and which one, in standard deviations.
    narrowest : (str, float)
        Least range of a field over that of the start, and which one.
    finite : bool
        Whether all extremes are numbers.
    """

    power: Mapping[str, tuple[float, ...]]
    mass: float
    mass_change: float
    moisture: float
    moisture_ratio: float
    low: Named
    high: Named
    beyond: Named
    narrowest: Named
    finite: bool

    def as_json(self) -> dict[str, Any]:
        """As a line of the record has it; None for what is no number."""
        named = {name: getattr(self, name) for name in ("low", "high", "beyond", "narrowest")}
        plain = {name: getattr(self, name) for name in ("mass", "mass_change", "moisture", "moisture_ratio")}
        return {
            "power": {field: [rounded(ratio) for ratio in ratios] for field, ratios in self.power.items()},
            **{name: rounded(value, 8) for name, value in plain.items()},
            **{name: [field, rounded(value)] for name, (field, value) in named.items()},
            "finite": self.finite,
        }


class Reference:
    """The start of a member, against which its health is seen.

    Parameters
    ----------
    probe : Probe
        Lays vital signs out.
    start : InitialState
        Its newest state is the start.
    climate : (array (channel,), array (channel,)) or None
        Mean and standard deviation of every channel; None: those of the start.
    """

    def __init__(self, probe: Probe, start: InitialState, climate: tuple[FloatArray, FloatArray] | None) -> None:
        self._probe = probe
        vitals = probe.measure(start.values[-1:])
        self._power, self._means = probe.power(vitals)[0].astype(float), probe.means(vitals)[0].astype(float)
        self._extremes = probe.extremes(vitals)[0].astype(float)
        if climate is None:
            points = start.values.reshape(-1, probe.channels)
            climate = points.mean(axis=0, dtype=float), points.std(axis=0, dtype=float)
        self._mean, self._std = climate[0], np.where(climate[1] > 0, climate[1], np.nan)

    def signs(self, vitals: Vitals) -> list[Signs]:
        """Health of every member of these vital signs, all of which started here."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            return [self._signs(vitals[at : at + 1]) for at in range(len(vitals))]

    def _signs(self, vitals: Vitals) -> Signs:
        probe = self._probe
        ratios = probe.power(vitals)[0] / np.where(self._power > 0, self._power, np.nan)
        mass, moisture = (float(value) for value in probe.means(vitals)[0])
        extremes = probe.extremes(vitals)[0].astype(float)
        low, high = (extremes - self._mean) / self._std
        beyond = np.maximum(self._extremes[0] - extremes[0], extremes[1] - self._extremes[1]) / self._std
        (start_range,), (now,) = np.diff(self._extremes, axis=0), np.diff(extremes, axis=0)
        has_mass, has_water = (bool(mean) for mean in self._means)
        return Signs(
            power={field: tuple(map(float, row)) for field, row in zip(probe.fields, ratios, strict=True)},
            mass=mass if has_mass else np.nan,
            mass_change=mass - self._means[0] if has_mass else np.nan,
            moisture=moisture if has_water else np.nan,
            moisture_ratio=moisture / self._means[1] if has_water else np.nan,
            low=_least(low),
            high=_negated(_least(-high)),
            beyond=_negated(_least(-beyond)),
            narrowest=_least(now / np.where(start_range > 0, start_range, np.nan)),
            finite=bool(np.isfinite(extremes).all()),
        )


def _least(values: FloatArray) -> Named:
    """The least that is a number, with the label of its channel."""
    if np.isnan(values).all():
        return "", float("nan")
    index = int(np.nanargmin(values))
    return CHANNELS[index].label, float(values[index])


def _negated(named: Named) -> Named:
    return named[0], -named[1]


def twins(extremes: FloatArray, others: Mapping[int, bytes], members: Sequence[int]) -> dict[int, int]:
    """Members that are copies of another one, by their extremes, and of which.

    Parameters
    ----------
    extremes : array (member, 2, channel)
        Theirs.
    others : mapping of int to bytes
        Extremes of members before, as `digest_of` gives them.
    members : sequence of int
        Their numbers.
    """
    first: dict[bytes, int] = {}
    for member, digest in others.items():
        first.setdefault(digest, member)
    copies = {}
    for member, one in zip(members, extremes, strict=True):
        digest = digest_of(one)
        if first.setdefault(digest, member) != member:
            copies[member] = first[digest]
    return copies


def digest_of(extremes: FloatArray) -> bytes:
    """What tells one member from another: minimum and maximum of every channel, to the last bit."""
    return extremes.astype(np.float32).tobytes()
