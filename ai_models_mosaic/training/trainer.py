"""The training loop: one update after another, each a function of the recipe and its number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint as recompute

from ..arrays import FloatArray
from ..errors import ForecastError, OptionError
from ..forecast.rollout import progress_features
from ..model.buffers import make_buffers
from ..model.layers import Block
from ..model.network import MosaicNetwork, initialise
from .archive import Archive, Sample
from .losses import GridLoss, SpectralLoss
from .optimisers import make_optimisers
from .processes import Processes
from .recipe import Phase, Recipe
from .roll_out import RollOut
from .sampling import free_steps_at, sample_at, training_noise
from .statistics import ArchiveStatistics

HALF = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

SHAPES_COMPILED = 64
"""Shapes that blocks are compiled for at most."""

BACKENDS = {"cpu": "reference", "cuda": "sdpa"}
"""Attention backend of training by the kind of device. On the CPU the gradient of the fused kernels is the slower one
in half precision; at full size, what the reference keeps for gradients is four times as much."""


@dataclass(frozen=True)
class Batch:
    """One process's samples of an update, normalised.

    Parameters
    ----------
    samples : tuple of (int, Sample)
        Their positions in the run, and what they are.
    history : Tensor (batch, history, lon, lat, channel)
        Oldest state first.
    targets : Tensor (step, batch, lon, lat, channel)
        The states to come that are scored.
    free : int
        Steps before the first of them.
    """

    samples: tuple[tuple[int, Sample], ...]
    history: Tensor
    targets: Tensor
    free: int = 0


@dataclass(frozen=True)
class Update:
    """What one update did, over all processes.

    Parameters
    ----------
    number : int
        From 0.
    loss, grid_loss, spectral_loss, power_loss : float
        Of all samples; the first is the weighted sum of the others, which are 0 where they are not needed.
    learning_rate, gradient_norm : float
        As used; the norm before clipping.
    """

    number: int
    loss: float
    grid_loss: float
    spectral_loss: float
    power_loss: float
    learning_rate: float
    gradient_norm: float


def learning_rate(phase: Phase, within: int) -> float:
    """Linear warm-up to the phase's rate, then half a cosine to zero.

    Source: Loshchilov and Hutter, ICLR 2017 (without restarts).
    """
    if within < phase.warm_up:
        return phase.learning_rate * (within + 1) / phase.warm_up
    passed = (within - phase.warm_up) / (phase.updates - phase.warm_up)
    return phase.learning_rate * 0.5 * (1 + math.cos(math.pi * passed))


def make_network(recipe: Recipe, static_fields: FloatArray, device: torch.device) -> MosaicNetwork:
    """A fresh network with all buffers, its ablations in place.

    Parameters
    ----------
    recipe : Recipe
        Gives the architecture, the seed and the ablations.
    static_fields : array (lon, lat, 3)
        Raw.
    device : torch.device
        Where it shall be.
    """
    architecture = recipe.table.architecture
    network = MosaicNetwork(architecture)
    initialise(network, torch.Generator().manual_seed(recipe.seed))
    buffers = make_buffers(architecture, [name for name, _ in network.named_buffers()], {}, static_fields)
    network.load_state_dict(buffers, strict=False)
    ablate(network, recipe)
    network.use_backend(BACKENDS[device.type])
    if recipe.recompute_blocks:
        recompute_blocks(network)
    return network.to(device)


def recompute_blocks(network: MosaicNetwork) -> None:
    """Have every transformer block keep what comes in alone, and computed again for its gradients."""
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    for block in blocks:
        block.forward = partial(recompute, block.forward, use_reentrant=False)  # type: ignore[method-assign]
    # What a step does before its first noise is a part of the first block that is called by itself.
    first = blocks[0]
    first.attend = partial(recompute, first.attend, use_reentrant=False)  # type: ignore[method-assign]


def compile_blocks(network: MosaicNetwork) -> None:
    """Compile every transformer block, once for each shape that the phases of a run have."""
    # The blocks share their code, so that three stages and four phases are more shapes than are kept of one
    # function; beyond that, PyTorch falls back to what is written, with a warning that is easily overlooked.
    torch._dynamo.config.recompile_limit = SHAPES_COMPILED
    for module in network.modules():
        if isinstance(module, Block):
            module.compile(dynamic=False)


def ablate(network: MosaicNetwork, recipe: Recipe) -> None:
    """Silence what the recipe wants quiet, and close the selected branch if it says so.

    The deterministic twin hears no noise at all, so that its forecasts are the same for every member.

    Raises
    ------
    OptionError
        If what is to be quiet is the name of no block.
    """
    names = [name for name, _ in network.named_modules()]
    noisy = [name for name in names if name.endswith("noise_bias")]
    quiet = [name for name in noisy if name.startswith(recipe.quiet)]
    strangers = [start for start in recipe.quiet if not any(name.startswith(start) for name in noisy)]
    if strangers:
        known = ", ".join(dict.fromkeys(name.partition(".")[0] for name in noisy))
        raise OptionError(
            f"recipe: expected quiet to be beginnings of names of blocks, in {known}; got {', '.join(strangers)}"
        )
    if recipe.kind == "mse":
        quiet.append("noise_generator.to_noise")
    for name in quiet:
        weight = network.get_parameter(f"{name}.weight")
        nn.init.zeros_(weight)
        weight.requires_grad_(False)
    if recipe.without_selected:
        network.close_selected()


class Trainer:
    """Network, optimisers and averaged weights of a run.

    Parameters
    ----------
    recipe : Recipe
        What to do.
    archives : sequence of Archive
        What to train on.
    statistics : ArchiveStatistics
        Of the archives.
    among : Processes
        Who else trains.
    """

    def __init__(
        self, recipe: Recipe, archives: Sequence[Archive], statistics: ArchiveStatistics, among: Processes
    ) -> None:
        self.recipe, self.archives, self.statistics, self.among = recipe, archives, statistics, among
        self.variant = recipe.table
        self.network = make_network(recipe, archives[0].static_fields(), among.device)
        self.optimisers = make_optimisers(self.network, recipe)
        self.scaler = torch.amp.GradScaler(among.device.type, enabled=recipe.precision == "float16")
        self.averaged = {name: weight.detach().clone() for name, weight in self.network.named_parameters()}
        if recipe.compiled:
            compile_blocks(self.network)
        self.done = 0
        grid = self.variant.architecture.grid
        self.grid_loss = GridLoss(grid, statistics.scale).to(among.device)
        self.spectral_loss = SpectralLoss(grid, statistics.residual_spectrum).to(among.device)
        self._mean, self._std = (values.astype(np.float32) for values in (statistics.state_mean, statistics.state_std))
        self._samples = {
            horizon: self._starts(horizon) for horizon in sorted({phase.horizon for phase in recipe.phases})
        }
        roll_out = RollOut(self.network, HALF[recipe.precision], recompute=recipe.recompute)
        self._roll_out: nn.Module = DistributedDataParallel(roll_out) if among.count > 1 else roll_out

    def updates(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Update]:
        """Make the updates that are left, reading ahead by one; `stop` is asked before each."""
        with ThreadPoolExecutor(1) as reader:
            ahead: Future[Batch] | None = None
            while self.done < self.recipe.updates and not stop():
                batch = ahead.result() if ahead else self.batch(self.done)
                ahead = reader.submit(self.batch, self.done + 1) if self.done + 1 < self.recipe.updates else None
                yield self._update(batch)

    def batch(self, update: int) -> Batch:
        """The samples of an update that are this process's share."""
        phase, _ = self.recipe.phase_of(update)
        first = self.position(update)
        samples = self._samples[phase.horizon]
        free = free_steps_at(self.recipe.seed, update, phase.free_steps)
        positions = [first + index for index in self.among.share(phase.batch)]
        chosen = tuple((position, sample_at(samples, self.recipe.seed, position)) for position in positions)
        step = timedelta(hours=self.variant.step_hours)
        history, targets = [], []
        for _, sample in chosen:
            lags = [sample.time + timedelta(hours=lag) for lag in self.variant.lags_hours]
            history.append(np.stack([self._normalised(sample.archive, time) for time in lags]))
            coming = [sample.time + step * ahead for ahead in range(free + 1, free + phase.rollout + 1)]
            targets.append(np.stack([self._normalised(sample.archive, time) for time in coming]))
        return Batch(chosen, torch.from_numpy(np.stack(history)), torch.from_numpy(np.stack(targets, axis=1)), free)

    def position(self, update: int) -> int:
        """Samples that all processes have drawn before an update."""
        total = 0
        for phase in self.recipe.phases:
            total += phase.batch * min(update, phase.updates)
            update -= min(update, phase.updates)
        return total

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs: tensors and plain containers."""
        return {
            "update": self.done,
            "network": {name: weight.detach() for name, weight in self.network.named_parameters()},
            "averaged": self.averaged,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "scaler": self.scaler.state_dict(),
            "training_data": self.training_data,
        }

    @property
    def training_data(self) -> list[str]:
        """Digests of the archives."""
        return [archive.digest for archive in self.archives]

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.done = state["update"]
        self.load_weights(state["network"])
        for name, weight in state["averaged"].items():
            self.averaged[name].copy_(weight)
        for optimiser, held in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(held)
        self.scaler.load_state_dict(state["scaler"])

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Take weights over, the averaged ones too.

        A deterministic network's silenced noise is left as it was drawn where members are to be trained: two
        members that are alike in every bit would have no gradient that parts them.
        """
        noise = "noise_generator.to_noise.weight"
        if self.recipe.kind == "crps" and not weights[noise].any():
            weights = weights | {noise: self.network.get_parameter(noise)}
        with torch.no_grad():
            for name, weight in self.network.named_parameters():
                # What an ablation has silenced stays silent.
                if weight.requires_grad:
                    weight.copy_(weights[name])
                    self.averaged[name].copy_(weights[name])

    @contextmanager
    def averaged_network(self) -> Iterator[MosaicNetwork]:
        """The network with the averaged weights, for a while and without gradients."""
        own = {name: weight.detach().clone() for name, weight in self.network.named_parameters()}
        with torch.no_grad():
            for name, weight in self.network.named_parameters():
                weight.copy_(self.averaged[name])
            try:
                yield self.network
            finally:
                for name, weight in self.network.named_parameters():
                    weight.copy_(own[name])

    def _starts(self, horizon: int) -> list[Sample]:
        leads = [self.variant.step_hours * ahead for ahead in range(1, horizon + 1)]
        return [
            Sample(index, time)
            for index, archive in enumerate(self.archives)
            for time in archive.starts(self.variant.lags_hours, leads)
        ]

    def _normalised(self, archive: int, time: Any) -> FloatArray:
        return (self.archives[archive].state(time) - self._mean) / self._std

    def _update(self, batch: Batch) -> Update:
        phase, within = self.recipe.phase_of(self.done)
        rate = learning_rate(phase, within)
        losses = self._losses(batch)
        loss = (losses * losses.new_tensor([1.0, self.recipe.spectral_weight, self.recipe.power_weight])).sum()
        self.network.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        for optimiser in self.optimisers:
            self.scaler.unscale_(optimiser)
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip))
        if not (math.isfinite(norm) or self.scaler.is_enabled()):
            # The scaler leaves such an update out, and scales less; else one would end in all weights.
            raise ForecastError(
                f"update {self.done}: expected finite gradients, got a norm of {norm} (loss {loss.item():g}); the "
                "weights of before may be far off already: begin again with a lower learning_rate, or in float32"
            )
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * group["rate"]
            self.scaler.step(optimiser)
        self.scaler.update()
        self._average()
        mean = self.among.mean(torch.cat([loss[None], losses]).detach())
        number, self.done = self.done, self.done + 1
        total, at_points, of_harmonics, of_power = (float(value) for value in mean)
        return Update(number, total, at_points, of_harmonics, of_power, rate, norm)

    def _losses(self, batch: Batch) -> Tensor:
        """Scores at points, of harmonics and of the power by degree, ``(3,)``, means over the steps that are scored."""
        members, device, steps = self.recipe.ensemble_members, self.among.device, batch.free + batch.targets.shape[0]
        clocks = [
            [progress_features(sample.time, step, self.variant.step_hours) for _, sample in batch.samples]
            for step in range(1, steps + 1)
        ]
        predicted = self._roll_out(
            batch.history.to(device).repeat(members, 1, 1, 1, 1),
            torch.tensor(clocks, dtype=torch.float32, device=device).repeat(1, members, 1),
            torch.stack([self._noise(batch, step) for step in range(1, steps + 1)]).to(device),
            batch.free,
        )
        forecasts = predicted.unflatten(1, (members, -1))
        scores = [self._scores(*pair) for pair in zip(forecasts, batch.targets.to(device), strict=True)]
        return torch.stack(scores).mean(dim=0)

    def _scores(self, forecast: Tensor, target: Tensor) -> Tensor:
        kind, fairness = self.recipe.kind, self.recipe.fairness
        at_points = self.grid_loss(forecast, target, kind, fairness)
        if not (self.recipe.spectral_weight or self.recipe.power_weight):
            return torch.stack([at_points, torch.zeros_like(at_points), torch.zeros_like(at_points)])
        return torch.stack([at_points, *self.spectral_loss(forecast, target, kind, fairness)])

    def _noise(self, batch: Batch, step: int) -> Tensor:
        """ε ``(member · batch, noise)``, members outermost; zero for the deterministic twin."""
        members, width = self.recipe.ensemble_members, self.variant.architecture.noise_width
        if self.recipe.kind == "mse":
            return torch.zeros(len(batch.samples), width)
        drawn = [
            training_noise(self.recipe.seed, position, sample.time, members, step, width)
            for position, sample in batch.samples
        ]
        return torch.from_numpy(np.stack(drawn, axis=1)).flatten(0, 1)

    def _average(self) -> None:
        """Move the averaged weights; at first faster, so that the random start is soon forgotten."""
        decay = min(self.recipe.ema, (1 + self.done) / (10 + self.done))
        with torch.no_grad():
            for name, weight in self.network.named_parameters():
                self.averaged[name].lerp_(weight, 1 - decay)
