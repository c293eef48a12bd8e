"""What the benchmarks count: operations against PyTorch's own counter, and the command for GPUs where there is none."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from running import ROOT
from torch.utils.flop_counter import FlopCounterMode

from ai_models_mosaic.checkpoint import build_network
from ai_models_mosaic.variants import ERA5, MINI

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def flops():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import flops
    finally:
        sys.path.remove(str(BENCHMARKS))
    return flops


@pytest.mark.parametrize("size", ["tiny", "more of everything"])
def test_the_operations_of_a_step_are_those_that_pytorch_counts(flops, size):
    architecture, state = tiny.ARCHITECTURE, tiny.checkpoint_of(tiny.parameters())
    if size != "tiny":
        from ai_models_mosaic.model.network import MosaicNetwork, initialise

        stages = (replace(architecture.stages[0], selected_blocks=5, encoder_depth=1, decoder_depth=3, mlp_ratio=4.0),)
        architecture = replace(architecture, stages=stages, neighbours=6, history=3, channels=7)
        network = MosaicNetwork(architecture)
        initialise(network, torch.Generator().manual_seed(0))
        state = tiny.checkpoint_of({key: value.detach() for key, value in network.named_parameters()})
    network = build_network(architecture, state, tiny.STATICS)
    network.use_backend("reference")
    inputs = torch.zeros(1, architecture.history, *architecture.grid.shape, architecture.channels)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(inputs, torch.zeros(2), torch.zeros(1, architecture.noise_width))
    counted, work = counter.get_total_flops(), flops.work(architecture)
    # The weighted sums of values, and the maps of the noise, are no products of matrices to PyTorch.
    assert counted == pytest.approx(work.total, rel=0.03)
    assert work.total > counted * 0.99


def test_the_full_size_takes_the_operations_that_the_specification_names(flops):
    work = flops.work(ERA5.architecture)
    assert work.total == pytest.approx(12.7e12, rel=0.01)
    assert work.attention == pytest.approx(4.5e12, rel=0.02)
    assert flops.weight_count(ERA5.architecture) == 214_184_448
    assert 0 < work.folded_away < work.interpolation


def test_what_is_moved_grows_with_members_but_for_the_weights(flops):
    one, two, three = (flops.bytes_moved(MINI.architecture, 2, members) for members in (1, 2, 3))
    assert two - one == pytest.approx(three - two, abs=1)
    weights = one - (two - one)
    assert weights == pytest.approx(2 * flops.weight_count(MINI.architecture), abs=4)
    half, full = (flops.bytes_moved(ERA5.architecture, size) for size in (2, 4))
    assert half < full < 2 * half


def ran(*words):
    return subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, check=False, cwd=Path("/")
    )


def test_the_roofline_is_printed_without_a_gpu_with_its_assumptions_and_says_that_it_is_no_measurement():
    done = ran(BENCHMARKS / "gpu.py", "--estimate", "--variant", "era5", "--operations", "1e12", "--bandwidth", "1e12")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Not measured. as given: 1 TFLOP/s in float16 or bfloat16, 1.00 TB/s;")
    row = done.stdout.splitlines()[-1].split(" | ")
    assert row[0] == "| era5"
    assert row[3] == row[5] == "12631.93 ms"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_nothing_is_measured_and_the_message_says_what_can_be_had():
    done = ran(BENCHMARKS / "gpu.py")
    assert done.returncode == 1
    assert done.stderr == ("no CUDA GPU that PyTorch can use: nothing to measure; --estimate prints the roofline\n")
