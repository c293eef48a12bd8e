"""One step of the network as an ONNX graph, from physical states to physical states.

Weights, normalisation and static fields are inside, and what the file is stands in its metadata:
a run needs neither a checkpoint nor PyTorch.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..channels import CHANNELS
from ..checkpoints.files import LICENCE, Assets, check_assets, expected_weights, origin, read_companions
from ..checkpoints.format import Statistics, build_network, read_checkpoint
from ..checkpoints.integrity import refuse_other
from ..errors import OptionError, OutputError
from ..model.network import MosaicNetwork
from ..model.scanned import exportable
from ..variants import Variant
from .onnx import data_path
from .onnx_description import INPUTS, METADATA_KEY, OUTPUT, GraphDescription

if TYPE_CHECKING:
    import onnx_ir

LOG = logging.getLogger(__name__)

OPSET = 20
"""The newest that every provider of ONNX Runtime of the last two years knows."""

INSIDE_BYTES = 5e8
"""Weights up to this size are written into the graph's own file; protobuf ends at 2 GB."""

PRECISIONS = {"float32": torch.float32, "float16": torch.float16}

NEEDED = ("onnx", "onnxscript")


@dataclass(frozen=True)
class Form:
    """The form of a graph.

    Parameters
    ----------
    precision : str
        A name in `PRECISIONS`, of the matrix products and their weights.
    batch : int or None
        Members that a call takes; None: any number.

    Raises
    ------
    OptionError
        If a value makes no sense.
    """

    precision: str = "float32"
    batch: int | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise OptionError(f"--precision: expected {' or '.join(PRECISIONS)}, got {self.precision}")
        if self.batch is not None and self.batch < 1:
            raise OptionError(f"--batch: expected at least 1, got {self.batch}")


DEFAULT_FORM = Form()


