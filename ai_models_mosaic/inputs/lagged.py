"""Where members start that start at several times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from ..errors import InputError
from ..options.lagging import OPTION, Lagging
from ..state import InitialState
from .fields import Wanted

Reads = Callable[[Wanted, Sequence[int]], dict[int, InitialState]]


def lagged_states(read: Reads, time: datetime, lagging: Lagging, members: Sequence[int]) -> dict[int, InitialState]:
    """Where every member starts, at its own time.

    Parameters
    ----------
    read : callable
        Gives where some members start, at one time.
    time : datetime
        The run's start, UTC.
    lagging : Lagging
        How long before that each member starts.
    members : sequence of int
        Of the forecast.

    Returns
    -------
    dict of int to InitialState
        By member, in their order.

    Raises
    ------
    InputError
        If one cannot be read; says which start it is of.
    """
    found: dict[int, InitialState] = {}
    for hours in sorted({lagging.of(member) for member in members}):
        own = [member for member in members if lagging.of(member) == hours]
        try:
            states = read(Wanted(time=time - timedelta(hours=hours)), own)
        except InputError as error:
            raise InputError(f"{OPTION}: the start {hours} h before {time:%Y-%m-%d %H:%M} UTC: {error}") from error
        # Members that share a state go on sharing it.
        ahead = {id(state): replace(state, ahead_hours=hours) for state in states.values()}
        found |= {member: ahead[id(state)] for member, state in states.items()}
    return {member: found[member] for member in members}
