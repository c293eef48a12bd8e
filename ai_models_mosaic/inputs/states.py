"""From GRIB fields to a checked InitialState: values, units and grid."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from ..arrays import FloatArray, IntArray
from ..channels import CHANNELS, STANDARD_GRAVITY, Channel
from ..errors import InputError
from ..geometry.grid import LatLonGrid, alternated, grid_of_points
from ..geometry.regrid import ConservativeRegridder
from ..state import InitialState
from ..wording.numbers import counted
from .fields import AvailableField, AvailableFields, Wanted, list_available, list_times
from .histories import History, choose_histories, choose_history, pair_members

LOG = logging.getLogger(__name__)

GRID_TYPES = ("regular_ll", "regular_gg", "reduced_gg", "reduced_ll")
"""Grids whose points stand in rows along the latitudes."""

PAIRS_SHOWN = 4
"""Members of an ensemble that a log line pairs with those of the input."""

PROBLEMS_SHOWN = 10
"""Bad fields that one message describes before it counts the rest."""


def read_initial_state(
    fields: Iterable[Any], grid: LatLonGrid, lags_hours: Sequence[int], wanted: Wanted | None = None
) -> InitialState:
    """Select, check and regrid the GRIB fields of a history.

    Parameters
    ----------
    fields : iterable of grib_messages.Message or earthkit-data fields
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
    return initial_state_of(list_available(fields), grid, lags_hours, wanted or Wanted())


def initial_state_of(
    available: AvailableFields, grid: LatLonGrid, lags_hours: Sequence[int], wanted: Wanted
) -> InitialState:
    """Select, check and regrid a history of what an input holds; as `read_initial_state`."""
    history = choose_history(available, lags_hours, wanted)
    _announce(history.times)
    return _state_of(history, _Mapper(grid))


def initial_states_of(
    available: AvailableFields,
    grid: LatLonGrid,
    lags_hours: Sequence[int],
    wanted: Wanted,
    members: Sequence[int],
    starts: int = 0,
) -> dict[int, InitialState]:
    """Where every member starts: from its own member of the input where that is an ensemble.

    Parameters
    ----------
    available : AvailableFields
        What the input holds.
    grid : LatLonGrid
        The variant's grid.
    lags_hours : sequence of int
        Hours of the states relative to the initial time, oldest first.
    wanted : Wanted
        The initial time.
    members : sequence of int
        Of the forecast; `histories.pair_members` says which starts from which.
    starts : int
        Of a crossed ensemble; else 0.

    Returns
    -------
    dict of int to InitialState
        By member of the forecast; those that start from the same share one.

    Raises
    ------
    InputError
        As `read_initial_state`.
    """
    histories = choose_histories(available, lags_hours, wanted)
    pairs = pair_members(members, list(histories), starts)
    _announce(next(iter(histories.values())).times)
    if len(histories) > 1:
        listed = ", ".join(f"{member} from {number}" for member, number in list(pairs.items())[:PAIRS_SHOWN])
        more = ", …" if len(pairs) > PAIRS_SHOWN else ""
        LOG.info("The input is an ensemble: members start from its own, %s%s", listed, more)
    mapper = _Mapper(grid)
    states = {number: _state_of(histories[number], mapper) for number in sorted(set(pairs.values()))}
    return {member: states[number] for member, number in pairs.items()}


def input_digest(starts: Mapping[int, InitialState]) -> str:
    """SHA-256 of all that the members start from, as hexadecimal digits; of one state, its own."""
    states = {(state.number, state.ahead_hours): state.digest for state in starts.values()}
    if len(states) == 1:
        return next(iter(states.values()))
    joined = "".join(
        f"{number} {digest}{f' {ahead} h before' if ahead else ''}\n"
        for (number, ahead), digest in sorted(states.items())
    )
    return hashlib.sha256(joined.encode()).hexdigest()


def _announce(times: Sequence[datetime]) -> None:
    LOG.info("Starting from %s UTC, with states of %s UTC", list_times(times[-1:]), list_times(times))


