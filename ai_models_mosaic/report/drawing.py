"""What all drawings share: paper with coasts, fields on it, colour bars, and the words over them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import matplotlib
import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from ..arrays import FloatArray
from ..errors import OptionError
from ..wording.numbers import counted
from .coastlines import coast, land
from .fields import percentiles, shown, style
from .projections import PlateCarree, Projection, rim
from .rasters import Paper, Sampler, projection_for
from .styles import Bands, Style

COAST, GRATICULE, RIM = "#3c3c3c", "#00000022", "#777777"

MERIDIANS = np.arange(-180, 181, 30)
PARALLELS = np.arange(-60, 61, 30)

RIM_SHARE = 0.004
"""Of the width of a map, for its rim not to be cut."""

PIXELS = 1000
"""Across a map that fills a drawing."""

DPI = 130

BAR: dict[str, Any] = {"orientation": "horizontal", "shrink": 0.85, "pad": 0.03, "aspect": 38}
"""How bars of colours lie below maps."""

_EXTEND: dict[tuple[bool, bool], Literal["neither", "both", "min", "max"]] = {
    (False, False): "neither",
    (True, False): "min",
    (False, True): "max",
    (True, True): "both",
}

HOUR = np.timedelta64(1, "h")


@dataclass(frozen=True)
class Canvas:
    """A map's paper with an ensemble's grid on it.

    Parameters
    ----------
    dataset : xarray.Dataset
        As `canonical` returns it.
    projection : Projection or None
        The globe or the ensemble's region, if None.
    width : int
        Pixels.
    """

    dataset: xarray.Dataset
    projection: Projection | None = None
    width: int = PIXELS

    @cached_property
    def paper(self) -> Paper:
        """Its pixels."""
        return Paper(self.projection or projection_for(self.dataset), self.width)

    @cached_property
    def sampler(self) -> Sampler:
        """What puts fields on it."""
        return self.paper.sampler(self.dataset)

    @property
    def shape(self) -> float:
        """Height over width."""
        return self.paper.height / self.paper.width

    def frame(self, axis: Axes, *, filled: bool = False, line: float = 0.6) -> None:
        """Coasts, meridians and parallels, and a rim.

        Parameters
        ----------
        axis : Axes
            Where to draw.
        filled : bool
            Tint the land, where nothing else will cover it.
        line : float
            Width of the coasts, points.
        """
        projection = self.paper.projection
        left, right, bottom, top = projection.extent
        edge = 0.0 if isinstance(projection, PlateCarree) else RIM_SHARE * (right - left)
        axis.set(xlim=(left - edge, right + edge), ylim=(bottom - edge, top + edge), aspect="equal")
        for polygon in land(projection) if filled else ():
            axis.fill(*polygon.T, color="#e9e7e1", linewidth=0)
        axis.plot(*coast(projection).T, color=COAST, linewidth=line, zorder=3)
        if isinstance(projection, PlateCarree):
            _degrees(axis, projection)
            return
        for longitude, latitude in _graticule():
            axis.plot(*projection.forward(longitude, latitude), color=GRATICULE, linewidth=0.5, zorder=2)
        axis.plot(*rim(projection).T, color=RIM, linewidth=0.8, zorder=3)
        axis.set_axis_off()

    def fill(self, axis: Axes, values: FloatArray, bands: Bands) -> None:
        """Colour a field ``(latitude, longitude)`` by bands."""
        raster = self.sampler(values)
        index = np.where(np.isnan(raster), np.nan, bands.index(raster))
        colours = ListedColormap(bands.colours)
        left, right, bottom, top = self.paper.projection.extent
        axis.imshow(
            index,
            cmap=colours,
            vmin=-0.5,
            vmax=len(bands.colours) - 0.5,
            extent=(left, right, bottom, top),
            interpolation="nearest",
        )

    def contours(
        self, axis: Axes, values: FloatArray, levels: Sequence[float], *, labels: bool = True, width: float = 0.7
    ) -> None:
        """Contours of a field ``(latitude, longitude)``, with their numbers."""
        raster = self.sampler(values)
        low, high = percentiles(raster, (0, 100))
        inside = [level for level in levels if low < level < high]
        if inside:
            drawn = axis.contour(*self.paper.axes, raster, inside, colors="#222222", linewidths=width)
            if labels:
                axis.clabel(drawn, inside[:: 2 if len(inside) > 8 else 1], fontsize=6, fmt="%g")


def _graticule() -> list[tuple[FloatArray, FloatArray]]:
    along = np.linspace(-90, 90, 91)
    around = np.linspace(-180, 180, 181)
    return [(np.full_like(along, each), along) for each in MERIDIANS.astype(float)] + [
        (around, np.full_like(around, each)) for each in PARALLELS.astype(float)
    ]


def _degrees(axis: Axes, region: PlateCarree) -> None:
    """Ticks in degrees around a region."""
    for bounds, setter, letters in (
        ((region.west, region.east), axis.set_xticks, "EW"),
        ((region.south, region.north), axis.set_yticks, "NS"),
    ):
        ticks = [tick for tick in MaxNLocator(6).tick_values(*bounds) if bounds[0] <= tick <= bounds[1]]
        places = region.forward(np.array(ticks), np.array(ticks))[0] if letters == "EW" else np.array(ticks)
        setter(places.tolist(), [_degree(tick, letters) for tick in ticks])
    axis.tick_params(labelsize=7)
    axis.grid(color=GRATICULE, linewidth=0.5)


def _degree(value: float, letters: str) -> str:
    turned = (value + 180) % 360 - 180 if letters == "EW" else value
    return f"{abs(turned):g}°{letters[turned < 0] if turned else ''}"


def colour_bar(figure: Figure, axes: Iterable[Axes], bands: Bands, label: str) -> None:
    """A bar of bands below axes."""
    edges = bands.levels
    norm = BoundaryNorm(edges, len(bands.colours), extend=_EXTEND[bands.below, bands.above])
    mapping = ScalarMappable(norm, ListedColormap(bands.colours))
    bar = figure.colorbar(mapping, ax=list(axes), ticks=edges, **BAR)
    bar.ax.tick_params(labelsize=7, length=2)
    if len(edges) > 12:
        bar.set_ticks(list(edges[::2]))
    bar.set_label(label, fontsize=8)


def step_at(dataset: xarray.Dataset, hours: float | None) -> int:
    """Index of a lead time; the middle one if None.

    Raises
    ------
    OptionError
        If the ensemble has no such lead time.
    """
    found = lead_hours(dataset)
    if hours is None:
        return len(found) // 2
    if hours not in found:
        listed = ", ".join(f"{each:g}" for each in found)
        raise OptionError(f"expected a lead time that the ensemble has, got {hours:g} h; it has {listed} h")
    return found.index(hours)


def lead_hours(dataset: xarray.Dataset) -> list[float]:
    """All lead times, h."""
    return [float(step / HOUR) for step in dataset["step"].values]


def when(dataset: xarray.Dataset, step: int) -> str:
    """Initial time, lead time and valid time in words."""
    start = dataset["time"].values.astype("datetime64[s]").item()
    valid = (dataset["time"].values + dataset["step"].values[step]).astype("datetime64[s]").item()
    return f"from {start:%Y-%m-%d %H} UTC, +{lead_hours(dataset)[step]:g} h, valid {valid:%a %Y-%m-%d %H} UTC"


def members_in_words(dataset: xarray.Dataset) -> str:
    """Such as ``24 members``."""
    return counted(dataset.sizes["number"], "member")


def fitted(dataset: xarray.Dataset, name: str, steps: Sequence[int]) -> Style:
    """How a field is drawn, its colours fitted to the first, middle and last of some lead times."""
    found = style(dataset, name)
    if found.levels:
        return found
    looked_at = sorted({steps[0], steps[len(steps) // 2], steps[-1]})
    ends = np.array([percentiles(shown(dataset, name, step), (0.5, 99.5)) for step in looked_at])
    known = ends[np.isfinite(ends).all(axis=1)]
    return found.fitted(*((known[:, 0].min(), known[:, 1].max()) if known.size else (np.nan, np.nan)))


def picture(figure: Figure, kind: str = "png", dpi: int = DPI) -> bytes:
    """A drawing as PNG or SVG."""
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    # Without a date in it the same drawing is the same file.
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": "ai-models-mosaic"}):
        figure.savefig(content, format=kind, dpi=dpi, metadata=metadata)
    return content.getvalue()


def compact(content: bytes, colours: int = 64) -> bytes:
    """A drawing in PNG with few colours, those of its areas exactly as they are; a third of its size.

    Parameters
    ----------
    content : bytes
        PNG.
    colours : int
        At most 256. The bands of maps and bars come first: what is dropped is of the edges of lines and letters.
    """
    with Image.open(io.BytesIO(content)) as image:
        dots = image.info.get("dpi", (DPI, DPI))
        pixels = np.asarray(image.convert("RGB"), dtype=np.int64)
    codes, place = np.unique(pixels @ (1 << 16, 1 << 8, 1), return_inverse=True)
    place = place.reshape(pixels.shape[:2])
    flat = np.zeros(place.shape, dtype=bool)
    flat[1:, 1:] = (place[1:, 1:] == place[1:, :-1]) & (place[1:, 1:] == place[:-1, 1:])
    # Of areas first, and of those that have none by how often they are there.
    count = np.bincount(place[flat], minlength=len(codes)) * place.size + np.bincount(place.ravel())
    parts = codes[:, None] >> np.array((16, 8, 0)) & 255
    kept = parts[np.argsort(-count, kind="stable")[:colours]]
    nearest = ((parts[:, None] - kept[None]) ** 2).sum(axis=-1).argmin(axis=1).astype(np.uint8)
    reduced = Image.fromarray(nearest[place]).convert("P")
    reduced.putpalette(kept.ravel().tolist())
    smaller = io.BytesIO()
    reduced.save(smaller, "PNG", optimize=True, dpi=dots)
    return smaller.getvalue()
