"""Strict and safe loading of network weights.

Two layouts are read: the released ``.pt`` (a torch zip file with the state dict, or with it under
``model_state_dict``) and safetensors. Both are mapped from a private copy in memory (`held_file`), and nothing is
ever unpickled but tensors and plain containers.
Source: specification of the network, section 10.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from ..arrays import FloatArray
from ..errors import CheckpointError
from ..files import whole_path
from ..model.buffers import make_buffers
from ..model.network import MosaicNetwork
from ..variants import Architecture
from ..wording.excerpts import MENTIONED, mention, shortened
from .held_file import HeldAhead, held
from .tensor_files import METADATA_KEY, parsed, read_safetensors, read_torch, refuse_strange_tensors

KEY_PREFIX = "model."
STATISTICS = ("statistics.state_mean", "statistics.state_std")
"""Keys of a checkpoint of our own that need no statistics file: float64 ``(channel,)`` each."""


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation per channel, physical units, float64 ``(channel,)``.

    Raises
    ------
    CheckpointError
        If they are not finite, or a standard deviation is not positive.
    """

    mean: FloatArray
    std: FloatArray

    def __post_init__(self) -> None:
        if not (np.isfinite(self.mean).all() and np.isfinite(self.std).all() and (self.std > 0).all()):
            raise CheckpointError("expected finite means and positive standard deviations in the statistics")


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint file.

    Parameters
    ----------
    path : Path
        Where it came from, for messages.
    state : mapping of str to Tensor
        Parameters and buffers by key, without the leading ``model.``.
    statistics : Statistics or None
        Normalisation, where the file carries it.
    metadata : mapping of str to str
        What the file says of itself.
    digest : callable or None
        Gives the SHA-256 of what was read.
    """

    path: Path
    state: Mapping[str, torch.Tensor]
    statistics: Statistics | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    digest: Callable[[], str] | None = None

    @property
    def sha256(self) -> str:
        """Digest of what was read.

        Raises
        ------
        CheckpointError
            If that was no file.
        """
        if self.digest is None:
            raise CheckpointError(f"{self.path} was not read from a file, and has no digest")
        return self.digest()

    @property
    def untrained(self) -> bool:
        """Whether the weights are random and say so."""
        return self.metadata.get("untrained") == "true"


def read_checkpoint(path: Path, ahead: HeldAhead | None = None) -> Checkpoint:
    """Read a checkpoint: what becomes of the file afterwards changes nothing.

    Parameters
    ----------
    path : Path
        A ``.safetensors`` file, or a torch zip file of any other name.
    ahead : HeldAhead or None
        A copy of it that is being made already.

    Raises
    ------
    CheckpointError
        If the file is absent, damaged, of another kind, being written to, or needs unpickling of anything but
        tensors and plain containers.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: expected a .pt or .safetensors file")
    with held(path) if ahead is None else ahead() as copy:
        tensors, metadata = (
            read_safetensors(path, copy.place) if path.suffix == ".safetensors" else (read_torch(path, copy.place), {})
        )
    refuse_strange_tensors(path, tensors)
    twice = [key for key in tensors if KEY_PREFIX + key in tensors]
    if twice:
        raise CheckpointError(f"{path} holds both with and without {KEY_PREFIX!r}: {', '.join(twice[:MENTIONED])}")
    found = {key.removeprefix(KEY_PREFIX): tensor for key, tensor in tensors.items()}
    carried = [found.pop(key).detach().double().numpy() for key in STATISTICS if key in found]
    if len(carried) == 1:
        raise CheckpointError(f"{path} holds only one of {' and '.join(STATISTICS)}")
    return Checkpoint(path, found, Statistics(*carried) if carried else None, metadata, copy.digest)


def build_network(
    architecture: Architecture, checkpoint: Checkpoint, static_fields: FloatArray | None = None
) -> MosaicNetwork:
    """The network of a checkpoint; its tensors are those of the file, not copies.

    Buffers in the file win over computed ones.

    Parameters
    ----------
    architecture : Architecture
        What the checkpoint must hold.
    checkpoint : Checkpoint
        Parameters and perhaps buffers.
    static_fields : array (lon, lat, 3) or None
        Raw static fields; needed where the file has no ``static_vars``.

    Raises
    ------
    CheckpointError
        If a parameter is missing, a key unexpected, or a shape or dtype wrong; names all.
    """
    network = fitting_network(architecture, checkpoint)
    state = dict(checkpoint.state)
    try:
        state |= make_buffers(architecture, network.state_dict().keys() - state.keys(), state, static_fields)
    except LookupError as error:
        raise CheckpointError(f"{checkpoint.path} carries no static fields, and none were found: {error}") from error
    network.load_state_dict(state, assign=True)
    if _without_selected(checkpoint):
        network.close_selected()
    return network.eval().requires_grad_(False)