def _state_of(history: History, mapper: _Mapper) -> InitialState:
    """Check and regrid a history."""
    values = np.empty((len(history.times), *mapper.target.shape, len(CHANNELS)), dtype=np.float32)
    digest = hashlib.sha256()
    problems: list[str] = []
    repeated: list[str] = []
    for state, held_fields in zip(values, history.fields, strict=True):
        for index, channel in enumerate(CHANNELS):
            held = held_fields[index]
            digest.update(held.source.message())
            try:
                state[:, :, index] = _mapped(held, channel, mapper)
            except _UnusableError as problem:
                problems.append(f"{held.label}: {problem}")
            if not all(_is_copy(other, held) for other in held.others):
                repeated.append(held.label)
    _refuse_problems(problems)
    if repeated:
        rest = f" (and {counted(len(repeated) - 1, 'other field')})" if repeated[1:] else ""
        LOG.warning("The input has %s%s several times, not all alike: the first is taken", repeated[0], rest)
    return InitialState(mapper.target, history.times, values, digest.hexdigest(), history.number)


def _is_copy(other: AvailableField, held: AvailableField) -> bool:
    """Whether two fields of one name are one field."""
    if other.source.message() == held.source.message():
        return True
    try:
        first, second = (one.source.to_numpy(flatten=True, dtype=np.float64) * one.factor for one in (held, other))
    except ValueError:
        return False
    return other.grid == held.grid and np.array_equal(first, second, equal_nan=True)


class _UnusableError(Exception):
    """Why one field cannot be used."""


def _mapped(held: AvailableField, channel: Channel, mapper: _Mapper) -> FloatArray:
    """A field's checked values on the variant's grid, ``(lon, lat)``."""
    onto_grid = mapper.of(held)
    try:
        values = held.source.to_numpy(flatten=True, dtype=np.float64) * held.factor
    except ValueError as error:
        raise _UnusableError(str(error)) from error
    _check(values, channel)
    return onto_grid(values)


class _Mapper:
    """Puts fields on the variant's grid; what depends on their grid alone is worked out once."""

    def __init__(self, target: LatLonGrid) -> None:
        self.target = target
        self._known: dict[str, tuple[int, IntArray, ConservativeRegridder]] = {}

    def of(self, held: AvailableField) -> Callable[[FloatArray], FloatArray]:
        """What maps the values of a field, ``(point,)``, to the target, ``(lon, lat)``."""
        if held.grid not in self._known:
            self._known[held.grid] = self._prepare(held)
        points, order, regridder = self._known[held.grid]

        def onto_grid(values: FloatArray) -> FloatArray:
            if values.size != points:
                raise _UnusableError(f"it has {values.size} values for the {points} points of its grid")
            return regridder(values[order])

        return onto_grid

    def _prepare(self, held: AvailableField) -> tuple[int, IntArray, ConservativeRegridder]:
        if held.grid_type not in GRID_TYPES:
            raise InputError(
                f"{held.label} is on a grid of type {held.grid_type}: expected one of {', '.join(GRID_TYPES)}. "
                "Interpolate the input first, for instance to 0.25°"
            )
        try:
            points = held.source.to_latlon(flatten=True)
            longitude, latitude = points["lon"], points["lat"]
            if held.alternating:
                longitude = alternated(longitude, latitude)
            grid, order = grid_of_points(longitude, latitude)
        except ValueError as error:
            raise InputError(f"{held.label} is not on a usable grid: {error}") from error
        regridder = ConservativeRegridder(grid, self.target)
        LOG.info("Input grid: %s%s", grid, "" if regridder.is_identity else f", regridded to {self.target}")
        return longitude.size, order, regridder


def _check(values: FloatArray, channel: Channel) -> None:
    """Raise if a field is unusable; a constant one only earns a warning."""
    finite = np.isfinite(values)
    if not finite.all():
        raise _UnusableError(f"{values.size - int(finite.sum())} of {values.size} values are NaN, infinite or missing")
    low, high = float(values.min()), float(values.max())
    if low < channel.minimum or high > channel.maximum:
        worst = low if low < channel.minimum else high
        bounds = f"{channel.minimum:g} … {channel.maximum:g} {channel.units}"
        raise _UnusableError(f"value {worst:g} is outside {bounds}{unit_hint(values, channel)}")
    if low == high:
        LOG.warning("%s is constant: %g %s everywhere", channel.label, low, channel.units)


def unit_hint(values: FloatArray, channel: Channel) -> str:
    """The mistake that a change of units would explain, in words for the end of a message; empty if there is none.

    Parameters
    ----------
    values : array (…)
        In whatever units.
    channel : Channel
    """
    if channel.minimum <= values.min() and values.max() <= channel.maximum:
        return ""
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
    count = f"{len(problems)} input field{'s' if len(problems) > 1 else ''}"
    raise InputError(f"{count} cannot be used:\n{shown}{rest}\nExpected finite values in SI units.")
