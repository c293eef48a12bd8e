"""External data of graphs: what a graph may name, and what becomes of it during a run."""

import os
import re

import numpy as np
import onnx
import pytest
import tiny
from exporting import exported
from onnx.external_data_helper import convert_model_to_external_data
from test_onnx_engine import PROGRESS, physical_inputs

from ai_models_mosaic.checkpoints.integrity import sha256
from ai_models_mosaic.engines.onnx import OnnxEngine, load_engine
from ai_models_mosaic.engines.onnx_data import CHILDREN, TYPES
from ai_models_mosaic.errors import CheckpointError

DATA = "tiny.onnx.data"


@pytest.fixture(scope="module")
def inside(tmp_path_factory):
    return exported(tmp_path_factory, "tiny")


@pytest.fixture
def outside(inside, tmp_path):
    """The same graph with its weights beside it."""
    path = tmp_path / "tiny.onnx"
    save_external(inside, path)
    return path


def save_external(inside, path, location=DATA):
    model = onnx.load(inside)
    convert_model_to_external_data(model, location=DATA, size_threshold=256)
    onnx.save(model, path)
    if location != DATA:
        name(path, location)


def name(path, location):
    """Have a graph name another file."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = str(location)
    path.write_bytes(model.SerializeToString())


def step(engine):
    history, noise = physical_inputs(2)
    return engine.step(history, PROGRESS, noise)


def test_external_data_give_the_step_of_the_graph_that_has_its_weights_inside(inside, outside):
    engine = load_engine(tiny.VARIANT, outside, threads=1)
    np.testing.assert_array_equal(step(engine), step(OnnxEngine(inside, threads=1)))
    assert [(file.what, file.path, file.sha256) for file in engine.data] == [
        (f"external data {DATA}", outside.with_name(DATA), sha256(outside.with_name(DATA)))
    ]
    assert engine.memory_bytes(0) == outside.stat().st_size + outside.with_name(DATA).stat().st_size


def overwrite(path):
    content = np.fromfile(path, dtype=np.uint8)
    with path.open("r+b") as file:
        file.write((content ^ 255).tobytes())


@pytest.mark.parametrize("harm", [overwrite, lambda path: os.truncate(path, 0)])
def test_what_becomes_of_the_files_does_not_touch_the_engine_in_use(outside, harm):
    files = (outside, outside.with_name(DATA))
    digests = [sha256(file) for file in files]
    engine = load_engine(tiny.VARIANT, outside, threads=1)
    before = step(engine)
    for file in files:
        harm(file)
    np.testing.assert_array_equal(step(engine), before)
    assert [engine.checkpoint_sha256, engine.data[0].sha256] == digests != [sha256(file) for file in files]


@pytest.mark.parametrize("way", ["absolute", "parent", "link", "linked folder", "nothing", "memory"])
def test_a_graph_that_names_a_file_outside_of_its_folder_is_refused(inside, tmp_path, way):
    folder, elsewhere = tmp_path / "graph", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    path = folder / "tiny.onnx"
    save_external(inside, path)
    secret = elsewhere / "secret"
    (folder / DATA).rename(secret)
    location = {
        "absolute": str(secret),
        "parent": "../elsewhere/secret",
        "link": DATA,
        "linked folder": "linked/secret",
        "nothing": "",
        "memory": "*/_ORT_MEM_ADDR_/*",
    }[way]
    (folder / DATA).symlink_to(secret)
    (folder / "linked").symlink_to(elsewhere)
    name(path, location)
    message = (
        f"{path}: its external data {folder / location} are not there; keep both files together"
        if way == "memory"
        else f"{path}: expected external data in the folder of the graph, got {location!r}; a graph may name no file "
        "elsewhere, nor one that a link leads to"
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        load_engine(tiny.VARIANT, path)


def test_a_link_to_the_folder_of_a_graph_is_followed(outside, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(outside.parent)
    (file,) = load_engine(tiny.VARIANT, link / outside.name, threads=1).data
    assert file.path == link / DATA


def test_external_data_that_are_too_short_are_refused(outside):
    data = outside.with_name(DATA)
    os.truncate(data, data.stat().st_size - 1)
    with pytest.raises(
        CheckpointError,
        match=rf"^{re.escape(str(outside))}: expected '.*' at bytes \d+ to \d+ of {DATA}, got a file of \d+; copy both files again$",
    ):
        load_engine(tiny.VARIANT, outside)


def test_external_data_deeper_in_a_graph_are_refused(outside):
    model = onnx.load(outside, load_external_data=False)
    tensor = next(each for each in model.graph.initializer if each.data_location == onnx.TensorProto.EXTERNAL)
    model.graph.initializer.remove(tensor)
    model.graph.node.append(onnx.helper.make_node("Constant", [], [tensor.name], value=tensor))
    outside.write_bytes(model.SerializeToString())
    message = (
        f"{outside}: expected external data for weights of the graph only, got some for {tensor.name!r} within its "
        "attribute; ai-models-mosaic export-onnx writes no such graph"
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        load_engine(tiny.VARIANT, outside)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.999])
def test_a_damaged_graph_names_no_files(inside, tmp_path, kept):
    path = tmp_path / "damaged.onnx"
    content = inside.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(
        CheckpointError, match=rf"^{re.escape(str(path))} cannot be run by ONNX Runtime .*: it ends within a "
    ):
        load_engine(tiny.VARIANT, path)


def test_every_place_for_a_tensor_in_a_graph_is_looked_at():
    """Against the description of messages that the installed onnx has."""
    names = {
        "model": onnx.ModelProto,
        "training": onnx.TrainingInfoProto,
        "graph": onnx.GraphProto,
        "function": onnx.FunctionProto,
        "node": onnx.NodeProto,
        "attribute": onnx.AttributeProto,
        "sparse": onnx.SparseTensorProto,
        "tensor": onnx.TensorProto,
    }
    kinds = {message.DESCRIPTOR.full_name: kind for kind, message in names.items()}
    for kind, message in names.items():
        fields = [field for field in message.DESCRIPTOR.fields if field.message_type]
        wanted = {
            field.number: kinds[field.message_type.full_name]
            for field in fields
            if field.message_type.full_name in kinds
        }
        assert CHILDREN.get(kind, {}) == wanted, kind
    for number, dtype in TYPES.items():
        assert onnx.helper.tensor_dtype_to_np_dtype(number) == np.dtype(dtype)
