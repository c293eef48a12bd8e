"""How attention is cut: by table, by rule, tuned and kept, recorded and taken again."""

import json
import logging
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from running import ROOT

from ai_models_mosaic import __version__
from ai_models_mosaic.cli import main
from ai_models_mosaic.engines.cuda import GraphedStep
from ai_models_mosaic.errors import OptionError, OutputError
from ai_models_mosaic.forecast.tiles import is_tilings, take_tilings, tilings_of
from ai_models_mosaic.model.attention.choice import choose_tilings, shapes, stage_shape
from ai_models_mosaic.model.attention.tilings import StageShape, Tiling, default_tiling, tiling_by_rule
from ai_models_mosaic.model.attention.tuned import (
    lists_from_tilings,
    read_tuned,
    tilings_from_lists,
    tuned_file,
    tuning_key,
    write_tuned,
)
from ai_models_mosaic.model.attention.tuning import Timing, candidates_of, fastest, timings
from ai_models_mosaic.model.network import MosaicNetwork
from ai_models_mosaic.variants import ERA5, MINI

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")

CPU = torch.device("cpu")
FINEST = stage_shape(ERA5.architecture.stages[0])
H100, A100 = (9, 0), (8, 0)
OTHER = Tiling(32, 32, 32, warps=4, stages=2)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AI_MODELS_MOSAIC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def key():
    return tuning_key(CPU, torch.float16)


# Table and rule.


def test_an_h100_is_cut_as_was_measured_on_one():
    assert StageShape(1024, 128, 24, 4, 64) == FINEST
    assert default_tiling(FINEST, 2, H100) == Tiling(64, 128, 64, warps=4, stages=3)


@pytest.mark.parametrize(
    ("shape", "element_bytes", "capability"),
    [
        (FINEST, 2, (8, 9)),
        (FINEST, 2, None),
        (FINEST, 4, H100),
        (replace(FINEST, width=32), 2, H100),
        (replace(FINEST, sparse=64), 2, A100),
    ],
    ids=["another device", "no GPU", "float32", "other heads", "other blocks"],
)
def test_what_the_table_does_not_have_goes_by_the_rule(shape, element_bytes, capability):
    assert default_tiling(shape, element_bytes, capability) == tiling_by_rule(shape, element_bytes)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((48, 64, 64, 4, 3), "expected rows to be a power of two from 16 to 512, got 48"),
        ((64, 8, 64, 4, 3), "expected keys to be a power of two from 16 to 256, got 8"),
        ((64, 64, 512, 4, 3), "expected local_keys to be a power of two from 16 to 256, got 512"),
        ((64, 64, 64, True, 3), "expected warps to be a power of two from 1 to 16, got True"),
        ((64, 64, 64, 4, 9), "expected stages to be a whole number from 1 to 8, got 9"),
    ],
)
def test_a_tiling_that_no_kernel_can_have_is_refused(numbers, message):
    with pytest.raises(ValueError, match=rf"^{message}$"):
        Tiling(*numbers)


# Tuned and kept.


def test_what_was_tuned_is_kept_by_shape_and_taken_instead_of_the_table(cache, key):
    shape = str(stage_shape(MINI.architecture.stages[0]))
    path = write_tuned(key, {shape: OTHER})
    assert path == tuned_file(key)
    assert path.parent == cache
    write_tuned(key, {"another": Tiling(16, 16, 16, 4, 1)})
    assert read_tuned(key) == {shape: OTHER, "another": Tiling(16, 16, 16, 4, 1)}
    chosen = choose_tilings(MINI.architecture, CPU, torch.float16)
    bottleneck = stage_shape(MINI.architecture.bottleneck)
    assert chosen[shape] == OTHER
    assert chosen[str(bottleneck)] == tiling_by_rule(bottleneck, 2)
    assert {each.layout.tiling for each in shapes(MINI.architecture, chosen)} == set(chosen.values())
    # Of another precision nothing is known.
    assert read_tuned(tuning_key(CPU, torch.bfloat16)) == {}


