"""A forecast's files against a sample of it made again.

To make a member's step is to make all of that member before it. So few members are drawn, and several lead times of
each: what a check costs grows with the root of the sample, and not with the ensemble.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..channels import CHANNELS
from ..errors import InputError, OptionError
from ..outputs.grib.output import GribEncoder
from ..wording.numbers import counted
from .originals import Distance, Key, Place, distance, key_of, places_of, refuse_cut
from .recorded import Card
from .remaking import Remake, prepare

LOG = logging.getLogger(__name__)

TOLERANCE = 1e-3
"""Of a field's standard deviation: how far rounding on another device, or by other versions, may lead by default."""

Sample = Mapping[int, Sequence[int]]
"""Lead times in hours, ascending, by member."""


@dataclass(frozen=True)
class Farthest:
    """The largest difference of a parameter, over all fields that were compared.

    Parameters
    ----------
    units : float
        In the parameter's units.
    steps : float
        In steps of the packing of its field; infinite where that holds one value only.
    """

    units: float = 0.0
    steps: float = 0.0

    def and_of(self, apart: Distance) -> Farthest:
        """The larger of this and another, each by itself."""
        steps = 0.0 if apart.largest == 0 else apart.largest / apart.packing if apart.packing else math.inf
        return Farthest(max(self.units, apart.largest), max(self.steps, steps))


@dataclass(frozen=True)
class Check:
    """What a check gave.

    Parameters
    ----------
    sample : Sample
        What was made again.
    identical : int
        Fields that are the same to the byte.
    farthest : mapping of str to Farthest
        By parameter.
    units : mapping of str to str
        By parameter.
    beyond : tuple of Key
        Fields that are off by more than packing and rounding.
    backend : tuple of (str, object, object)
        What is another than in the original run: name, then and now.
    fields : int
        Compared.
    """

    sample: Sample
    fields: int
    identical: int
    farthest: Mapping[str, Farthest]
    units: Mapping[str, str]
    beyond: tuple[Key, ...]
    backend: tuple[tuple[str, Any, Any], ...]

    def __str__(self) -> str:
        count = sum(len(hours) for hours in self.sample.values())
        members = ", ".join(str(member) for member in sorted(self.sample))
        named = f"{'member' if len(self.sample) == 1 else 'members'} {members}"
        lines = [f"{name} was {then}, is {now}" for name, then, now in self.backend]
        lines.append(f"{counted(count, 'member-step')} of {named} made again")
        lines.append(f"{self.identical} of {counted(self.fields, 'field')} identical to the byte")
        for name, largest in self.farthest.items():
            lines.append(f"  {name:4} off by {largest.units:.3g} {self.units[name]}, {largest.steps:.3g} packing steps")
        return "\n".join(lines)


def check(
    card: Card,
    count: int,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    *,
    channels: Sequence[int],
    file: str | None = None,
    assets: Path | None = None,
) -> Check:
    """Make a sample of member-steps again, and compare it with the files beside the card.

    Parameters
    ----------
    card : Card
        Of the forecast.
    count : int
        Member-steps.
    seed : int
        Of the sample.
    tolerance : float
        Share of a field's standard deviation that it may be off by, beside a step of packing, where the device or a
        version is another than in the original run.
    channels : sequence of int
        Indices in `channels.CHANNELS` of the fields that are compared, as far as the files have them.
    file : str or None
        The input, if it is elsewhere than it was.
    assets : Path or None
        Folder of the weights, if they are elsewhere than they were.

    Raises
    ------
    InputError
        If no field of a member is there to compare with; and as `remaking.prepare`.
    CheckpointError
        As `remaking.prepare`.
    OptionError
        If a number is out of range.
    CheckError
        If a file holds fewer messages than its card says.
    """
    for option, value, least in (("--check", count, 1), ("--check-seed", seed, 0)):
        if value < least:
            raise OptionError(f"{option}: expected a number from {least}, got {value}")
    if not 0 <= tolerance <= 1:
        raise OptionError(f"--check-tolerance: expected a share from 0 to 1, got {tolerance:g}")
    refuse_cut(card)
    wanted = {(CHANNELS[channel].param, CHANNELS[channel].level_hpa): channel for channel in channels}
    places = {
        key: held
        for key, held in places_of(card).items()
        if key[0] in card.found["members"] and _channel(wanted, key) is not None
    }
    sample = draw({key[:2] for key in places}, count, seed)
    if not sample:
        raise InputError(
            f"{card.path}: expected the GRIB of the forecast's members beside its card, got none of these fields; "
            "--check compares no Zarr stores, NetCDF files or products"
        )
    groups = list(dict.fromkeys(card.group_of(member) for member in sample))
    LOG.info("Making %s again, out of %d", counted(sum(map(len, groups)), "member"), len(card.found["members"]))
    remake = prepare(card, groups, file, assets)
    # Of an ensemble that was extended, the card knows the device and the versions of the last run alone.
    others = remake.changes or "extended_from" in card.found
    return _compared(remake, sample, places, wanted, tolerance if others else 0.0)


