import math
import re
from dataclasses import replace
from pathlib import Path

import parity
import pytest
import tiny
import torch
from torch._dynamo.utils import counters

from ai_models_mosaic.checkpoints.format import build_network
from ai_models_mosaic.model.attention import PORTABLE
from ai_models_mosaic.model.layers import Attention, Block
from ai_models_mosaic.model.network import MosaicNetwork, initialise
from ai_models_mosaic.variants import ERA5, HRES, MINI, Architecture, Stage

DATA = Path(__file__).parent / "data"
FILES = [DATA / "era5_tiny.npz", DATA / "hres_tiny.npz"]

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
each_backend = pytest.mark.parametrize("backend", PORTABLE)


@pytest.fixture
def network():
    return build_network(tiny.ARCHITECTURE, tiny.checkpoint_of(tiny.parameters()), tiny.STATICS)


def on_meta(variant):
    with torch.device("meta"):
        return MosaicNetwork(variant.architecture)


def seen_by(module, run):
    """What goes into a module during a run."""
    seen = []
    handle = module.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    with torch.no_grad():
        run()
    handle.remove()
    return seen


# Input features.


def test_features_are_history_then_statics_then_clock_in_token_order(network):
    state, progress, noise = tiny.inputs(members=2)
    ((features,),) = seen_by(network.preprocess[0], lambda: network(state, progress, noise))
    columns, rows = tiny.ARCHITECTURE.grid.shape
    assert features.shape == (2, columns * rows, 2 * 5 + 6 + 4)
    for member, column, row in [(0, 0, 0), (0, 3, 2), (1, 11, 6)]:
        point = features[member, column * rows + row]
        assert torch.equal(point[:5], state[member, 0, column, row]), "the oldest state comes first"
        assert torch.equal(point[5:10], state[member, 1, column, row])
        assert torch.equal(point[10:16], network.static_vars[column * rows + row, 0])


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        ((0.0, 0.0), (0, 1, 0, 1)),
        ((0.25, 0.5), (1, 0, 0, -1)),
        ((0.5, 0.25), (0, -1, 1, 0)),
        ((0.75, 1 / 12), (-1, 0, 0.5, 3**0.5 / 2)),
        ((2.25, 1.5), (1, 0, 0, -1)),
    ],
)
def test_the_clock_is_sine_and_cosine_of_the_day_then_of_the_year(network, progress, expected):
    state, _, noise = tiny.inputs()
    ((features,),) = seen_by(network.preprocess[0], lambda: network(state, torch.tensor(progress), noise))
    clock = features[0, :, -4:]
    torch.testing.assert_close(clock, torch.tensor(expected, dtype=torch.float32).expand_as(clock), rtol=0, atol=2e-6)


# Structure.


@pytest.mark.parametrize(("variant", "count"), [(ERA5, 214_184_448), (HRES, 214_310_400)], ids=["era5", "hres"])
def test_released_variants_have_the_released_number_of_parameters(variant, count):
    assert sum(parameter.numel() for parameter in on_meta(variant).parameters()) == count


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("static_vars", (29040, 1, 6)),
        ("preprocess.0.weight", (768, 174)),
        ("interp_to_hp.neighbors", (49152, 24)),
        ("interp_to_ll.to_kv.weight", (1536, 768)),
        ("encoder_stages.0.blocks.0.ffn.w13.weight", (6144, 768)),
        ("encoder_stages.0.blocks.1.attention.k_rope.sin_freqs", (49152, 32)),
        ("downsample_layers.0.proj_x.weight", (1024, 3072)),
        ("downsample_layers.1.rel_pos", (3072, 12)),
        ("bottleneck.blocks.1.attention.to_strategy_combine_mlp.weight", (60, 1280)),
        ("upsample_layers.0.proj_x.weight", (4096, 1280)),
        ("upsample_layers.1.proj_pos.weight", (3072, 12)),
        ("decoder_stages.0.blocks.1.attention.to_o.weight", (1024, 1024)),
        ("postprocess.3.weight", (82, 768)),
    ],
)
def test_keys_and_shapes_are_those_of_the_released_checkpoint(key, shape):
    assert on_meta(ERA5).state_dict()[key].shape == shape


