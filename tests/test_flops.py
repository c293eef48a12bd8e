"""What the benchmarks count: operations against PyTorch's own counter, and the command for GPUs where there is none."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from running import ROOT
from torch.utils.flop_counter import FlopCounterMode

from ai_models_mosaic.model import flops
from ai_models_mosaic.model.network import MosaicNetwork, initialise
from ai_models_mosaic.variants import ERA5, HRES, MINI

BENCHMARKS = ROOT / "benchmarks"
sys.path.append(str(BENCHMARKS))
gpu = importlib.import_module("gpu")


def counted(architecture):
    """Operations of all products that PyTorch makes in a step."""
    network = MosaicNetwork(architecture)
    initialise(network, torch.Generator().manual_seed(0))
    for buffer in network.buffers():
        buffer.zero_()
    network.use_backend("reference")
    state = torch.ones(1, architecture.history, *architecture.grid.shape, architecture.channels)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(state, torch.zeros(2), torch.zeros(1, architecture.noise_width))
    return counter.get_total_flops()


@pytest.mark.parametrize("architecture", [tiny.ARCHITECTURE, MINI.architecture], ids=["tiny", "mini"])
def test_operations_are_those_that_the_network_makes(architecture):
    # PyTorch counts no sums over neighbours' values, and the folding of weights and the maps of the noise besides.
    assert flops.step_flops(architecture).total == pytest.approx(counted(architecture), rel=0.02)


@pytest.mark.parametrize("variant", [ERA5, HRES], ids=["era5", "hres"])
def test_the_released_form_takes_what_the_specification_says(variant):
    found = flops.step_flops(variant.architecture, folded=False)
    assert found.total == pytest.approx(12.7e12, abs=0.05e12)
    assert found.linear == pytest.approx(7.6e12, rel=0.02)
    assert found.attention == pytest.approx(4.5e12, rel=0.02)


def test_folding_saves_the_keys_and_the_queries_of_the_interpolations():
    released, folded = (flops.step_flops(ERA5.architecture, folded=way) for way in (False, True))
    assert released.linear == folded.linear
    sources, queries = 29_040 + 49_152, 24 * (49_152 + 29_040)
    keys = sources * 768 * (768 - 3 * 12)
    scores = queries * (3 * 768 + 768 - 3 * 12)
    assert released.total - folded.total == 2 * (keys + scores)


def test_parts_add_up():
    found = flops.step_flops(MINI.architecture)
    assert found.attention == found.local + found.compressed + found.selected
    assert found.total == found.linear + found.attention + found.interpolation + found.sampling


def test_what_is_moved_grows_with_members_but_for_the_weights():
    one, two, three = (gpu.bytes_moved(MINI.architecture, 2, members) for members in (1, 2, 3))
    assert two - one == pytest.approx(three - two, abs=1)
    weights = one - (two - one)
    assert weights == pytest.approx(2 * flops.weight_count(MINI.architecture), abs=4)
    half, full = (gpu.bytes_moved(ERA5.architecture, size) for size in (2, 4))
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
    assert row[3] == row[5] == "12631.92 ms"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_nothing_is_measured_and_the_message_says_what_can_be_had():
    done = ran(BENCHMARKS / "gpu.py")
    assert done.returncode == 1
    assert done.stderr == ("no CUDA GPU that PyTorch can use: nothing to measure; --estimate prints the roofline\n")
