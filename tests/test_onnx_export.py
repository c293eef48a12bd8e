import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
import tiny
import torch
from exporting import MEAN, STATISTICS, STD, exported, tiny_network

from ai_models_mosaic.checkpoints.files import locate
from ai_models_mosaic.checkpoints.integrity import sha256
from ai_models_mosaic.engines import onnx_export
from ai_models_mosaic.engines.onnx import OnnxEngine
from ai_models_mosaic.engines.onnx_description import METADATA_KEY
from ai_models_mosaic.engines.onnx_export import Form, Step, export_onnx, write_model
from ai_models_mosaic.errors import OptionError, OutputError
from ai_models_mosaic.model.scanned import exportable
from ai_models_mosaic.variants import MINI


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return exported(tmp_path_factory, "tiny")


def graphs(graph):
    """A graph and those inside its operators."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)


def shapes(values):
    return {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in values
    }


def test_inputs_and_output_are_named_and_take_any_number_of_members(path):
    graph = onnx.load(path).graph
    columns, rows = tiny.ARCHITECTURE.grid.shape
    assert shapes(graph.input) == {
        "history": ["member", 2, columns, rows, 5],
        "progress": [2],
        "noise": ["member", 6],
    }
    assert shapes(graph.output) == {"next_state": ["member", columns, rows, 5]}


def test_a_fixed_batch_is_a_number_in_the_graph(tmp_path_factory):
    graph = onnx.load(exported(tmp_path_factory, "tiny-half")).graph
    assert {name: shape[0] for name, shape in shapes(graph.input).items()} == {"history": 2, "progress": 2, "noise": 2}


def test_a_graph_passes_the_checker_with_shape_inference_and_has_standard_operators_only(path):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert len(model.functions) == 0
    assert {node.domain for graph in graphs(model.graph) for node in graph.node} == {""}


def test_both_kinds_of_branches_and_interpolations_are_scans(path):
    model = onnx.load(path)
    # Two per block and one per interpolation.
    assert sum(node.op_type == "Scan" for node in model.graph.node) == 2 * 4 + 2
    inner = [node.op_type for graph in list(graphs(model.graph))[1:] for node in graph.node]
    assert inner.count("Softmax") == 2 * 4 + 2


def test_tables_of_a_stage_are_stored_once_and_weights_as_products_take_them(path):
    stored = {item.name: item for item in onnx.load(path).graph.initializer}
    assert sum("freqs" in name for name in stored) == 2 * 2
    read_by_transposes = {
        node.input[0] for node in onnx.load(path).graph.node if node.op_type == "Transpose" and node.input[0] in stored
    }
    assert read_by_transposes == set()


def test_nothing_of_the_machine_is_in_the_file(path):
    content = path.read_bytes()
    for place in (Path(onnx_export.__file__).parent, Path(torch.__file__).parent, Path.home(), path.parent):
        assert str(place).encode() not in content


def test_half_precision_halves_the_weights_and_keeps_what_decides(tmp_path_factory):
    model = onnx.load(exported(tmp_path_factory, "tiny-half"))
    kinds = {item.name: item.data_type for item in model.graph.initializer}
    half = [name for name, kind in kinds.items() if kind == onnx.TensorProto.FLOAT16]
    assert any(name.endswith("ffn.w13.weight") for name in half)
    assert not any("rel_pos" in name or "freqs" in name or name.endswith("static_vars") for name in half)
    softmaxes = [node.input[0] for graph in graphs(model.graph) for node in graph.node if node.op_type == "Softmax"]
    made_by = {name: node for graph in graphs(model.graph) for node in graph.node for name in node.output}
    casts = [made_by[name].op_type for name in softmaxes if name in made_by]
    assert casts.count("Cast") >= 2 * 4


def test_half_precision_holds_states_of_any_sign_and_size_that_occur():
    generator = np.random.default_rng(2)
    step = Step(exportable(tiny_network(), torch.float16), STATISTICS)
    found = []
    for module in step.modules():
        if isinstance(module, onnx_export.nn.Module) and not list(module.children()):
            module.register_forward_hook(lambda _, __, out: found.append(out))
    # Ten standard deviations: beyond what analyses hold.
    history = MEAN + 10 * STD * generator.choice([-1, 1], size=(1, 2, *tiny.ARCHITECTURE.grid.shape, 5))
    with torch.no_grad():
        step(torch.from_numpy(history).float(), torch.tensor([0.2, 0.4]), torch.randn(1, 6))
    assert torch.float16 in {out.dtype for out in found}
    assert all(torch.isfinite(out).all() for out in found)


def test_large_weights_lie_beside_the_graph_and_give_the_same_step(path, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "INSIDE_BYTES", 0)
    target = tmp_path / "large.onnx"
    target.write_bytes(b"an older file")
    write_model(onnx_ir.load(path), target)
    assert {item.name for item in tmp_path.iterdir()} == {"large.onnx", "large.onnx.data"}
    assert target.stat().st_size < path.stat().st_size
    generator = np.random.default_rng(5)
    history = (MEAN + STD * generator.normal(size=(1, 2, *tiny.ARCHITECTURE.grid.shape, 5))).astype(np.float32)
    noise = generator.normal(size=(1, 6)).astype(np.float32)
    outputs = [OnnxEngine(file).step(history, (0.1, 0.2), noise) for file in (path, target)]
    np.testing.assert_array_equal(*outputs)
    assert OnnxEngine(target).memory_bytes(0) == sum(item.stat().st_size for item in tmp_path.iterdir())


def test_a_graph_that_does_not_pass_the_checker_leaves_an_older_file_alone(path, tmp_path):
    model = onnx_ir.load(path)
    model.graph.append(onnx_ir.Node("", "NoSuchOperator", inputs=list(model.graph.inputs[:1])))
    target = tmp_path / "a.onnx"
    target.write_bytes(b"precious")
    with pytest.raises(onnx.checker.ValidationError, match="NoSuchOperator"):
        write_model(model, target)
    assert [item.name for item in tmp_path.iterdir()] == ["a.onnx"]
    assert target.read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["model.pt", "absent/model.onnx"])
def test_a_target_that_cannot_be_is_refused_before_anything_is_read(tmp_path, name):
    target = tmp_path / name
    message = f"{target}: expected the name of an .onnx file in a folder that exists"
    with pytest.raises(OutputError, match=f"^{re.escape(message)}$"):
        export_onnx(MINI, locate(MINI, tmp_path), target)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"precision": "bfloat16"}, "--precision: expected float32 or float16, got bfloat16"),
        ({"batch": 0}, "--batch: expected at least 1, got 0"),
    ],
)
def test_a_form_that_there_is_not_is_refused(values, message):
    with pytest.raises(OptionError, match=f"^{re.escape(message)}$"):
        Form(**values)


def test_without_the_exporter_the_message_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    message = "export-onnx needs onnxscript: pip install 'ai-models-mosaic[export]'"
    with pytest.raises(OptionError, match=f"^{re.escape(message)}$"):
        export_onnx(MINI, locate(MINI, tmp_path), tmp_path / "a.onnx")


def test_the_command_writes_a_graph_that_says_what_it_is(tmp_path_factory):
    model = onnx.load(exported(tmp_path_factory, "mini"))
    card = json.loads({entry.key: entry.value for entry in model.metadata_props}[METADATA_KEY])
    weights = locate(MINI, Path("unused")).checkpoint
    assert card["variant"] == "mini"
    assert card["weights_sha256"] == sha256(weights)
    assert (card["precision"], card["batch"], card["opset"], card["format"]) == ("float32", 1, 20, 1)
    assert (card["step_hours"], card["lags_hours"]) == (24, [-24, 0])
    assert len(card["channels"]) == 82
    assert (len(card["longitude_deg"]), len(card["latitude_deg"])) == MINI.architecture.grid.shape
    assert card["licence"]
