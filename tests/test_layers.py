import pytest
import torch
from recorder import Recorder

from ai_models_mosaic.model import layers, slices
from ai_models_mosaic.model.attention import block_sparse_attention
from ai_models_mosaic.model.buffers import rotary_table
from ai_models_mosaic.model.fused import plain
from ai_models_mosaic.model.fused.plain import rotated
from ai_models_mosaic.model.interpolation import CrossGridAttention
from ai_models_mosaic.model.layers import (
    Attention,
    Block,
    FeedForward,
    MemberLinear,
    RMSNorm,
    RotaryTable,
)
from ai_models_mosaic.model.resampling import Downsample, Upsample
from ai_models_mosaic.model.slices import row_slices
from ai_models_mosaic.variants import Stage

STAGE = Stage(2, 32, 4, 12, 8, 3, encoder_depth=1, mlp_ratio=1.5, gqa_ratio=2)
COARSE = Stage(1, 48, 4, 12, 4, 2, encoder_depth=1, gqa_ratio=2)
NOISE = 6


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomise(module, seed=0):
    """Random weights and float buffers, as a module is once a checkpoint is loaded."""
    for index, tensor in enumerate(module.state_dict().values()):
        if tensor.is_floating_point():
            tensor.copy_(randn(*tensor.shape, seed=seed + index) / tensor.shape[-1] ** 0.5)
    return module


def rms_norm(x):
    return x / (x.square().mean(dim=-1, keepdim=True) + 1.1920929e-07).sqrt()


# Norm.


def test_the_norm_divides_by_the_root_mean_square_and_does_not_centre():
    x = torch.tensor([[3.0, 3.0, 3.0, 3.0], [1.0, -1.0, 7.0, 7.0]])
    torch.testing.assert_close(RMSNorm()(x), torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.2, -0.2, 1.4, 1.4]]))


def test_the_norm_has_the_small_eps_of_float32_inside_the_root():
    # Which the parity files cannot reveal: 1e-8 / (1e-8 + 1.1920929e-7) under the root.
    found = RMSNorm()(torch.full((1, 8), 1e-4))
    torch.testing.assert_close(found, torch.full((1, 8), 0.2781975), rtol=1e-5, atol=0)
    assert not RMSNorm()(torch.zeros(1, 8)).any()


def test_the_norm_is_in_float32_with_the_eps_of_float32_whatever_comes_in():
    x = torch.full((1, 8), 1e-4, dtype=torch.float16)
    found = RMSNorm()(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, rms_norm(x.float()), rtol=1e-5, atol=0)
    assert list(RMSNorm().parameters()) == []


# Rotation.


def rope_of(stage):
    rope = RotaryTable(stage)
    rope.cos_freqs.copy_(rotary_table(stage.nside, stage.head_width, cosine=True))
    rope.sin_freqs.copy_(rotary_table(stage.nside, stage.head_width, cosine=False))
    return rope


def test_rotation_turns_adjacent_pairs_by_longitude_first_and_then_latitude():
    # Head width 8: two frequencies, 1 and 10 000^(-1/2) = 0.01. Nested pixel 0 of nside 1 is at 45° E, asin(2/3) N.
    stage = Stage(1, 16, 2, 12, 12, 1, encoder_depth=1, gqa_ratio=1)
    longitude, latitude = torch.pi / 4, torch.asin(torch.tensor(2 / 3)).item()
    x = torch.zeros(4, 1, 12, 8)
    for pair in range(4):
        x[pair, :, :, 2 * pair] = 1
    found = rope_of(stage)(x)[:, 0, 0]
    for pair, angle in enumerate([longitude, 0.01 * longitude, latitude, 0.01 * latitude]):
        expected = torch.zeros(8)
        expected[2 * pair : 2 * pair + 2] = torch.tensor([angle, angle - torch.pi / 2]).cos()
        torch.testing.assert_close(found[pair], expected, rtol=0, atol=1e-6)


def test_rotation_keeps_norms_and_dtype():
    x = randn(2, 4, STAGE.pixels, STAGE.head_width)
    found = rope_of(STAGE)(x)
    assert (found - x).abs().max() > 0.5
    torch.testing.assert_close(found.norm(dim=-1), x.norm(dim=-1), rtol=1e-5, atol=0)
    half = rope_of(STAGE)(x.bfloat16())
    assert half.dtype == torch.bfloat16
    # In float32 inside: as good as rounding once.
    assert torch.equal(half, rope_of(STAGE)(x.bfloat16().float()).bfloat16())


