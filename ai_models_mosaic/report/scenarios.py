"""Few members that stand for all: the medoid, and one of every cluster of the members over a region.

Source: Ferranti and Corti (2011), ECMWF Newsletter 127, who cluster ensembles in the space of leading EOFs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray

from ..arrays import FloatArray, IntArray
from ..errors import InputError, OptionError
from ..files import named_errors, whole_file
from ..verification.messages import CONTROL, find_files
from ..wording.numbers import counted, series
from .drawing import lead_hours, step_at, when
from .ensemble import canonical
from .fields import native
from .grib_index import index
from .options import CLUSTERS, Area

EXPLAINED = 0.9
"""Share of the members' variance that the EOFs keep: what is left is small in scale, and no scenario."""

TRIES = 20
"""Beginnings of the clustering, of which the best is kept."""


@dataclass(frozen=True)
class Scenario:
    """A cluster of members.

    Parameters
    ----------
    member : int
        The one that stands for it: its medoid.
    weight : float
        Share of the members that are in it.
    members : tuple of int
        All of them, ascending.
    """

    member: int
    weight: float
    members: tuple[int, ...]


@dataclass(frozen=True)
class Representatives:
    """Members that stand for an ensemble.

    Parameters
    ----------
    name : str
        Of the field by which they were chosen.
    step : int
        Index of its lead time.
    when : str
        That in words.
    hours : float
        That in hours.
    medoid : int
        The member with the smallest sum of distances to all.
    scenarios : tuple of Scenario
        The heaviest first.
    eofs : int
        How many were kept.
    explained : float
        Share of the variance that is in them.
    """

    name: str
    step: int
    when: str
    hours: float
    medoid: int
    scenarios: tuple[Scenario, ...]
    eofs: int
    explained: float

    @property
    def titles(self) -> tuple[str, ...]:
        """Words over the maps of the scenarios."""
        return tuple(f"{one.weight:.0%}, member {one.member}" for one in self.scenarios)

    def as_json(self) -> dict[str, Any]:
        """All that is known, as JSON can hold it."""
        return {
            "field": self.name,
            "lead_time_hours": self.hours,
            "medoid": self.medoid,
            "eofs": self.eofs,
            "explained_variance": round(self.explained, 4),
            "scenarios": [
                {"member": one.member, "weight": round(one.weight, 6), "members": list(one.members)}
                for one in self.scenarios
            ],
        }

    def __str__(self) -> str:
        rows = [
            f"{place:8}{one.member:8}{one.weight:8.0%}  {series(one.members)}"
            for place, one in enumerate(self.scenarios, 1)
        ]
        kept = f"{counted(self.eofs, 'EOF')} with {self.explained:.0%} of the variance"
        head = f"{self.name} {self.when}; {kept}\nmedoid: member {self.medoid}"
        return "\n".join([head, "scenario  member  weight  members", *rows])


def representatives(
    dataset: xarray.Dataset,
    name: str,
    hours: float | None = None,
    area: Area | None = None,
    clusters: int = CLUSTERS,
) -> Representatives:
    """The members that stand for an ensemble at a lead time.

    Distances are root mean squares over the region, weighted by area. Clusters are made by k-means in the space of the
    leading EOFs, from the same beginnings every time, so that the same ensemble gives the same members.

    Parameters
    ----------
    dataset : xarray.Dataset
        An ensemble.
    name : str
        Of the field, such as ``z500``.
    hours : float or None
        Lead time; the middle one if None.
    area : Area or None
        The region; all that the grid covers if None.
    clusters : int
        How many scenarios.

    Raises
    ------
    OptionError
        If there is no such field or lead time, no point in the region, or fewer different members than clusters.
    InputError
        If a member has missing values there.
    """
    dataset = canonical(dataset)
    step = step_at(dataset, hours)
    numbers = [int(number) for number in dataset["number"].values]
    values = _weighted(dataset, native(dataset, name, step), area)
    missing = [number for number, row in zip(numbers, values, strict=True) if np.isnan(row).any()]
    if missing:
        raise InputError(f"{name} {when(dataset, step)}: members {series(missing)} have no values in the whole region")
    different = len(np.unique(values, axis=0))
    if not 1 <= clusters <= different:
        raise OptionError(
            f"--clusters: expected a number from 1 to {different}, as many as there are different members of {name} at "
            f"+{lead_hours(dataset)[step]:g} h, got {clusters}"
        )
    scores, explained = _eofs(values)
    scenarios = [_scenario(numbers, values, np.flatnonzero(inside)) for inside in _clusters(scores, clusters)]
    return Representatives(
        name=name,
        step=step,
        when=when(dataset, step),
        hours=lead_hours(dataset)[step],
        medoid=numbers[_medoid(values)],
        scenarios=tuple(sorted(scenarios, key=lambda one: (-one.weight, one.member))),
        eofs=scores.shape[1],
        explained=explained,
    )


