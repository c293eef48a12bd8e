"""Tropical cyclones of an ensemble, by a simple tracker.

A *centre* is a minimum of mean sea level pressure within 350 km, not further from the equator than 45°, that

- lies 2 hPa or more below the mean of the ring between 500 and 800 km around it,
- has cyclonic vorticity of 3.5·10⁻⁵ s⁻¹ or more at 850 hPa within 350 km,
- is warm above: the temperature, a mean of the levels from 200 to 500 hPa, is somewhere within 350 km 0.4 K or more
  above the mean of the ring.

Centres of one lead time are linked with those of the one before, nearest first, where they lie within reach of where
the track would be if it went on: 60 km h⁻¹. A *track* begins within 30° of the equator and lasts a day or more.

It is simple: it knows no land, and what it finds of a coarse model is a vortex of its kind, not a classified storm. The
thresholds are those of usual trackers, made low for grids of a degree or more (Vitart et al. 1997; Hodges et al. 2017).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import xarray
from scipy.ndimage import maximum_filter, minimum_filter

from ..arrays import BoolArray, FloatArray
from .angles import goes_round
from .drawing import lead_hours
from .fields import levels_of, native

EARTH_KM = 6371.0

COARSEST_DEG = 1.5
"""Widest spacing of a grid that carries a cyclone: four of its points lie across the ring of one."""

LONGEST_STEP_H = 12.0
"""Between lead times: a cyclone goes further than it is wide in more."""

CORE_KM, RING_KM = 350.0, (500.0, 800.0)
FURTHEST_DEG, GENESIS_DEG = 45.0, 30.0
DEFICIT_PA = 200.0
VORTICITY = 3.5e-5
"""s⁻¹."""
WARMTH_K = 0.4
SPEED_KM_H = 60.0
SHORTEST_H = 24.0
STRIKE_KM = 300.0
"""A place is struck by a track that comes as near."""

CORE_LEVELS = (200, 250, 300, 400, 500)
"""hPa, of the temperature that tells a warm core."""


@dataclass(frozen=True)
class Centre:
    """A cyclone at one lead time.

    Parameters
    ----------
    hours : float
        Lead time.
    latitude, longitude : float
        Degrees.
    pressure : float
        Pa, at the grid's point.
    """

    hours: float
    latitude: float
    longitude: float
    pressure: float


@dataclass
class Track:
    """A cyclone of a member.

    Parameters
    ----------
    member : int
        Its number.
    centres : list of Centre
        By lead time.
    """

    member: int
    centres: list[Centre] = field(default_factory=list)

    @property
    def lifetime_hours(self) -> float:
        """From the first centre to the last."""
        return self.centres[-1].hours - self.centres[0].hours

    def hourly(self) -> tuple[FloatArray, FloatArray]:
        """Latitudes and longitudes of every hour, on straight lines between centres; degrees."""
        hours = np.array([centre.hours for centre in self.centres])
        between = np.arange(hours[0], hours[-1] + 0.5)
        longitude = np.unwrap([centre.longitude for centre in self.centres], period=360)
        latitude = np.array([centre.latitude for centre in self.centres])
        return np.interp(between, hours, latitude), np.interp(between, hours, longitude)


def obstacle(dataset: xarray.Dataset) -> str:
    """Why an ensemble cannot be searched for tropical cyclones; empty if it can."""
    latitude = dataset["latitude"].values
    spacing = float(np.diff(latitude).max()) if len(latitude) > 1 else np.inf
    if spacing > COARSEST_DEG + 1e-3:
        return f"the grid's points lie {spacing:.3g}° apart, and a cyclone needs {COARSEST_DEG:g}° or less"
    steps = np.diff(lead_hours(dataset))
    if len(steps) == 0 or steps.max() > LONGEST_STEP_H:
        longest = f"{steps.max():g} h apart" if len(steps) else "only one"
        return f"the lead times are {longest}, and following a cyclone needs {LONGEST_STEP_H:g} h or less"
    levels = {name: levels_of(dataset, name) if name in dataset else [] for name in "uvt"}
    missing = [name for name in ("msl",) if name not in dataset]
    missing += [f"{name}850" for name in "uv" if 850 not in levels[name]]
    if not set(levels["t"]) & set(CORE_LEVELS):
        missing.append("t at one of " + "/".join(map(str, CORE_LEVELS)) + " hPa")
    return f"there is no {', no '.join(missing)}" if missing else ""


def track(dataset: xarray.Dataset) -> Iterator[tuple[int, list[Track]]]:
    """Follow cyclones through the lead times; the last list that comes holds the tracks that count.

    Parameters
    ----------
    dataset : xarray.Dataset
        As `canonical` returns it, without an `obstacle`.

    Yields
    ------
    step : int
        Index of the lead time that is done.
    tracks : list of Track
        All that were found to last; empty before the last lead time.
    """
    sphere = Sphere(dataset)
    numbers = dataset["number"].values.tolist()
    found: dict[int, list[Track]] = {number: [] for number in numbers}
    hours = lead_hours(dataset)
    levels = [f"{level:g}" for level in levels_of(dataset, "t") if level in CORE_LEVELS]
    for step, lead in enumerate(hours):
        pressure, east, north = (native(dataset, name, step) for name in ("msl", "u850", "v850"))
        warmth = np.mean([native(dataset, f"t{level}", step) for level in levels], axis=0)
        for place, number in enumerate(numbers):
            vorticity = sphere.vorticity(east[place], north[place])
            centres = sphere.centres(lead, pressure[place], vorticity, warmth[place])
            link(found[number], centres, number, hours[step - 1] if step else None)
        lasting = [each for tracks in found.values() for each in tracks if counts(each)]
        yield step, lasting if step == len(hours) - 1 else []


def counts(found: Track) -> bool:
    """Whether a track lasts, and begins in the tropics."""
    return found.lifetime_hours >= SHORTEST_H and abs(found.centres[0].latitude) <= GENESIS_DEG


def link(tracks: list[Track], centres: list[Centre], member: int, before: float | None) -> None:
    """Add the centres of a lead time to the tracks that were there at the one before, or begin new ones."""
    alive = [each for each in tracks if each.centres[-1].hours == before]
    pairs = sorted(
        (away, one, other)
        for one, each in enumerate(alive)
        for other, centre in enumerate(centres)
        if (away := _away(each, centre)) <= SPEED_KM_H * (centre.hours - each.centres[-1].hours)
    )
    taken: set[int] = set()
    grown: set[int] = set()
    for _, one, other in pairs:
        if one not in grown and other not in taken:
            alive[one].centres.append(centres[other])
            grown.add(one)
            taken.add(other)
    tracks += [Track(member, [centre]) for place, centre in enumerate(centres) if place not in taken]


def _away(found: Track, centre: Centre) -> float:
    """Distance of a centre from where a track would be if it went on, km."""
    last = found.centres[-1]
    latitude, longitude = last.latitude, last.longitude
    if len(found.centres) > 1:
        earlier = found.centres[-2]
        share = (centre.hours - last.hours) / (last.hours - earlier.hours)
        latitude += share * (last.latitude - earlier.latitude)
        longitude += share * ((last.longitude - earlier.longitude + 180) % 360 - 180)
    return float(distance_km(latitude, longitude, np.array(centre.latitude), np.array(centre.longitude)))


class Sphere:
    """The grid of an ensemble, and what is looked for on it.

    Parameters
    ----------
    dataset : xarray.Dataset
        With latitudes and longitudes.
    """

    def __init__(self, dataset: xarray.Dataset) -> None:
        self._latitude = dataset["latitude"].values
        self._longitude = dataset["longitude"].values
        self._round = goes_round(self._longitude)
        self._window = max(2 * round(CORE_KM / (111.2 * float(np.diff(self._latitude).mean()))) + 1, 3)

    def vorticity(self, east: FloatArray, north: FloatArray) -> FloatArray:
        """Relative vorticity ``(latitude, longitude)`` of winds in m s⁻¹, s⁻¹; 0 at the poles."""
        radius = 1000 * EARTH_KM
        cosine = np.cos(np.radians(self._latitude))[:, None]
        along_row = np.radians(np.diff(self._longitude).mean())
        if self._round:
            slope = (np.roll(north, -1, axis=1) - np.roll(north, 1, axis=1)) / (2 * along_row)
        else:
            slope = np.gradient(north, along_row, axis=1)
        curl = slope - np.gradient(east * cosine, np.radians(self._latitude), axis=0)
        return np.divide(curl, radius * cosine, out=np.zeros_like(curl), where=cosine > 1e-6)

    def centres(self, hours: float, pressure: FloatArray, vorticity: FloatArray, warmth: FloatArray) -> list[Centre]:
        """What of a lead time's fields ``(latitude, longitude)`` are centres."""
        mode = ("nearest", "wrap" if self._round else "nearest")
        lowest = pressure == minimum_filter(pressure, size=self._window, mode=mode)
        # Where all around is the same there is nothing to be a minimum of.
        lowest &= pressure < maximum_filter(pressure, size=self._window, mode=mode)
        lowest &= (np.abs(self._latitude) <= FURTHEST_DEG)[:, None]
        found = []
        for row, column in np.argwhere(lowest):
            latitude, longitude = float(self._latitude[row]), float(self._longitude[column])
            rows = self._rows_near(latitude)
            away = distance_km(latitude, longitude, self._latitude[rows, None], self._longitude[None])
            core, ring = away <= CORE_KM, (away >= RING_KM[0]) & (away <= RING_KM[1])
            if _is_cyclone(core, ring, pressure[rows], np.sign(latitude) * vorticity[rows], warmth[rows]):
                found.append(Centre(hours, latitude, longitude, float(pressure[row, column])))
        return found

    def _rows_near(self, latitude: float) -> slice:
        reach = RING_KM[1] / 111.0
        first, last = np.searchsorted(self._latitude, (latitude - reach, latitude + reach))
        return slice(int(first), int(last))


