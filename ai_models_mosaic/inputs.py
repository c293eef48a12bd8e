"""From GRIB fields to a checked InitialState: values, units and grid."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from .arrays import FloatArray, IntArray
from .channels import CHANNELS, STANDARD_GRAVITY, Channel
from .errors import InputError
from .grid import LatLonGrid, grid_of_points
from .holdings import HeldField, Holdings, Wanted, choose_initial_time, list_times, take_stock
from .regrid import ConservativeRegridder
from .state import InitialState

LOG = logging.getLogger(__name__)

GRID_TYPES = ("regular_ll", "regular_gg", "reduced_gg", "reduced_ll")
"""Grids whose points stand in rows along the latitudes."""

PROBLEMS_SHOWN = 10
"""Bad fields that one message describes before it counts the rest."""


def read_initial_state(
    fields: Iterable[Any], grid: LatLonGrid, lags_hours: Sequence[int], wanted: Wanted | None = None
) -> InitialState:
    """Select, check and regrid the GRIB fields of a history.

    Parameters
    ----------
    fields : iterable of earthkit-data fields
        In any order.
    grid : LatLonGrid
        The variant's grid.
    lags_hours : sequence of int
        Hours of the states relative to the initial time, oldest first, such as (-24, 0).
    wanted : Wanted or None
        The initial time; None for the newest complete history.

    Returns
    -------
    InitialState

    Raises
    ------
    InputError
        If fields are missing, unreadable, on an unsupported grid, non-finite or unphysical. One
        message names all of them.
    """
    return initial_state_of(take_stock(fields), grid, lags_hours, wanted or Wanted())


def initial_state_of(holdings: Holdings, grid: LatLonGrid, lags_hours: Sequence[int], wanted: Wanted) -> InitialState:
    """Select, check and regrid a history of what an input holds; as `read_initial_state`."""
    initial_time = choose_initial_time(holdings, lags_hours, wanted)
    if len(holdings.members) > 1:
        LOG.warning(
            "The input holds members %s; every member of the forecast starts from the first of them, %d. "
            "Choose another with: grib_copy -w number=N INPUT OUTPUT",
            ", ".join(str(number) for number in sorted(holdings.members)),
            min(holdings.members),
        )
    times = tuple(initial_time + timedelta(hours=lag) for lag in lags_hours)
    LOG.info("Starting from %s, with states of %s UTC", f"{initial_time:%Y-%m-%d %H:%M} UTC", list_times(times))
    values = np.empty((len(times), *grid.shape, len(CHANNELS)), dtype=np.float32)
    digest = hashlib.sha256()
    problems: list[str] = []
    mapper = _Mapper(grid)
    for index, time in enumerate(times):
        for channel in range(len(CHANNELS)):
            held = holdings.fields[time][channel]
            digest.update(held.source.message())
            raw = held.source.to_numpy(flatten=True, dtype=np.float64) * held.factor
            problem = _problem(raw, CHANNELS[channel])
            if problem:
                problems.append(f"{held.label}: {problem}")
            else:
                values[index, :, :, channel] = mapper(held, raw)
    _refuse_problems(problems)
    return InitialState(grid, times, values, digest.hexdigest())


class _Mapper:
    """Puts fields on the variant's grid; what depends on their grid alone is worked out once."""

    def __init__(self, target: LatLonGrid) -> None:
        self._target = target
        self._known: dict[str, tuple[IntArray, ConservativeRegridder]] = {}

    def __call__(self, held: HeldField, values: FloatArray) -> FloatArray:
        """The field on the target, ``(lon, lat)``."""
        if held.grid not in self._known:
            self._known[held.grid] = self._prepare(held)
        order, regridder = self._known[held.grid]
        return regridder(values[order])

    def _prepare(self, held: HeldField) -> tuple[IntArray, ConservativeRegridder]:
        if held.grid_type not in GRID_TYPES:
            raise InputError(
                f"{held.label} is on a grid of type {held.grid_type}: expected one of {', '.join(GRID_TYPES)}. "
                "Interpolate the input first, for instance to 0.25°"
            )
        points = held.source.to_latlon(flatten=True)
        try:
            grid, order = grid_of_points(points["lon"], points["lat"])
        except ValueError as error:
            raise InputError(f"{held.label} is not on a usable grid: {error}") from error
        regridder = ConservativeRegridder(grid, self._target)
        LOG.info("Input grid: %s%s", grid, "" if regridder.is_identity else f", regridded to {self._target}")
        return order, regridder


def _problem(values: FloatArray, channel: Channel) -> str:
    """What makes a field unusable, or an empty string; a constant field only earns a warning."""
    finite = np.isfinite(values)
    if not finite.all():
        return f"{values.size - int(finite.sum())} of {values.size} values are NaN, infinite or missing"
    low, high = float(values.min()), float(values.max())
    if low < channel.minimum or high > channel.maximum:
        worst = low if low < channel.minimum else high
        bounds = f"{channel.minimum:g} … {channel.maximum:g} {channel.units}"
        return f"value {worst:g} is outside {bounds}{_hint(values, channel)}"
    if low == high:
        LOG.warning("%s is constant: %g %s everywhere", channel.label, low, channel.units)
    return ""


def _hint(values: FloatArray, channel: Channel) -> str:
    """The mistake that a change of units would explain, in words for the end of a message."""
    guesses: dict[str, Callable[[FloatArray], FloatArray]] = {
        "geopotential height in m": lambda v: v * STANDARD_GRAVITY,
        "degrees Celsius": lambda v: v + 273.15,
        "hPa": lambda v: v * 100,
        "g/kg": lambda v: v / 1000,
    }
    fitting = {"z": ["geopotential height in m"], "t": ["degrees Celsius"], "2t": ["degrees Celsius"]}
    fitting |= {"msl": ["hPa"], "q": ["g/kg"]}
    for name in fitting.get(channel.param, []):
        corrected = guesses[name](values)
        if channel.minimum <= corrected.min() and corrected.max() <= channel.maximum:
            return f"; is it {name}?"
    return ""


def _refuse_problems(problems: Sequence[str]) -> None:
    if not problems:
        return
    shown = "\n".join(f"  {problem}" for problem in problems[:PROBLEMS_SHOWN])
    rest = f"\n  and {len(problems) - PROBLEMS_SHOWN} more" if len(problems) > PROBLEMS_SHOWN else ""
    raise InputError(
        f"{len(problems)} input fields cannot be used:\n{shown}{rest}\nExpected finite values in SI units."
    )
