"""Which history of states to start from, of all that an input holds: complete, and of one source."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ..channels import CHANNELS
from ..errors import InputError
from .field_origins import STEP_0_TYPES, Origin
from .fields import AvailableFields, Fields, Strain, Strains, Wanted, list_times
from .shortcomings import left_out, missing_fields, missing_message, missing_together, mixture_message, products_message

LOG = logging.getLogger(__name__)

Source = tuple[str, ...]


@dataclass(frozen=True)
class History:
    """The states that a forecast starts from, all of one member.

    Parameters
    ----------
    times : tuple of datetime
        Valid times, oldest first.
    number : int
        The member; 0 for an analysis.
    fields : tuple of dict of int to AvailableField
        The fields of every state, by channel.
    lead_time_s : int
        The longest of the newest state, s.
    source : tuple of str
        Centre, class and expver of the newest state.
    remarks : tuple of str
        What was chosen between, or put together, for warnings.
    """

    times: tuple[datetime, ...]
    number: int
    fields: tuple[Fields, ...]
    lead_time_s: int = 0
    source: Source = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Candidate:
    """A complete state at one time.

    Parameters
    ----------
    origin : Origin
    fields : dict of int to AvailableField
    lead_time_s : int
        The longest, s.
    patched : int
        0 if it is of one run of one model, 1 of several lead times or models of one origin, 2 of an analysis and step 0
        of the same model's forecast.
    order : int
        Place in the input.
    """

    origin: Origin
    fields: Fields
    lead_time_s: int
    patched: int
    order: int

    @property
    def rank(self) -> tuple[int, int, int, int]:
        """The smallest is used: the shortest lead time, an analysis, the whole before the patched, then the first."""
        return self.lead_time_s, self.origin.distance, self.patched, self.order

    @property
    def source(self) -> Source:
        return self.origin.centre, self.origin.mars_class, self.origin.expver

    def __str__(self) -> str:
        return f"{self.origin} at +{lead_time(self.lead_time_s)}"


def lead_time(seconds: int) -> str:
    """A lead time in the largest unit that divides it: ``6 h``, ``30 min``."""
    unit, length = next(
        (unit, length) for unit, length in (("h", 3600), ("min", 60), ("s", 1)) if seconds % length == 0
    )
    return f"{seconds // length} {unit}"


def choose_history(available: AvailableFields, lags_hours: Sequence[int], wanted: Wanted) -> History:
    """The newest complete history among those that are wanted, of the lowest member that has one.

    Parameters
    ----------
    available : AvailableFields
        What there is.
    lags_hours : sequence of int
        Hours of the states relative to the initial time.
    wanted : Wanted
        Which initial times will do.

    Raises
    ------
    InputError
        If there is none; lists all that is missing for the one that comes closest.
    """
    found = _choose(available, lags_hours, wanted)
    _say(found.remarks)
    return found


def choose_histories(available: AvailableFields, lags_hours: Sequence[int], wanted: Wanted) -> dict[int, History]:
    """The history of every member that has one at the time that `choose_history` chooses, by number.

    A control or an analysis, number 0, counts only where it is alone or has a shorter lead time; members of one source
    only are taken. Arguments and errors are those of `choose_history`.
    """
    first = _choose(available, lags_hours, wanted)
    initial_time = first.times[-1]
    here = [number for number in sorted(available.members) if initial_time in available.members[number]]
    complete = {first.number: first} | _histories(available, here, first.times)
    lacking = sorted(set(here) - set(complete) - {0})
    if lacking:
        LOG.warning(
            "Members %s of the input lack fields for %s UTC, and are left out",
            *(_numbers(lacking), list_times([initial_time])),
        )
    members = {number: history for number, history in complete.items() if number != 0}
    if members and 0 in complete and complete[0].lead_time_s < min(one.lead_time_s for one in members.values()):
        LOG.warning(
            "Starting from the one state of the input at +%s, not from its members %s, whose lead time is longer",
            *(lead_time(complete[0].lead_time_s), _numbers(list(members))),
        )
        members = {}
    chosen = _of_one_source(available, members) if members else {0: complete[0]}
    _say(remark for history in chosen.values() for remark in history.remarks)
    return chosen


def pair_members(members: Sequence[int], numbers: Sequence[int], starts: int = 0) -> dict[int, int]:
    """Which member of the input every member of the forecast starts from.

    Its own number where the input has it; else the input's members in turn, so that the answer for a
    member depends neither on the size of the ensemble nor on what else is run.

    Parameters
    ----------
    members : sequence of int
        Of the forecast, from 1.
    numbers : sequence of int
        Of the input, ascending, at least one.
    starts : int
        Of a crossed ensemble: how many of the input's members are taken, in turn; else 0.

    Raises
    ------
    InputError
        If the input has fewer members than starts.
    """
    if starts > len(numbers):
        raise InputError(
            f"--crossed: expected an input with {starts} members or more to start from, got {len(numbers)}"
        )
    if starts:
        return {member: numbers[(member - 1) % starts] for member in members}
    return {member: member if member in numbers else numbers[(member - 1) % len(numbers)] for member in members}


def _choose(available: AvailableFields, lags_hours: Sequence[int], wanted: Wanted) -> History:
    usable = {time for states in available.members.values() for time in states}
    if not usable and available.products:
        raise InputError(products_message(available))
    candidates = sorted((time for time in usable or available.times if wanted.accepts(time)), reverse=True)
    if not candidates:
        raise InputError(f"the input has no field valid at {wanted}. It holds {available}.{left_out(available)}")
    missing = {
        (time, number): missing_fields(available, number, _times(time, lags_hours))
        for time in candidates
        for number in sorted(available.members) or [0]
    }
    for (time, number), lacking in missing.items():
        history = None if lacking else _history(available, number, _times(time, lags_hours))
        if history is not None:
            if time != candidates[0]:
                LOG.warning("The history of %s UTC is incomplete; using an older one", list_times(candidates[:1]))
            return history
    for time in candidates:
        times = _times(time, lags_hours)
        if not any(missing_together(available, times).values()):
            raise InputError(mixture_message(available, times))
    # The newest, of the lowest member, of those that lack least.
    time, number = min(missing, key=lambda key: sum(len(channels) for channels in missing[key].values()))
    raise InputError(missing_message(available, time, missing[time, number], len(lags_hours)))


def _histories(
    available: AvailableFields, numbers: Iterable[int], times: tuple[datetime, ...], source: Source | None = None
) -> dict[int, History]:
    """Complete histories of some members, by number."""
    found = {number: _history(available, number, times, source) for number in numbers}
    return {number: history for number, history in found.items() if history is not None}


def _of_one_source(available: AvailableFields, members: Mapping[int, History]) -> dict[int, History]:
    """The members of the source of the lowest."""
    lowest = members[min(members)]
    chosen = {
        number: history
        for number, history in _histories(available, members, lowest.times, lowest.source).items()
        if history.source == lowest.source
    }
    others = sorted(set(members) - set(chosen))
    if others:
        LOG.warning(
            "Members %s of the input are of another source than %d, and are left out", _numbers(others), min(members)
        )
    return chosen


def _history(
    available: AvailableFields, number: int, times: tuple[datetime, ...], source: Source | None = None
) -> History | None:
    """The best history of a member of which every state is complete and of one source, if there is one.

    Parameters
    ----------
    available : AvailableFields
    number : int
    times : tuple of datetime
        Oldest first.
    source : tuple of str or None
        Which to prefer.
    """
    states = [_candidates(available.members[number].get(time, {})) for time in times]
    newest = sorted(states[-1], key=lambda state: (source not in (None, state.source), *state.rank))
    # A reanalysis is first published under another version of experiment, so that may change between two times.
    for line in (_line, _line_of_any_version):
        chains = [chain for last in newest if (chain := _chain(states[:-1], last, line)) is not None]
        if chains:
            best, *others = chains
            return History(
                times,
                number,
                tuple(state.fields for state in best),
                best[-1].lead_time_s,
                best[-1].source,
                tuple(_remarks(times, best, [other[-1] for other in others])),
            )
    return None


def _line(state: _Candidate) -> Source:
    return state.origin.line


def _line_of_any_version(state: _Candidate) -> Source:
    return replace(state.origin, expver="").line


def _chain(
    older: Sequence[Sequence[_Candidate]], newest: _Candidate, line: Callable[[_Candidate], Source]
) -> tuple[_Candidate, ...] | None:
    """The best states of the older times that belong to a newest one, and that one."""
    chain = []
    for states in older:
        fitting = [state for state in states if line(state) == line(newest)]
        if not fitting:
            return None
        chain.append(min(fitting, key=lambda state: (state.origin.stream != newest.origin.stream, state.rank)))
    return *chain, newest


def _candidates(strains: Strains) -> list[_Candidate]:
    """The complete states that strains make, none of two origins."""
    found = []
    for order, (strain, fields) in enumerate(strains.items()):
        if len(fields) == len(CHANNELS):
            found.append(_Candidate(strain.origin, fields, abs(strain.lead_time_s), 0, order))
    for patched, key in ((1, _same_origin), (2, _same_initial_state)):
        groups: dict[object, dict[Strain, Fields]] = defaultdict(dict)
        for strain, fields in strains.items():
            groups[key(strain)][strain] = fields
        for group in groups.values():
            merged = _merged(group)
            lead = max(abs(field.lead_time_s) for field in merged.values())
            origins = {strain.origin for strain in group}
            known = any(state.origin in origins and state.lead_time_s <= lead for state in found)
            if len(group) > 1 and len(merged) == len(CHANNELS) and not known:
                first = next(iter(group))
                found.append(_Candidate(first.origin, merged, lead, patched, list(strains).index(first)))
    return found


def _same_origin(strain: Strain) -> object:
    return strain.origin


def _same_initial_state(strain: Strain) -> object:
    """An analysis and step 0 of the forecast from it are the same state of the same model."""
    if strain.lead_time_s == 0 and strain.origin.type in STEP_0_TYPES:
        return replace(strain.origin, type="")
    return strain


def _merged(group: Mapping[Strain, Fields]) -> Fields:
    """Of several fields for one channel, that with the shortest lead time, then a parameter before its alias."""
    merged: Fields = {}
    for fields in group.values():
        for channel, field in fields.items():
            held = merged.get(channel)
            if held is None or (abs(field.lead_time_s), field.is_alias) < (abs(held.lead_time_s), held.is_alias):
                merged[channel] = field
    return merged


# What is said.


def _say(remarks: Iterable[str]) -> None:
    for remark in dict.fromkeys(remarks):
        LOG.warning("%s", remark)


def _remarks(times: Sequence[datetime], chain: Sequence[_Candidate], others: Sequence[_Candidate]) -> Iterator[str]:
    """What was chosen between, or put together."""
    newest = chain[-1]
    if others:
        if all(newest.lead_time_s < other.lead_time_s for other in others):
            reason = "whose lead time is the shortest"
        elif all(newest.rank[:2] < other.rank[:2] for other in others):
            reason = "the nearest to an analysis"
        else:
            reason = "the first of those that are as near to an analysis"
        yield (
            f"The input has {1 + len(others)} complete states of {list_times(times[-1:])} UTC: "
            f"taking that of {newest}, {reason}; left out: {'; '.join(str(other) for other in others)}"
        )
    for time, state in zip(times, chain, strict=True):
        if state.patched:
            parts = sorted({f"{held.origin} at +{lead_time(held.lead_time_s)}" for held in state.fields.values()})
            models = "" if len(parts) > 1 else ", of several generating processes"
            yield f"The state of {list_times([time])} UTC is put together from {'; '.join(parts)}{models}"
    if len({state.origin.expver for state in chain}) > 1:
        said = "; ".join(
            f"{list_times([time])} UTC of {state.origin}" for time, state in zip(times, chain, strict=True)
        )
        yield f"The states are of several versions of one source: {said}"


def _times(initial_time: datetime, lags_hours: Sequence[int]) -> tuple[datetime, ...]:
    return tuple(initial_time + timedelta(hours=lag) for lag in lags_hours)


def _numbers(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)
