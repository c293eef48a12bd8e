"""What a step does between its products by kernels, against plain PyTorch: under Triton's interpreter, and on meta."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec

import pytest
import tiny
import torch
from running import ROOT
from torch import nn

from ai_models_mosaic.checkpoints.format import build_network
from ai_models_mosaic.model import layers
from ai_models_mosaic.model.fused import KERNELS, PLAIN, KernelPasses, choice, launched
from ai_models_mosaic.model.fused.choice import adds_within, choose_passes
from ai_models_mosaic.model.launches import counting
from ai_models_mosaic.model.network import MosaicNetwork
from ai_models_mosaic.variants import VARIANTS

CPU, GPU = torch.device("cpu"), torch.device("cuda")

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")

# A rounding or two of numbers over one plus their size; the interpreter cuts off to bfloat16.
TOLERANCE = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 1.6e-2}


# Under Triton's interpreter.


@pytest.fixture(scope="module")
def interpreted():
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "interpreted_passes.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_triton
@pytest.mark.parametrize("precision", TOLERANCE)
def test_every_pass_by_a_kernel_gives_what_plain_pytorch_gives(interpreted, precision):
    differences = {name: found[precision] for name, found in interpreted["differences"].items()}
    assert len(differences) == 21
    assert {name: found for name, found in differences.items() if not found <= TOLERANCE[precision]} == {}


@needs_triton
def test_half_precision_is_really_rounded(interpreted):
    rounded = [found["bfloat16"] > 1e-4 for name, found in interpreted["differences"].items() if "ragged" in name]
    assert rounded == [True] * 3


@needs_triton
def test_no_kernel_gives_a_member_other_numbers_in_a_batch(interpreted):
    assert [name for name, same in interpreted["alike"].items() if not same] == []
    assert interpreted["members"] == 0


@needs_triton
@pytest.mark.parametrize("file", ["era5_tiny", "hres_tiny"])
def test_the_network_by_kernels_gives_the_output_of_the_released_model(interpreted, file):
    assert interpreted["parity"][file] <= 1e-5


@needs_triton
def test_the_network_by_kernels_in_half_precision_gives_what_it_gives_without(interpreted):
    assert 1e-4 < interpreted["half"] < 2e-2


@needs_triton
def test_kernels_that_are_right_pass_the_trial(interpreted):
    for precision, worst in interpreted["trial"].items():
        assert worst <= choice.AGREEMENT[getattr(torch, precision)] / 3


@needs_triton
def test_kernels_that_are_wrong_do_not(interpreted):
    assert interpreted["refusal"].startswith(
        "the gate is wrong on cpu in float32: expected to differ from PyTorch by at most 1e-04, got "
    )


# Which form runs.


def network_of(passes):
    network = build_network(tiny.ARCHITECTURE, tiny.checkpoint_of(tiny.parameters()), tiny.STATICS)
    network.use_passes(passes)
    return network


def test_on_a_cpu_nothing_is_tried_and_pytorch_runs(caplog):
    assert choose_passes(tiny.ARCHITECTURE, CPU, torch.float32) is PLAIN
    assert caplog.messages == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_kernels_that_do_not_run_are_said_and_pytorch_runs(caplog):
    with caplog.at_level(logging.WARNING):
        assert choose_passes(tiny.ARCHITECTURE, GPU, torch.float16) is PLAIN
    (message,) = caplog.messages
    assert message.startswith(
        "Steps run without the kernels of this package, more slowly: the norm does not run on cuda"
    )


def test_without_triton_pytorch_runs(caplog, monkeypatch):
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    assert choose_passes(tiny.ARCHITECTURE, GPU, torch.float16) is PLAIN
    assert caplog.messages == [
        "Steps run without the kernels of this package, more slowly: they need the package triton"
    ]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_on_a_gpu_the_kernels_run(dtype):
    assert choose_passes(VARIANTS["era5"].architecture, GPU, dtype).by_kernels


def test_a_cpu_cannot_add_half_precision_to_float32_within_a_product(caplog):
    caplog.set_level(logging.INFO)
    assert not adds_within(CPU, torch.bfloat16)
    said = f"PyTorch {torch.__version__} adds half precision to float32 after its products, not within them"
    assert caplog.messages == [said]
    assert adds_within(CPU, torch.float32)
    assert caplog.messages == [said]


@pytest.mark.parametrize("mode", ["gradients", "autocast"])
def test_training_never_meets_a_kernel(mode):
    # A kernel would be an error here: there is no GPU, and no interpreter.
    plain, by_kernels = (network_of(passes).requires_grad_(mode == "gradients") for passes in (PLAIN, KERNELS))
    inputs = tiny.inputs(2)
    with torch.set_grad_enabled(mode == "gradients"), torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
        expected, found = plain(*inputs), by_kernels(*inputs)
    assert torch.equal(found, expected)
    assert found.requires_grad == (mode == "gradients")
    if found.requires_grad:
        found.sum().backward()
        assert all(parameter.grad.abs().max() > 0 for parameter in by_kernels.parameters())


# On meta, where kernels are only counted.


@pytest.fixture
def on_meta(monkeypatch):
    """A network made ready as for a GPU, and its launches in one forward but for the attention, which counts its own."""
    monkeypatch.setattr(layers, "block_sparse_attention", lambda *_, out, **__: out)
    return forward_on_meta


def forward_on_meta(variant, members, dtype):
    architecture = VARIANTS[variant].architecture
    with torch.device("meta"):
        network = MosaicNetwork(architecture).requires_grad_(False)
        state = torch.empty(members, architecture.history, *architecture.grid.shape, architecture.channels)
        progress, noise = torch.empty(2), torch.empty(members, architecture.noise_width)
    network.prepare(dtype)
    with torch.inference_mode(), counting() as launches:
        out = network(state, progress, noise)
    assert out.shape == (members, *architecture.grid.shape, architecture.channels)
    return network, launches


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_forward_on_meta_launches_every_kernel_once_per_pass(on_meta, dtype):
    network, launches = on_meta("mini", 3, dtype)
    blocks = sum(isinstance(module, layers.Block) for module in network.modules())
    assert Counter(launch.name for launch in launches) == {
        # Two to a block, of which a change of resolution leaves the first; one in either interpolation, three around.
        "normalise": 2 * blocks + 5,
        "rotate": blocks,
        "gate_in_place": blocks,
        "interpolate": 2,
        "map_members": 1,
    }


def test_what_a_launch_reads_and_writes_is_counted(on_meta):
    _, launches = on_meta("mini", 3, torch.float16)
    stage = VARIANTS["mini"].architecture.stages[0]
    rows = 3 * stage.pixels
    gate = next(launch for launch in launches if launch.name == "gate_in_place")
    assert gate.bytes_written == 2 * rows * stage.hidden_width
    assert gate.bytes_read == 2 * gate.bytes_written + 4 * 3 * stage.hidden_width
    rotate = next(launch for launch in launches if launch.name == "rotate")
    turned = 2 * rows * (stage.query_heads + stage.key_value_heads) * stage.head_width
    gates = 4 * 3 * rows * stage.query_heads
    means = 4 * rows // stage.sparse_block * (stage.query_heads + 2 * stage.key_value_heads) * stage.head_width
    assert rotate.bytes_written == turned + gates + means


def test_for_kernels_the_joined_map_is_padded_to_columns_that_fast_products_take(on_meta):
    network, _ = on_meta("era5", 1, torch.float16)
    first = network.encoder_stages[0].blocks[0].attention
    assert sum(first.heads.columns) == 1188
    assert first.joined.shape == (1216, 768)
    assert {name for name, module in network.named_modules() if getattr(module, "positions", None) is not None} == {
        "downsample_layers.0",
        "downsample_layers.1",
        "upsample_layers.0",
        "upsample_layers.1",
    }


def test_a_network_that_is_not_to_launch_is_made_ready_as_before():
    network = network_of(PLAIN)
    network.prepare()
    first = network.encoder_stages[0].blocks[0].attention
    assert len(first.joined) == sum(first.heads.columns)
    assert network.noise_maps is None


# How kernels are given their work.


@pytest.mark.parametrize(
    ("members", "rows", "widest", "held", "parts"),
    [(5, 10, 4, 100, [2, 2, 1]), (3, 10, 4, 39, [1, 1, 1]), (2, 3, 1, 99, [2])],
)
def test_slices_for_kernels_are_of_whole_members(monkeypatch, members, rows, widest, held, parts):
    monkeypatch.setattr(launched, "HELD_AT_ONCE", held)
    slices = list(KERNELS.slices(members, rows, widest, GPU))
    seen = torch.zeros(members, rows)
    for part in slices:
        seen[part] += 1
    assert (seen == 1).all()
    assert [seen[part].shape for part in slices] == [(count, rows) for count in parts]


@pytest.mark.parametrize("width", [1, 24, 768, 1280, 5000])
def test_tiles_of_a_norm_hold_whole_rows(width):
    fixed = launched.norm_constants(width)
    assert fixed["PADDED_WIDTH"] >= width
    assert fixed["PADDED_WIDTH"] & (fixed["PADDED_WIDTH"] - 1) == 0
    assert fixed["ROWS"] * fixed["PADDED_WIDTH"] == max(launched.ELEMENTS, fixed["PADDED_WIDTH"])


def test_passes_that_cannot_add_within_products_do_it_after_them():
    rows, weight = (torch.randn(shape, generator=torch.Generator().manual_seed(1)) for shape in ((2, 3, 8), (5, 8)))
    total = torch.ones(2, 3, 5)
    KernelPasses(adds_within=False).add_product(total, rows.bfloat16(), weight.bfloat16())
    expected = 1 + nn.functional.linear(rows.bfloat16(), weight.bfloat16()).float()
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-6)


# Resources of the kernels, without a GPU.


@needs_triton
def test_the_kernels_between_the_products_compile_for_gpus_that_are_not_there(tmp_path):
    raw = tmp_path / "resources.json"
    command = [ROOT / "benchmarks" / "kernel_resources.py", "--passes", "--variant", "mini", "--precision", "bfloat16"]
    done = subprocess.run([sys.executable, *command, "--json", raw], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    resources = json.loads(raw.read_text())
    for capability in (80, 90):
        of_chip = {one["kernel"] for one in resources if one["capability"] == capability}
        assert of_chip == {"normalise", "rotate", "gate_in_place", "interpolate", "map_members"}
    assert len(done.stdout.splitlines()) == 2 + len(resources)
    assert {one["spilled_bytes"] for one in resources} == {0}
    assert max(one["registers"] for one in resources) <= 128
