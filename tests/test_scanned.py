from pathlib import Path

import parity
import pytest
import tiny
import torch
from exporting import tiny_network

from ai_models_mosaic.model import attention, scanned
from ai_models_mosaic.model.attention import BlockLayout, block_sparse_attention, select_blocks
from ai_models_mosaic.model.network import MosaicNetwork
from ai_models_mosaic.model.scanned import ScannedAttention, ScannedInterpolation, ScannedProduct, exportable

FILES = sorted((Path(__file__).parent / "data").glob("*_tiny.npz"))


def tensors(batch=2, heads=8, groups=2, pixels=96, width=12):
    generator = torch.Generator().manual_seed(3)
    return (
        torch.randn(batch, heads, pixels, width, generator=generator),
        torch.randn(batch, groups, pixels, width, generator=generator),
        torch.randn(batch, groups, pixels, width, generator=generator),
    )


def plain(query, key, value, pairs):
    """Attention of every token to those that a mask (batch, head, query, key) allows, written out."""
    ratio = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(ratio, dim=1) for tensor in (key, value))
    scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
    return scores.masked_fill(~pairs, -torch.inf).softmax(dim=-1) @ value


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_exportable_form_gives_the_output_of_the_released_model(path):
    network, case = parity.load(path)
    with torch.no_grad():
        assert (parity.predict(exportable(network), case) - case["output"]).abs().max() <= 1e-5


def test_the_network_that_is_made_exportable_stays_as_it_is():
    network = tiny_network()
    before = {key: (value, value.clone()) for key, value in network.state_dict().items()}
    made = exportable(network, torch.float16)
    assert isinstance(network, MosaicNetwork)
    assert not any(isinstance(module, ScannedProduct) for module in network.modules())
    for key, value in network.state_dict().items():
        assert value.data_ptr() == before[key][0].data_ptr()
        assert torch.equal(value, before[key][1])
    kinds = [type(module) for module in made.modules()]
    assert torch.nn.Linear not in kinds
    assert kinds.count(ScannedAttention) == 4
    assert kinds.count(ScannedInterpolation) == 2


def test_the_local_branch_attends_within_runs():
    query, key, value = tensors()
    run = torch.arange(96) // 24
    expected = plain(query, key, value, run[:, None] == run)
    torch.testing.assert_close(scanned.local_branch(query, key, value, 24), expected, rtol=0, atol=1e-5)


def test_the_selected_branch_attends_to_the_blocks_of_its_list():
    query, key, value = tensors()
    lists = torch.stack([torch.randperm(12, generator=torch.Generator().manual_seed(i))[:5] for i in range(2 * 2 * 12)])
    lists = lists.view(2, 2, 12, 5)
    chosen = torch.zeros(2, 2, 12, 12, dtype=torch.bool).scatter(3, lists, True)
    pairs = chosen.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3).repeat_interleave(4, dim=1)
    expected = plain(query, key, value, pairs)
    torch.testing.assert_close(scanned.selected_branch(query, key, value, lists, 8), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scores", [1, 1000, 10**9])
@pytest.mark.parametrize("gathered", [1, 10**9])
def test_how_many_scores_are_held_at_a_time_does_not_change_them(monkeypatch, scores, gathered):
    monkeypatch.setattr(attention, "SCORES_AT_ONCE", scores)
    monkeypatch.setattr(attention, "GATHERED_AT_ONCE", gathered)
    network = tiny_network()
    inputs = tiny.inputs(2)
    with torch.no_grad():
        torch.testing.assert_close(exportable(network)(*inputs), network(*inputs), rtol=0, atol=2e-5)


def test_no_item_of_a_scan_holds_more_scores_than_allowed(monkeypatch):
    monkeypatch.setattr(attention, "SCORES_AT_ONCE", 8 * 4 * 40 * 3)
    held = []
    whole = scanned.attention_of_slice

    def counted(query, key, value):
        held.append(query.shape[0] * query.shape[1] * key.shape[1])
        return whole(query, key, value)

    monkeypatch.setattr(scanned, "attention_of_slice", counted)
    query, key, value = tensors()
    lists = select_blocks(*(tensor.unflatten(2, (-1, 8)).mean(dim=3) for tensor in (query, key)), 5)
    scanned.selected_branch(query, key, value, lists, 8)
    # 2 key/value heads × 12 blocks of either member, three at a time.
    assert held == [3 * 4 * 8 * 5 * 8] * 2 * 2 * 4


def test_three_branches_are_summed_as_in_the_network():
    network = tiny_network()
    made = exportable(network)
    block, same = network.encoder_stages[0].blocks[0].attention, made.encoder_stages[0].blocks[0].attention
    x = torch.randn(3, 192, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(same(x), block(x), rtol=0, atol=1e-6)
    query, key, value = tensors(pixels=64)
    gates = torch.rand(2, 8, 64, 3)
    same.layout = BlockLayout(32, 8, 3)
    expected = block_sparse_attention(query, key, value, gates, same.layout, "reference")
    torch.testing.assert_close(same._branches(query, key, value, gates), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bound", [1, 10**5, 10**9])
def test_an_interpolation_in_parts_is_the_same(monkeypatch, bound):
    monkeypatch.setattr(scanned, "GATHERED_AT_ONCE", bound)
    network = tiny_network()
    x = torch.randn(2, network.interp_to_hp.sources, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        made = ScannedInterpolation(network.interp_to_hp, torch.float32)
        torch.testing.assert_close(made(x), network.interp_to_hp(x), rtol=0, atol=1e-6)
    assert made.neighbors.shape[1] == {1: 1, 10**5: 192, 10**9: 192}[bound]


@pytest.mark.parametrize(
    ("number", "bound", "part"), [(12, 5, 4), (12, 0, 1), (7, 6, 1), (7, 100, 7), (29040, 455, 440)]
)
def test_items_are_the_largest_equal_parts_within_a_bound(number, bound, part):
    assert scanned._divisor(number, bound) == part


def test_half_precision_is_of_products_but_not_of_what_decides():
    made = exportable(tiny_network(), torch.float16)
    kinds = {name: tensor.dtype for name, tensor in made.state_dict().items()}
    half = {name for name, kind in kinds.items() if kind == torch.float16}
    assert "encoder_stages.0.blocks.0.attention.maps.0.weight" in half
    assert "bottleneck.blocks.0.ffn.w13.weight" in half
    exact = {"preprocess.0.weight", "postprocess.3.weight", "interp_to_hp.to_directions.weight", "static_vars"}
    assert not half & exact
    assert exact <= kinds.keys()
    inputs = tiny.inputs(1)
    with torch.no_grad():
        deviation = (made(*inputs) - tiny_network()(*inputs)).abs().max()
    assert 1e-4 < deviation < 2e-2