def test_all_keys_follow_the_pattern_of_the_released_checkpoint():
    block = (
        r"blocks\.\d\.(attention\.((to_[qkvo]|to_strategy_combine_mlp)\.weight|[qk]_rope\.(cos|sin)_freqs)"
        r"|ffn\.(w13|w2|noise_bias)\.weight)"
    )
    pattern = re.compile(
        r"static_vars|noise_generator\.to_noise\.weight|preprocess\.[03]\.weight|postprocess\.[13]\.weight"
        r"|interp_to_(hp|ll)\.(neighbors|rel_pos|to_q\.weight|to_kv\.weight|to_o\.weight)"
        rf"|((en|de)coder_stages\.[01]|bottleneck)\.{block}"
        r"|(down|up)sample_layers\.[01]\.(rel_pos|proj_x\.weight|proj_pos\.weight)"
    )
    state = on_meta(ERA5).state_dict()
    assert [key for key in state if not pattern.fullmatch(key)] == []
    # 14 blocks of 8 maps and 4 tables; 1 + 2 + 2 maps, 2 · 3 of interpolations, 4 · 2 of changes of resolution.
    assert len(state) == 14 * 12 + (5 + 6 + 8) + (1 + 4 + 4)


def test_skips_go_to_the_decoder_stage_of_their_own_resolution():
    # Stages of one width: swapped skips of another length could not be added, so the values decide.
    path = DATA / "hres_tiny.npz"
    network, case = parity.load(path)
    outputs = []
    for stage in network.encoder_stages:
        stage.register_forward_hook(lambda _, __, out: outputs.append(out))
    skips = []
    for up in network.upsample_layers:
        up.register_forward_pre_hook(lambda _, arguments: skips.append(arguments[1]))
    parity.predict(network, case)
    assert len(outputs) == len(skips) == 2
    assert torch.equal(skips[0], outputs[1])
    assert torch.equal(skips[1], outputs[0])


# Behaviour.


def test_the_prediction_is_the_next_state_and_not_an_increment(network):
    network.postprocess[3].weight.data.zero_()
    with torch.no_grad():
        assert not network(*tiny.inputs()).any()


def test_the_output_is_ordered_by_longitude_latitude_and_channel(network):
    columns, rows = tiny.ARCHITECTURE.grid.shape
    tokens = torch.arange(columns * rows * 5, dtype=torch.float32).view(1, columns * rows, 5)
    network.postprocess[3].register_forward_hook(lambda *_: tokens.half())
    with torch.no_grad():
        found = network(*tiny.inputs())
    assert found.dtype == torch.float32
    assert found.shape == (1, columns, rows, 5)
    assert found[0, 2, 3].tolist() == [(2 * rows + 3) * 5 + channel for channel in range(5)]


def test_members_differ_only_by_their_noise(network):
    state, progress, noise = tiny.inputs()
    both = state.expand(3, -1, -1, -1, -1)
    with torch.no_grad():
        found = network(both, progress, torch.cat([noise, noise, -noise]))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-6)
    assert (found[0] - found[2]).abs().max() > 1e-5


def test_every_block_sees_the_same_mapped_noise(network):
    state, progress, noise = tiny.inputs(members=2)
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    assert len(blocks) == 2 + 1 + 1
    expected = noise @ network.noise_generator.to_noise.weight.T
    for block in blocks:
        (((_, seen)),) = seen_by(block, lambda: network(state, progress, noise))
        torch.testing.assert_close(seen, expected, rtol=0, atol=1e-6)


