"""The maps of a page: every lead time of every field, as small pictures that a browser lays coasts over.

They are made pixel by pixel, a hundred times as fast as drawings, and have few colours, which keeps them small.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray
from PIL import Image

from ..arrays import BoolArray, FloatArray, IntArray
from .coastlines import coast, land
from .drawing import Canvas, fitted
from .fields import Threshold, mean, shown, spread, style
from .maps import largest
from .projections import Projection, rim
from .spaghetti import MEAN, MEMBER, contour_of
from .styles import Bands, Style, probability_bands, spread_bands, value_bands

LARGE, SMALL = 840, 260
"""Pixels across a map of the page, and across a member's stamp."""

SHEET_COLUMNS = 6
"""Stamps side by side in the picture that holds all of them."""

INK = "#2a2a2a"
"""Of contours."""

SHADES = 6
"""Of the members' lines in a spaghetti plot: how many lie on each other."""


@dataclass(frozen=True)
class View:
    """Pictures of one kind by lead time, and what their colours mean.

    Parameters
    ----------
    label : str
        In words.
    units : str
        Of the legend.
    colours : tuple of str
        Of the legend, from low to high.
    ticks : tuple of float
        Levels between the colours.
    pictures : list of str
        Data URLs, one per lead time.
    """

    label: str
    units: str
    colours: tuple[str, ...] = ()
    ticks: tuple[float, ...] = ()
    pictures: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, label: str, units: str, bands: Bands) -> View:
        """Without pictures yet."""
        ticks = bands.levels[0 if bands.below else 1 : None if bands.above else -1]
        return cls(label, units, bands.colours, tuple(ticks))


class Chapter:
    """One field on all maps of a page.

    Parameters
    ----------
    dataset : xarray.Dataset
        As `canonical` returns it.
    name : str
        Of the field.
    steps : sequence of int
        Indices of the lead times.
    thresholds : sequence of Threshold
        Events of this field.
    projection : Projection or None
        The globe or the ensemble's region, if None.
    """

    def __init__(
        self,
        dataset: xarray.Dataset,
        name: str,
        steps: Sequence[int],
        thresholds: Sequence[Threshold] = (),
        projection: Projection | None = None,
        line: float | None = None,
    ) -> None:
        self._dataset, self.name, self._steps, self._thresholds = dataset, name, steps, thresholds
        self._large, self._small = (Canvas(dataset, projection, width) for width in (LARGE, SMALL))
        self.kind: Style = fitted(dataset, name, steps)
        self._plain = style(dataset, name)
        members = shown(dataset, name, steps[-1])
        self._shades = spread_bands(largest([spread(members)]))
        self._line = contour_of(self._plain, members) if line is None else line
        values, chances = value_bands(self.kind), probability_bands()
        self.mean = View.of("mean", self.kind.units, values)
        self.members = View.of("members", self.kind.units, values)
        self.spread = View.of("spread", self.kind.units, self._shades)
        self.spaghetti = View(f"contour of {self._line:g} {self.kind.units}".strip(), "", (MEMBER, MEAN))
        self.probabilities = [View.of(each.words(self._plain), "%", chances) for each in thresholds]
        self._events = [each.symbols(self._plain) for each in thresholds]

    def add(self, step: int) -> None:
        """Draw a lead time."""
        members = shown(self._dataset, self.name, step)
        average = mean(members)
        middle = self._large.sampler(average)
        self.mean.pictures.append(_filled(middle, value_bands(self.kind), self.kind.contour))
        self.spread.pictures.append(_filled(self._large.sampler(spread(members)), self._shades))
        self.members.pictures.append(_sheet(self._small.sampler(members), value_bands(self.kind)))
        self.spaghetti.pictures.append(_lines(map(self._large.sampler, members), middle, self._line))
        for threshold, view in zip(self._thresholds, self.probabilities, strict=True):
            factor, offset = self.kind.factor, self.kind.offset
            event = Threshold(threshold.name, threshold.below, threshold.value * factor + offset)
            values = self._large.sampler(event.probability(members))
            view.pictures.append(_filled(values, probability_bands()))

    def described(self) -> dict[str, Any]:
        """All of it, for JSON."""
        views = {"mean": self.mean, "spread": self.spread, "members": self.members, "spaghetti": self.spaghetti}
        return {
            "name": self.name,
            "label": self.kind.label,
            "units": self.kind.units,
            **{name: vars(view) for name, view in views.items()},
            "probabilities": [vars(view) for view in self.probabilities],
            "events": self._events,
        }


