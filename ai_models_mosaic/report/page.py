"""A page with everything in it: opens without a network, prints, and works on a telephone.

What a browser without scripts shows, and paper, are drawings; what one with scripts shows in their place are the maps
of `atlas`, of which a slider and buttons choose.
"""

from __future__ import annotations

import html
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np
import xarray

from .. import __version__
from ..forecast.health.record import Section
from ..forecast.progress import duration
from ..wording.numbers import counted
from ..wording.numbers import series as series_in_words
from . import health, maps, plumes, spaghetti, stamps, track_maps
from .atlas import SHEET_COLUMNS, Chapter, data_url, overlay
from .drawing import compact, lead_hours, members_in_words, picture, when
from .fields import MISSING_FIELDS, WITHOUT, Point, Threshold, series
from .projections import Projection
from .rasters import Paper, projection_for
from .scenarios import Representatives
from .tracks import Track, obstacle, track

LOG = logging.getLogger(__name__)

QUIET_SECONDS = 5.0
"""Longest silence while there is more to draw, unless one drawing takes longer."""

PRINTED_STEPS = 2
"""Lead times of the drawings of a field's mean and spread."""

STATIC_DPI = 120


@dataclass(frozen=True)
class Contents:
    """What a page shows.

    Parameters
    ----------
    dataset : xarray.Dataset
        As `canonical` returns it, with the members that are shown.
    names : tuple of str
        Of the fields.
    steps : tuple of int
        Indices of the lead times of the maps.
    thresholds : tuple of Threshold
        Events whose probability is shown, of any of the fields.
    points : tuple of Point
        Of the plumes.
    lines : tuple of (str, float)
        Contours of the spaghetti plots, where they are not the usual ones.
    projection : Projection or None
        The globe or the ensemble's region, if None.
    health : Section or None
        What a flight recorder has seen of the members.
    scenarios : Representatives or None
        Members that stand for all, if they are to be shown.
    """

    dataset: xarray.Dataset
    names: tuple[str, ...]
    steps: tuple[int, ...]
    thresholds: tuple[Threshold, ...] = ()
    points: tuple[Point, ...] = ()
    lines: tuple[tuple[str, float], ...] = ()
    projection: Projection | None = None
    health: Section | None = None
    scenarios: Representatives | None = None


