"""What a graph says of itself: damaged, of another form, or not true of the graph."""

import json
import re
from dataclasses import asdict

import onnx
import pytest
import tiny
from exporting import exported

from ai_models_mosaic.engines.onnx import load_engine
from ai_models_mosaic.engines.onnx_description import FORM, METADATA_KEY
from ai_models_mosaic.engines.onnx_export import Form, make_card
from ai_models_mosaic.errors import CheckpointError


@pytest.fixture(scope="module")
def card():
    return json.loads(json.dumps(asdict(make_card(tiny.VARIANT, Form(), "0" * 64, untrained=False))))


@pytest.fixture
def refusal(tmp_path_factory, tmp_path):
    def said(metadata):
        model = onnx.load(exported(tmp_path_factory, "tiny"))
        onnx.helper.set_model_props(model, {METADATA_KEY: metadata})
        path = tmp_path / "tiny.onnx"
        onnx.save(model, path)
        with pytest.raises(CheckpointError) as caught:
            load_engine(tiny.VARIANT, path)
        message = str(caught.value)
        assert "\n" not in message
        return message.removeprefix(f"{path}: ")

    return said


@pytest.mark.parametrize("text", ["{", "", "\x00", "[" * 100_000])
def test_metadata_that_are_no_json_are_refused(refusal, text):
    assert refusal(text).startswith("expected metadata in JSON, got something else (")


@pytest.mark.parametrize("text", ["[]", "3", '"text"', "null"])
def test_metadata_that_are_no_object_are_refused(refusal, text):
    assert refusal(text).endswith("got none; export it with this version")


@pytest.mark.parametrize("name", FORM)
def test_each_field_must_be_there_and_of_its_kind(card, refusal, name):
    missing = {key: value for key, value in card.items() if key != name}
    assert refusal(json.dumps(missing)) == f"its metadata lack {name}; export it with this version"
    for wrong in ({}, [{}], -1.5):
        assert refusal(json.dumps({**card, name: wrong})) == f"expected {name} to be {FORM[name][0]}, got {wrong}"


def test_an_unknown_field_is_refused(card, refusal):
    assert refusal(json.dumps({**card, "x": 1})) == "its metadata have the unknown x; export it with this version"
    assert refusal(json.dumps({**card, "source": 3})) == "expected source to be a text or null, got 3"


@pytest.mark.parametrize("change", [{"noise_width": 7}, {"batch": 3}])
def test_metadata_that_are_not_true_of_the_graph_are_refused(card, refusal, change):
    message = refusal(json.dumps({**card, **change}))
    assert re.match(r"expected a graph of \{'history': .*\}, as its metadata say, got \{'history': ", message)
