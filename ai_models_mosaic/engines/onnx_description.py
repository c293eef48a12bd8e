"""What an exported graph says of itself, in its metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..channels import CHANNELS
from ..errors import CheckpointError, OptionError
from ..files import parse_json
from ..variants import Variant
from ..wording.excerpts import first_line, shortened

METADATA_KEY = "mosaic"
"""Metadata go under one key, as JSON, as in checkpoints."""

FORMAT = 1
"""Of the metadata and the graph's inputs; a file of another is refused."""

PRECISIONS = ("float32", "float16")

INPUTS, OUTPUT = ("history", "progress", "noise"), "next_state"


@dataclass(frozen=True)
class GraphDescription:
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
    def from_metadata(cls, path: Path, metadata: Mapping[str, str]) -> GraphDescription:
        """Read the metadata of a graph.

        Parameters
        ----------
        path : Path
            The file, for messages.
        metadata : mapping of str to str
            As ONNX Runtime gives them.

        Returns
        -------
        GraphDescription
            What the graph says, unchecked but for its format; see `check`.

        Raises
        ------
        CheckpointError
            If they were not written by this package, or by a version too different.
        """
        try:
            said = parse_json(metadata.get(METADATA_KEY, "null"))
        except ValueError as error:
            raise CheckpointError(
                f"{path}: expected metadata in JSON, got something else ({first_line(error)})"
            ) from error
        if not isinstance(said, dict) or said.get("format") != FORMAT:
            found = f"format {said.get('format')}" if isinstance(said, dict) else "none"
            raise CheckpointError(
                f"{path}: expected a model with metadata of format {FORMAT}, as ai-models-mosaic export-onnx writes "
                f"them, got {found}; export it with this version"
            )
        _refuse_other_fields(path, said, {field.name for field in fields(cls)})
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in said.items()
        }
        return cls(**values)

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


def _refuse_other_fields(path: Path, said: Mapping[str, Any], known: set[str]) -> None:
    """Raise unless metadata have the fields of a card, and those that a step depends on are of their kinds."""
    required = FORM.keys()
    for what, names in (("lack", required - said.keys()), ("have the unknown", said.keys() - known)):
        if names:
            raise CheckpointError(
                f"{path}: its metadata {what} {', '.join(sorted(names))}; export it with this version"
            )
    for name, (expected, fits) in FORM.items():
        if not fits(said[name]):
            raise CheckpointError(f"{path}: expected {name} to be {expected}, got {shortened(said[name])}")
    for name in ("licence", "source", "revision"):
        if not isinstance(said.get(name), str | None):
            raise CheckpointError(f"{path}: expected {name} to be a text or null, got {shortened(said[name])}")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63


def _is_list(kind: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(map(kind, value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


FORM: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    **dict.fromkeys(("variant", "weights_sha256"), ("a text", _is_text)),
    "precision": (" or ".join(PRECISIONS), lambda value: isinstance(value, str) and value in PRECISIONS),
    **dict.fromkeys(("opset", "step_hours", "noise_width", "member_bytes"), ("a whole number from 1", _is_whole)),
    **dict.fromkeys(("longitude_deg", "latitude_deg", "lags_hours"), ("a list of numbers", _is_list(_is_number))),
    "batch": ("a whole number from 1, or null", lambda value: value is None or _is_whole(value)),
    "channels": ("a list of texts", _is_list(_is_text)),
    "untrained": ("true or false", lambda value: isinstance(value, bool)),
}
"""Fields that metadata must have, in words and as a test."""