def weights_in(latitude: FloatArray, longitude: FloatArray, area: Area | None) -> FloatArray:
    """Shares of the points ``(latitude, longitude)`` in the area of a region; 0 outside, 1 in all.

    Parameters
    ----------
    latitude, longitude : array
        Degrees.
    area : Area or None
        The region; everything if None.

    Raises
    ------
    OptionError
        If no point is in it.
    """
    rows, columns = np.cos(np.radians(latitude)).clip(0), np.ones(longitude.shape)
    if area is not None:
        rows = rows * ((latitude >= area.south) & (latitude <= area.north))
        columns = columns * ((longitude - area.west) % 360 <= area.east - area.west)
    weights = rows[:, None] * columns
    if not weights.any():
        raise OptionError("--area: expected a region with points of the ensemble's grid, got none in it")
    return weights / weights.sum()


def _weighted(dataset: xarray.Dataset, fields: FloatArray, area: Area | None) -> FloatArray:
    """Values of members ``(member, point)`` in a region, such that their distance is a root mean square over it."""
    weights = weights_in(dataset["latitude"].values, dataset["longitude"].values, area)
    inside = weights > 0
    return fields[:, inside].astype(np.float64) * np.sqrt(weights[inside])


def _eofs(values: FloatArray) -> tuple[FloatArray, float]:
    """Members in the space of the leading EOFs ``(member, EOF)``, and the share of the variance there."""
    from sklearn.decomposition import PCA

    if not np.ptp(values, axis=0).any():
        return np.zeros((len(values), 1)), 1.0
    found = PCA(n_components=EXPLAINED, svd_solver="full")
    scores = found.fit_transform(values)
    return scores, float(found.explained_variance_ratio_.sum())


def _clusters(scores: FloatArray, count: int) -> Iterator[FloatArray]:
    """Which members are in each cluster ``(member,)``."""
    from sklearn.cluster import KMeans

    labels = KMeans(count, n_init=TRIES, random_state=0).fit_predict(scores)
    return (labels == label for label in range(count))


def _scenario(numbers: list[int], values: FloatArray, inside: IntArray) -> Scenario:
    member = numbers[inside[_medoid(values[inside])]]
    return Scenario(member, len(inside) / len(numbers), tuple(sorted(numbers[place] for place in inside)))


def _medoid(values: FloatArray) -> int:
    """The row with the smallest sum of distances to all; the first of equals."""
    # Row by row: all pairs at once would take members times the memory of the fields.
    return int(np.argmin([np.sqrt(((values - row) ** 2).sum(axis=1)).sum() for row in values]))


def write_messages(patterns: list[str], chosen: Representatives, folder: Path, time: datetime) -> list[Path]:
    """Copy the messages of every representative to a file of its own.

    Parameters
    ----------
    patterns : list of str
        The GRIB files of the ensemble.
    chosen : Representatives
        Whose: ``medoid-member-N.grib``, ``scenario-1-member-N.grib`` and so on.
    folder : Path
        Where to; it exists.
    time : datetime
        The initial time, where files hold several.

    Returns
    -------
    list of Path

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    messages = [message for pattern in patterns for path in find_files(pattern) for message in index(path)]
    names = {"medoid": chosen.medoid}
    names |= {f"scenario-{place}": one.member for place, one in enumerate(chosen.scenarios, 1)}
    written = []
    for name, member in names.items():
        path = folder / f"{name}-member-{member}.grib"
        with named_errors(path), whole_file(path) as file:
            for message in messages:
                number = 0 if message.kind == CONTROL else message.number or 0
                if message.holds.is_state and message.initial_time == time and number == member:
                    with message.path.open("rb") as source:
                        source.seek(message.offset)
                        file.write(source.read(message.length))
        written.append(path)
    return written
