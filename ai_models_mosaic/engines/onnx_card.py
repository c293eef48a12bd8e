"""What an exported graph says of itself, in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..channels import CHANNELS
from ..errors import CheckpointError, OptionError
from ..variants import Variant

METADATA_KEY = "mosaic"
"""Metadata go under one key, as JSON, as in checkpoints."""

FORMAT = 1
"""Of the metadata and the graph's inputs; a file of another is refused."""

INPUTS, OUTPUT = ("history", "progress", "noise"), "next_state"


@dataclass(frozen=True)
class Card:
    """What an exported graph says of itself.

    Parameters
    ----------
    variant : str
        Name of the variant.
    precision : str
        Of the matrix products.
    batch : int or None
        Members that a call takes; None: any number.
    opset : int
        Version of the operators.
    channels : tuple of str
        Names, in order.
    longitude_deg, latitude_deg : tuple of float
        Grid of the state.
    step_hours : int
        Length of a step, h.
    lags_hours : tuple of int
        Hours of the input states relative to the initial time, oldest first.
    noise_width : int
        Width of ε.
    member_bytes : int
        One field of the finest stage, float32: what activations are made of.
    weights_sha256 : str
        Digest of the checkpoint that was exported.
    untrained : bool
        The weights are random and say so.
    licence, source, revision : str or None
        Of the weights.
    format : int
        `FORMAT` of the file.
    """

    variant: str
    precision: str
    batch: int | None
    opset: int
    channels: tuple[str, ...]
    longitude_deg: tuple[float, ...]
    latitude_deg: tuple[float, ...]
    step_hours: int
    lags_hours: tuple[int, ...]
    noise_width: int
    member_bytes: int
    weights_sha256: str
    untrained: bool
    licence: str | None = None
    source: str | None = None
    revision: str | None = None
    format: int = field(default=FORMAT)

    @classmethod
    def from_metadata(cls, path: Path, metadata: Mapping[str, str]) -> Card:
        """Read the metadata of a graph.

        Parameters
        ----------
        path : Path
            The file, for messages.
        metadata : mapping of str to str
            As ONNX Runtime gives them.

        Returns
        -------
        Card
            What the graph says, unchecked but for its format; see `check`.

        Raises
        ------
        CheckpointError
            If they were not written by this package, or by a version too different.
        """
        said = json.loads(metadata.get(METADATA_KEY, "null"))
        if not isinstance(said, dict) or said.get("format") != FORMAT:
            found = f"format {said.get('format')}" if isinstance(said, dict) else "none"
            raise CheckpointError(
                f"{path}: expected a model with metadata of format {FORMAT}, as ai-models-mosaic export-onnx writes "
                f"them, got {found}; export it with this version"
            )
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in said.items()
        }
        return cls(**fields)

    def check(self, path: Path, variant: Variant) -> None:
        """Refuse a graph that does not make the steps of a variant.

        Parameters
        ----------
        path : Path
            The file, for messages.
        variant : Variant
            What is to run.

        Raises
        ------
        OptionError
            If it is of another variant.
        CheckpointError
            If grid, channels or times are not the variant's.
        """
        if self.variant != variant.name:
            raise OptionError(
                f"--onnx-model {path} is of variant {self.variant}, and the forecast of {variant.name}; give --variant "
                f"{self.variant}, or the model of {variant.name}"
            )
        grid = variant.architecture.grid
        pairs = (
            ("channels", self.channels, tuple(channel.name for channel in CHANNELS)),
            ("longitudes", self.longitude_deg, grid.longitude_deg),
            ("latitudes", self.latitude_deg, grid.latitude_deg),
            ("step_hours", self.step_hours, variant.step_hours),
            ("lags_hours", self.lags_hours, variant.lags_hours),
        )
        wrong = [name for name, found, wanted in pairs if found != wanted]
        if wrong:
            raise CheckpointError(
                f"{path}: expected the {', '.join(wrong)} of variant {variant.name}, got others; export it with this "
                "version"
            )
