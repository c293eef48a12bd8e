"""How good a network in training is: scores of a few forecasts, and pictures to look at early."""

from __future__ import annotations

import copy
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..arrays import FloatArray
from ..channels import CHANNELS
from ..checkpoints.format import Statistics
from ..engines.torch import TorchEngine
from ..forecast.rollout import Ensemble, rollout
from ..geometry.harmonics import degrees
from ..model.network import MosaicNetwork
from ..state import InitialState
from .archive import Archive
from .losses import ensemble_crps

if TYPE_CHECKING:
    from .trainer import Trainer

LEADS = (1, 3, 5)
"""Steps at which forecasts are scored."""

SHOWN = ("geopotential_500", "temperature_850")


@dataclass(frozen=True)
class Validation:
    """Scores of the averaged weights, means over initial times.

    Parameters
    ----------
    update : int
        Updates made.
    crps_1, crps_3, crps_5 : float
        Fair CRPS at a step, in standard deviations of the state, area-weighted mean over all channels.
    rmse_1, rmse_3, rmse_5 : float
        The same of the ensemble mean.
    spread_1, spread_3, spread_5 : float
        Spread over error of the mean; 1 is calibrated.
    power_1, power_3, power_5 : float
        Power of members over the truth's in the third quarter of the recipe's degrees (10 … 15 of 20),
        geometric mean over `SHOWN` and v850.
    """

    update: int
    crps_1: float
    crps_3: float
    crps_5: float
    rmse_1: float
    rmse_3: float
    rmse_5: float
    spread_1: float
    spread_3: float
    spread_5: float
    power_1: float
    power_3: float
    power_5: float


def validate(network: MosaicNetwork, trainer: Trainer, archives: Sequence[Archive], output: Path) -> Validation:
    """Run and score the recipe's validation forecasts; draws the last of them.

    Parameters
    ----------
    network : MosaicNetwork
        With the weights to validate.
    trainer : Trainer
        Gives recipe, statistics and scales.
    archives : sequence of Archive
        The truth.
    output : Path
        Where ``maps.png`` goes.
    """
    recipe, variant = trainer.recipe, trainer.variant
    statistics = Statistics(trainer.statistics.state_mean, trainer.statistics.state_std)
    # An engine makes the network its own: weights become parts of larger ones, and lose their gradients.
    engine = TorchEngine(copy.deepcopy(network), statistics, trainer.among.device)
    step = timedelta(hours=variant.step_hours)
    leads = [variant.step_hours * ahead for ahead in range(1, max(LEADS) + 1)]
    starts = [(archive, time) for archive in archives for time in archive.starts(variant.lags_hours, leads)]
    chosen = np.linspace(0, len(starts) - 1, min(recipe.validation_starts, len(starts))).round().astype(int)
    members = recipe.validation_members if recipe.kind == "crps" else 1
    ensemble = Ensemble(recipe.seed, tuple(range(1, members + 1)), per_batch=members)
    scores = []
    for index in chosen:
        archive, time = starts[index]
        times = tuple(time + timedelta(hours=lag) for lag in variant.lags_hours)
        initial = InitialState(archive.grid, times, np.stack([archive.state(when) for when in times]))
        starting = dict.fromkeys(ensemble.members, initial)
        for made in rollout(engine, starting, ensemble, variant.step_hours, max(LEADS)):
            if made.step in LEADS:
                truth = archive.state(time + step * made.step)
                scores.append(_scores(made.values, truth, trainer))
    mean = np.mean(np.reshape(scores, (len(chosen), len(LEADS), -1)), axis=0)
    crps, squared, variance, log_power = mean.T
    rmse = np.sqrt(squared)
    spread = np.sqrt(variance * (members + 1) / members) / rmse
    numbers = [float(value) for row in (crps, rmse, spread, np.exp(log_power)) for value in row]
    draw_maps(made.values, truth, f"{time:%Y-%m-%d %H} UTC + {made.lead_time_hours} h", output / "maps.png")
    return Validation(trainer.done, *numbers)