class Step(nn.Module):
    """Normalise, predict, and turn back to physical units.

    Parameters
    ----------
    network : MosaicNetwork
        As `model.scanned.exportable` makes it.
    statistics : Statistics
        Normalisation per channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: MosaicNetwork, statistics: Statistics) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.from_numpy(statistics.mean).float())
        self.register_buffer("std", torch.from_numpy(statistics.std).float())

    def forward(self, history: Tensor, progress: Tensor, noise: Tensor) -> Tensor:
        """As `engines.states.StepsOnHost.step`; progress is ``(2,)``."""
        predicted: Tensor = self.network((history - self.mean) / self.std, progress, noise)
        return predicted * self.std + self.mean


def export_onnx(variant: Variant, assets: Assets, path: Path, form: Form = DEFAULT_FORM) -> GraphDescription:
    """Write the step of a variant as an ONNX model.

    Parameters
    ----------
    variant : Variant
        What to export.
    assets : Assets
        Its files.
    path : Path
        Ends in ``.onnx``; beside it ``NAME.onnx.data`` where the weights are large. Both appear
        under their names only when they are complete and have passed ONNX's checker.
    form : Form
        Precision and batch.

    Returns
    -------
    GraphDescription
        What the file says of itself.

    Raises
    ------
    OptionError
        If the exporter is not installed.
    CheckpointError
        If a file is unsafe, incomplete or of another variant.
    OutputError
        If the model cannot be written there.
    """
    check_installed()
    if path.suffix != ".onnx" or not path.parent.is_dir():
        raise OutputError(f"{path}: expected the name of an .onnx file in a folder that exists")
    check_assets(variant, assets, full=True)
    checkpoint = read_checkpoint(assets.checkpoint)
    # The file may be another since it was checked.
    refuse_other(checkpoint.path, expected_weights(variant, assets), checkpoint.sha256)
    companions = read_companions(variant, assets, checkpoint)
    network = build_network(variant.architecture, checkpoint, companions.static_fields)
    said = origin(assets.checkpoint)
    licence = said["licence"] or (None if checkpoint.untrained else LICENCE)
    card = make_card(variant, form, checkpoint.sha256, untrained=checkpoint.untrained)
    card = GraphDescription(**{**asdict(card), **said, "licence": licence})
    LOG.info("Exporting variant %s in %s; this takes minutes", variant.name, form.precision)
    model = make_model(network, companions.statistics, form)
    model.metadata_props[METADATA_KEY] = json.dumps(asdict(card), sort_keys=True)
    write_model(model, path)
    return card


def make_card(variant: Variant, form: Form, weights_sha256: str, *, untrained: bool) -> GraphDescription:
    """What a graph of a variant says of itself, but for where its weights came from.

    Parameters
    ----------
    variant : Variant
        What is exported.
    form : Form
        Precision and batch.
    weights_sha256 : str
        Digest of the checkpoint.
    untrained : bool
        The weights are random and say so.

    Returns
    -------
    GraphDescription
        Without licence, source and revision.
    """
    architecture = variant.architecture
    stage = architecture.stages[0]
    return GraphDescription(
        variant=variant.name,
        precision=form.precision,
        batch=form.batch,
        opset=OPSET,
        channels=tuple(channel.name for channel in CHANNELS),
        longitude_deg=architecture.grid.longitude_deg,
        latitude_deg=architecture.grid.latitude_deg,
        step_hours=variant.step_hours,
        lags_hours=variant.lags_hours,
        noise_width=architecture.noise_width,
        member_bytes=stage.pixels * stage.width * 4,
        weights_sha256=weights_sha256,
        untrained=untrained,
    )


def make_model(network: MosaicNetwork, statistics: Statistics, form: Form = DEFAULT_FORM) -> onnx_ir.Model:
    """The graph of a network, simplified, in memory.

    Parameters
    ----------
    network : MosaicNetwork
        With its weights.
    statistics : Statistics
        Normalisation per channel.
    form : Form
        Precision and batch.

    Returns
    -------
    onnx_ir.Model
        With its weights.

    Raises
    ------
    RuntimeError
        If the exporter gives no program.
    """
    from onnx_ir.passes import common
    from onnxscript import optimizer

    architecture = network.architecture
    step = Step(exportable(network, PRECISIONS[form.precision]), statistics).eval()
    # An open batch is traced with two members: PyTorch takes one for a size that is fixed.
    batch = form.batch or 2
    history = torch.zeros(batch, architecture.history, *architecture.grid.shape, architecture.channels)
    noise = torch.zeros(batch, architecture.noise_width)
    members = None if form.batch else {0: torch.export.Dim.DYNAMIC}
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            step,
            (history, torch.zeros(2), noise),
            dynamo=True,
            opset_version=OPSET,
            input_names=INPUTS,
            output_names=[OUTPUT],
            dynamic_shapes=(members, None, members),
            optimize=False,
            verbose=False,
        )
        if program is None:
            raise RuntimeError("PyTorch's exporter returned nothing")
        model: onnx_ir.Model = program.model
        if form.batch is None:
            _name_batch(model)
        # What PyTorch's own rewriting does beyond this takes longer than the export.
        common.InlinePass()(model)
        optimizer.fold_constants(model)
        common.RemoveUnusedNodesPass()(model)
        # All blocks of a stage have the same rotary tables.
        common.DeduplicateHashedInitializersPass()(model)
        # Every node carries the places in the source that it came from, on this machine.
        common.ClearMetadataAndDocStringPass()(model)
    return model


def write_model(model: onnx_ir.Model, path: Path) -> None:
    """Write a graph, check it, and only then give it its name.

    Parameters
    ----------
    model : onnx_ir.Model
        From `make_model`.
    path : Path
        Ends in ``.onnx``.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    import onnx
    import onnx_ir

    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    data = data_path(path)
    try:
        # The graph names its data by their last name, so both are made in a folder of their own.
        with tempfile.TemporaryDirectory(prefix=path.name, suffix=".partial", dir=path.parent) as folder:
            made = Path(folder) / path.name
            onnx_ir.save(model, made, external_data=data.name if size > INSIDE_BYTES else None)
            onnx.checker.check_model(str(made), full_check=True)
            path.unlink(missing_ok=True)
            data.unlink(missing_ok=True)
            for part in (data_path(made), made):
                if part.is_file():
                    shutil.move(part, path.parent / part.name)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


def check_installed() -> None:
    """Say what to install where the exporter's packages are absent.

    Raises
    ------
    OptionError
        If they are.
    """
    absent = [name for name in NEEDED if find_spec(name) is None]
    if absent:
        raise OptionError(f"export-onnx needs {' and '.join(absent)}: pip install 'ai-models-mosaic[export]'")


def _name_batch(model: onnx_ir.Model) -> None:
    """Give the first dimension of states and noise a name for people."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.name != INPUTS[1] and value.shape is not None:
            value.shape[0] = "member"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep from the user what the exporter says to its own developers."""
    names = ("torch.onnx._internal.exporter._registration", "torch.export", "onnx_ir", "onnxscript")
    before: list[tuple[Any, int]] = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        try:
            for logger, _ in before:
                logger.setLevel(logging.CRITICAL)
            yield
        finally:
            for logger, level in before:
                logger.setLevel(level)
