"""Proper scores of an ensemble as losses, per channel and scale.

Everything is in float32 whatever the precision of the network.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..arrays import FloatArray
from ..channels import CHANNELS
from ..geometry.grid import LatLonGrid
from ..geometry.harmonics import analysis, degrees

SURFACE_WEIGHTS = {"2t": 1.0, "10u": 0.1, "10v": 0.1, "msl": 0.1}
"""Source: Lam et al., Science 382, 2023 (GraphCast), supplement 4.2."""


POWER_FROM = 3
"""Least degree whose power is scored: with fewer orders its logarithm is too wild."""

LEAST_POWER = 1e-6
"""Added to powers, in units of a step's change: none has no logarithm."""


def channel_weights() -> FloatArray:
    """Weight of every channel, ``(channel,)``, mean 1.

    A variable's levels share a weight of 1 in proportion to their pressure, and the single-level
    fields have `SURFACE_WEIGHTS`.
    Source: Lam et al., Science 382, 2023 (GraphCast), supplement 4.2.
    """
    total = sum(channel.level_hpa for channel in CHANNELS if channel.param == "z" and channel.level_hpa)
    weights = np.array(
        [
            SURFACE_WEIGHTS[channel.param] if channel.level_hpa is None else channel.level_hpa / total
            for channel in CHANNELS
        ]
    )
    return weights / weights.mean()


def ensemble_crps(members: Tensor, truth: Tensor, fairness: float = 1.0) -> Tensor:
    """Almost fair CRPS of every number.

    Written as a sum of terms that are none of them negative, so that no large numbers cancel.
    With `fairness` 1 it is the fair score, an unbiased estimate of that of infinitely many
    members; but with two of them an outlier then costs nothing that its twin does not pay, which
    a fairness just below 1 prevents. With one member it is the absolute error.
    Source: Lang et al., arXiv:2412.15832 (AIFS-CRPS), equations 3 and 4.

    Parameters
    ----------
    members : Tensor (member, …)
        Forecasts.
    truth : Tensor (…)
        What came.
    fairness : float
        α, from 0 (the plain CRPS) to 1.

    Returns
    -------
    Tensor (…)
        In the units of the input, float32.
    """
    members, truth = members.float(), truth.float()
    count = members.shape[0]
    error = (members - truth).abs()
    if count == 1:
        return error[0]
    epsilon = (1.0 - fairness) / count
    total = torch.zeros_like(truth)
    for first in range(count):
        for second in range(first + 1, count):
            apart = (members[first] - members[second]).abs()
            total = total + error[first] + error[second] - (1.0 - epsilon) * apart
    return total / (count * (count - 1))


def squared_error(members: Tensor, truth: Tensor) -> Tensor:
    """Mean over members of the squared error, for the deterministic twin; shapes as `ensemble_crps`."""
    return (members.float() - truth.float()).square().mean(dim=0)


class GridLoss(torch.nn.Module):
    """Mean of a score over the sphere and the channels.

    Parameters
    ----------
    grid : LatLonGrid
        Gives the area weights.
    scale : array (channel,)
        Normalised units to units of the score, such as std of the state over std of its change in a step.
    """

    weights: Tensor
    scale: Tensor

    def __init__(self, grid: LatLonGrid, scale: FloatArray) -> None:
        super().__init__()
        area = np.broadcast_to(grid.cell_weights() / grid.shape[0], grid.shape)
        weights = area[..., None] * channel_weights() / len(CHANNELS)
        self.register_buffer("weights", torch.from_numpy(weights).float())
        self.register_buffer("scale", torch.from_numpy(np.asarray(scale)).float())

    def forward(self, members: Tensor, truth: Tensor, kind: str, fairness: float) -> Tensor:
        """Score normalised ``(member, batch, lon, lat, channel)`` against ``(batch, lon, lat, channel)``; a scalar."""
        members, truth = members.float() * self.scale, truth.float() * self.scale
        score = squared_error(members, truth) if kind == "mse" else ensemble_crps(members, truth, fairness)
        return (score * self.weights).sum(dim=(1, 2, 3)).mean()


class SpectralLoss(torch.nn.Module):
    """The same score of spherical-harmonic coefficients, and one of their power, each degree weighing alike.

    A score at points does not see how fields vary in space; that of every coefficient asks each
    scale for its own spread, and small scales, whose part in the variance is small, weigh as much
    as the large ones.
    Source: Kochkov et al., Nature 632, 2024 (NeuralGCM), supplement G.4, which adds such a term.

    Coefficients of climatological members with a third too much power score half a per cent worse than right ones. The
    power of a degree is a sum over its orders and so known more sharply: the score of its logarithm asks for the
    truth's spectrum. It is the score of forecasts of one more quantity, so that it too is least for the truth's own
    distribution.

    Parameters
    ----------
    grid : LatLonGrid
        Regular, with pole rows.
    deviation : array (degree, channel)
        Root-mean-square of the coefficients of a step's change by degree, normalised units; its length
        gives the highest degree.
    """

    analysis: Tensor
    inverse: Tensor
    weights: Tensor
    summed: Tensor
    sharpness: Tensor
    power_weights: Tensor

    def __init__(self, grid: LatLonGrid, deviation: FloatArray) -> None:
        super().__init__()
        limit = deviation.shape[0] - 1
        of = degrees(limit)
        share = 1.0 / ((2 * of[:, None] + 1) * (limit + 1))
        weights = share * channel_weights() / len(CHANNELS)
        scored = np.arange(min(POWER_FROM, limit), limit + 1)
        self._register(
            analysis=analysis(grid, limit),
            inverse=1.0 / deviation[of],
            weights=weights,
            summed=(of == scored[:, None]) / (2 * scored[:, None] + 1),
            # The inverse of the standard deviation that the logarithm of a sum of so many squares has.
            sharpness=np.sqrt((2 * scored + 1) / 2)[:, None],
            power_weights=channel_weights() / len(CHANNELS) / len(scored),
        )

    def forward(self, members: Tensor, truth: Tensor, kind: str, fairness: float) -> tuple[Tensor, Tensor]:
        """Scores of coefficients and of power, scalars; shapes as `GridLoss.forward`.

        The second is the almost fair CRPS whatever the kind.
        """
        members, truth = self._coefficients(members), self._coefficients(truth)
        score = squared_error(members, truth) if kind == "mse" else ensemble_crps(members, truth, fairness)
        of_power = ensemble_crps(self._log_power(members), self._log_power(truth), fairness)
        return (score * self.weights).sum(dim=(1, 2)).mean(), (of_power * self.power_weights).sum(dim=(1, 2)).mean()

    def _register(self, **buffers: FloatArray) -> None:
        for name, values in buffers.items():
            self.register_buffer(name, torch.from_numpy(values).float())

    def _coefficients(self, fields: Tensor) -> Tensor:
        """``(…, lon, lat, channel)`` to scaled ``(…, coefficient, channel)``."""
        with torch.autocast(fields.device.type, enabled=False):
            return (self.analysis @ fields.float().flatten(-3, -2)) * self.inverse

    def _log_power(self, coefficients: Tensor) -> Tensor:
        """``(…, coefficient, channel)`` to ``(…, degree, channel)``, in units of what chance makes of it."""
        with torch.autocast(coefficients.device.type, enabled=False):
            return (self.summed @ coefficients.square() + LEAST_POWER).log() * self.sharpness
