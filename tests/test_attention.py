"""Every branch against a softmax over all pixels with a mask, written out pixel by pixel."""

import itertools

import pytest
import torch
from recorder import Recorder

from ai_models_mosaic.model import attention
from ai_models_mosaic.model.attention import (
    PORTABLE,
    BlockLayout,
    block_sparse_attention,
    plain_attention,
    sdpa_attention,
    select_blocks,
    selection,
)

BATCH, HEADS, KEY_HEADS, PIXELS, WIDTH = 2, 6, 2, 48, 8
LAYOUT = BlockLayout(local=16, sparse=4, selected=5)
LOCAL, COMPRESSED, SELECTED = range(3)

each_backend = pytest.mark.parametrize("backend", PORTABLE)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def heads():
    """Query, key and value."""
    return (
        randn(BATCH, HEADS, PIXELS, WIDTH, seed=1),
        randn(BATCH, KEY_HEADS, PIXELS, WIDTH, seed=2),
        randn(BATCH, KEY_HEADS, PIXELS, WIDTH, seed=3),
    )


@pytest.fixture
def gates():
    return randn(BATCH, HEADS, PIXELS, 3, seed=4).softmax(dim=-1)


def only(branch):
    """Gates that let one branch through."""
    gates = torch.zeros(BATCH, HEADS, PIXELS, 3)
    gates[..., branch] = 1
    return gates


def masked_softmax(query, key, value, mask):
    """Attention of one head, (pixel, d) each, to the pixels that the mask (query, key) allows; float64."""
    scores = query.double() @ key.double().T / query.shape[-1] ** 0.5
    weights = torch.where(mask, (scores - scores.max()).exp(), 0.0)
    return (weights / weights.sum(dim=1, keepdim=True)) @ value.double()


def block_means(x, size):
    return torch.stack([x[..., first : first + size, :].double().mean(-2) for first in range(0, x.shape[-2], size)], -2)


