"""The one small file that describes a training run."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from ..errors import OptionError
from ..variants import VARIANTS, Variant

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KINDS = ("crps", "mse")
OPTIMISERS = ("adamw", "muon")
PRECISIONS = ("float32", "bfloat16", "float16")

OF_FORECASTS = ("attention_backend", "cuda_graphs", "compile", "engine")
"""Options of forecasts that change how the network computes, and that training cannot take."""


@dataclass(frozen=True)
class Phase:
    """A part of a run with a learning-rate cycle and a roll-out length of its own.

    Parameters
    ----------
    updates : int
        Optimiser steps.
    batch : int
        Initial times per update, over all processes.
    learning_rate : float
        At its peak; it warms up linearly and falls to zero as a cosine.
    warm_up : int
        Updates until the peak.
    rollout : int
        Model steps per sample that are scored, with gradients through all of them.
    free_steps : int
        At most so many steps come before these, without score or gradient: how many, from 0, is drawn for every update.

    Raises
    ------
    OptionError
        If a number is out of range.
    """

    updates: int
    batch: int
    learning_rate: float
    warm_up: int = 0
    rollout: int = 1
    free_steps: int = 0

    def __post_init__(self) -> None:
        if min(self.updates, self.batch, self.rollout) < 1 or not 0 < self.learning_rate < math.inf:
            raise OptionError(f"expected positive updates, batch, rollout and learning_rate, got {self}")
        if not 0 <= self.warm_up < self.updates:
            raise OptionError(f"expected a warm_up from 0 to below the {self.updates} updates, got {self.warm_up}")
        if self.free_steps < 0:
            raise OptionError(f"expected free_steps from 0, got {self.free_steps}")

    @property
    def horizon(self) -> int:
        """Model steps of the longest roll-out."""
        return self.free_steps + self.rollout


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run computes.

    Parameters
    ----------
    variant : str
        Whose architecture and step.
    training, validation : tuple of str
        Zarr stores, relative to the folder given on the command line.
    phases : tuple of Phase
        In order.
    kind : str
        ``crps``, or ``mse`` for the deterministic twin: one member, zero noise.
    members : int
        Members per sample.
    fairness : float
        α of the almost fair CRPS.
    spectral_weight : float
        Weight of the score of spherical-harmonic coefficients beside that at points.
    power_weight : float
        Weight of the score of the power by degree, which asks members for the truth's spectra.
    spectral_degree : int
        Highest degree that these two see.
    optimiser : str
        ``adamw``, or ``muon`` for the inner matrices and AdamW for the others.
    weight_decay, clip, ema : float
        The optimisers' decay, the largest gradient norm, the decay of the averaged weights.
    betas : tuple of (float, float)
        AdamW's.
    noise_rate : float
        Multiplies the learning rate of the maps from noise.
    recompute : bool
        In roll-outs, compute activations a second time instead of keeping those of all steps: memory of one step for
        a third more time.
    recompute_blocks : bool
        Within a step, compute every transformer block a second time instead of keeping its activations: memory of one
        block for a third more time.
    compiled : bool
        Compile the transformer blocks before the first update: faster, once a minute has passed.
    precision : str
        Of the matrix products.
    seed : int
        Of weights, order and noise.
    quiet : tuple of str
        Blocks by the start of their names whose perturbation stays zero, for ablations: ``encoder_stages``.
    without_selected : bool
        Close the gates of the selected branch, for ablations.
    start_from : str
        Checkpoint whose weights to go on from, with its normalisation; empty to begin afresh.
    validate_every : int
        Updates between validations.
    validation_starts, validation_members : int
        Initial times and members of a validation.

    Raises
    ------
    OptionError
        If a value is unknown or out of range.
    """

    variant: str
    training: tuple[str, ...]
    validation: tuple[str, ...]
    phases: tuple[Phase, ...]
    kind: str = "crps"
    members: int = 2
    fairness: float = 0.95
    spectral_weight: float = 0.0
    power_weight: float = 0.0
    spectral_degree: int = 20
    optimiser: str = "adamw"
    recompute: bool = True
    recompute_blocks: bool = False
    compiled: bool = False
    weight_decay: float = 0.05
    clip: float = 1.0
    ema: float = 0.999
    betas: tuple[float, float] = (0.9, 0.95)
    noise_rate: float = 1.0
    precision: str = "float32"
    seed: int = 0
    quiet: tuple[str, ...] = ()
    without_selected: bool = False
    start_from: str = ""
    validate_every: int = 500
    validation_starts: int = 8
    validation_members: int = 4

    def __post_init__(self) -> None:
        for name, value, known in (
            ("variant", self.variant, tuple(VARIANTS)),
            ("kind", self.kind, KINDS),
            ("optimiser", self.optimiser, OPTIMISERS),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in known:
                raise OptionError(f"recipe: expected {name} to be one of {', '.join(known)}, got {value!r}")
        if self.kind == "crps" and self.members < 2:
            raise OptionError(f"recipe: a CRPS needs at least 2 members of the same input, got {self.members}")
        if self.kind == "mse" and self.power_weight:
            raise OptionError(
                "recipe: expected no power_weight for kind 'mse': the twin is to see its squared error alone"
            )
        if not (0 <= self.power_weight < math.inf and 0 < self.noise_rate < math.inf):
            raise OptionError("recipe: expected a power_weight from 0, and a noise_rate above 0")
        if not (0 <= self.fairness <= 1 and 0 <= self.ema < 1 and self.clip > 0 and self.spectral_weight >= 0):
            raise OptionError("recipe: expected fairness and ema within 0 … 1, clip above 0, spectral_weight from 0")
        if not (0 <= self.seed < 2**63 and 0 <= self.weight_decay < math.inf and self.spectral_degree >= 0):
            raise OptionError("recipe: expected a seed from 0 to 2**63 - 1, weight_decay and spectral_degree from 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise OptionError(f"recipe: expected betas from 0 to below 1, got {self.betas}")
        if min(self.validate_every, self.validation_starts, self.validation_members) < 1:
            raise OptionError("recipe: expected validate_every, validation_starts and validation_members from 1")
        if not (self.training and self.validation and self.phases):
            raise OptionError("recipe: expected at least one store to train on, one to validate on, and one phase")

    @property
    def table(self) -> Variant:
        """The variant that is trained."""
        return VARIANTS[self.variant]

    @property
    def ensemble_members(self) -> int:
        """Members per sample: one for the deterministic twin."""
        return self.members if self.kind == "crps" else 1

    @property
    def updates(self) -> int:
        """Optimiser steps of all phases."""
        return sum(phase.updates for phase in self.phases)

    def phase_of(self, update: int) -> tuple[Phase, int]:
        """The phase of an update (from 0), and the update's number within it.

        Raises
        ------
        OptionError
            If the run is over by then.
        """
        for phase in self.phases:
            if update < phase.updates:
                return phase, update
            update -= phase.updates
        raise OptionError(f"the recipe has {self.updates} updates")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as the file has them and as checkpoints record them."""
        return dataclasses.asdict(self)


def read_recipe(path: Path) -> Recipe:
    """Read a TOML file whose keys are the fields of `Recipe`, its phases in ``[[phases]]``.

    Raises
    ------
    OptionError
        If the file is absent, is not TOML, or has an unknown, missing or wrong key.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise OptionError(f"{path} cannot be read as a recipe: {error}") from error
    return recipe_of(found, str(path))


def recipe_of(found: Mapping[str, Any], where: str) -> Recipe:
    """A recipe from plain values; `where` is for messages. Errors as `read_recipe`."""
    said = found.get("phases", [])
    if not isinstance(said, list | tuple) or not all(isinstance(phase, Mapping) for phase in said):
        raise OptionError(f"{where}: expected phases as tables, each below [[phases]], got {said!r}")
    phases = tuple(_made(Phase, phase, f"{where}, phase {index}") for index, phase in enumerate(said, 1))
    recipe: Recipe = _made(Recipe, {**found, "phases": phases}, where)
    return recipe


def _made(kind: Any, found: Mapping[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    foreign = [name for name in OF_FORECASTS if name in found]
    if foreign:
        raise OptionError(
            f"{where}: {', '.join(foreign)} can be chosen for forecasts only: training needs gradients, which the "
            "attention backend reference and PyTorch's own operators have; leave it out (compiled = true compiles)"
        )
    unknown = sorted(found.keys() - hints.keys())
    if unknown:
        raise OptionError(f"{where}: unknown {', '.join(unknown)}; expected some of {', '.join(hints)}")
    required = {field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING}
    missing = sorted(required - found.keys())
    if missing:
        raise OptionError(f"{where}: {', '.join(missing)} missing")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
    for name, value in values.items():
        wanted = hints[name] if isinstance(hints[name], type) else tuple
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            values[name] = float(value)
        elif not isinstance(value, wanted) or isinstance(value, bool) is not (wanted is bool):
            raise OptionError(f"{where}: expected {name} to be a {wanted.__name__}, got {value!r}")
        if isinstance(value, tuple) and not _holds(value, hints[name]):
            raise OptionError(f"{where}: expected {name} to be {hints[name]}, got {value!r}")
    return kind(**values)


def _holds(value: tuple[object, ...], hint: Any) -> bool:
    """Whether the items of a tuple are what its type says, such as ``tuple[str, ...]``."""
    kinds = get_args(hint)
    wanted = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
    # A whole number is one with a fraction, too.
    accepted = [(int, float) if kind is float else kind for kind in wanted]
    return len(value) == len(wanted) and all(map(isinstance, value, accepted))
