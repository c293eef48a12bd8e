"""Exported graphs that several tests share: an export takes seconds, so each is made once per run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import parity
import pytest
import tiny
from filelock import FileLock

from ai_models_mosaic.checkpoints.format import Statistics, build_network
from ai_models_mosaic.cli import main
from ai_models_mosaic.engines.onnx_description import METADATA_KEY
from ai_models_mosaic.engines.onnx_export import Form, make_card, make_model, write_model

MEAN, STD = np.array([280.0, 1e5, 5.5e4, -3.0, 0.002]), np.array([20.0, 1e3, 3e3, 10.0, 1e-3])
STATISTICS = Statistics(MEAN, STD)
DATA = Path(__file__).parent / "data"


def tiny_network():
    return build_network(tiny.ARCHITECTURE, tiny.checkpoint_of(tiny.parameters()), tiny.STATICS)


def _write(path: Path, network, statistics: Statistics, form: Form) -> None:
    model = make_model(network, statistics, form)
    card = make_card(tiny.VARIANT, form, "0" * 64, untrained=False)
    model.metadata_props[METADATA_KEY] = json.dumps(asdict(card))
    write_model(model, path)


def _tiny(form: Form) -> Callable[[Path], None]:
    return lambda path: _write(path, tiny_network(), STATISTICS, form)


def _parity(path: Path) -> None:
    """In the units of a parity file, which are normalised: nothing is left to normalise."""
    network, case = parity.load(DATA / f"{path.stem}.npz")
    channels = network.architecture.channels
    form = Form(batch=len(case["noise"]))
    _write(path, network, Statistics(np.zeros(channels), np.ones(channels)), form)


def _mini(*more: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        assert main(["export-onnx", "--variant", "mini", "--batch", "1", *more, "--output", str(path)]) == 0

    return write


MAKERS: dict[str, Callable[[Path], None]] = {
    "tiny": _tiny(Form()),
    "tiny-half": _tiny(Form("float16", batch=2)),
    "era5_tiny": _parity,
    "hres_tiny": _parity,
    "mini": _mini(),
    "mini-half": _mini("--precision", "float16"),
}


def exported(factory: pytest.TempPathFactory, name: str) -> Path:
    """One of `MAKERS`, made by the first process that asks for it."""
    base = factory.getbasetemp()
    # The processes of pytest-xdist have folders of their own in a common one.
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "onnx"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.onnx"
    with FileLock(folder / f"{name}.lock"):
        if not path.exists():
            MAKERS[name](path)
    return path