class Pace:
    """Logs how much is drawn, and how long the rest will take.

    Parameters
    ----------
    total : int
        What there is to do, in pieces.
    clock : callable
        Gives seconds.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._clock, self._done = total, clock, 0
        self._start = self._said = clock()

    def advance(self, what: str) -> None:
        """Count a piece; logs if it was quiet for long."""
        self._done += 1
        now = self._clock()
        if now - self._said >= QUIET_SECONDS:
            self._said = now
            left = (now - self._start) / self._done * (self._total - self._done)
            LOG.info("Drew %s: %d of %d, ETA %s", what, self._done, self._total, duration(left))


def compose(contents: Contents, provenance: Sequence[tuple[str, str]]) -> str:
    """The page, as HTML.

    Parameters
    ----------
    contents : Contents
        What it shows.
    provenance : sequence of (str, str)
        What was run, headings and sentences.

    Raises
    ------
    InputError
        If a point lies outside the grid.
    """
    dataset, names, steps = contents.dataset, contents.names, contents.steps
    reason = obstacle(dataset)
    pieces = len(names) * (len(steps) + 2) + 1 + len(contents.points) + (0 if reason else dataset.sizes["step"])
    pace = Pace(pieces)
    chapters = [_chapter(contents, name, pace) for name in names]
    drawings = _drawings(contents, pace)
    cyclones = _cyclones(contents, reason, pace)
    projection = contents.projection or projection_for(dataset)
    data = {
        "fields": [chapter.described() for chapter in chapters],
        "times": [when(dataset, step).partition(", ")[2] for step in steps],
        "members": [int(number) for number in dataset["number"].values],
        "columns": SHEET_COLUMNS,
        "shape": Paper(projection, 1000).height / 1000,
        "coast": overlay(projection, ground=False),
        "land": overlay(projection, ground=True),
    }
    warnings = [text for head, text in provenance if head == "Warning"]
    missing = dataset.attrs.get(MISSING_FIELDS, 0)
    if missing:
        warnings.append(f"{counted(missing, 'field')} of members and lead times are missing: {WITHOUT}.")
    start = when(dataset, 0).partition(",")[0].removeprefix("from ")
    lead = lead_hours(dataset)
    parts = {
        "title": f"Ensemble of {start}",
        "facts": f"{members_in_words(dataset)}, lead times of {lead[0]:g} to {lead[-1]:g} h, {_grid(dataset)}",
        "warning": "".join(f"<p class=warning>{html.escape(text)}</p>" for text in warnings),
        "static": drawings,
        "scenarios": _scenarios(contents),
        "plumes": _plumes(contents, pace),
        "cyclones": cyclones,
        "health": _health(contents),
        "health_link": '<a href="#health">Health</a> ' if contents.health else "",
        "provenance": "".join(
            f"<dt>{html.escape(head)}<dd>{html.escape(text)}" for head, text in provenance if head != "Warning"
        ),
        "version": __version__,
        "data": _json(data),
        "style": _resource("page.css"),
        "script": _resource("page.js"),
    }
    return Template(_resource("page.html")).substitute(parts)


def _chapter(contents: Contents, name: str, pace: Pace) -> Chapter:
    events = [each for each in contents.thresholds if each.name == name]
    line = dict(contents.lines).get(name)
    chapter = Chapter(contents.dataset, name, contents.steps, events, contents.projection, line)
    for step in contents.steps:
        chapter.add(step)
        pace.advance(f"maps of {name}")
    return chapter


def _drawings(contents: Contents, pace: Pace) -> str:
    """What stands for the maps where there are no scripts, and on paper."""
    dataset, projection, hours = contents.dataset, contents.projection, lead_hours(contents.dataset)
    chosen = np.linspace(0, len(contents.steps) - 1, PRINTED_STEPS + 1).round().astype(int)[1:]
    printed = [hours[contents.steps[place]] for place in sorted(set(chosen.tolist()))]
    middle = printed[0]
    found = []
    for name in contents.names:
        figure = maps.mean_and_spread(dataset, name, printed, projection)
        found.append(_figure(picture(figure, dpi=STATIC_DPI), f"Mean and spread of {name}", layout="half"))
        pace.advance(f"mean and spread of {name}")
    if dataset.sizes["number"] > 1:
        first = contents.names[0]
        line = dict(contents.lines).get(first)
        for figure, words in (
            (stamps.stamps(dataset, first, middle, projection), f"Members of {first}"),
            (spaghetti.spaghetti(dataset, first, line, middle, projection), f"A contour of {first}"),
        ):
            found.append(_figure(picture(figure, dpi=STATIC_DPI), words))
    for threshold in contents.thresholds:
        figure = maps.probability(dataset, threshold, middle, projection)
        found.append(_figure(picture(figure, dpi=STATIC_DPI), f"Probability of {threshold.name}"))
    return "".join(found)


def _scenarios(contents: Contents) -> str:
    chosen = contents.scenarios
    if chosen is None:
        return ""
    figure = stamps.scenarios(contents.dataset, chosen, contents.projection)
    rows = "".join(
        f"<dt>{html.escape(title)}<dd>members {series_in_words(one.members)}"
        for title, one in zip(chosen.titles, chosen.scenarios, strict=True)
    )
    words = (
        f"Members that stand for all, chosen by {chosen.name} {chosen.when}: one of each cluster in the space of "
        f"{counted(chosen.eofs, 'EOF')}, with the share of the members that are in it."
    )
    return (
        f'<section id="scenarios">\n<h2>Scenarios</h2>\n<p class="note">{html.escape(words)}</p>\n'
        f"{_figure(picture(figure, dpi=STATIC_DPI), 'Scenarios')}\n<dl>{rows}</dl>\n</section>\n"
    )


def _plumes(contents: Contents, pace: Pace) -> str:
    if not contents.points:
        return ""
    values = series(contents.dataset, contents.names, contents.points)
    found = []
    for place, point in enumerate(contents.points):
        figure = plumes.drawn(contents.dataset, point, {name: each[place] for name, each in values.items()})
        found.append(
            _figure(picture(figure, "svg"), f"Plumes at {point[2] or plumes.where(*point[:2])}", "image/svg+xml")
        )
        pace.advance("plumes")
    return "".join(found)


def _health(contents: Contents) -> str:
    if contents.health is None:
        return ""
    drawing = picture(health.drawn(contents.dataset, contents.health), "svg")
    figure = _figure(drawing, "Health of the members", "image/svg+xml")
    note = "Power by zonal wavenumber, averaged over latitudes by area: members thin, their median thick."
    words = health.words(contents.health)
    return f'<section id="health">\n<h2>Health</h2>\n{words}<p class="note">{note}</p>\n{figure}\n</section>'


def _cyclones(contents: Contents, reason: str, pace: Pace) -> str:
    if reason:
        return f"<p>Not looked for: {html.escape(reason)}.</p>"
    found: list[Track] = []
    for _, lasting in track(contents.dataset):
        found = lasting
        pace.advance("tropical cyclones")
    if not found:
        return "<p>None was found in any member.</p>"
    drawing = picture(track_maps.drawn(contents.dataset, found, contents.projection), dpi=STATIC_DPI)
    return _figure(drawing, "Tracks of tropical cyclones")


def _figure(content: bytes, words: str, kind: str = "image/png", layout: str = "whole") -> str:
    content = compact(content) if kind == "image/png" else content
    return f'<figure class="{layout}"><img alt="{html.escape(words)}" src="{data_url(content, kind)}"></figure>'


def _grid(dataset: xarray.Dataset) -> str:
    rows, columns = dataset.sizes["latitude"], dataset.sizes["longitude"]
    latitude = dataset["latitude"].values
    spacing = f", {np.diff(latitude).mean():.3g}° apart" if rows > 1 else ""
    return f"{columns} × {rows} points{spacing}"


def _json(data: dict[str, Any]) -> str:
    # Nothing in it may end the element that it stands in.
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _resource(name: str) -> str:
    return (files("ai_models_mosaic.report") / "data" / name).read_text(encoding="utf-8")
