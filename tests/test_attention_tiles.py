"""The selected branch in tiles of scores, on a CPU."""

import pytest
import torch
from test_attention_backends import outputs, problem

from ai_models_mosaic.model.attention import BlockLayout, block_sparse_attention
from ai_models_mosaic.model.attention import tiles as attention_tiles
from ai_models_mosaic.model.attention.tiles import LARGEST_SCORE, even_lanes, largest_score, tiled_selected


@pytest.fixture
def threads():
    """Sets their number, for a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def refused(_):
    raise AssertionError("a branch that should have been computed in tiles")


@pytest.mark.parametrize(
    ("groups", "ratio", "pixels", "width", "layout", "batch"),
    [
        # The shape classes of the three stages, with fewer pixels and heads.
        (1, 4, 4096, 64, BlockLayout(1024, 128, 24), 1),
        (2, 4, 2048, 64, BlockLayout(1024, 128, 12), 1),
        (2, 4, 1024, 64, BlockLayout(1024, 128, 4), 1),
        (2, 3, 240, 40, BlockLayout(48, 24, 3), 2),
        (1, 1, 64, 16, BlockLayout(16, 8, 1), 3),
    ],
    ids=["stage 0", "stage 1", "bottleneck", "two members", "one head to a group"],
)
def test_tiles_give_what_the_reference_gives(groups, ratio, pixels, width, layout, batch):
    made = problem(groups, ratio, pixels, width, layout, batch=batch)
    found, expected = outputs(made, "tiled")
    tiled_selected(made, refused)
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("scores", [64, 5000, 2**30])
def test_a_tile_of_any_size_gives_the_same(scores, monkeypatch):
    made = problem(2, 4, 960, 32, BlockLayout(64, 16, 5))
    monkeypatch.setattr(attention_tiles, "SCORES_AT_ONCE", scores)
    found, expected = outputs(made, "tiled")
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)


def test_members_and_heads_with_large_scores_are_left_to_the_other_way_alone(monkeypatch):
    made = problem(2, 2, 192, 16, BlockLayout(48, 16, 3), batch=2)
    # One group of one member.
    made.query[1, 2:] *= 40
    assert [largest_score(made.of(member, head)) > LARGEST_SCORE for member in (0, 1) for head in (0, 1)] == [
        False,
        False,
        False,
        True,
    ]
    seen = []

    def otherwise(part):
        seen.append(part.query)
        return torch.full_like(part.query, 7)

    with torch.inference_mode():
        found = tiled_selected(made, otherwise)
        alone = tiled_selected(problem(2, 2, 192, 16, made.layout, batch=2).of(0, 1), refused)
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], made.query[1:, 2:])
    assert (found[1, 2:] == 7).all()
    assert not (found[1, :2] == 7).any()
    assert torch.equal(found[:1, 2:], alone)


def test_large_scores_neither_overflow_nor_vanish():
    made = problem(1, 2, 96, 16, BlockLayout(48, 16, 3))
    for factor in (1, 3, 30, 1000):
        made.query.copy_(problem(1, 2, 96, 16, made.layout).query * factor)
        found, expected = outputs(made, "tiled")
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_the_largest_score_bounds_all_scores_and_is_reached_by_one():
    made = problem(1, 2, 96, 16, BlockLayout(48, 16, 3))
    scores = made.query @ made.key.transpose(2, 3) / 16**0.5
    assert scores.abs().max() <= largest_score(made)
    made.key[0, 0, 5] = 10 * made.query[0, 0].flatten(0, 0)[made.query[0, 0].norm(dim=-1).argmax()]
    made.query[0, 1] *= 0.01
    scores = made.query @ made.key.transpose(2, 3) / 16**0.5
    assert float(scores.abs().max()) == pytest.approx(largest_score(made), rel=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16])
def test_blocks_are_dealt_out_evenly_and_to_every_thread_or_not_at_all(count, threads):
    threads(count)
    for pixels, layout in ((4096, BlockLayout(1024, 128, 24)), (192, BlockLayout(48, 16, 3))):
        made = problem(1, 4, pixels, 16, layout)
        lanes, blocks = even_lanes(made), pixels // layout.sparse
        if count > blocks:
            assert lanes is None
        else:
            assert lanes >= count
            assert blocks % lanes == 0


def test_bytes_hang_neither_on_the_batch_nor_on_the_number_of_threads(threads):
    made = problem(2, 4, 4096, 64, BlockLayout(1024, 128, 24), batch=2)
    found = {}
    for count in (1, 2, 3):
        threads(count)
        with torch.inference_mode():
            found[count] = tiled_selected(made, refused)
            assert torch.equal(found[count][1:], tiled_selected(problem_of(made, 1), refused))
    assert torch.equal(found[1], found[2])
    assert torch.equal(found[1], found[3])


def problem_of(made, member):
    """One member of a batch, with all its heads."""
    one = slice(member, member + 1)
    means = tuple(mean[one] for mean in made.means)
    return type(made)(
        made.query[one], made.key[one], made.value[one], made.gates[one], means, made.lists[one], made.layout
    )


def test_gradients_and_other_precisions_are_refused():
    made = problem(1, 2, 96, 8, BlockLayout(48, 16, 2))
    arguments = made.key, made.value, made.gates, made.layout, "tiled"
    with pytest.raises(
        ValueError, match=r"^the attention backend tiled has no gradients; train with the backend reference or sdpa$"
    ):
        block_sparse_attention(made.query.clone().requires_grad_(), *arguments)
    half = problem(1, 2, 96, 8, made.layout, torch.bfloat16)
    with pytest.raises(
        ValueError,
        match=r"^the attention backend tiled expected tensors on cpu in float32, got cpu in bfloat16; take sdpa$",
    ):
        outputs(half, "tiled")
