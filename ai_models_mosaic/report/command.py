"""The commands ``report`` and ``plot``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import xarray
from matplotlib.figure import Figure

from ..errors import OptionError
from ..files import named_errors, whole_file
from . import maps, plumes, spaghetti, stamps, track_maps
from .drawing import compact, lead_hours, picture
from .ensemble import open_ensemble
from .fields import Point, Threshold, default_thresholds, preferred, split
from .health import section_of
from .options import SUFFIXES, area_of, chosen, contours_of, date_of, point_of, require_options_of_kind, scenarios_of
from .origins import open_split, origins
from .page import Contents, compose
from .projections import EqualEarth, PlateCarree, Polar, Projection
from .rasters import Sampler
from .scenarios import Representatives, representatives
from .words import cards_of, provenance

MOST_STEPS = 21
"""Lead times of a page's maps, if nothing else is asked for: its size is theirs."""

MOST_COLOURS = 256
"""Of a PNG: as many as one byte tells apart, and more than a map has."""

PLACES: tuple[Point, ...] = ((40.7, -74.0, "New York"), (52.5, 13.4, "Berlin"), (35.7, 139.7, "Tokyo"))
"""Where plumes are drawn if nothing else is asked for, as far as the grid reaches."""


def report(known: argparse.Namespace) -> Path:
    """Write the page that options ask for.

    Raises
    ------
    OptionError
        If an option cannot be understood, or asks for what is not there.
    InputError
        If the ensemble cannot be read.
    OutputError
        If the page cannot be written.
    """
    _require_folder(known.output, (".html", ".htm"))
    contents = contents_of(known)
    page = compose(contents, provenance(cards_of(known.ensemble), known.ensemble))
    return _written(known.output, page.encode())


def contents_of(known: argparse.Namespace) -> Contents:
    """What the options of ``report`` put on the page.

    Raises
    ------
    OptionError
        If an option cannot be understood, or asks for what is not there.
    InputError
        If the ensemble cannot be read.
    """
    dataset = _opened(known)
    names = _names(dataset, known.params)
    events = [Threshold.parsed(text) for text in known.threshold or ()]
    points = tuple(map(point_of, known.point or ())) or _places(dataset)
    lines = contours_of(known.contour)
    for each in (*(event.name for event in events), *(name for name, _ in lines)):
        # A page has the probabilities of a field where it has its mean.
        split(each, dataset)
        names += [each] * (each not in names)
    return Contents(
        dataset=dataset,
        names=tuple(names),
        steps=tuple(_steps(dataset, known.steps)),
        thresholds=tuple(events or default_thresholds(names)),
        points=points,
        lines=lines,
        projection=projection_of(known),
        health=None if known.health is None else section_of(known.health, dataset),
        scenarios=_scenarios(dataset, known),
    )


def _scenarios(dataset: xarray.Dataset, known: argparse.Namespace) -> Representatives | None:
    if known.scenarios is None:
        return None
    name, hours, clusters = scenarios_of(known.scenarios)
    return representatives(dataset, name, hours, area_of(known.area) if known.area else None, clusters)


def plot(known: argparse.Namespace) -> Path:
    """Write the one picture that options ask for.

    Raises
    ------
    OptionError
        If an option cannot be understood, or asks for what is not there.
    InputError
        If the ensemble cannot be read, or cannot be drawn so.
    OutputError
        If the picture cannot be written.
    """
    require_options_of_kind(known)
    _require_folder(known.output, SUFFIXES)
    if known.kind == "variance":
        figure = _variance(known)
    else:
        figure = DRAWINGS[known.kind](_opened(known, all_members=known.kind == "member"), known)
    kind = known.output.suffix[1:].lower()
    content = picture(figure, kind, known.dpi)
    return _written(known.output, compact(content, MOST_COLOURS) if kind == "png" else content)


def projection_of(known: argparse.Namespace) -> Projection | None:
    """The projection that options name, if they do.

    Raises
    ------
    OptionError
        If they name two.
    """
    if known.area and known.projection:
        raise OptionError(f"expected --area or --projection, got both: {known.area} and {known.projection}")
    if known.area:
        area = area_of(known.area)
        return PlateCarree(area.north, area.west, area.south, area.east)
    if known.projection is None:
        return None
    return EqualEarth() if known.projection == "globe" else Polar(north=known.projection == "north")


def _opened(known: argparse.Namespace, *, all_members: bool = False) -> xarray.Dataset:
    dataset = open_ensemble(known.ensemble, date_of(known.date))
    if known.members and not all_members:
        numbers = chosen("--members", known.members, dataset["number"].values.tolist())
        dataset = dataset.sel(number=[int(number) for number in numbers])
    return dataset