def _scores(members: FloatArray, truth: FloatArray, trainer: Trainer) -> list[float]:
    """CRPS, squared error of the mean, variance, and logarithm of the small scales' power ratio."""
    std = trainer.statistics.state_std
    area = (trainer.variant.architecture.grid.cell_weights() / members.shape[1])[:, None]
    crps = ensemble_crps(torch.from_numpy(members / std), torch.from_numpy(truth / std)).numpy()
    squared = ((members.mean(axis=0) - truth) / std) ** 2
    variance = (members / std).var(axis=0, ddof=1) if len(members) > 1 else np.zeros_like(squared)
    weighted = [float((field * area).sum(axis=(0, 1)).mean()) for field in (crps, squared, variance)]
    return [*weighted, _power_ratio(members, truth, trainer)]


def _power_ratio(members: FloatArray, truth: FloatArray, trainer: Trainer) -> float:
    matrix = trainer.spectral_loss.analysis.cpu().numpy()
    chosen = [index for index, channel in enumerate(CHANNELS) if channel.name in (*SHOWN, "v_component_of_wind_850")]
    of, limit = degrees(trainer.recipe.spectral_degree), trainer.recipe.spectral_degree
    scales = (of >= limit // 2) & (of <= 3 * limit // 4)

    def power(fields: FloatArray) -> FloatArray:
        flat = fields[..., chosen].reshape(-1, matrix.shape[1], len(chosen))
        return ((matrix[scales] @ flat) ** 2).mean(axis=(0, 1))

    return float(np.log(power(members) / power(truth)).mean())


def draw_progress(output: Path) -> None:
    """``progress.png``: the loss of every update and the scores of every validation, from the logs."""
    from matplotlib.figure import Figure

    log, scores = _columns(output / "log.csv"), _columns(output / "validation.csv")
    figure = Figure(figsize=(11, 7), layout="constrained")
    panels = figure.subplots(2, 2)
    panels[0, 0].plot(log["number"], log["grid_loss"], linewidth=0.5, label="at points")
    panels[0, 0].plot(log["number"], log["spectral_loss"], linewidth=0.5, label="of harmonics")
    panels[0, 0].plot(log["number"], log["power_loss"], linewidth=0.5, label="of power by degree")
    panels[0, 0].set(title="Training loss", xlabel="update", ylabel="std of a step's change", yscale="log")
    for panel, name, title, unit in (
        (panels[0, 1], "crps", "Fair CRPS, validation", "std of the state"),
        (panels[1, 0], "spread", "Spread / error of the mean", "ratio"),
        (panels[1, 1], "power", "Power of small scales, members / truth", "ratio"),
    ):
        for lead in LEADS:
            panel.plot(scores["update"], scores[f"{name}_{lead}"], marker=".", label=f"step {lead}")
        panel.set(title=title, xlabel="update", ylabel=unit)
        if unit == "ratio":
            panel.axhline(1.0, color="black", linewidth=0.5)
    for panel in panels.flat:
        panel.legend()
    figure.savefig(output / "progress.png", dpi=100)


def draw_maps(members: FloatArray, truth: FloatArray, when: str, path: Path) -> None:
    """Truth, a member and the mean of a few channels, physical units.

    Parameters
    ----------
    members : array (member, lon, lat, channel)
    truth : array (lon, lat, channel)
    when : str
        For the title.
    path : Path
        A PNG.
    """
    from matplotlib.figure import Figure

    names = [channel.name for channel in CHANNELS]
    figure = Figure(figsize=(12, 5), layout="constrained")
    figure.suptitle(when)
    panels = figure.subplots(len(SHOWN), 3)
    for row, name in zip(panels, SHOWN, strict=True):
        channel = names.index(name)
        shown = {"truth": truth, "member 1": members[0], f"mean of {len(members)}": members.mean(axis=0)}
        low, high = truth[..., channel].min(), truth[..., channel].max()
        for panel, (title, field) in zip(row, shown.items(), strict=True):
            image = panel.imshow(field[..., channel].T, origin="lower", extent=(0, 360, -90, 90), vmin=low, vmax=high)
            panel.set(title=f"{name}, {title}", xlabel="longitude, °E", ylabel="latitude, °N")
        figure.colorbar(image, ax=row, label=CHANNELS[channel].units)
    figure.savefig(path, dpi=80)


def _columns(path: Path) -> dict[str, list[float]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}