# Attention.


def test_queries_and_keys_are_rotated_by_their_own_tables_and_values_not_at_all():
    module = randomise(Attention(STAGE))
    x = randn(2, STAGE.pixels, STAGE.width, seed=50)
    query, key, value = (
        (x @ weight.T).reshape(2, STAGE.pixels, -1, 8).transpose(1, 2)
        for weight in (module.to_q.weight, module.to_k.weight, module.to_v.weight)
    )
    assert (query.shape[1], key.shape[1], value.shape[1]) == (4, 2, 2)

    def rotate(heads, rope):
        turned = torch.view_as_complex(heads.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(turned * torch.complex(rope.cos_freqs, rope.sin_freqs)).flatten(-2)

    gates = (x @ module.to_strategy_combine_mlp.weight.T).reshape(2, STAGE.pixels, 4, 3).softmax(dim=-1)
    out = block_sparse_attention(
        rotate(query, module.q_rope), rotate(key, module.k_rope), value, gates.transpose(1, 2), module.layout
    )
    expected = out.transpose(1, 2).reshape(2, STAGE.pixels, STAGE.width) @ module.to_o.weight.T
    assert not torch.equal(module.q_rope.cos_freqs, module.k_rope.cos_freqs)
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("head", "branch"), [(0, 0), (1, 2), (2, 1), (3, 2)])
def test_gate_rows_are_ordered_by_head_with_the_branch_fastest(head, branch):
    module = randomise(Attention(STAGE))
    module.to_o.weight.data = torch.eye(STAGE.width)
    x = randn(1, STAGE.pixels, STAGE.width, seed=50)
    x[..., 0] = 1
    outputs = []
    for branch_of_head in (branch, (branch + 1) % 3):
        gate = torch.zeros(12, STAGE.width)
        gate[3 * head + branch_of_head, 0] = 100
        module.to_strategy_combine_mlp.weight.data = gate
        outputs.append(module(x).unflatten(-1, (4, 8)))
    changed = (outputs[0] != outputs[1]).flatten(0, 1).any(dim=0).any(dim=-1)
    assert changed.tolist() == [index == head for index in range(4)]
    # And it is the branch that was asked for: the local one ends at its run of 12 pixels, the others do not.
    y = x.clone()
    y[:, 12:, 1:] = randn(1, STAGE.pixels - 12, STAGE.width - 1, seed=51)
    module.to_strategy_combine_mlp.weight.data = torch.zeros(12, STAGE.width)
    module.to_strategy_combine_mlp.weight.data[3 * head + branch, 0] = 100
    same = torch.equal(module(x).unflatten(-1, (4, 8))[:, :12, head], module(y).unflatten(-1, (4, 8))[:, :12, head])
    assert same == (branch == 0)


# Feed-forward.


@pytest.fixture
def feed_forward():
    return randomise(FeedForward(STAGE, NOISE))


def test_feed_forward_shifts_the_first_half_and_multiplies_by_the_second(feed_forward):
    x, noise = randn(2, 5, STAGE.width, seed=60), randn(2, NOISE, seed=61)
    w13, w2, bias = (getattr(feed_forward, name).weight for name in ("w13", "w2", "noise_bias"))
    hidden = int(32 * 1.5)
    assert w13.shape == (2 * hidden, 32)
    for member in range(2):
        gate = x[member] @ w13[:hidden].T + bias @ noise[member]
        expected = (gate / (1 + (-gate).exp()) * (x[member] @ w13[hidden:].T)) @ w2.T
        torch.testing.assert_close(feed_forward(x, noise)[member], expected, rtol=0, atol=1e-5)


def test_feed_forward_in_slices_equals_that_with_gradients_and_holds_less(feed_forward):
    # Two slices and a rest.
    x, noise = randn(1, 2 * layers.TOKENS_AT_ONCE + 5, STAGE.width), randn(1, NOISE)
    whole = feed_forward(x, noise)
    assert whole.requires_grad
    with torch.no_grad(), Recorder() as recorder:
        sliced = feed_forward(x, noise)
    torch.testing.assert_close(sliced, whole.detach(), rtol=0, atol=1e-6)
    hidden = {shape[1] for shape in recorder.shapes if shape[-1] == 2 * STAGE.hidden_width and len(shape) == 3}
    assert hidden == {8192, 5}


