"""Members moved about their mean, by factors that were fitted on past dates: what is written, never what runs on.

``x' = mean + factor · (x − mean)``: the mean stays, the spread is multiplied. It needs all members of a step together.
The spread part of ensemble model output statistics (Gneiting et al., Mon. Weather Rev. 133, 2005), member by member:
their order at every point stays, and with it what they say of several places, times and parameters together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Float32Array, FloatArray
from ..channels import CHANNELS
from ..errors import OptionError, OutputError
from ..options.factor_files import SPREAD, between, checked, read_factors, refuse_others
from ..state import ForecastStep

OPTION = "--calibration"

LIMITS = (0.5, 2.0)
"""Of a factor on the spread."""

NOTE = "members were moved about their mean by fitted factors (--calibration)"
"""What stores say of themselves."""


@dataclass(frozen=True)
class Calibration:
    """A file of factors on the spread, known by its digest.

    Parameters
    ----------
    path : str
        Whole and without links, for a card to name it from everywhere.
    sha256 : str
        Of the file.
    """

    path: str
    sha256: str

    @cached_property
    def content(self) -> Mapping[str, Any]:
        """What the file says.

        Raises
        ------
        OptionError
            If it is no such file, or another than it was.
        """
        found, digest = read_factors(Path(self.path), OPTION, SPREAD)
        if digest != self.sha256:
            raise OptionError(f"{OPTION} {self.path}: expected SHA-256 {self.sha256}, got {digest}: it was changed")
        factors = found.get("factors")
        if not isinstance(factors, dict) or not factors:
            raise OptionError(f"{OPTION} {self.path}: expected factors by field, got {factors!r}")
        names = {channel.name for channel in CHANNELS}
        for name, values in factors.items():
            if name not in names:
                raise OptionError(f"{OPTION} {self.path}: expected fields such as geopotential_500, got {name!r}")
            checked(values, len(found["lead_hours"]), LIMITS, f"{OPTION} {self.path}, {name}")
        return found

    def factor(self, channel: str, lead_time_hours: int) -> float:
        """What the spread of a channel is multiplied with at a lead time.

        1 at the initial time and for channels that were not fitted; between the lead times of the file linear, after
        the last that of the last.

        Parameters
        ----------
        channel : str
            Name, such as ``geopotential_500``.
        lead_time_hours : int
            Hours since the initial time.
        """
        factors = self.content["factors"].get(channel)
        if factors is None:
            return 1.0
        return between((0, *self.content["lead_hours"]), (1.0, *factors), lead_time_hours)

    def refuse_others(self, variant: str | None = None, weights: str | None = None) -> None:
        """Refuse to be used with another variant or other weights than those it was fitted for.

        Raises
        ------
        OptionError
            Says which.
        """
        refuse_others(f"{OPTION} {self.path}", self.content, variant, weights)

    def moved(self, forecast: ForecastStep) -> ForecastStep:
        """A step with all members moved about their mean.

        Parameters
        ----------
        forecast : ForecastStep
            All members of the ensemble.
        """
        values = forecast.values.copy()
        order = np.argsort(forecast.members)
        for index, channel in enumerate(CHANNELS):
            factor = self.factor(channel.name, forecast.lead_time_hours)
            if factor != 1:
                # The last bits of a mean depend on the order of its members, and a member's must not.
                values[order, ..., index] = moved(forecast.values[order, ..., index], factor)
        return replace(forecast, values=values)


def parse_calibration(text: str | Path) -> Calibration:
    """The calibration that a path names.

    Raises
    ------
    OptionError
        If there is none.
    """
    # The digest alone is of a run's identity: the same file may lie elsewhere when it goes on.
    path = Path(text).resolve()
    _, digest = read_factors(path, OPTION, SPREAD)
    calibration = Calibration(str(path), digest)
    _ = calibration.content
    return calibration


def moved(members: FloatArray, factor: float | FloatArray) -> FloatArray:
    """Members moved about their mean.

    Parameters
    ----------
    members : array (member, …)
    factor : float or array (…)
        What their distance from the mean is multiplied with.

    Returns
    -------
    float64 array (member, …)
    """
    mean = members.mean(axis=0, dtype=np.float64)
    return mean + factor * (members - mean)


class MemberMover:
    """Holds the members of a step until the last has come, and moves them; without a calibration, they just pass.

    Parameters
    ----------
    calibration : Calibration or None
        By what they are moved.
    members : sequence of int
        Of the run, in their order.
    """

    def __init__(self, calibration: Calibration | None, members: Sequence[int]) -> None:
        self._calibration, self._members = calibration, tuple(members)
        self._index = {member: index for index, member in enumerate(members)}
        self._values: Float32Array | None = None
        self._missing: set[int] = set()

    @property
    def moves(self) -> bool:
        """Whether members are moved, and so held."""
        return self._calibration is not None

    def add(self, forecast: ForecastStep) -> ForecastStep | None:
        """Take some members; returns all of the step, moved, when the last has come.

        Parameters
        ----------
        forecast : ForecastStep
            Copied, if members are moved.
        """
        if self._calibration is None:
            return forecast
        if self._values is None:
            shape = (len(self._members), *forecast.values.shape[1:])
            self._values, self._missing = np.empty(shape, dtype=np.float32), set(self._members)
        self._values[[self._index[member] for member in forecast.members]] = forecast.values
        self._missing.difference_update(forecast.members)
        if self._missing:
            return None
        complete, self._values = self._values, None
        return self._calibration.moved(replace(forecast, members=self._members, values=complete))

    def close(self) -> None:
        """End, when nothing is held any more.

        Raises
        ------
        OutputError
            If some members of a step are, which were not written.
        """
        if self._missing:
            missing = ", ".join(map(str, sorted(self._missing)))
            raise OutputError(
                f"{OPTION}: expected all members of every step, got one without {missing}: members are moved about "
                "the mean of all, so nothing of that step was written"
            )