@each_file
def test_a_batch_of_members_equals_members_one_by_one(path):
    network, case = parity.load(path)
    together = parity.predict(network, case)
    for member in range(3):
        alone = parity.predict(network, {**case, "noise": case["noise"][member : member + 1]})
        torch.testing.assert_close(alone[0], together[member], rtol=0, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-2


@each_file
@each_backend
@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_stays_finite_and_near(path, backend, precision):
    network, case = parity.load(path)
    network.use_backend(backend)
    with torch.autocast("cpu", precision):
        found = parity.predict(network, case)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert 1e-5 < (found - case["output"]).abs().max() < 0.15


def test_residual_sums_stay_in_float32_under_autocast(network):
    state, progress, noise = tiny.inputs()
    sums = {}
    for name, module in network.named_modules():
        if isinstance(module, Block):
            module.register_forward_hook(lambda _, __, out, name=name: sums.update({name: out.dtype}))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        network(state, progress, noise)
    assert sums == dict.fromkeys(sums, torch.float32)
    assert len(sums) == 4


# Backends.


def test_a_backend_is_set_in_every_attention(network):
    modules = [module for module in network.modules() if isinstance(module, Attention)]
    assert network.backend == "sdpa"
    assert [module.backend for module in modules] == ["sdpa"] * 4
    network.use_backend("reference")
    assert network.backend == "reference"
    assert [module.backend for module in modules] == ["reference"] * 4


def test_an_unknown_backend_is_refused_and_changes_nothing(network):
    with pytest.raises(
        ValueError, match=r"^expected an attention backend of reference, sdpa, tiled, flex, triton, fa4, got 'flash'$"
    ):
        network.use_backend("flash")
    assert network.backend == "sdpa"


# Training.


def test_gradients_flow_to_every_parameter_and_agree_between_backends():
    network, case = parity.load(FILES[0])
    network.requires_grad_(True)
    weights = torch.randn(case["output"].shape, generator=torch.Generator().manual_seed(0))
    gradients = {}
    for backend in PORTABLE:
        network.zero_grad()
        network.use_backend(backend)
        out = network(case["state"].expand(3, -1, -1, -1, -1), case["day_year"], case["noise"])
        (out * weights).mean().backward()
        gradients[backend] = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    assert len(gradients["sdpa"]) == 6 * 8 + 19
    for name, reference in gradients["reference"].items():
        assert reference.abs().max() > 0, name
        scale = float(reference.abs().max())
        torch.testing.assert_close(gradients["sdpa"][name], reference, rtol=0, atol=1e-3 * scale, msg=name)


@pytest.fixture(scope="module")
def initial_weights():
    network = MosaicNetwork(MINI.architecture)
    initialise(network, torch.Generator().manual_seed(3))
    return {name: weight.detach() for name, weight in network.named_parameters()}


def assert_normal(weight, deviation, name):
    """Within five standard errors of the deviation, and of the mean 0."""
    assert float(weight.std()) == pytest.approx(deviation, rel=5 / math.sqrt(2 * weight.numel())), name
    assert abs(float(weight.mean())) < 5 * deviation / math.sqrt(weight.numel()), name


def test_initial_weights_have_the_deviations_of_the_specification(initial_weights):
    maps = r".*\.attention\.to_o|.*\.ffn\.(w2|noise_bias)|upsample_layers\.\d\.proj_(x|pos)|noise_generator\.to_noise"
    small = [name for name in initial_weights if re.fullmatch(rf"({maps})\.weight", name)]
    # Three of each of 7 blocks, two of each of 2 up-samplings, and the noise.
    assert len(small) == 3 * 7 + 2 * 2 + 1
    for name, weight in initial_weights.items():
        outputs, inputs = weight.shape
        if name == "postprocess.3.weight":
            continue  # that of `mini` predicts increments: see below
        assert_normal(
            weight, 0.01 if name in small else min(1.0, math.sqrt(outputs / inputs)) / math.sqrt(inputs), name
        )


def test_initial_weights_come_from_the_generator_alone():
    torch.manual_seed(1)
    untouched = torch.random.get_rng_state()
    networks = [MosaicNetwork(tiny.ARCHITECTURE) for _ in range(3)]
    torch.random.set_rng_state(untouched)
    for network, seed in zip(networks, (5, 5, 6), strict=True):
        initialise(network, torch.Generator().manual_seed(seed))
    assert torch.equal(torch.random.get_rng_state(), untouched)
    first, same, other = (network.preprocess[0].weight for network in networks)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_a_network_can_have_any_number_of_stages():
    def stage(nside, **depths):
        return Stage(nside, 16, 4, 12, 6, 2, **depths, gqa_ratio=2)

    stages = tuple(stage(nside, encoder_depth=1, decoder_depth=1) for nside in (8, 4, 2))
    architecture = Architecture(tiny.ARCHITECTURE.grid, stages, stage(1, encoder_depth=1), 3, 1, channels=2)
    network = MosaicNetwork(architecture)
    initialise(network, torch.Generator().manual_seed(0))
    state = dict(network.named_parameters())
    built = build_network(architecture, tiny.checkpoint_of({k: v.detach() for k, v in state.items()}), tiny.STATICS)
    with torch.no_grad():
        found = built(torch.randn(1, 1, *architecture.grid.shape, 2), torch.zeros(2), torch.zeros(1, 32))
    assert found.isfinite().all()
    assert [layer.rel_pos.shape[0] for layer in built.downsample_layers] == [192, 48, 12]
    assert [layer.rel_pos.shape[0] for layer in built.upsample_layers] == [12, 48, 192]


# Increments, which `mini` predicts.


def increments(seed=0):
    """The tiny network with the same weights, predicting increments."""
    architecture = replace(tiny.ARCHITECTURE, increment=True)
    return build_network(architecture, tiny.checkpoint_of(tiny.parameters(seed)), tiny.STATICS)


def test_an_increment_is_added_to_the_newest_state(network):
    state, progress, noise = tiny.inputs(members=2)
    with torch.no_grad():
        predicted, added = network(state, progress, noise), increments()(state, progress, noise)
    torch.testing.assert_close(added, state[:, -1] + predicted)


def test_training_on_increments_starts_near_persistence():
    network = MosaicNetwork(replace(tiny.ARCHITECTURE, increment=True))
    initialise(network, torch.Generator().manual_seed(0))
    assert network.postprocess[3].weight.detach().std().item() == pytest.approx(0.01, rel=0.2)
    released = MosaicNetwork(tiny.ARCHITECTURE)
    initialise(released, torch.Generator().manual_seed(0))
    assert released.postprocess[3].weight.detach().std() > 0.05


@pytest.mark.parametrize("variant", [ERA5, HRES])
def test_the_released_variants_predict_states(variant):
    assert not variant.architecture.increment


def test_a_clock_for_every_sample_is_read_row_by_row(network):
    state, progress, noise = tiny.inputs(members=2)
    both = torch.stack([progress, progress + 0.3])
    with torch.no_grad():
        together = network(state, both, noise)
        for index in range(2):
            alone = network(state[index : index + 1], both[index], noise[index : index + 1])
            torch.testing.assert_close(together[index : index + 1], alone, rtol=1e-5, atol=1e-5)


# Made ready for steps without gradients.


def without_gradients(network, *arguments):
    with torch.inference_mode():
        return network(*arguments)


def test_a_prepared_network_gives_the_same_numbers_under_the_same_names(network):
    inputs = tiny.inputs(members=2)
    before, expected = network.state_dict(), without_gradients(network, *inputs)
    network.prepare()
    network.prepare()
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(tensor, before[key]) for key, tensor in after.items())
    assert torch.equal(without_gradients(network, *inputs), expected)