def _names(dataset: xarray.Dataset, text: str | None) -> list[str]:
    names = preferred(dataset) if text is None else list(dict.fromkeys(filter(None, text.split(","))))
    if not names:
        raise OptionError(f"--params: expected fields such as z500,2t; got {text}")
    for name in names:
        split(name, dataset)
    return names


def _steps(dataset: xarray.Dataset, text: str | None) -> list[int]:
    hours = lead_hours(dataset)
    if text == "all":
        return list(range(len(hours)))
    if text is None:
        count = min(MOST_STEPS, len(hours))
        return sorted(set(np.linspace(0, len(hours) - 1, count).round().astype(int).tolist()))
    return [hours.index(each) for each in chosen("--steps", text, hours)]


def _places(dataset: xarray.Dataset) -> tuple[Point, ...]:
    places = np.array([place[:2] for place in PLACES], dtype=np.float64)
    sampler = Sampler(dataset["latitude"].values, dataset["longitude"].values, places[:, 1], places[:, 0])
    return tuple(place for place, outside in zip(PLACES, sampler.outside, strict=True) if not outside)


def _name(dataset: xarray.Dataset, known: argparse.Namespace) -> str:
    names = _names(dataset, known.params)
    if known.params is not None and len(names) > 1:
        raise OptionError(f"--params: expected one field for {known.kind}, got {known.params}")
    return names[0]


def _hours(dataset: xarray.Dataset, known: argparse.Namespace) -> float | None:
    if known.steps is None:
        return None
    found = chosen("--steps", known.steps, lead_hours(dataset))
    if len(found) > 1:
        raise OptionError(f"--steps: expected one lead time for {known.kind}, got {known.steps}")
    return found[0]


def _map(dataset: xarray.Dataset, known: argparse.Namespace) -> Figure:
    hours: Sequence[float | None] = [None]
    if known.steps is not None:
        hours = chosen("--steps", known.steps, lead_hours(dataset))
    return maps.mean_and_spread(dataset, _name(dataset, known), hours, projection_of(known))


def _member(dataset: xarray.Dataset, known: argparse.Namespace) -> Figure:
    numbers = dataset["number"].values.tolist()
    found = chosen("--members", known.members, numbers) if known.members else numbers[:1]
    if len(found) > 1:
        raise OptionError(f"--members: expected one member for {known.kind}, got {known.members}")
    hours, projection = _hours(dataset, known), projection_of(known)
    return maps.member(dataset, _name(dataset, known), int(found[0]), hours, projection)


def _probability(dataset: xarray.Dataset, known: argparse.Namespace) -> Figure:
    if known.threshold is None:
        raise OptionError("expected --threshold for probability, such as --threshold '2t<273.15'; got none")
    event = Threshold.parsed(known.threshold)
    return maps.probability(dataset, event, _hours(dataset, known), projection_of(known))


def _plumes(dataset: xarray.Dataset, known: argparse.Namespace) -> Figure:
    if known.point is None:
        raise OptionError("expected --point for plumes, such as --point 52.5,13.4,Berlin; got none")
    return plumes.plumes(dataset, point_of(known.point), _names(dataset, known.params))


def _spaghetti(dataset: xarray.Dataset, known: argparse.Namespace) -> Figure:
    hours, projection = _hours(dataset, known), projection_of(known)
    return spaghetti.spaghetti(dataset, _name(dataset, known), known.contour, hours, projection)


def _variance(known: argparse.Namespace) -> Figure:
    if known.params is None:
        raise OptionError("expected --params for variance, such as --params z500; got none")
    return origins(open_split(known.ensemble), known.params, area_of(known.area) if known.area else None)


Drawing = Callable[[xarray.Dataset, argparse.Namespace], Figure]


def _of_field(draw: Callable[..., Figure]) -> Drawing:
    def drawing(dataset: xarray.Dataset, known: argparse.Namespace) -> Figure:
        return draw(dataset, _name(dataset, known), _hours(dataset, known), projection_of(known))

    return drawing


DRAWINGS: dict[str, Drawing] = {
    "map": _map,
    "mean": _of_field(maps.ensemble_mean),
    "spread": _of_field(maps.ensemble_spread),
    "member": _member,
    "probability": _probability,
    "stamps": _of_field(stamps.stamps),
    "spaghetti": _spaghetti,
    "plumes": _plumes,
    "tracks": lambda dataset, known: track_maps.tracks(dataset, projection_of(known)),
}
"""What draws each of the kinds of ``plot``."""


def _require_folder(path: Path, suffixes: Sequence[str]) -> None:
    if path.suffix.lower() not in suffixes or not path.parent.is_dir():
        raise OptionError(
            f"--output: expected the name of a {' or '.join(suffixes)} file in a folder that exists, got {path}"
        )


def _written(path: Path, content: bytes) -> Path:
    with named_errors(path), whole_file(path) as file:
        file.write(content)
    return path
