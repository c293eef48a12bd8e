"""Tracks of tropical cyclones, and where they strike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure

from ..errors import InputError
from ..wording.numbers import counted
from .drawing import BAR, Canvas, colour_bar, members_in_words, when
from .ensemble import canonical
from .projections import Projection
from .styles import probability_bands
from .tracks import STRIKE_KM, Track, obstacle, strike_probability, track

WIDTH_INCHES = 8.0

PRESSURES_HPA = (940, 960, 970, 980, 990, 1000, 1010)
"""Where the colours of the tracks change."""


def tracks(dataset: xarray.Dataset, projection: Projection | None = None) -> Figure:
    """Tracks of all members by central pressure, and the probability of a strike.

    Parameters
    ----------
    dataset : xarray.Dataset
        An ensemble, with msl, u and v at 850 hPa, and t at one level at least from 200 to 500 hPa.
    projection : Projection or None
        The globe or the ensemble's region, if None.

    Raises
    ------
    InputError
        If the ensemble cannot be searched for cyclones.
    """
    dataset = canonical(dataset)
    reason = obstacle(dataset)
    if reason:
        raise InputError(f"no tracks of tropical cyclones: {reason}")
    *_, (_, found) = track(dataset)
    return drawn(dataset, found, projection)


def drawn(dataset: xarray.Dataset, found: Sequence[Track], projection: Projection | None = None) -> Figure:
    """As `tracks`, of tracks that are there already."""
    canvas = Canvas(dataset, projection, width=800)
    height = 2 * (WIDTH_INCHES * canvas.shape + 1.0) + 0.4
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    upper, lower = figure.subplots(2, 1)
    canvas.frame(upper, filled=True, line=0.4)
    palette = colormaps["plasma"]
    norm = BoundaryNorm(PRESSURES_HPA, palette.N, extend="both")
    for each in found:
        latitude, longitude = each.hourly()
        x, y = canvas.paper.projection.forward(longitude, latitude)
        x[np.abs(np.diff(x, append=x[-1])) > 1] = np.nan
        upper.plot(x, y, color="#555555", linewidth=0.6, zorder=4)
        places = np.array([(centre.longitude, centre.latitude) for centre in each.centres])
        pressures = np.array([centre.pressure / 100 for centre in each.centres])
        x, y = canvas.paper.projection.forward(*places.T)
        upper.scatter(x, y, c=palette(norm(pressures)), s=9, linewidth=0, zorder=5)
    bar = figure.colorbar(ScalarMappable(norm, palette), ax=upper, **BAR)
    bar.ax.tick_params(labelsize=7, length=2)
    bar.set_label("central pressure (hPa)", fontsize=8)
    having = len({each.member for each in found})
    upper.set_title(f"{counted(len(found), 'track')} in {having} of {members_in_words(dataset)}", fontsize=9)
    shades = probability_bands()
    canvas.fill(lower, strike_probability(list(found), dataset), shades)
    canvas.frame(lower)
    colour_bar(figure, [lower], shades, f"probability (%) of a track within {STRIKE_KM:g} km at any time")
    end = when(dataset, dataset.sizes["step"] - 1).partition(", valid ")[2]
    figure.suptitle(f"Tropical cyclones, {when(dataset, 0).partition(',')[0]} to {end}", fontsize=10)
    return figure