def changed(text, **fields):
    return json.dumps(json.loads(text) | fields)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text[:-9], r"Expecting|Unterminated"),
        (lambda text: "[]", "it is of another device or version"),
        (lambda text: changed(text, format=0), "it is of another device or version"),
        (lambda text: changed(text, key={"device": "NVIDIA H100"}), "it is of another device or version"),
        (lambda text: changed(text, tilings=[1]), "expected tiles by shape"),
        (lambda text: changed(text, tilings={"a": [16, 16, 16, 4]}), "expected five whole numbers for every shape"),
        (
            lambda text: changed(text, tilings={"a": [16, 16, 16, 4, "1"]}),
            "expected five whole numbers for every shape",
        ),
        (lambda text: changed(text, tilings={"a": [16, 16, 16, 3, 1]}), "expected warps to be a power of two"),
        (lambda text: " " * 2**21, "expected at most 1048576 bytes"),
    ],
    ids=["cut off", "something else", "older", "foreign", "a list", "too few", "texts", "out of bounds", "too large"],
)
def test_a_file_that_is_not_what_was_written_is_passed_over_with_a_word(cache, key, caplog, damage, reason):
    path = write_tuned(key, {"a": OTHER})
    path.write_text(damage(path.read_text()))
    with caplog.at_level(logging.WARNING):
        assert read_tuned(key) == {}
    (line,) = caplog.messages
    assert line.startswith(f"Cannot use {path} (")
    assert line.endswith("): taking the tiles of the table")
    assert any(part in line for part in reason.split("|"))
    # And is written anew.
    write_tuned(key, {"b": OTHER})
    assert read_tuned(key) == {"b": OTHER}


@pytest.mark.parametrize("what", ["device", "capability", "precision", "torch", "triton", "ai-models-mosaic"])
def test_another_device_or_version_has_a_file_of_its_own(cache, key, what):
    assert tuned_file(key | {what: "other"}) != tuned_file(key)


def test_without_a_cache_nothing_is_kept(monkeypatch, key):
    monkeypatch.setenv("AI_MODELS_MOSAIC_CACHE", "off")
    assert write_tuned(key, {"a": OTHER}) is None
    assert read_tuned(key) == {}


def test_where_it_cannot_be_kept_that_is_an_error(cache, key):
    cache.mkdir()
    tuned_file(key).mkdir()
    with pytest.raises(OutputError, match=r"^cannot write .*attention-tiles-"):
        write_tuned(key, {"a": OTHER})


def test_tilings_go_through_json():
    said = json.loads(json.dumps(lists_from_tilings({"a": OTHER})))
    assert said == {"a": [32, 32, 32, 4, 2]}
    assert tilings_from_lists(said) == {"a": OTHER}


# Timing.


def test_no_candidate_is_larger_than_the_blocks_and_the_default_is_the_first():
    shape = stage_shape(MINI.architecture.stages[0])
    cut = candidates_of(shape, 2, None)
    assert cut[0] == tiling_by_rule(shape, 2)
    assert len(set(cut)) == len(cut) > 2
    assert all(one.rows <= 128 and one.keys <= 32 and one.local_keys <= 64 for one in cut)
    assert candidates_of(FINEST, 2, H100)[0] == default_tiling(FINEST, 2, H100)


def test_the_fastest_of_every_shape_is_kept_and_what_did_not_run_is_not():
    slow, fast = Tiling(16, 16, 16, 4, 1), Tiling(64, 64, 64, 4, 1)
    shapes = [replace(FINEST, selected=count) for count in (1, 2, 3)]
    measured = [
        Timing(shapes[0], slow, 2.0, 1e9),
        Timing(shapes[0], OTHER, None, 1e9, "no"),
        Timing(shapes[0], fast, 1.0, 1e9),
        Timing(shapes[1], slow, 1.0, 1e9),
        Timing(shapes[1], fast, 1.0, 1e9),
        Timing(shapes[2], slow, None, 1e9, "no"),
    ]
    assert fastest(measured) == {str(shapes[0]): fast, str(shapes[1]): slow}
    assert measured[2].teraflops == 1.0


@needs_triton
def test_what_does_not_run_is_told_with_its_reason():
    # Without a GPU, and without the interpreter, nothing runs.
    (first, *_) = timings(MINI.architecture, CPU, torch.float16, lambda call: 0.0, members=1, most_pixels=192)
    assert first.milliseconds is None
    assert first.failure.startswith("attention backend triton does not run on cpu in float16: ")


def test_tuning_without_a_gpu_is_refused_with_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["tune"]) == 2
    assert capsys.readouterr().err == (
        f"ai-models-mosaic {__version__}: tune: expected an NVIDIA GPU, found none that PyTorch {torch.__version__} can use; check "
        "nvidia-smi and that this PyTorch was built for CUDA. On a CPU there is nothing to tune\n"
    )
    assert main(["tune", "--members", "0"]) == 2