def overlay(projection: Projection, *, ground: bool) -> str:
    """The land to lie below lines, or the coasts and the rim to lie above fields, as an SVG's data URL.

    Parameters
    ----------
    projection : Projection
        Of the pictures that it lies over.
    ground : bool
        The land, or else the coasts.
    """
    left, right, bottom, top = projection.extent
    scale = 1000 / (right - left)

    def path(points: FloatArray) -> str:
        words, pen = [], "M"
        for x, y in points:
            words.append(f"{pen}{(x - left) * scale:.1f} {(top - y) * scale:.1f}" if np.isfinite(x) else "")
            pen = "L" if np.isfinite(x) else "M"
        return "".join(words)

    if ground:
        shape = f"<path d='{''.join(path(polygon) + 'Z' for polygon in land(projection))}' fill='#e9e7e1'/>"
    else:
        lines = f"<path d='{path(coast(projection))}' stroke='#333' stroke-width='.9'/>"
        shape = f"<g fill='none'>{lines}<path d='{path(rim(projection))}' stroke='#888' stroke-width='1.5'/></g>"
    height = (top - bottom) * scale
    content = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 1000 {height:.1f}'>{shape}</svg>"
    return "data:image/svg+xml;base64," + base64.b64encode(content.encode()).decode()


def _filled(raster: FloatArray, bands: Bands, contour: float | None = None) -> str:
    """A field coloured by bands, with lines between multiples of an interval."""
    index = _index(raster, bands)
    if contour:
        index[_edges(np.floor(raster / contour)) & (index > 0)] = len(bands.colours) + 1
    return _encoded(index, [*bands.colours, INK])


def _sheet(rasters: FloatArray, bands: Bands) -> str:
    """All members in one picture, row by row."""
    count, height, width = rasters.shape
    rows = -(-count // SHEET_COLUMNS)
    sheet: IntArray = np.zeros((rows * SHEET_COLUMNS, height, width), dtype=np.int64)
    sheet[:count] = _index(rasters, bands)
    tiled = sheet.reshape(rows, SHEET_COLUMNS, height, width).swapaxes(1, 2)
    return _encoded(tiled.reshape(rows * height, SHEET_COLUMNS * width), bands.colours)


def _lines(rasters: Iterable[FloatArray], middle: FloatArray, level: float) -> str:
    """A contour of every member, darker where several lie on each other, and of the mean."""
    count = np.zeros(middle.shape, dtype=np.int64)
    members = 0
    for raster in rasters:
        members += 1
        count += _edges(np.where(np.isnan(raster), np.nan, raster > level))
    share = np.ceil(np.minimum(count / max(members / 8, 1), 1) * SHADES).astype(np.int64)
    inner = _edges(np.where(np.isnan(middle), np.nan, middle > level))
    inner[1:] |= inner[:-1]
    inner[:, 1:] |= inner[:, :-1]
    share[inner] = SHADES + 1
    colours = [f"{MEMBER}{110 + 145 * shade // SHADES:02x}" for shade in range(1, SHADES + 1)]
    return _encoded(share, [*colours, MEAN])


def _index(raster: FloatArray, bands: Bands) -> IntArray:
    """1 and more for the bands' colours, 0 for nothing."""
    return np.where(np.isnan(raster), 0, bands.index(raster) + 1)


def _edges(steps: FloatArray) -> BoolArray:
    """Where the value of a pixel is another than that of the one below or to the right, and both have one."""
    found = np.zeros(steps.shape, dtype=bool)
    for one, other, target in (
        (steps[:, :-1], steps[:, 1:], found[:, :-1]),
        (steps[:-1], steps[1:], found[:-1]),
    ):
        target |= (one != other) & ~np.isnan(one) & ~np.isnan(other)
    return found


def _encoded(index: IntArray, colours: Sequence[str]) -> str:
    """A picture of few colours as a data URL; 0 is transparent."""
    hexadecimal = ["#00000000", *colours]
    parts = [[int(colour[place : place + 2], 16) for place in (1, 3, 5)] for colour in hexadecimal]
    alphas = bytes(int(colour[7:9] or "ff", 16) for colour in hexadecimal)
    image = Image.fromarray(index.astype(np.uint8)).convert("P")
    image.putpalette([part for colour in parts for part in colour])
    content = io.BytesIO()
    image.save(content, "PNG", transparency=alphas, optimize=True)
    return data_url(content.getvalue())


def data_url(content: bytes, kind: str = "image/png") -> str:
    """A picture as what a page can hold."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
