"""Whether a recipe trains on this machine: two updates on random states, and gradients beside those of the CPU."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import torch
from torch import Tensor

from ..arrays import Float32Array, FloatArray
from ..channels import CHANNELS
from ..engines.warm_up import small_architectures
from ..errors import OptionError
from ..model.buffers import make_buffers
from ..model.flops import step_flops
from ..model.network import MosaicNetwork, initialise
from ..variants import MINI, Variant
from .archive import Archive
from .processes import Processes
from .recipe import Phase, Recipe
from .statistics import ArchiveStatistics
from .trainer import BACKENDS, HALF, Trainer

BEGIN = datetime(2000, 1, 1)
UPDATES = 2
"""Of which the second is timed: the first compiles, and finds memory."""

AGREEMENT = 1e-3
"""Largest difference of a gradient from the CPU's, over the largest of its matrix: products in float32 round to a
hundredth of that, and a wrong operator is off by a tenth at least."""

PRODUCT = {"cuda": 8192, "cpu": 1024}
"""Side of the square product whose rate is taken for the device's."""


class RandomStates(Archive):
    """States of unit variance without a store, one for every initial time and target of one epoch.

    Parameters
    ----------
    variant : Variant
        Whose grid and step they have.
    count : int
        How many follow one another.
    """

    def __init__(self, variant: Variant, count: int) -> None:
        self.path, self.grid = "random states", variant.architecture.grid
        self.times = [BEGIN + timedelta(hours=variant.step_hours) * index for index in range(count)]
        self._index_of = {moment: index for index, moment in enumerate(self.times)}

    def state(self, time: datetime) -> Float32Array:
        """The state of a time, ``(lon, lat, channel)``, the same whenever it is asked for."""
        generator = np.random.default_rng(self._index_of[time])
        return generator.standard_normal((*self.grid.shape, len(CHANNELS)), dtype=np.float32)

    def static_fields(self) -> FloatArray:
        """Those of a planet without land, ``(lon, lat, 3)``."""
        return np.zeros((*self.grid.shape, 3))


@dataclass(frozen=True)
class Check:
    """What was found.

    Parameters
    ----------
    device, precision : str
        Where updates were made, and in which precision their products.
    seconds : float
        Of the second update.
    operations : float
        Of its products, as counted.
    product_rate : float
        Operations per second of a large product on the same device, in the same precision.
    memory_bytes : int or None
        At the peak, of a GPU; None on a CPU.
    losses : tuple of float
        Of the updates.
    gradient_difference : float
        Largest difference from the CPU's, in float32, over the largest gradient of the same matrix.
    """

    device: str
    precision: str
    seconds: float
    operations: float
    product_rate: float
    memory_bytes: int | None
    losses: tuple[float, ...]
    gradient_difference: float

    def lines(self) -> list[str]:
        """For people."""
        rate = self.operations / self.seconds
        return [
            f"device: {self.device}, products in {self.precision}",
            f"an update: {self.seconds:.3f} s, {self.operations / 1e12:.3g} TFLOP, {rate / 1e12:.3g} TFLOP/s: "
            f"{rate / self.product_rate:.0%} of a large product ({self.product_rate / 1e12:.3g} TFLOP/s)",
            "memory at the peak: "
            + ("not told on a CPU" if self.memory_bytes is None else _gigabytes(self.memory_bytes)),
            f"losses: {', '.join(f'{loss:.4f}' for loss in self.losses)}",
            f"gradients of a small network in float32: {self.gradient_difference:.1e} from those of the CPU, "
            f"at most {AGREEMENT:.0e} expected",
        ]


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


def check(recipe: Recipe, among: Processes) -> Check:
    """Make two updates of a recipe's first phase with random states, and compare gradients.

    Parameters
    ----------
    recipe : Recipe
        Its stores are not read.
    among : Processes
        One process alone.

    Returns
    -------
    Check
        As it was found.

    Raises
    ------
    OptionError
        If a loss is not finite, or gradients differ from those of the CPU by more than `AGREEMENT`.
    """
    on_gpu = among.device.type == "cuda"
    trainer = _trainer(recipe, among)
    ends, losses = [time.perf_counter()], []
    for update in trainer.updates():
        _wait(among.device)
        ends.append(time.perf_counter())
        losses.append(update.loss)
    checked = Check(
        device=torch.cuda.get_device_name(among.device) if on_gpu else f"CPU ({torch.get_num_threads()} threads)",
        precision=recipe.precision,
        seconds=ends[-1] - ends[-2],
        operations=update_operations(trainer.recipe),
        product_rate=product_rate(among.device, HALF[recipe.precision]),
        memory_bytes=torch.cuda.max_memory_allocated(among.device) if on_gpu else None,
        losses=tuple(losses),
        gradient_difference=gradient_difference(among.device),
    )
    _refuse_wrong(checked)
    return checked


