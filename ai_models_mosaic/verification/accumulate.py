"""Goes through the dates once, and keeps of each a few numbers per channel and lead time."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import chain

import numpy as np

from ..arrays import BoolArray, FloatArray
from ..channels import CHANNELS, Channel
from ..errors import InputError
from ..geometry.grid import LatLonGrid
from ..wording.numbers import counted
from .cases import Case, Truth
from .climatology import Climate, Climatology
from .plan import Event, Plan
from .reliability import bin_areas, member_counts, reliability_counts
from .scales import scale_terms
from .scores import (
    anomaly_terms,
    area_weights,
    energy_terms,
    error_terms,
    event_terms,
    pit_terms,
    rank_counts,
    reference_terms,
)
from .snapshots import Illustrator, Snapshot
from .spectra import PowerSpectrum
from .units import warn_of_units

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sums:
    """All that is kept of one forecast system: numbers per date, channel and lead time; NaN where there is none.

    Parameters
    ----------
    channels, spectra : tuple of Channel
    dates : tuple of datetime
        Initial times, ascending.
    lead_hours : tuple of int
    members : int
        Size of the ensemble.
    events : tuple of Event
        Empty without a climatology.
    terms : dict of str to array (date, channel, lead)
        Area means (`scores`).
    ranks : array (date, channel, lead, member + 1)
        Area shares.
    reliability : array (date, channel, lead, event, bin, 3)
        Area shares, and sums of forecast probability and of events.
    consistency : array (date, channel, lead, event, bin, member)
        Sums of events of every member in the place of the truth.
    spectra_power : array (date, spectrum, lead, 3, wavenumber)
        Power of the members on average, of their mean, and of the truth.
    scales : array (date, spectrum, lead, 5, wavenumber)
        Terms of the CRPS and power of errors, as `scales.scale_terms` gives them.
    snapshot : Snapshot or None
        The fields that pictures show.
    skipped : dict of str to int
        What was not verified, and how often.
    """

    channels: tuple[Channel, ...]
    spectra: tuple[Channel, ...]
    dates: tuple[datetime, ...]
    lead_hours: tuple[int, ...]
    members: int
    events: tuple[Event, ...]
    terms: dict[str, FloatArray]
    ranks: FloatArray
    reliability: FloatArray
    consistency: FloatArray
    spectra_power: FloatArray
    scales: FloatArray
    snapshot: Snapshot | None
    skipped: dict[str, int]


Key = tuple[int, int, int]
"""Seconds of the date, index of the channel, lead time in hours."""


class Verifier:
    """Takes one case after another; `sums` is all that is left of them.

    Parameters
    ----------
    truth : Truth
        On the grid of the forecasts; also the source of persistence.
    plan : Plan
        What to verify.
    climatology : Climatology or None
        On the same grid. Without it there is no skill against climatology, and no reliability.

    Raises
    ------
    InputError
        If the climatology is on another grid, or spectra cannot be made on this one.
    """

    def __init__(self, truth: Truth, plan: Plan, climatology: Climatology | None = None) -> None:
        require_grid("the climatology", climatology.grid if climatology else truth.grid, truth.grid)
        self._truth, self._plan, self._climatology = truth, plan, climatology
        self._weights = area_weights(truth.grid).ravel()
        self._power = PowerSpectrum(truth.grid) if plan.spectra else None
        self._terms: dict[str, dict[Key, float]] = defaultdict(dict)
        self._arrays: dict[str, dict[Key, FloatArray]] = defaultdict(dict)
        self._dates: set[datetime] = set()
        self._members = 0
        self._skipped: Counter[str] = Counter()
        self._illustrator = Illustrator(truth.grid, plan.illustrated, plan.point_deg)
        self._events: tuple[Event, ...] = plan.events if climatology else ()

    def add(self, case: Case) -> None:
        """Verify one date; what cannot be verified is counted.

        Raises
        ------
        InputError
            If the date came before, or a field has some values that are not finite, or is on another grid.
        """
        if case.initial_time in self._dates:
            raise InputError(f"expected every initial date once, got {case.initial_time} UTC again")
        self._skipped.update(case.skipped)
        expected = self._members or case.ensemble or len(case.members)
        if len(case.members) != expected:
            self._skipped[f"dates with {counted(len(case.members), 'member')} in place of {expected}"] += 1
            return
        leads = [lead for lead in case.lead_hours if lead in (self._plan.lead_hours or case.lead_hours)]
        valid = [case.initial_time + timedelta(hours=lead) for lead in leads]
        used = False
        for index, channel in enumerate(self._plan.channels):
            truth = self._truth.read(channel, [*valid, case.initial_time]).astype(np.float64)
            there = _present(truth, f"the truth's {channel.name}")
            # Another channel may be there at a time at which this one is not.
            kept = [position for position in range(len(leads)) if there[position]]
            self._skipped["fields without truth at the valid time"] += len(leads) - len(kept)
            if kept:
                used |= self._add_channel(case, index, kept, leads, truth)
        if used:
            self._dates.add(case.initial_time)
            self._members = len(case.members)
            self._illustrator.close(case.initial_time)
        else:
            self._skipped["dates of which nothing could be verified"] += 1

    def _add_channel(
        self, case: Case, index: int, kept: Sequence[int], leads: Sequence[int], truth: FloatArray
    ) -> bool:
        """Verify one channel of one date; returns whether there was anything."""
        channel = self._plan.channels[index]
        fields = case.read(channel)
        shape = (len(case.members), len(case.lead_hours), *self._truth.grid.shape)
        if fields.shape != shape:
            raise InputError(
                f"expected {channel.name} as (member, lead, lon, lat) of shape {shape}, got {fields.shape} "
                f"from {case.initial_time} UTC"
            )
        name = f"{channel.name} of the forecast from {case.initial_time} UTC"
        positions = [case.lead_hours.index(leads[position]) for position in kept]
        forecast = fields[:, positions].astype(np.float64)
        there = _present(forecast, name).all(axis=0)
        self._skipped["fields missing from the forecast"] += int((~there).sum())
        if not there.any():
            return False
        kept = [position for position, present in zip(kept, there, strict=True) if present]
        self._score(
            _Part(case, index, [leads[position] for position in kept]), forecast[:, there], truth[kept], truth[-1]
        )
        return True

    def _score(self, part: _Part, forecast: FloatArray, truth: FloatArray, initial: FloatArray) -> None:
        """All numbers of one channel and date, from ``(member, lead, lon, lat)`` and ``(lead, lon, lat)``."""
        leads, members = len(part.leads), len(forecast)
        flat_truth = truth.reshape(leads, -1)
        flat = forecast.reshape(members, leads, -1)
        error = flat - flat_truth
        terms = error_terms(error, self._weights) | energy_terms(error, self._weights)
        terms |= reference_terms("persistence", initial.ravel() - flat_truth, self._weights)
        if members > 1:
            ranks = rank_counts(error, self._weights, self._tie_breaker(part))
            terms |= pit_terms(ranks)
            self._keep("ranks", part, ranks)
        channel = self._plan.channels[part.channel]
        compared = {"forecast": forecast, "truth": truth}
        normal = None
        if self._climatology is not None:
            climate = self._climatology.of(channel)
            normal = compared["climatology"] = climate.mean(part.valid_times())
            terms |= self._against_climate(climate, part, flat, flat_truth, normal.reshape(flat_truth.shape))
        if not self._dates:
            warn_of_units(channel, compared)
        keys = part.keys()
        for name, values in terms.items():
            self._terms[name].update(zip(keys, values.tolist(), strict=True))
        if self._power is not None and channel in self._plan.spectra:
            spectra, scales = scale_terms(self._power, error.reshape(forecast.shape), truth, normal)
            self._keep("spectra", part, spectra)
            self._keep("scales", part, scales)
        self._illustrator.look(part.case, channel, part.leads, forecast, truth)

    def _against_climate(
        self, climate: Climate, part: _Part, flat: FloatArray, truth: FloatArray, normal: FloatArray
    ) -> dict[str, FloatArray]:
        times = part.valid_times()
        terms = reference_terms("climatology", normal - truth, self._weights)
        terms |= anomaly_terms(flat.mean(axis=0) - normal, truth - normal, self._weights)
        usual = climate.crps(truth.reshape(-1, *self._truth.grid.shape), times)
        terms["climatology_crps"] = usual.reshape(truth.shape) @ self._weights
        # At hours of the day that the climatology lacks there are no thresholds, so nothing is an event or none.
        known = np.isfinite(normal).all(axis=-1)
        self._skipped["fields without climatology at their hour of the day"] += int((~known).sum())
        thresholds = climate.events(times).reshape(-1, *truth.shape)
        counts, of_members = [], []
        for event, threshold in zip(self._events, thresholds, strict=False):
            happens, happened = event.happens(flat, threshold), event.happens(truth, threshold)
            probability = happens.mean(axis=0)
            of_event = event_terms(event.name, event.chance, probability, happened, len(flat), self._weights)
            terms |= {name: np.where(known, values, np.nan) for name, values in of_event.items()}
            areas = np.where(known[:, None, None], bin_areas(probability, len(flat), self._weights), np.nan)
            counts.append(reliability_counts(areas, probability, happened))
            of_members.append(member_counts(areas, happens))
        if counts:
            self._keep("reliability", part, np.stack(counts, axis=1))
            self._keep("consistency", part, np.stack(of_members, axis=1))
        return terms

    def _keep(self, name: str, part: _Part, values: FloatArray) -> None:
        self._arrays[name].update(zip(part.keys(), values, strict=True))

    def _tie_breaker(self, part: _Part) -> np.random.Generator:
        """The same for a date and channel, whatever else is verified."""
        column = CHANNELS.index(self._plan.channels[part.channel])
        key = np.array([self._plan.seed, part.second % 2**64], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, column, 0], dtype=np.uint64)))

    def sums(self) -> Sums:
        """What was kept.

        Raises
        ------
        InputError
            If nothing could be verified.
        """
        skipped = {reason: count for reason, count in self._skipped.items() if count}
        if not self._dates:
            reasons = "; ".join(f"{count} {reason}" for reason, count in skipped.items()) or "there were no forecasts"
            raise InputError(
                f"nothing could be verified: {reasons}. Expected forecasts with truth at their valid times"
            )
        dates = sorted(self._dates)
        leads = sorted({lead for _, _, lead in chain.from_iterable(self._terms.values())})
        skipped |= self._not_there(dates, leads)
        table = _Table([_second_of(date) for date in dates], len(self._plan.channels), leads)
        spectra = [self._plan.channels.index(channel) for channel in self._plan.spectra]
        terms = {name: table.of(values) for name, values in self._terms.items()}
        reliability = table.of(self._arrays["reliability"])
        return Sums(
            channels=self._plan.channels,
            spectra=self._plan.spectra,
            dates=tuple(dates),
            lead_hours=tuple(leads),
            members=self._members,
            # Of what is known at no date and lead time there is nothing to be listed or drawn.
            events=self._events if np.isfinite(reliability).any() else (),
            terms={name: values for name, values in terms.items() if np.isfinite(values).any()},
            ranks=table.of(self._arrays["ranks"]),
            reliability=reliability,
            consistency=table.of(self._arrays["consistency"]),
            spectra_power=table.of(self._arrays["spectra"])[:, spectra],
            scales=table.of(self._arrays["scales"])[:, spectra],
            snapshot=self._illustrator.snapshot,
            skipped=skipped,
        )

    def _not_there(self, dates: Sequence[datetime], leads: Sequence[int]) -> dict[str, int]:
        """What was asked for by name, and is not among what was verified."""
        reasons = {
            f"lead time of {lead} h, which was asked for": 1 for lead in self._plan.lead_hours if lead not in leads
        }
        wanted = self._plan.illustrated
        if wanted is not None and wanted not in dates:
            nearest = min(dates, key=lambda date: abs(date - wanted))
            reasons[f"maps and plumes of {wanted} UTC, which was not verified (the nearest is {nearest})"] = 1
        return reasons


@dataclass(frozen=True)
class _Part:
    """One channel of one case, at the leads that can be verified."""

    case: Case
    channel: int
    leads: list[int]

    @property
    def second(self) -> int:
        return _second_of(self.case.initial_time)

    def valid_times(self) -> list[datetime]:
        return [self.case.initial_time + timedelta(hours=lead) for lead in self.leads]

    def keys(self) -> list[Key]:
        return [(self.second, self.channel, lead) for lead in self.leads]


@dataclass(frozen=True)
class _Table:
    """Puts what is kept by key into one array."""

    seconds: list[int]
    channels: int
    leads: list[int]

    def of(self, values: dict[Key, float] | dict[Key, FloatArray]) -> FloatArray:
        inner = np.asarray(next(iter(values.values()))).shape if values else (0,)
        array = np.full((len(self.seconds), self.channels, len(self.leads), *inner), np.nan)
        row = {second: index for index, second in enumerate(self.seconds)}
        column = {lead: index for index, lead in enumerate(self.leads)}
        for (second, channel, lead), value in values.items():
            array[row[second], channel, column[lead]] = value
        return array


def verify(cases: Iterable[Case], truth: Truth, plan: Plan, climatology: Climatology | None = None) -> Sums:
    """Verify many dates, one after another.

    Parameters
    ----------
    cases : iterable of Case
        One per initial date, made as they are asked for; none is kept.
    truth, plan, climatology
        As for `Verifier`.

    Raises
    ------
    InputError
        As `Verifier`.
    """
    verifier = Verifier(truth, plan, climatology)
    for count, case in enumerate(cases, 1):
        verifier.add(case)
        LOG.info("Verified %s UTC (%d)", case.initial_time, count)
    return verifier.sums()


def require_grid(what: str, grid: LatLonGrid, expected: LatLonGrid) -> None:
    """Refuse fields on another grid.

    Raises
    ------
    InputError
        Says how they differ.
    """
    if not grid.same_points(expected):
        raise InputError(
            f"{what} is on {grid}, where {expected} was expected"
            + (" (the same number of points, but elsewhere)" if grid.shape == expected.shape else "")
            + ". --regrid of the command maps truth and climatology to the grid of the forecasts"
        )


def _present(fields: FloatArray, name: str) -> BoolArray:
    """Which of the fields ``(…, lon, lat)`` are there: NaN everywhere is absent, NaN in places is an error."""
    finite = np.isfinite(fields)
    there = finite.all(axis=(-2, -1))
    if (finite.any(axis=(-2, -1)) & ~there).any():
        raise InputError(f"{name} has values that are not finite, in fields that are not wholly missing")
    return there


def _second_of(time: datetime) -> int:
    return int(time.replace(tzinfo=timezone.utc).timestamp())