def test_noise_is_the_same_at_every_token(feed_forward):
    token = randn(1, 1, STAGE.width)
    found = feed_forward(token.expand(2, 9, -1), randn(2, NOISE))
    torch.testing.assert_close(found, found[:, :1].expand(-1, 9, -1), rtol=0, atol=1e-6)
    assert (found[0] - found[1]).abs().max() > 0.01


def test_noise_without_weights_has_no_influence(feed_forward):
    x = randn(1, 7, STAGE.width)
    feed_forward.noise_bias.weight.data.zero_()
    assert torch.equal(feed_forward(x, randn(1, NOISE, seed=1)), feed_forward(x, torch.zeros(1, NOISE)))


# Block.


def test_a_block_adds_attention_and_feed_forward_of_the_normed_stream():
    block = randomise(Block(STAGE, NOISE))
    x, noise = 5 * randn(2, STAGE.pixels, STAGE.width), randn(2, NOISE)
    middle = x + block.attention(rms_norm(x))
    torch.testing.assert_close(block(x, noise), middle + block.ffn(rms_norm(middle), noise), rtol=0, atol=1e-4)
    block.attention.to_o.weight.data.zero_()
    block.ffn.w2.weight.data.zero_()
    assert torch.equal(block(x, noise), x)


# Without gradients: in slices.


@pytest.fixture
def in_small_slices(monkeypatch):
    """Slices of 7 rows of the feed-forward, of 10 of the heads, of 20 of the residual sum."""
    monkeypatch.setattr(slices, "CACHED_AT_ONCE", 7 * 2 * STAGE.hidden_width)


def without_gradients(function, *arguments):
    with torch.no_grad():
        return function(*arguments)


@pytest.mark.parametrize(
    ("device", "batch", "rows", "at_once", "count"),
    [
        ("cpu", 1, 48, 7, 7),
        ("cpu", 3, 48, 7, 21),
        ("cpu", 3, 48, 48, 3),
        ("cpu", 5, 48, 100, 5),
        ("meta", 5, 48, 100, 3),
        ("meta", 2, 5, 0, 10),
    ],
)
def test_slices_lie_in_one_piece_and_cover_everything_once(monkeypatch, device, batch, rows, at_once, count):
    monkeypatch.setattr(slices, "CACHED_AT_ONCE", at_once * 16)
    monkeypatch.setattr(slices, "HELD_AT_ONCE", at_once * 16)
    seen = torch.zeros(batch, rows, 2)
    parts = list(row_slices(batch, rows, 16, torch.device(device)))
    for part in parts:
        assert seen[part].flatten(0, 1).data_ptr() == seen[part].data_ptr(), "a copy would not be written back"
        assert seen[part].shape[:2].numel() <= max(at_once, 1)
        seen[part] += 1
    assert (seen == 1).all()
    assert len(parts) == count


def test_a_block_in_slices_equals_that_with_gradients(in_small_slices):
    block = randomise(Block(STAGE, NOISE))
    x, noise = 5 * randn(2, STAGE.pixels, STAGE.width), randn(2, NOISE)
    before = x.clone()
    expected = block(x, noise)
    assert expected.requires_grad
    torch.testing.assert_close(without_gradients(block, x, noise), expected.detach(), rtol=0, atol=2e-5)
    assert torch.equal(x, before), "the skips of the network are inputs of other blocks"


def test_a_block_in_slices_never_holds_the_hidden_layer_nor_all_its_normed_input(in_small_slices):
    block = randomise(Block(STAGE, NOISE))
    x, noise = randn(1, STAGE.pixels, STAGE.width), randn(1, NOISE)
    x = without_gradients(block.attend, x)
    with torch.no_grad(), Recorder() as recorder:
        found = block(x, noise, attended=True)
    assert found.data_ptr() == x.data_ptr()
    # The weights are the largest of all.
    assert recorder.largest == 2 * STAGE.hidden_width * STAGE.width < STAGE.pixels * 2 * STAGE.hidden_width
    made = [torch.Size(shape).numel() for shape in recorder.shapes if shape[0] != 2 * STAGE.hidden_width]
    assert 7 * 2 * STAGE.hidden_width in made


