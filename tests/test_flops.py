"""Operations that are counted from the architecture, against PyTorch's own counter."""

import pytest
import tiny
import torch
from torch.utils.flop_counter import FlopCounterMode

from ai_models_mosaic.model import flops
from ai_models_mosaic.model.network import MosaicNetwork, initialise
from ai_models_mosaic.variants import ERA5, HRES, MINI


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
