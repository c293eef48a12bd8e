"""Forecasts and truth in GRIB files.

Products of an ensemble bear the parameter, level and time of a forecast and are none: they are left out and counted.
Files are scanned once for their initial dates, and then only those of the current date are looked at message by
message; values are decoded channel by channel.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from ..arrays import FloatArray
from ..channels import Channel
from ..errors import InputError
from ..geometry.grid import LatLonGrid
from ..wording.numbers import counted
from .cases import Case
from .messages import CONTROL, Decoder, Name, ScannedMessage, find_files, scan

LOG = logging.getLogger(__name__)

CONTROL_NUMBER = 0

PERTURBED, UNPERTURBED, DETERMINISTIC = "perturbed members", "unperturbed control", "deterministic forecast"
"""What a forecast may be beside others."""


class GribForecasts:
    """Forecasts in GRIB files, of any number of dates per file or files per date.

    Step 0 is never verified. An unperturbed control (type ``cf``) beside perturbed members is left out unless asked
    for, a deterministic forecast beside them always: neither is exchangeable with them, which the fair CRPS and rank
    histograms take for granted. Products of an ensemble are no forecasts.

    Parameters
    ----------
    pattern : str
        As for `find_files`.
    channels : sequence of Channel
        What will be read; dates, members or leads that lack one are skipped and reported.
    lead_hours : sequence of int
        Lead times wanted; all if empty.
    with_control : bool
        Whether an unperturbed control counts as a member.

    Raises
    ------
    InputError
        If there is no usable forecast field.
    """

    def __init__(
        self, pattern: str, channels: Sequence[Channel], lead_hours: Sequence[int] = (), with_control: bool = False
    ) -> None:
        self._fields = {(channel.param, channel.level_hpa) for channel in channels}
        self._leads = frozenset(lead_hours)
        self._files: dict[datetime, list[Path]] = defaultdict(list)
        self._products: dict[datetime, Counter[str]] = defaultdict(Counter)
        first: ScannedMessage | None = None
        roles: dict[str, set[int | None]] = defaultdict(set)
        there: set[Name] = set()
        for path in find_files(pattern):
            for message in filter(self._wanted, scan(path, self._fields)):
                if why := _no_forecast(message):
                    self._products[message.initial_time][why] += 1
                    continue
                first = first or message
                there.add(message.field)
                roles[_role(message)].add(message.number)
                if path not in self._files[message.initial_time][-1:]:
                    self._files[message.initial_time].append(path)
        if first is None:
            raise InputError(self._nothing(pattern, channels))
        if missing := [channel.label for channel in channels if (channel.param, channel.level_hpa) not in there]:
            raise InputError(f"{pattern}: expected forecasts of {', '.join(missing)}, got none")
        self._counted = _counted_roles(set(roles), with_control)
        self._ensemble = sum(len(roles[role]) if role == PERTURBED else 1 for role in self._counted)
        self._decode = Decoder(first)

    @property
    def grid(self) -> LatLonGrid:
        """Grid of every field."""
        return self._decode.grid

    def cases(self) -> Iterator[Case]:
        """One case per initial date, ascending."""
        # Of dates that have nothing but products the first case tells.
        rest = Counter[str]()
        for time in self._products.keys() - self._files.keys():
            rest += self._products[time]
        for time in sorted(self._files):
            yield self._case(time, self._products[time] + rest)
            rest.clear()

    def _wanted(self, message: ScannedMessage) -> bool:
        lead = message.lead_hours
        return message.valid_time > message.initial_time and lead in (self._leads or {lead})

    def _nothing(self, pattern: str, channels: Sequence[Channel]) -> str:
        names = ", ".join(channel.label for channel in channels)
        leads = f" at {sorted(self._leads)} h" if self._leads else ""
        products = sum(self._products.values(), Counter[str]())
        listed = ", ".join(f"{name} ({counted(count, 'message')})" for name, count in products.most_common())
        return f"{pattern}: expected forecasts of {names}{leads}, got " + (
            f"products, which are no forecasts: {listed}" if products else "none beyond step 0"
        )

    def _case(self, time: datetime, products: Counter[str]) -> Case:
        held: dict[tuple[int, int], dict[Name, ScannedMessage]] = defaultdict(dict)
        left_out = Counter({f"fields of {name}, left out": count for name, count in products.items()})
        for path in self._files[time]:
            for message in filter(self._wanted, scan(path, self._fields)):
                if message.initial_time != time or _no_forecast(message):
                    continue
                role = _role(message)
                # Some centres number the control like the first perturbed member.
                number = message.number or CONTROL_NUMBER if role == PERTURBED else CONTROL_NUMBER
                if role not in self._counted:
                    left_out[f"fields of the {role}, left out"] += 1
                elif held[number, message.lead_hours].setdefault(message.field, message) is not message:
                    left_out["fields that are there twice, of which the first counts"] += 1
        members = sorted({number for number, _ in held})
        found = sorted({lead for _, lead in held})
        leads = [lead for lead in found if all(self._fields <= held[number, lead].keys() for number in members)]
        left_out["lead times that lack a member or a channel"] += len(found) - len(leads)

        def read(channel: Channel) -> FloatArray:
            field = (channel.param, channel.level_hpa)
            return np.stack(
                [np.stack([self._decode(held[number, lead][field]) for lead in leads]) for number in members]
            )

        return Case(time, tuple(members), tuple(leads), read, tuple(left_out.elements()), self._ensemble)


def _no_forecast(message: ScannedMessage) -> str:
    """What a message is that cannot be verified; empty if it can."""
    if not message.holds.is_state:
        return message.holds.name
    lead = message.valid_time - message.initial_time
    return "lead times between whole hours" if lead % timedelta(hours=1) else ""


def _role(message: ScannedMessage) -> str:
    if message.kind == CONTROL:
        return UNPERTURBED
    return DETERMINISTIC if message.number is None else PERTURBED


def _counted_roles(found: set[str], with_control: bool) -> set[str]:
    """Which of the forecasts that there are count as members of one ensemble."""
    if with_control and UNPERTURBED in found:
        return found & {PERTURBED, UNPERTURBED}
    return {next(role for role in (PERTURBED, DETERMINISTIC, UNPERTURBED) if role in found)}


class GribTruth:
    """Analyses in GRIB files, by valid time; of several for one time, the first counts.

    Parameters
    ----------
    patterns : sequence of str
        As for `find_files`.
    channels : sequence of Channel
        What will be read.

    Raises
    ------
    InputError
        If a channel is nowhere.
    """

    def __init__(self, patterns: Sequence[str], channels: Sequence[Channel]) -> None:
        fields = {(channel.param, channel.level_hpa) for channel in channels}
        self._where: dict[tuple[Name, datetime], ScannedMessage] = {}
        left_out, doubles = Counter[str](), 0
        for path in (path for pattern in patterns for path in find_files(pattern)):
            for message in scan(path, fields):
                if message.valid_time != message.initial_time:
                    continue
                if not message.holds.is_state:
                    left_out[message.holds.name] += 1
                elif self._where.setdefault((message.field, message.valid_time), message) is not message:
                    doubles += 1
        if doubles:
            LOG.warning("%s: %s there twice, of which the first counts", ", ".join(patterns), counted(doubles, "field"))
        for name, count in left_out.items():
            LOG.warning("%s: left out %s of %s: no analyses", ", ".join(patterns), counted(count, "field"), name)
        there = {field for field, _ in self._where}
        missing = [channel.label for channel in channels if (channel.param, channel.level_hpa) not in there]
        if missing:
            raise InputError(f"{', '.join(patterns)}: expected analyses (step 0) of {', '.join(missing)}, got none")
        self._decode = Decoder(next(iter(self._where.values())))

    @property
    def grid(self) -> LatLonGrid:
        """Grid of every field."""
        return self._decode.grid

    def read(self, channel: Channel, times: Sequence[datetime]) -> FloatArray:
        """Values ``(time, lon, lat)``; NaN everywhere at a time that is not there."""
        fields = np.full((len(times), *self.grid.shape), np.nan, dtype=np.float32)
        for field, time in zip(fields, times, strict=True):
            message = self._where.get(((channel.param, channel.level_hpa), time))
            if message is not None:
                field[:] = self._decode(message)
        return fields