def test_joined_maps_are_one_matrix_of_which_the_weights_are_parts():
    module = randomise(Attention(STAGE)).requires_grad_(False)
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    module.join()
    assert module.joined.shape == (32 + 16 + 16 + 12, 32)
    assert module.state_dict().keys() == before.keys(), "checkpoints know nothing of it"
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())
    for each in (module.to_q, module.to_k, module.to_v, module.to_strategy_combine_mlp):
        assert each.weight.untyped_storage().data_ptr() == module.joined.untyped_storage().data_ptr()
    assert module.to_o.weight.untyped_storage().data_ptr() != module.joined.untyped_storage().data_ptr()


def test_joined_maps_change_no_number():
    block = randomise(Block(STAGE, NOISE)).requires_grad_(False)
    x, noise = randn(2, STAGE.pixels, STAGE.width), randn(2, NOISE)
    before = without_gradients(block, x, noise)
    block.attention.join()
    assert torch.equal(without_gradients(block, x, noise), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotation_of_some_pixels_is_that_of_all(dtype):
    rope = rope_of(STAGE)
    x = randn(2, STAGE.pixels, 4 * STAGE.head_width).to(dtype)
    whole = rope(x.unflatten(-1, (4, -1)).transpose(1, 2)).transpose(1, 2).flatten(2)
    found = rotated(x[:, 5:12], rope.cos_freqs[5:12], rope.sin_freqs[5:12])
    assert found.dtype == dtype
    torch.testing.assert_close(found, whole[:, 5:12], rtol=2**-8 if dtype == torch.bfloat16 else 0, atol=1e-6)


def test_a_map_rounds_its_input_to_the_precision_of_its_weights():
    module = layers.Linear(8, 3).bfloat16()
    x = randn(5, 8)
    found = without_gradients(module, x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, without_gradients(module, x.bfloat16()))


def test_changes_of_resolution_in_slices_equal_those_with_gradients(in_small_slices):
    down, up = randomise(Downsample(STAGE, COARSE)), randomise(Upsample(COARSE, STAGE))
    x = randn(2, STAGE.pixels, STAGE.width, seed=70)
    coarse = down(x)
    torch.testing.assert_close(without_gradients(down, x), coarse.detach(), rtol=0, atol=1e-6)
    torch.testing.assert_close(without_gradients(up, coarse, x), up(coarse, x).detach(), rtol=0, atol=1e-6)


# Change of resolution.


def test_downsampling_joins_the_four_children_in_order():
    module = randomise(Downsample(STAGE, COARSE))
    assert module.rel_pos.shape == (12, 12)
    x = randn(2, STAGE.pixels, STAGE.width, seed=70)
    found = module(x)
    for member in range(2):
        for pixel in range(12):
            row = torch.cat([x[member, 4 * pixel + child] for child in range(4)])
            joined = module.proj_x.weight @ row + module.proj_pos.weight @ module.rel_pos[pixel]
            torch.testing.assert_close(found[member, pixel], rms_norm(joined), rtol=0, atol=1e-5)


def test_upsampling_deals_out_the_children_in_order_and_norms_the_sum_with_the_skip():
    module = randomise(Upsample(COARSE, STAGE))
    x, skip = randn(2, 12, COARSE.width, seed=71), randn(2, STAGE.pixels, STAGE.width, seed=72)
    found = module(x, skip)
    for member in range(2):
        for pixel in range(12):
            children = module.proj_x.weight @ x[member, pixel] + module.proj_pos.weight @ module.rel_pos[pixel]
            for child in range(4):
                of_child = children[child * 32 : (child + 1) * 32] + skip[member, 4 * pixel + child]
                torch.testing.assert_close(found[member, 4 * pixel + child], rms_norm(of_child), rtol=0, atol=1e-5)


# Interpolation.

SOURCES, TARGETS, NEIGHBOURS = 20, 30, 7


@pytest.fixture
def interpolation():
    module = randomise(CrossGridAttention(STAGE, SOURCES, TARGETS, NEIGHBOURS))
    lists = [torch.randperm(SOURCES, generator=torch.Generator().manual_seed(t))[:NEIGHBOURS] for t in range(TARGETS)]
    module.neighbors.copy_(torch.stack(lists))
    module.rel_pos[3, 2] = 0
    return module


def plain_interpolation(module, x, *, double=True):
    """Section 5 with every key and value gathered."""
    kind = torch.float64 if double else torch.float32
    to_q, to_kv, to_o = (getattr(module, name).weight.to(kind) for name in ("to_q", "to_kv", "to_o"))
    normed = rms_norm(x.to(kind))
    query = (module.rel_pos.to(kind) @ to_q.T).unflatten(-1, (4, 8))
    keys, values = ((normed @ half.T)[:, module.neighbors].unflatten(-1, (4, 8)) for half in to_kv.chunk(2))
    weights = ((query * keys).sum(dim=-1) / 8**0.5).softmax(dim=2)
    return (weights[..., None] * values).sum(dim=2).flatten(-2) @ to_o.T


def test_interpolation_equals_attention_over_gathered_neighbours(interpolation):
    x = 3 * randn(2, SOURCES, STAGE.width, seed=80)
    expected = plain_interpolation(interpolation, x)
    assert expected.abs().mean() > 0.1
    torch.testing.assert_close(interpolation(x).double(), expected, rtol=0, atol=2e-6)


def test_gradients_of_the_interpolation_equal_those_of_the_plain_form(interpolation):
    x = randn(2, SOURCES, STAGE.width, seed=80).requires_grad_()
    leaves = [x, *interpolation.parameters()]
    weights = randn(2, TARGETS, STAGE.width, seed=81)
    expected = torch.autograd.grad((plain_interpolation(interpolation, x) * weights).sum(), leaves)
    found = torch.autograd.grad((interpolation(x) * weights).sum(), leaves)
    for gradient, wanted in zip(found, expected, strict=True):
        assert wanted.abs().max() > 0.01
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("at_once", [1, 100, 700])
def test_interpolation_in_slices_changes_nothing(interpolation, monkeypatch, at_once):
    x = randn(1, SOURCES, STAGE.width)
    whole = interpolation(x)
    monkeypatch.setattr(plain, "GATHERED_AT_ONCE", at_once)
    torch.testing.assert_close(interpolation(x), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("gradients", [False, True])
def test_no_tensor_of_neighbours_times_width_is_ever_made(gradients):
    module = randomise(CrossGridAttention(STAGE, 400, 500, 16))
    module.neighbors.copy_(torch.arange(500 * 16).view(500, 16) % 400)
    x = randn(1, 400, STAGE.width)
    with torch.set_grad_enabled(gradients), Recorder() as recorder:
        found = module(x)
    assert found.shape == (1, 500, STAGE.width)
    # The directions are three numbers per target, neighbour and head.
    assert recorder.largest <= 500 * 16 * 4 * 3 < 500 * 16 * STAGE.width
    with Recorder() as plain:
        plain_interpolation(module, x, double=False)
    assert plain.largest >= 500 * 16 * STAGE.width


def test_folded_weights_keep_their_precision_when_those_they_are_made_of_are_rounded(interpolation):
    x = randn(2, SOURCES, STAGE.width, seed=80)
    before = without_gradients(interpolation, x)
    interpolation.fold()
    assert torch.equal(without_gradients(interpolation, x), before)
    interpolation.to_q.weight.data.zero_()
    interpolation.to_kv.weight.data[: STAGE.width] = 0
    assert torch.equal(without_gradients(interpolation, x), before)


def test_scores_of_an_interpolation_stay_in_float32_under_autocast(interpolation):
    x = randn(2, SOURCES, STAGE.width, seed=80)
    # The values and the last map are the identity: what remains are scores and sums.
    interpolation.to_kv.weight.data[STAGE.width :] = torch.eye(STAGE.width)
    interpolation.to_o.weight.data = torch.eye(STAGE.width)
    with torch.autocast("cpu", torch.bfloat16):
        found = interpolation(x)
    # One rounding of the values and one of the result, 2^-9 each, of numbers up to 4.
    torch.testing.assert_close(found.double(), plain_interpolation(interpolation, x), rtol=2**-7, atol=2**-7)


def test_rows_of_members_are_mapped_the_same_to_the_bit_however_many_there_are():
    layer, rows = MemberLinear(32, 96), torch.randn(7, 32, generator=torch.Generator().manual_seed(3))
    together = layer(rows)
    torch.testing.assert_close(together, rows @ layer.weight.T, rtol=0, atol=1e-5)
    for row in range(7):
        assert torch.equal(layer(rows[row : row + 1]), together[row : row + 1])
    assert list(layer.state_dict()) == ["weight"]
