"""FlexAttention and the Triton kernel against the reference; the portable backends are in test_attention.py."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from running import ROOT

from ai_models_mosaic.model.attention import BlockLayout, block_means, block_sparse_attention, select_blocks
from ai_models_mosaic.model.attention.flex import block_mask
from ai_models_mosaic.model.attention.problem import Problem
from ai_models_mosaic.model.attention.triton import constants, power_of_two, tiling
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
        [sys.executable, ROOT / "tests" / "interpreted_kernel.py"], capture_output=True, text=True, check=False
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
def test_the_kernel_refuses_gradients_and_says_what_has_them(interpreted):
    assert interpreted["refusal"].startswith(
        "the attention backend triton has no gradients; train with the backend reference or sdpa"
    )


# How the kernel is cut.


@pytest.mark.parametrize("size", [16, 24, 32, 48, 64, 128, 1024])
@pytest.mark.parametrize("width", [16, 40, 64, 96, 128])
@pytest.mark.parametrize("ratio", [1, 3, 4])
def test_tiles_are_powers_of_two_and_the_sums_of_a_program_fit_its_registers(size, width, ratio):
    tiles = tiling(size, ratio, width, 2)
    assert all(power_of_two(number) == number >= 16 for number in (tiles.rows, tiles.keys))
    # 32 bits each, of 255 registers per thread at most half.
    assert tiles.rows * power_of_two(width) / (32 * tiles.warps) <= 127
    assert tiles.rows < 2 * max(16, size * ratio)


def test_the_stages_of_the_released_model_share_two_kernels():
    stages = (*ERA5.architecture.stages, ERA5.architecture.bottleneck)
    for listed in (False, True):
        kernels = [
            constants(
                stage.sparse_block if listed else stage.local_block, stage.gqa_ratio, stage.head_width, 2, listed=listed
            )
            for stage in stages
        ]
        assert kernels[0] == kernels[1] == kernels[2]
    assert kernels[0]["ROWS"] == 256, "two heads of a group to a program"


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
    assert len(found) == 2 * stages * 2 * 2
    assert len(done.stdout.splitlines()) == 2 + len(found)
    for one in found:
        assert one["spilled_bytes"] == 0
        assert 0 < one["registers"] <= 255
        assert one["shared_bytes"] <= {80: 163, 90: 227}[one["capability"]] * 1024