def _refuse_wrong(checked: Check) -> None:
    found = "\n".join(f"  {line}" for line in checked.lines())
    if not np.isfinite(checked.losses).all():
        raise OptionError(f"expected finite losses, got others; try precision 'bfloat16' or 'float32':\n{found}")
    # Not <= is also true of NaN.
    if not checked.gradient_difference <= AGREEMENT:
        raise OptionError(f"training goes wrong on this device: its gradients are not those of the CPU:\n{found}")


def _trainer(recipe: Recipe, among: Processes) -> Trainer:
    """Of the first phase's batch and roll-out, on as many states as its two updates have initial times for."""
    first = recipe.phases[0]
    phase = Phase(UPDATES, first.batch, first.learning_rate, rollout=first.rollout)
    shortened = replace(recipe, phases=(phase,), start_from="")
    variant, channels = recipe.table, len(CHANNELS)
    states = RandomStates(variant, UPDATES * phase.batch + variant.architecture.history - 1 + phase.rollout)
    one, spectrum = np.ones(channels), np.ones((recipe.spectral_degree + 1, channels))
    return Trainer(shortened, [states], ArchiveStatistics(np.zeros(channels), one, one, spectrum), among)


def update_operations(recipe: Recipe) -> float:
    """Operations of the products of one update of a recipe's first phase.

    Backward takes twice what forward does, and forward comes again where activations of steps, and again where those of
    blocks, are not kept.
    """
    phase = recipe.phases[0]
    passes = 3 + recipe.recompute_blocks + (recipe.recompute and phase.rollout > 1)
    steps = phase.batch * recipe.ensemble_members * phase.rollout
    return float(passes * steps * step_flops(recipe.table.architecture).total)


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large square product, the better of two."""
    side = PRODUCT[device.type]
    left, right = (torch.ones(side, side, dtype=dtype, device=device) for _ in range(2))
    taken = []
    for _ in range(3):
        _wait(device)
        start = time.perf_counter()
        torch.mm(left, right)
        _wait(device)
        taken.append(time.perf_counter() - start)
    return float(2 * side**3 / min(taken[1:]))


def gradient_difference(device: torch.device) -> float:
    """Largest difference between the gradients of a small network on a device and on the CPU, in float32.

    Parameters
    ----------
    device : torch.device
        The one to compare.

    Returns
    -------
    float
        Over the largest gradient of the same matrix on the CPU.
    """
    expected, found = (_gradients(place) for place in (torch.device("cpu"), device))
    smallest = torch.finfo(torch.float32).tiny
    ratios = [
        (one - other).abs().max() / one.abs().max().clamp(min=smallest)
        for one, other in zip(expected, found, strict=True)
    ]
    # Of tensors, the largest is NaN where one is.
    return float(torch.stack(ratios).max())


def _gradients(device: torch.device) -> Sequence[Tensor]:
    """Of the squared output of a network of few pixels, by parameter, on the CPU."""
    architecture = small_architectures(MINI.architecture)[0]
    network, generator = MosaicNetwork(architecture), torch.Generator().manual_seed(0)
    initialise(network, generator)
    names = [name for name, _ in network.named_buffers()]
    network.load_state_dict(
        make_buffers(architecture, names, {}, np.zeros((*architecture.grid.shape, 3))), strict=False
    )
    network.use_backend(BACKENDS[device.type])
    network = network.to(device)
    shape = (2, architecture.history, *architecture.grid.shape, architecture.channels)
    states, noise = (
        torch.randn(shape, generator=generator),
        torch.randn(2, architecture.noise_width, generator=generator),
    )
    made = network(states.to(device), torch.zeros(2, device=device), noise.to(device))
    made.square().mean().backward()
    return [weight.grad.cpu() for weight in network.parameters() if weight.grad is not None]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