def chosen_blocks(query, key, layout):
    """Lists of the blocks chosen for every (batch, key/value head, query block): section 8, word for word."""
    heads, key_heads = query.shape[1], key.shape[1]
    group = heads // key_heads
    query, key = query.detach(), key.detach()
    mean_query, mean_key = block_means(query, layout.sparse), block_means(key, layout.sparse)
    blocks, chosen = mean_query.shape[2], {}
    for batch, j, block in itertools.product(range(query.shape[0]), range(key_heads), range(blocks)):
        scores = [
            sum(
                float(mean_query[batch, h, block] @ mean_key[batch, h // group, other])
                for h in range(j, heads, key_heads)
            )
            for other in range(blocks)
        ]
        chosen[batch, j, block] = sorted(range(blocks), key=lambda other: -scores[other])[: layout.selected]
    return chosen


def dense_branches(query, key, value, layout):
    """The three branches (batch, head, pixel, d) by masks over all pixels."""
    group = query.shape[1] // key.shape[1]
    pixel = torch.arange(query.shape[2])
    same_run = pixel[:, None] // layout.local == pixel // layout.local
    chosen = chosen_blocks(query, key, layout)
    means = [block_means(tensor, layout.sparse) for tensor in (query, key, value)]
    out = torch.zeros(3, *query.shape, dtype=torch.float64)
    for b, h in itertools.product(range(query.shape[0]), range(query.shape[1])):
        j = h // group
        of_head = query[b, h], key[b, j], value[b, j]
        out[LOCAL, b, h] = masked_softmax(*of_head, same_run)
        of_means = masked_softmax(means[0][b, h], means[1][b, j], means[2][b, j], torch.tensor(True))
        out[COMPRESSED, b, h] = of_means[pixel // layout.sparse]
        allowed = torch.stack(
            [torch.isin(pixel // layout.sparse, torch.tensor(chosen[b, j, int(run)])) for run in pixel // layout.sparse]
        )
        out[SELECTED, b, h] = masked_softmax(*of_head, allowed)
    return out


@each_backend
@pytest.mark.parametrize("branch", [LOCAL, COMPRESSED, SELECTED])
def test_each_branch_equals_a_masked_softmax_over_all_pixels(heads, branch, backend):
    found = block_sparse_attention(*heads, only(branch), LAYOUT, backend)
    torch.testing.assert_close(found.double(), dense_branches(*heads, LAYOUT)[branch], rtol=0, atol=2e-6)


@each_backend
def test_gates_weigh_local_compressed_and_selected_in_this_order(heads, gates, backend):
    local, compressed, selected = dense_branches(*heads, LAYOUT)
    expected = gates[..., 0:1] * local + gates[..., 1:2] * compressed + gates[..., 2:3] * selected
    found = block_sparse_attention(*heads, gates, LAYOUT, backend)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("heads_of", "layout"),
    [
        ((4, 4), BlockLayout(8, 8, 2)),
        ((4, 1), BlockLayout(48, 2, 5)),
        ((2, 2), BlockLayout(4, 12, 1)),
        ((8, 2), BlockLayout(24, 16, 3)),
        ((12, 3), BlockLayout(6, 3, 7)),
    ],
    ids=str,
)
def test_all_head_ratios_and_layouts_equal_the_dense_form_in_every_backend(heads_of, layout):
    query_heads, key_heads = heads_of
    query, key, value = (randn(1, n, PIXELS, 4, seed=n + i) for i, n in enumerate((query_heads, key_heads, key_heads)))
    gates = randn(1, query_heads, PIXELS, 3, seed=9).softmax(dim=-1)
    expected = (gates.movedim(-1, 0)[..., None] * dense_branches(query, key, value, layout)).sum(dim=0)
    for backend in PORTABLE:
        found = block_sparse_attention(query, key, value, gates, layout, backend)
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-6)


@each_backend
def test_where_blocks_cover_everything_all_branches_are_full_attention(heads, gates, backend):
    # Averages over single pixels, every block selected, one local run: three times the same.
    found = block_sparse_attention(*heads, gates, BlockLayout(PIXELS, 1, PIXELS), backend)
    query, key, value = (tensor.double() for tensor in heads)
    for b, h in itertools.product(range(BATCH), range(HEADS)):
        j = h // (HEADS // KEY_HEADS)
        expected = (query[b, h] @ key[b, j].T / WIDTH**0.5).softmax(dim=-1) @ value[b, j]
        torch.testing.assert_close(found[b, h].double(), expected, rtol=0, atol=2e-6)


def test_members_of_a_batch_do_not_see_each_other(heads, gates):
    together = block_sparse_attention(*heads, gates, LAYOUT)
    for b in range(BATCH):
        alone = block_sparse_attention(*(tensor[b : b + 1] for tensor in (*heads, gates)), LAYOUT)
        torch.testing.assert_close(together[b : b + 1], alone, rtol=0, atol=1e-6)


def test_scores_are_means_over_strided_query_heads_and_not_over_the_group():
    # One number per head and block: heads 0, 1 are served by key head 0, but heads 0, 2 choose for it.
    query = torch.tensor([1.0, 2.0, 5.0, 1.0]).view(1, 4, 1, 1).expand(1, 4, 3, 1)
    key = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 0.0]]).view(1, 2, 3, 1)
    strided = [[1 * 1 + 5 * 3, 1 * 2 + 5 * 2, 1 * 3 + 5 * 0], [2 * 1 + 1 * 3, 2 * 2 + 1 * 2, 2 * 3 + 1 * 0]]
    grouped = [[(1 + 2) * 1, (1 + 2) * 2, (1 + 2) * 3], [(5 + 1) * 3, (5 + 1) * 2, 0]]
    found = select_blocks(query, key, 1)
    assert found.shape == (1, 2, 3, 1)
    assert found[0, 0].flatten().tolist() == [strided[0].index(max(strided[0]))] * 3 == [0, 0, 0]
    assert grouped[0].index(max(grouped[0])) == 2
    # For key head 1 the two best of three differ as sets.
    assert set(select_blocks(query, key, 2)[0, 1, 0].tolist()) == {1, 2}
    assert strided[1] == [5, 6, 6]
    assert grouped[1] == [18, 12, 0]