@needs_triton
def test_the_command_shows_all_and_keeps_the_best(cache, monkeypatch, capsys):
    cut = [Timing(FINEST, Tiling(16, 16, 16, 4, 1), None, 1e9, "too large"), Timing(FINEST, OTHER, 0.5, 1e9)]
    for name, answer in {"is_available": True, "get_device_name": "a GPU", "get_device_capability": (9, 0)}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr("ai_models_mosaic.model.attention.tuning.timings", lambda *_, **__: iter(cut))
    assert main(["tune", "--members", "2"]) == 0
    said = capsys.readouterr().out
    path = tuned_file(tuning_key(torch.device("cuda"), torch.float16))
    assert said.splitlines() == [
        "a GPU, float16, 2 members of era5",
        "| stage | rows × keys/local keys | ms | TFLOP/s |",
        "|---|---|---|---|",
        "| 1024/128x24/4x64 | 16 × 16/16, 4 warps, 1 stages | does not run: too large | |",
        "| 1024/128x24/4x64 | 32 × 32/32, 4 warps, 2 stages | 0.500 | 2 |",
        "1024/128x24/4x64: 32 × 32/32, 4 warps, 2 stages",
        f"Kept in {path}",
    ]
    assert json.loads(path.read_text())["key"]["device"] == "a GPU"
    assert read_tuned(tuning_key(torch.device("cuda"), torch.float16)) == {str(FINEST): OTHER}
    del cut[1]
    assert main(["tune"]) == 2
    assert "tune: no way to cut attention runs here: too large" in capsys.readouterr().err


# In a network, a card and a state.


def network():
    with torch.device("meta"):
        return MosaicNetwork(MINI.architecture)


def test_a_network_cuts_every_stage_as_it_is_told_and_says_so_where_the_kernel_runs():
    made, shape = network(), str(stage_shape(MINI.architecture.stages[0]))
    made.use_tilings({shape: OTHER})
    assert made.tilings == {}
    made.use_backend("triton")
    assert made.tilings == {shape: OTHER}
    made.use_tilings({})
    assert made.tilings == {}


class Cut:
    """As much of an engine as tiles are of."""

    def __init__(self, refuses=False):
        self.tilings, self.refuses = {"a": [16, 16, 16, 4, 1]}, refuses

    def use_tilings(self, tilings):
        if self.refuses:
            raise OptionError("tiles of attention: too large")
        self.tilings = dict(tilings)


def test_an_engine_takes_what_was_recorded_and_others_nothing():
    engine = Cut()
    take_tilings(engine, {"a": [32, 32, 32, 4, 2]})
    assert tilings_of(engine) == {"tilings": {"a": [32, 32, 32, 4, 2]}}
    for nothing in (None, {}, "a", {"a": 1}):
        take_tilings(engine, nothing)
    assert engine.tilings == {"a": [32, 32, 32, 4, 2]}
    take_tilings(object(), {"a": [32, 32, 32, 4, 2]})
    assert tilings_of(object()) == {}


def test_where_it_cannot_the_last_bits_are_said_to_be_others(caplog):
    take_tilings(Cut(refuses=True), {"a": [32, 32, 32, 4, 2]})
    assert caplog.messages == [
        "tiles of attention: too large; going on with those of this device: fields may differ in the last bits"
    ]


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"a": [16, 16, 16, 4]},
        {"a": "16"},
        {"a": [16, 16, 16, 4, 1.0]},
        {"a": [16, 16, 16, 4, True]},
        {"a": [16, 16, 16, 4, 513]},
        {str(number): [16, 16, 16, 4, 1] for number in range(17)},
    ],
)
def test_a_card_may_not_say_anything_else(value):
    assert not is_tilings(value)


def test_a_step_that_is_cut_anew_is_recorded_anew():
    captured = []

    def capture(advance, inputs):
        captured.append(len(inputs[0]))
        return advance

    step = GraphedStep(lambda states, clock, noise: states + 1, capture)
    inputs = torch.zeros(2, 1), torch.zeros(2), torch.zeros(2, 1)
    step(*inputs)
    step(*inputs)
    step.forget()
    step(*inputs)
    assert captured == [2, 2]


# Whole runs, with the kernels interpreted.


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "interpreted_run.py", tmp_path_factory.mktemp("runs")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_triton
def test_a_resumed_run_keeps_its_tiles_and_bytes_whatever_was_tuned_meanwhile(runs):
    # Ended by a signal in its second step, the second of four.
    assert runs["statuses"] == [0, 143, 0, 0]
    by_rule, tuned_meanwhile = [64, 32, 32, 4, 2], [64, 64, 64, 8, 1]
    assert runs["tiles"] == [by_rule, by_rule, tuned_meanwhile]
    assert runs["resumed alike"]
    assert not runs["tuned alike"], "tiles that change nothing prove nothing"


@needs_triton
def test_a_replay_takes_the_tiles_of_the_card(runs):
    assert runs["replayed"] == "again.grib: 164 fields made again, 164 of 164 identical to the original's"


@needs_triton
def test_a_complete_run_is_complete_whatever_was_tuned_since(runs):
    assert runs["complete"]