def draw(there: Collection[tuple[int, int]], count: int, seed: int) -> Sample:
    """Draw member-steps of few members: the root of their number, or as many as have so many steps.

    Parameters
    ----------
    there : collection of (int, int)
        Members and lead times in hours; step 0, which the input gives, counts only where there is nothing else.
    count : int
        How many to draw; all, if there are no more.
    seed : int
        The same seed draws the same.
    """
    chance = np.random.default_rng(seed)
    later = {pair for pair in there if pair[1] > 0} or set(there)
    hours_of: dict[int, list[int]] = defaultdict(list)
    for member, hours in sorted(later):
        hours_of[member].append(hours)
    pool: list[tuple[int, int]] = []
    for taken, member in enumerate(chance.permutation(sorted(hours_of)).tolist()):
        if taken >= math.sqrt(count) and len(pool) >= count:
            break
        pool += [(member, hours) for hours in hours_of[member]]
    sample: dict[int, list[int]] = defaultdict(list)
    for place in sorted(chance.permutation(len(pool))[:count].tolist()):
        sample[pool[place][0]].append(pool[place][1])
    return dict(sorted(sample.items()))


def _channel(wanted: Mapping[tuple[str, int | None], int], key: Key) -> int | None:
    """The channel that a message is of, if it is wanted; single levels have none in hPa."""
    return wanted.get((key[2], key[3]), wanted.get((key[2], None)))


def _compared(
    remake: Remake,
    sample: Sample,
    places: Mapping[Key, Sequence[Place]],
    wanted: Mapping[tuple[str, int | None], int],
    tolerance: float,
) -> Check:
    farthest: dict[str, Farthest] = {}
    fields = identical = 0
    beyond: list[Key] = []
    for key, message in _made(remake, sample, places, wanted):
        for place in places[key]:
            original, fields = place.read(), fields + 1
            identical += original == message
            apart = distance(original, message)
            farthest[key[2]] = farthest.get(key[2], Farthest()).and_of(apart)
            # Not so that what is no number passes.
            if not apart.largest <= apart.packing + apart.rounding + tolerance * apart.deviation:
                beyond.append(key)
    order = {channel.param: channel.units for channel in CHANNELS if channel.param in farthest}
    ordered = {param: farthest[param] for param in order}
    return Check(sample, fields, identical, ordered, order, tuple(beyond), remake.changes)


def _made(
    remake: Remake,
    sample: Sample,
    places: Mapping[Key, Sequence[Place]],
    wanted: Mapping[tuple[str, int | None], int],
) -> Iterator[tuple[Key, bytes]]:
    """The messages of the sample, made again, of what is in the files."""
    channels: dict[tuple[int, int], list[int]] = defaultdict(list)
    for key in places:
        channel = _channel(wanted, key)
        if channel is not None:
            channels[key[:2]].append(channel)
    groups = dict.fromkeys(remake.card.group_of(member) for member in sample)
    with GribEncoder(remake.card.region, remake.labels()) as encoder:
        for group in groups:
            asked = {member: sample[member] for member in group if member in sample}
            for forecast in remake.steps(group, max(hours[-1] for hours in asked.values())):
                lead = forecast.lead_time_hours
                for member in (member for member, hours in asked.items() if lead in hours):
                    for message in remake.messages(encoder, forecast, member, channels[member, lead]):
                        yield key_of(message), message
