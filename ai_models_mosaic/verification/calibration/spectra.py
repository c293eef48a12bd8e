"""How far members' power is from the truth's, by band of wavenumbers, and what a factor on the spread makes of that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...arrays import FloatArray
from ...errors import OptionError

FIRST_WAVENUMBER = 3
"""Below it are few waves of a planet's size, whose power varies from date to date."""

MEMBERS, MEAN, TRUTH = range(3)
"""Places in `Sums.spectra_power`."""

LEAST_POWER = 1e-9
"""Of the truth's in a band, as a share of all its power: less is rounding."""


@dataclass(frozen=True)
class Bands:
    """Bands of wavenumbers, each twice as wide as the one before, and how far power may be off in them.

    Parameters
    ----------
    edges : tuple of (int, int)
        First and last wavenumber of each.
    bound : float
        Largest distance of members' power over the truth's from 1.
    """

    edges: tuple[tuple[int, int], ...]
    bound: float

    @property
    def names(self) -> tuple[str, ...]:
        """``3-5``, ``6-11``."""
        return tuple(f"{first}-{last}" for first, last in self.edges)

    def power(self, spectra: FloatArray) -> FloatArray:
        """Power in every band, ``(…, band)``, NaN where the truth has none.

        Parameters
        ----------
        spectra : array (…, 3, wavenumber)
            Of members, of their mean, and of the truth.
        """
        power = np.stack([spectra[..., first : last + 1].sum(axis=-1) for first, last in self.edges], axis=-1)
        truth = spectra[..., TRUTH, 1:].sum(axis=-1)
        there = power[..., TRUTH, :] > LEAST_POWER * truth[..., None]
        return np.where(there[..., None, :], power, np.nan)

    def ratio(self, spectra: FloatArray) -> FloatArray:
        """Members' power over the truth's, ``(…, band)``."""
        power = self.power(spectra)
        with np.errstate(invalid="ignore", divide="ignore"):
            return power[..., MEMBERS, :] / power[..., TRUTH, :]

    def limits(self, spectra: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The smallest and largest factor on the spread that keep all bands within the bound, ``(…)``.

        The mean power of members is that of their mean and that of their distances from it, and a factor on the
        spread multiplies the second by its square: so these are exact. A band that is beyond the bound without
        calibration does not forbid 1, but it does forbid to go farther away.
        """
        power = self.power(spectra)
        mean, truth = power[..., MEAN, :], power[..., TRUTH, :]
        spread = power[..., MEMBERS, :] - mean
        with np.errstate(invalid="ignore", divide="ignore"):
            low = ((1 - self.bound) * truth - mean) / spread
            high = ((1 + self.bound) * truth - mean) / spread
        # Members that are all alike have no spread that could be multiplied.
        usable = (spread > 0) & np.isfinite(low) & np.isfinite(high)
        low = np.where(usable, np.minimum(low, 1.0), 0.0).max(axis=-1)
        high = np.where(usable, np.maximum(high, 1.0), np.inf).min(axis=-1)
        return np.sqrt(np.maximum(low, 0.0)), np.sqrt(high)


def bands_of(wavenumbers: tuple[int, int] | None, highest: int, bound: float) -> Bands:
    """Bands of some wavenumbers; from 3 to half the highest of the grid unless others are asked for.

    Parameters
    ----------
    wavenumbers : (int, int) or None
        First and last.
    highest : int
        That the grid resolves.
    bound : float
        As of `Bands`.

    Raises
    ------
    OptionError
        If the grid does not resolve them, or the bound makes no sense.
    """
    if not 0 < bound < 1:
        raise OptionError(f"--bound: expected a number between 0 and 1, such as 0.15, got {bound:g}")
    first, last = wavenumbers or (min(FIRST_WAVENUMBER, highest), max(min(FIRST_WAVENUMBER, highest), highest // 2))
    if not 1 <= first <= last <= highest:
        raise OptionError(f"--wavenumbers: expected FIRST-LAST within 1-{highest} of this grid, got {first}-{last}")
    edges = []
    while first <= last:
        edges.append((first, min(2 * first - 1, last)))
        first *= 2
    return Bands(tuple(edges), bound)