def _is_cyclone(
    core: BoolArray, ring: BoolArray, pressure: FloatArray, cyclonic: FloatArray, warmth: FloatArray
) -> bool:
    return bool(
        ring.any()
        and pressure[ring].mean() - pressure[core].min() >= DEFICIT_PA
        and cyclonic[core].max() >= VORTICITY
        and warmth[core].max() - warmth[ring].mean() >= WARMTH_K
    )


def distance_km(latitude: float, longitude: float, others: FloatArray, other_longitudes: FloatArray) -> FloatArray:
    """Great-circle distances from a place, km; all in degrees."""
    one, two = np.radians(latitude), np.radians(others)
    half = np.sin((two - one) / 2) ** 2
    half = half + np.cos(one) * np.cos(two) * np.sin(np.radians(other_longitudes - longitude) / 2) ** 2
    return 2 * EARTH_KM * np.arcsin(np.sqrt(np.clip(half, 0, 1)))


def strike_probability(tracks: list[Track], dataset: xarray.Dataset) -> FloatArray:
    """Share of the members with a track within 300 km at any time, ``(latitude, longitude)``, %."""
    latitude, longitude = dataset["latitude"].values, dataset["longitude"].values
    struck = {int(number): np.zeros((len(latitude), len(longitude)), dtype=bool) for number in dataset["number"].values}
    for each in tracks:
        for north, east in zip(*each.hourly(), strict=True):
            struck[each.member] |= distance_km(north, east, latitude[:, None], longitude[None]) <= STRIKE_KM
    return 100.0 * np.mean(list(struck.values()), axis=0, dtype=np.float32)
