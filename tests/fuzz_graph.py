"""A small ONNX graph of our own making, with its card and a matrix beside it, and ways to damage it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import toy_command
from fuzz_changes import Random, bytes_file_changed, json_changed, pick
from toy_variant import VARIANT

from ai_models_mosaic.channels import CHANNELS
from ai_models_mosaic.engines import onnx as _onnx_engine  # noqa: F401 - once, and not in every child
from ai_models_mosaic.engines.onnx_description import METADATA_KEY as CARD_KEY
from ai_models_mosaic.engines.onnx_export import Form, make_card


def write_graph(folder: Path) -> None:
    """0.7 of the newest state, 0.3 of the one before, and noise by a matrix that is outside the file."""
    toy_command.write_inputs(folder)
    architecture = VARIANT.architecture
    columns, rows = architecture.grid.shape
    size = {"noise": architecture.noise_width, "channel": len(CHANNELS)}
    initial = {
        "share": np.array([0.3, 0.7], dtype=np.float32).reshape(1, 2, 1, 1, 1),
        "matrix": np.random.default_rng(3).normal(size=(size["noise"], size["channel"])).astype(np.float32) * 1e-4,
        "zero": np.array([0.0], dtype=np.float32),
        "axes": np.array([1], dtype=np.int64),
        "places": np.array([1, 2], dtype=np.int64),
    }
    make = onnx.helper.make_node
    nodes = [
        make("Mul", ["history", "share"], ["parts"]),
        make("ReduceSum", ["parts", "axes"], ["mean"], keepdims=0),
        make("MatMul", ["noise", "matrix"], ["drift"]),
        make("Unsqueeze", ["drift", "places"], ["spread"]),
        make("ReduceSum", ["progress"], ["clock"], keepdims=1),
        make("Mul", ["clock", "zero"], ["nothing"]),
        make("Add", ["mean", "spread"], ["moved"]),
        make("Add", ["moved", "nothing"], ["next_state"]),
    ]

    def typed(name: str, *shape: Any) -> onnx.ValueInfoProto:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    graph = onnx.helper.make_graph(
        nodes,
        "toy",
        [
            typed("history", "member", 2, columns, rows, size["channel"]),
            typed("progress", 2),
            typed("noise", "member", size["noise"]),
        ],
        [typed("next_state", "member", columns, rows, size["channel"])],
        [onnx.numpy_helper.from_array(values, name) for name, values in initial.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    card = make_card(VARIANT, Form(), "0" * 64, untrained=True)
    onnx.helper.set_model_props(model, {CARD_KEY: json.dumps(asdict(card))})
    # Only the matrix is large enough to go outside.
    onnx.save_model(
        model,
        folder / "toy.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location="toy.onnx.data",
        size_threshold=200,
        convert_attribute=False,
    )


def graph_changed(random: Random, folder: Path) -> str:
    path = folder / "toy.onnx"
    how = pick(random, ("bytes", "data", "card", "card", "card", "props", "elsewhere"))
    if how == "bytes":
        return bytes_file_changed(random, path)
    if how == "data":
        return bytes_file_changed(random, folder / "toy.onnx.data")
    model = onnx.load(path, load_external_data=False)
    if how == "card":
        model.metadata_props[0].value = json_changed(random, model.metadata_props[0].value.encode()).decode(
            errors="replace"
        )
    elif how == "props":
        del model.metadata_props[:]
        for key in pick(random, (("other",), (CARD_KEY, "other"), ())):
            model.metadata_props.add(key=key, value=pick(random, ("", "1", "null", "é")))
    else:
        tensor = next(found for found in model.graph.initializer if found.external_data)
        entry = pick(random, list(tensor.external_data))
        entry.value = pick(random, ("../other", "in.grib", "0", "-1", "99999999", "", "toy.onnx", "x" * 5000))
    path.write_bytes(model.SerializeToString())
    return how