def test_steps_without_gradients_equal_those_with(network):
    inputs = tiny.inputs(members=3)
    network.requires_grad_(True)
    with torch.enable_grad():
        expected = network(*inputs)
    assert expected.requires_grad
    torch.testing.assert_close(without_gradients(network, *inputs), expected.detach(), rtol=0, atol=1e-5)


def test_half_precision_is_of_all_products_but_those_from_and_to_the_fields(network):
    network.prepare(torch.bfloat16)
    kinds = {name: parameter.dtype for name, parameter in network.named_parameters()}
    assert {name for name, kind in kinds.items() if kind == torch.float32} == {
        "preprocess.0.weight",
        "postprocess.3.weight",
    }
    assert set(kinds.values()) == {torch.float32, torch.bfloat16}
    assert network.interp_to_hp.folded.dtype == torch.float32


@pytest.mark.parametrize("members", [1, 3])
def test_what_no_noise_has_reached_yet_can_be_computed_apart(network, members):
    state, progress, noise = tiny.inputs(members)
    expected = without_gradients(network, state, progress, noise)
    with torch.inference_mode():
        started = network.start(state, progress)
        assert torch.equal(network(state, progress, noise, started), expected)


def test_what_comes_before_the_noise_knows_none(network):
    state, progress, noise = tiny.inputs()
    seen = []
    network.encoder_stages[0].blocks[0].ffn.noise_bias.register_forward_hook(lambda *_: seen.append("noise"))
    with torch.inference_mode():
        started = network.start(state, progress)
        assert seen == []
        network(state, progress, noise, started)
    assert seen == ["noise"]


def test_compiled_blocks_give_the_same_numbers_in_one_graph_each(network, network_module):
    inputs = tiny.inputs(members=2)
    weights = network.state_dict()
    network = network_module.MosaicNetwork(network.architecture)
    network.load_state_dict(weights)
    network.prepare()
    expected = without_gradients(network, *inputs)
    torch.compiler.reset()
    # Traced by the compiler, and run as they are: making machine code of them takes a minute.
    network.compile_blocks("eager")
    counters.clear()
    torch.testing.assert_close(without_gradients(network, *inputs), expected, rtol=0, atol=1e-5)
    assert counters["graph_break"] == {}
    assert counters["stats"]["unique_graphs"] >= 2, "one for either resolution"


def test_steps_without_gradients_can_be_in_half_precision_by_autocast(network):
    # As validation during training has them.
    inputs = tiny.inputs(members=2)
    expected = without_gradients(network, *inputs)
    with torch.autocast("cpu", torch.bfloat16):
        found = without_gradients(network, *inputs)
    assert found.dtype == torch.float32
    assert 1e-4 < (found - expected).abs().max() < 0.1
