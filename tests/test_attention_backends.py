"""FlexAttention and the Triton kernel against the reference; the portable backends are in test_attention.py."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from running import ROOT

from ai_models_mosaic.model.attention import BlockLayout, block_means, block_sparse_attention, fa4, select_blocks
from ai_models_mosaic.model.attention.flex import block_mask
from ai_models_mosaic.model.attention.problem import Problem
from ai_models_mosaic.model.attention.tilings import StageShape, power_of_two, tiling_by_rule
from ai_models_mosaic.model.launches import counting
from ai_models_mosaic.variants import ERA5, VARIANTS

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")

# Rounding of 11 and 8 bits on numbers of unit variance.
TOLERANCE = {torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}

INTERPRETED = {
    "era5 stage 0": torch.float16,
    "era5 stage 1": torch.bfloat16,
    "era5 bottleneck": torch.float16,
    "float32": torch.float32,
    "members and groups": torch.float32,
    "rows and keys that do not fill a tile": torch.float32,
    "keys beyond a turn": torch.float16,
    "widest heads": torch.bfloat16,
    "one head to a group": torch.float16,
    "one block": torch.float32,
    "blocks of one pixel": torch.float32,
}


def problem(groups, ratio, pixels, width, layout, dtype=torch.float32, batch=1):
    generator = torch.Generator().manual_seed(7)
    query, key, value = (
        torch.randn(batch, pixels, heads, width, generator=generator).to(dtype).transpose(1, 2)
        for heads in (groups * ratio, groups, groups)
    )
    gates = torch.randn(batch, groups * ratio, pixels, 3, generator=generator).softmax(dim=-1)
    means = tuple(block_means(tensor, layout.sparse) for tensor in (query, key, value))
    lists = select_blocks(means[0], means[1], layout.selected)
    return Problem(query, key, value, gates, means, lists, layout)


def outputs(made, backend):
    """Of a backend, and of the reference in float32 on the same numbers."""
    heads = made.query, made.key, made.value
    with torch.inference_mode():
        expected = block_sparse_attention(*(head.float() for head in heads), made.gates, made.layout, "reference")
        return block_sparse_attention(*heads, made.gates, made.layout, backend), expected


# Triton, under its interpreter.


@pytest.fixture(scope="module")
def interpreted():
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "interpreted_kernel.py", "aot_eager", "inductor"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_triton
@pytest.mark.parametrize("case", INTERPRETED)
def test_the_kernel_gives_what_the_reference_gives(interpreted, case):
    assert interpreted["differences"][case] <= TOLERANCE[INTERPRETED[case]]


@needs_triton
def test_every_case_of_the_interpreter_is_looked_at(interpreted):
    assert interpreted["differences"].keys() == {*INTERPRETED, "parity"}


@needs_triton
def test_half_precision_is_really_computed_in_half_precision(interpreted):
    for case, dtype in INTERPRETED.items():
        assert (interpreted["differences"][case] > 1e-5) == (dtype != torch.float32), case


@needs_triton
def test_the_network_with_the_kernel_gives_the_output_of_the_released_model(interpreted):
    assert interpreted["differences"]["parity"] <= 1e-5


@needs_triton
def test_the_kernels_refuse_gradients_and_runs_that_are_not_of_whole_blocks_and_say_what_takes_them(interpreted):
    assert interpreted["trains"] == (
        "the attention backend triton has no gradients; train with the backend reference or sdpa, or wrap a forecast in "
        "torch.inference_mode()"
    )
    assert interpreted["ragged"] == (
        "the attention backend triton expected local runs of whole sparse blocks of 16 pixels, got 24; take sdpa"
    )


@needs_triton
@pytest.mark.parametrize(("dtype", "unit"), [("float16", 1e-3), ("bfloat16", 8e-3), ("float32", 0)])
def test_the_kernel_writes_into_the_buffer_of_the_next_product_in_its_precision(interpreted, dtype, unit):
    assert interpreted["into"][dtype]["in place"]
    assert interpreted["into"][dtype]["difference"] <= unit


@needs_triton
@pytest.mark.parametrize("what", ["as torch", "int32", "alone", "ties to the lower", "nan"])
def test_the_kernel_of_the_selection_chooses_what_torch_does_whatever_comes(interpreted, what):
    assert interpreted["selections"][what]


@needs_triton
def test_a_member_is_the_same_to_the_bit_alone_and_in_a_batch(interpreted):
    assert interpreted["alone"]


@needs_triton
@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compilers_take_the_kernels_as_one_operator_of_their_graph(interpreted, compiler):
    assert interpreted["compiled"][compiler]["graphs"] == 1
    # Of a block in half precision, whose norms are computed in another order.
    assert interpreted["compiled"][compiler]["difference"] <= TOLERANCE[torch.float16]


@needs_triton
def test_tilings_are_timed_by_stage_and_the_fastest_wins(interpreted):
    # Two members, four heads of eight channels, 192 pixels, each with 16 + 3 · 8 keys.
    common = {"shape": "16/8x3/4x8", "operations": 4 * 2 * 4 * 8 * 192 * 40}
    assert interpreted["tuned"] == [
        common | {"tiling": "32 × 16/16, 4 warps, 2 stages", "ms": 3.0},
        common | {"tiling": "16 × 16/16, 4 warps, 2 stages", "ms": 2.0},
        {"16/8x3/4x8": "16 × 16/16, 4 warps, 2 stages"},
    ]


@needs_triton
@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-3), ("bfloat16", 1.6e-2)])
def test_flash_attention_is_given_lists_that_mean_what_the_reference_does(interpreted, dtype, tolerance):
    assert interpreted["fa4"][dtype]["in place"]
    assert 1e-5 < interpreted["fa4"][dtype]["difference"] <= tolerance


def test_flash_attention_refuses_what_its_lists_are_not_for(monkeypatch):
    monkeypatch.setattr(fa4, "capability_of", lambda device: (8, 0))
    made = problem(1, 2, 512, 64, BlockLayout(256, 128, 2), torch.float16)
    with pytest.raises(ValueError, match=r"^expected a GPU of sm_90 and half precision, got sm_80 and float16; take"):
        outputs(made, "fa4")
    monkeypatch.setattr(fa4, "capability_of", lambda device: (9, 0))
    with pytest.raises(ValueError, match=r"^expected a GPU of sm_90 and half precision, got sm_90 and float32; take"):
        outputs(problem(1, 2, 512, 64, BlockLayout(256, 128, 2)), "fa4")
    with pytest.raises(
        ValueError,
        match=r"^expected blocks of 128 pixels and heads of 8 to 96 channels, multiples of 8, got 64 and 64; take",
    ):
        outputs(problem(1, 2, 512, 64, BlockLayout(256, 64, 2), torch.float16), "fa4")
    with pytest.raises(NotImplementedError, match=r"^the attention backend fa4 has no gradients; train with"):
        block_sparse_attention(made.query.requires_grad_(), made.key, made.value, made.gates, made.layout, "fa4")


# What is launched, without Triton.


def test_on_meta_three_launches_are_counted_and_nothing_of_full_size_is_copied():
    batch, pixels, heads, groups, width = 2, 4096, 12, 3, 64
    joined = torch.empty(batch, pixels, (heads + 2 * groups) * width + 64, dtype=torch.float16, device="meta")
    widths = [heads * width, groups * width, groups * width, 64]
    query, key, value = (part.unflatten(-1, (-1, width)).transpose(1, 2) for part in joined.split(widths, dim=-1)[:3])
    gates = torch.empty(batch, pixels, heads, 3, device="meta").transpose(1, 2)
    means = tuple(torch.empty(batch, count, pixels // 128, width, device="meta") for count in (heads, groups, groups))
    out = torch.empty(batch, pixels, heads, width, dtype=torch.float16, device="meta").transpose(1, 2)
    layout = BlockLayout(1024, 128, 24)
    with counting() as launches, torch.inference_mode():
        assert block_sparse_attention(query, key, value, gates, layout, "triton", means=means, out=out) is out
    assert [one.name for one in launches] == ["select", "attend_to_means", "attend"]
    attend = launches[-1]
    queries = batch * pixels * heads * width
    lists = batch * groups * (pixels // 128) * 24 * 4
    assert attend.bytes_written == 2 * queries
    assert attend.bytes_read == (
        2 * queries * 3 // 2 + 4 * batch * pixels * heads * 3 + lists + 4 * batch * heads * pixels // 128 * width
    )
    assert attend.operations == 4 * queries * (1024 + 24 * 128)


# How the kernel is cut.


@pytest.mark.parametrize("size", [16, 24, 32, 48, 64, 128, 1024])
@pytest.mark.parametrize("width", [16, 40, 64, 96, 128])
@pytest.mark.parametrize("ratio", [1, 3, 4])
def test_by_the_rule_the_sums_of_a_program_fit_its_registers(size, width, ratio):
    tiles = tiling_by_rule(StageShape(2 * size, size, 4, ratio, width), 2)
    # Two sums, 32 bits each, of 255 registers per thread at most half.
    assert 2 * tiles.rows * power_of_two(width) / (32 * tiles.warps) <= 128
    assert tiles.rows < 2 * max(16, size * ratio)


@pytest.mark.parametrize(("number", "power"), [(1, 1), (2, 2), (3, 4), (16, 16), (17, 32), (40, 64)])
def test_powers_of_two_are_rounded_up(number, power):
    assert power_of_two(number) == power


# FlexAttention, compiled for this machine.


# The compiler's own.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")
@pytest.mark.parametrize(
    ("groups", "pixels", "width", "layout", "dtype", "batch"),
    [
        # The shape classes of the three stages, with fewer pixels and heads.
        (1, 4096, 64, BlockLayout(1024, 128, 24), torch.float32, 1),
        (2, 2048, 64, BlockLayout(1024, 128, 12), torch.bfloat16, 1),
        (2, 1024, 64, BlockLayout(1024, 128, 4), torch.float16, 1),
        (2, 192, 8, BlockLayout(48, 16, 3), torch.float32, 2),
    ],
    ids=["stage 0", "stage 1", "bottleneck", "two members"],
)
def test_flex_gives_what_the_reference_gives(groups, pixels, width, layout, dtype, batch):
    found, expected = outputs(problem(groups, 4, pixels, width, layout, dtype, batch), "flex")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE[dtype])


def test_the_mask_has_a_list_for_every_query_head():
    # With one per key/value head FlexAttention takes those of other heads, and says nothing.
    made = problem(2, 3, 192, 8, BlockLayout(48, 16, 3))
    mask = block_mask(made)
    assert mask.shape == (1, 6, 192, 192)
    for head in range(6):
        listed = mask.full_kv_indices[0, head, :, :3].sort(dim=-1).values
        assert torch.equal(listed.long(), made.lists[0, head // 3].sort(dim=-1).values)
    assert not torch.equal(made.lists[0, 0].sort(dim=-1).values, made.lists[0, 1].sort(dim=-1).values)
    assert mask.kv_num_blocks.sum() == 0
    assert (mask.full_kv_num_blocks == 3).all()
    assert mask.full_q_indices is None


def test_for_gradients_the_mask_also_lists_the_queries_of_every_key_block():
    made = problem(2, 2, 96, 8, BlockLayout(48, 16, 2))
    made.query.requires_grad_()
    mask = block_mask(made)
    for head in range(4):
        pairs = {(row, int(other)) for row in range(6) for other in made.lists[0, head // 2, row]}
        turned = {
            (int(row), block)
            for block in range(6)
            for row in mask.full_q_indices[0, head, block, : mask.full_q_num_blocks[0, head, block]]
        }
        assert turned == pairs


def test_flex_refuses_gradients_on_a_cpu_and_says_what_has_them():
    made = problem(1, 2, 96, 8, BlockLayout(48, 16, 2))
    with pytest.raises(
        NotImplementedError,
        match=r"^the attention backend flex has no gradients on a CPU; train with the backend reference or sdpa$",
    ):
        block_sparse_attention(made.query.requires_grad_(), made.key, made.value, made.gates, made.layout, "flex")


# GPUs, where there is one.


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backend", ["sdpa", "flex", "triton"])
def test_all_backends_agree_on_a_gpu(backend, dtype):
    for stage in (*ERA5.architecture.stages, ERA5.architecture.bottleneck):
        layout = BlockLayout(stage.local_block, stage.sparse_block, stage.selected_blocks)
        made = problem(stage.key_value_heads, stage.gqa_ratio, 4096, stage.head_width, layout, dtype)
        on_gpu = Problem(
            *(tensor.cuda() for tensor in (made.query, made.key, made.value, made.gates)),
            tuple(mean.cuda() for mean in made.means),
            made.lists.cuda(),
            layout,
        )
        found, expected = outputs(on_gpu, backend)
        torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE[dtype])


# Resources of the kernel, without a GPU.


@needs_triton
def test_the_kernels_of_mini_compile_for_a_gpu_that_is_not_there(tmp_path: Path):
    raw = tmp_path / "resources.json"
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "kernel_resources.py", "--variant", "mini", "--json", raw],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(raw.read_text())
    stages = len(VARIANTS["mini"].architecture.stages) + 1
    assert len(found) == 2 * stages * 5
    assert len(done.stdout.splitlines()) == 2 + len(found)
    for one in found:
        assert one["spilled_bytes"] == 0
        assert 0 < one["registers"] <= 255
        assert one["shared_bytes"] <= {80: 163, 90: 227}[one["capability"]] * 1024