def test_the_largest_signed_scores_are_chosen_and_each_block_once():
    query = torch.ones(1, 1, 5, 1)
    key = torch.tensor([-9.0, 0.5, -0.1, 3.0, 0.0]).view(1, 1, 5, 1)
    for block in select_blocks(query, key, 3)[0, 0]:
        assert sorted(block.tolist()) == [1, 3, 4]


def test_a_blocks_own_keys_are_not_chosen_where_their_score_is_low():
    # The score of a block with itself is its negative square: the worst of all.
    mean_query = randn(1, 1, 6, 4)
    chosen = select_blocks(mean_query, -mean_query, 1)[0, 0, :, 0]
    scores = mean_query[0, 0] @ -mean_query[0, 0].T
    assert chosen.tolist() == [int(row.argmax()) for row in scores]
    assert all(int(other) != block for block, other in enumerate(chosen))


@each_backend
def test_a_block_attends_only_to_the_blocks_it_selected(heads, backend):
    query, key, value = heads
    value = value.requires_grad_()
    chosen = chosen_blocks(query, key, LAYOUT)
    out = block_sparse_attention(query, key, value, only(SELECTED), LAYOUT, backend)
    own = 0
    for (b, j, block), others in chosen.items():
        first = block * LAYOUT.sparse
        of_block = out[b, 3 * j : 3 * j + 3, first : first + LAYOUT.sparse]
        (gradient,) = torch.autograd.grad(of_block.sum(), value, retain_graph=True)
        batches, key_heads, pixels, _ = gradient.nonzero().unbind(-1)
        assert set(batches.tolist()) == {b}
        assert set(key_heads.tolist()) == {j}
        assert sorted(set((pixels // LAYOUT.sparse).tolist())) == sorted(others)
        own += block in others
    assert own < len(chosen)


def test_the_selection_does_not_hang_on_half_precision():
    # In bfloat16 the three keys are the same number.
    for best in range(3):
        key = torch.ones(1, 1, 3, 1)
        key[0, 0, best] += 1e-3
        assert torch.equal(key.bfloat16(), torch.ones(1, 1, 3, 1, dtype=torch.bfloat16))
        with torch.autocast("cpu", torch.bfloat16):
            assert select_blocks(torch.ones(1, 1, 3, 1), key, 1).flatten().tolist() == [best] * 3


@pytest.mark.parametrize("attend", [plain_attention, sdpa_attention])
def test_scores_beyond_the_range_of_half_precision_do_not_overflow(attend):
    # 64 · 60² = 230 400 is above 65 504; over the root of 64 it is not.
    query = torch.full((1, 4, 64), 60.0, dtype=torch.float16)
    value = randn(1, 4, 64).half()
    found = attend(query, query, value)
    assert found.dtype == torch.float16
    torch.testing.assert_close(
        found, value.float().mean(dim=1, keepdim=True).half().expand(1, 4, 64), rtol=0, atol=2e-3
    )


@each_backend
def test_the_result_is_in_the_dtype_of_the_gates(heads, gates, backend):
    half = [tensor.bfloat16() for tensor in heads]
    assert block_sparse_attention(*half, gates, LAYOUT, backend).dtype == torch.float32
    assert block_sparse_attention(*half, gates.double(), LAYOUT, backend).dtype == torch.float64


@pytest.mark.parametrize(("scores", "gathered"), [(1, 1), (700, 200), (5000, 1000)])
@each_backend
def test_slices_of_bounded_memory_change_nothing(heads, gates, monkeypatch, backend, scores, gathered):
    whole = block_sparse_attention(*heads, gates, LAYOUT, backend)
    monkeypatch.setattr(attention, "SCORES_AT_ONCE", scores)
    monkeypatch.setattr(selection, "SCORES_AT_ONCE", scores)
    monkeypatch.setattr(attention, "GATHERED_AT_ONCE", gathered)
    torch.testing.assert_close(block_sparse_attention(*heads, gates, LAYOUT, backend), whole, rtol=0, atol=1e-6)


def test_a_plain_softmax_holds_no_more_scores_than_allowed(monkeypatch):
    monkeypatch.setattr(attention, "SCORES_AT_ONCE", 1500)
    query, key = randn(40, 16, 4), randn(40, 24, 4)
    with Recorder() as recorder:
        plain_attention(query, key, key)
    slices = [shape[0] for shape in recorder.shapes if shape[1:] == (16, 24)]
    assert slices
    assert max(slices) == 1500 // (16 * 24)


def test_fused_kernels_never_hold_the_scores():
    query, key = randn(8, 128, 8), randn(8, 256, 8)
    with Recorder() as recorder:
        sdpa_attention(query, key, key)
    assert recorder.largest <= key.numel() < 8 * 128 * 256


@each_backend
def test_no_more_selected_keys_are_copied_than_allowed(heads, gates, monkeypatch, backend):
    monkeypatch.setattr(attention, "GATHERED_AT_ONCE", 1000)
    with Recorder() as recorder:
        block_sparse_attention(*heads, gates, LAYOUT, backend)
    gathers = [shape[0] for shape in recorder.shapes if shape[1:] == (LAYOUT.selected, LAYOUT.sparse, WIDTH)]
    # For keys and for values, six lots of 5 · 4 · 8 elements at a time.
    assert sum(gathers) == 2 * BATCH * KEY_HEADS * PIXELS // LAYOUT.sparse
    assert max(gathers) == 1000 // (5 * 4 * 8)


@each_backend
def test_gradients_equal_those_of_the_dense_form(backend):
    query, key, value, gates = (
        randn(1, n, 24, width, seed=n + width).requires_grad_() for n, width in ((4, 4), (2, 4), (2, 4), (4, 3))
    )
    layout = BlockLayout(12, 4, 2)
    dense = (gates.movedim(-1, 0)[..., None] * dense_branches(query, key, value, layout)).sum(dim=0)
    found = block_sparse_attention(query, key, value, gates, layout, backend)
    weights = randn(*found.shape, seed=8)
    leaves = (query, key, value, gates)
    expected = torch.autograd.grad((dense * weights).sum(), leaves)
    for gradient, wanted in zip(torch.autograd.grad((found * weights).sum(), leaves), expected, strict=True):
        assert wanted.abs().max() > 0.01
        torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", ["reference", "sdpa", "tiled"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_sum_goes_where_it_is_asked_for(heads, gates, backend, dtype):
    wide = torch.full((BATCH, PIXELS, HEADS * WIDTH + 8), 7.0, dtype=dtype)
    out = wide[..., : HEADS * WIDTH].unflatten(-1, (HEADS, WIDTH)).transpose(1, 2)
    with torch.inference_mode():
        expected = block_sparse_attention(*heads, gates, LAYOUT, backend)
        assert block_sparse_attention(*heads, gates, LAYOUT, backend, out=out) is out
    torch.testing.assert_close(out, expected.to(dtype), rtol=0, atol=0)
    assert (wide[..., HEADS * WIDTH :] == 7).all()


def test_means_that_are_known_are_not_made_again(heads, gates):
    means = tuple(attention.block_means(tensor, LAYOUT.sparse) for tensor in heads)
    expected = block_sparse_attention(*heads, gates, LAYOUT)
    assert torch.equal(block_sparse_attention(*heads, gates, LAYOUT, means=means), expected)
    nothing = tuple(torch.zeros_like(mean) for mean in means)
    assert (block_sparse_attention(*heads, only(COMPRESSED), LAYOUT, means=nothing) == 0).all()
