"""Normalisation of an archive: of states, of their change in a step, and of that change by scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np

from ..arrays import FloatArray
from ..channels import CHANNELS
from ..errors import InputError
from ..files import named_errors, whole_file
from ..geometry.grid import LatLonGrid
from ..geometry.harmonics import analysis, degrees
from .archive import Archive

SAMPLES = 240
"""Pairs of states that the statistics are made from, evenly spread over the archives."""

SMALLEST = 1e-12


@dataclass(frozen=True)
class ArchiveStatistics:
    """What losses and networks are scaled by, float64.

    Parameters
    ----------
    state_mean, state_std : array (channel,)
        Area-weighted, physical units.
    residual_std : array (channel,)
        Of the change within a step, physical units.
    residual_spectrum : array (degree, channel)
        Root-mean-square of the change's spherical-harmonic coefficients by degree, in units of `state_std`.
    """

    state_mean: FloatArray
    state_std: FloatArray
    residual_std: FloatArray
    residual_spectrum: FloatArray

    @property
    def scale(self) -> FloatArray:
        """From units of `state_std` to units of `residual_std`, ``(channel,)``."""
        return self.state_std / self.residual_std

    def normalised_by(self, mean: FloatArray, std: FloatArray) -> ArchiveStatistics:
        """The same with another normalisation of states, each ``(channel,)``, such as that of a checkpoint."""
        spectrum = self.residual_spectrum * (self.state_std / std)
        return ArchiveStatistics(mean, std, self.residual_std, spectrum)


def measure(archives: Sequence[Archive], grid: LatLonGrid, step_hours: int, degree: int) -> ArchiveStatistics:
    """Statistics from at most `SAMPLES` pairs of states that are a step apart.

    Raises
    ------
    InputError
        If no two states are a step apart.
    """
    step = timedelta(hours=step_hours)
    starts = [(archive, time) for archive in archives for time in archive.starts((), (0, step_hours))]
    if not starts:
        raise InputError(f"no two states of {', '.join(each.path for each in archives)} are {step_hours} h apart")
    chosen = [starts[index] for index in np.unique(np.linspace(0, len(starts) - 1, SAMPLES).round().astype(int))]
    area = np.broadcast_to(grid.cell_weights() / grid.shape[0], grid.shape).ravel()
    matrix, of = analysis(grid, degree), degrees(degree)
    shape = (4, len(CHANNELS))
    sums, power = np.zeros(shape), np.zeros((degree + 1, len(CHANNELS)))
    # The first state of all is taken off, so that squares of large means do not drown small deviations.
    origin = chosen[0][0].state(chosen[0][1]).reshape(grid.size, -1).astype(np.float64)
    origin = area @ origin
    for archive, time in chosen:
        before, after = (archive.state(when).reshape(grid.size, -1) - origin for when in (time, time + step))
        change = after - before
        sums += np.stack([area @ before, area @ before**2, area @ change, area @ change**2])
        np.add.at(power, of, (matrix @ change) ** 2)
    mean, square, drift, change_square = sums / len(chosen)
    std = np.sqrt(np.maximum(square - mean**2, SMALLEST**2))
    spectrum = np.sqrt(power / len(chosen) / (2 * np.arange(degree + 1) + 1)[:, None]) / std
    return ArchiveStatistics(
        origin + mean, std, np.sqrt(np.maximum(change_square - drift**2, SMALLEST**2)), np.maximum(spectrum, SMALLEST)
    )


def save(statistics: ArchiveStatistics, path: Path) -> None:
    """Write an npz with the names of the released statistics, and more."""
    with named_errors(path), whole_file(path) as file:
        np.savez(file, **vars(statistics))


def load(path: Path) -> ArchiveStatistics:
    """Read what `save` wrote.

    Raises
    ------
    InputError
        If the file is not such a one.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return ArchiveStatistics(**{name: arrays[name] for name in ArchiveStatistics.__dataclass_fields__})
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} does not hold the statistics of an archive: {error}") from error