def _without_selected(checkpoint: Checkpoint) -> bool:
    """Whether the recipe that the weights were trained by closes the selected branch."""
    recipe = parsed(checkpoint.path, checkpoint.metadata.get("recipe", "{}"))
    found = recipe.get("without_selected", False) if isinstance(recipe, dict) else None
    if not isinstance(found, bool):
        raise CheckpointError(
            f"{checkpoint.path}: expected a recipe with without_selected true or false, got {shortened(recipe)}"
        )
    return found


def fitting_network(architecture: Architecture, checkpoint: Checkpoint) -> MosaicNetwork:
    """The network that a checkpoint fits, without numbers; arguments and errors as `build_network`."""
    with torch.device("meta"):
        network = MosaicNetwork(architecture)
    _refuse_misfits(checkpoint, network.state_dict(), {name for name, _ in network.named_parameters()})
    _refuse_strange_neighbours(checkpoint, architecture)
    return network


def _refuse_misfits(checkpoint: Checkpoint, expected: Mapping[str, torch.Tensor], parameters: set[str]) -> None:
    """Raise unless the checkpoint's keys, shapes and dtypes are those of the network."""
    state = checkpoint.state
    problems = [
        mention("missing parameters", sorted(parameters - state.keys())),
        mention("unexpected keys", sorted(state.keys() - expected.keys())),
        mention(
            "wrong shapes",
            [
                f"{key} {tuple(state[key].shape)} instead of {tuple(wanted.shape)}"
                for key, wanted in expected.items()
                if key in state and state[key].shape != wanted.shape
            ],
        ),
        mention(
            "wrong dtypes",
            [
                f"{key} {state[key].dtype} instead of {wanted.dtype}"
                for key, wanted in expected.items()
                if key in state and state[key].dtype != wanted.dtype
            ],
        ),
    ]
    if any(problems):
        details = "; ".join(problem for problem in problems if problem)
        raise CheckpointError(f"{checkpoint.path} does not fit the network: {details}. Is it another variant's?")


def _refuse_strange_neighbours(checkpoint: Checkpoint, architecture: Architecture) -> None:
    """Raise if neighbours that the checkpoint carries are no points of the grids."""
    sources = {"interp_to_hp": architecture.grid.size, "interp_to_ll": architecture.stages[0].pixels}
    for group, points in sources.items():
        neighbours = checkpoint.state.get(f"{group}.neighbors")
        if neighbours is not None and (int(neighbours.min()) < 0 or int(neighbours.max()) >= points):
            raise CheckpointError(f"{checkpoint.path}: expected {group}.neighbors from 0 to {points - 1}, got others")


def save_checkpoint(
    path: Path, state: Mapping[str, torch.Tensor], statistics: Statistics | None, metadata: Mapping[str, str]
) -> None:
    """Write a safetensors checkpoint; it appears under its name only when complete.

    Parameters
    ----------
    path : Path
        Ends in ``.safetensors``.
    state : mapping of str to Tensor
        Parameters, and any buffers that shall win over computed ones.
    statistics : Statistics or None
        Normalisation; with it the file is self-contained.
    metadata : mapping of str to str
        What the file says of itself.
    """
    tensors = {KEY_PREFIX + key: tensor.contiguous() for key, tensor in _unshared(state).items()}
    if statistics is not None:
        tensors |= {
            key: torch.from_numpy(np.asarray(values, dtype=np.float64))
            for key, values in zip(STATISTICS, (statistics.mean, statistics.std), strict=True)
        }
    with whole_path(path) as partial:
        save_file(tensors, partial, metadata={METADATA_KEY: json.dumps(dict(metadata), sort_keys=True)})


def _unshared(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same tensors, with copies of those whose memory another has: safetensors knows no sharing."""
    seen: set[int] = set()
    unshared = {}
    for key, tensor in state.items():
        memory = tensor.untyped_storage().data_ptr()
        unshared[key] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return unshared
