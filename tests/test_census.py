"""The census of a forward on a GPU: its rules on small known cases, and what it says of the network."""

import importlib
import sys

import pytest
import tiny
import torch
from running import ROOT
from torch.nn import functional

from ai_models_mosaic.engines.form import Form
from ai_models_mosaic.engines.warm_up import larger_stages, run_selection, run_small, small_architectures
from ai_models_mosaic.model import flops
from ai_models_mosaic.model.attention import triton as attention
from ai_models_mosaic.model.fused import KERNELS, launched
from ai_models_mosaic.model.fused.choice import trials
from ai_models_mosaic.model.launches import Launch, launch
from ai_models_mosaic.model.network import MosaicNetwork
from ai_models_mosaic.variants import ERA5, HRES

sys.path.append(str(ROOT / "benchmarks"))
census, counting, gpu = (importlib.import_module(name) for name in ("census", "counting", "gpu"))

HALF = torch.float16


def on_gpu(*shape, dtype=torch.float32):
    """A tensor that has a shape and no numbers."""
    return torch.empty(*shape, dtype=dtype, device="meta")


def counts_of(call, *tensors):
    with counting.pretending() as counts:
        call(*tensors)
    return counts


def one(call, *tensors):
    (count,) = counts_of(call, *tensors)
    return count


# The rules.


def test_a_product_counts_two_operations_a_multiplication_and_reads_both_once():
    count = one(torch.mm, on_gpu(3, 5, dtype=HALF), on_gpu(5, 7, dtype=HALF))
    assert count == counting.Count("products", Launch("mm", 2 * (15 + 35), 2 * 21, 2.0 * 3 * 5 * 7), 1, half=True)
    assert not one(torch.bmm, on_gpu(2, 3, 5), on_gpu(2, 5, 7)).half
    assert one(torch.bmm, on_gpu(2, 3, 5), on_gpu(2, 5, 7)).launch.operations == 2 * 2 * 3 * 5 * 7


def test_a_sum_reads_both_and_writes_one_and_in_place_as_well():
    assert one(torch.add, on_gpu(4, 6), on_gpu(4, 6)) == counting.Count("sums", Launch("add", 192, 96))
    assert one(lambda x, y: x.add_(y), on_gpu(4, 6), on_gpu(4, 6)).launch == Launch("add_", 192, 96)
    assert one(lambda x: x + x, on_gpu(4, 6)).launch == Launch("add", 96, 96)


def test_what_is_only_repeated_is_read_once():
    assert one(torch.mul, on_gpu(4, 6), on_gpu(6).expand(4, 6)).launch == Launch("mul", 4 * (24 + 6), 96)


def test_views_and_fresh_memory_are_no_launches_and_a_copy_reads_no_target():
    assert counts_of(lambda x: x.transpose(0, 1).unflatten(0, (2, 3))[1:].new_empty(3), on_gpu(4, 6)) == []
    assert one(lambda x, y: x.copy_(y), on_gpu(4, 6), on_gpu(4, 6)).launch == Launch("copy_", 96, 96)
    assert one(lambda x: x.half(), on_gpu(4, 6)) == counting.Count("copies", Launch("_to_copy", 96, 48))
    assert one(lambda x: x.fill_(1.0), on_gpu(4, 6)).launch == Launch("fill_", 0, 96)


def test_a_product_that_adds_copies_first_unless_it_adds_in_place():
    left, right, to = on_gpu(3, 5), on_gpu(5, 7), on_gpu(3, 7)
    in_place = one(lambda: torch.addmm(to, left, right, out=to))
    aside = one(lambda: torch.addmm(to, left, right))
    assert (in_place.launches, in_place.launch.bytes_read) == (1, 4 * (15 + 35 + 21))
    assert (aside.launches, aside.launch.bytes_read) == (2, 4 * (15 + 35 + 21 + 21))
    assert in_place.launch.operations == aside.launch.operations == 2 * 3 * 5 * 7


def test_what_only_cuda_has_in_one_kernel_is_one_launch():
    norm = one(lambda x: functional.rms_norm(x, (6,)), on_gpu(4, 6, dtype=HALF))
    assert norm == counting.Count("norms", Launch("rms_norm", 48, 48))
    query, key = on_gpu(2, 1, 8, 16, dtype=HALF), on_gpu(2, 1, 32, 16, dtype=HALF)
    attended = one(lambda: functional.scaled_dot_product_attention(query, key, key))
    operations = 4.0 * 2 * 8 * 32 * 16
    assert attended.launch == Launch("scaled_dot_product_attention", 2 * (256 + 2 * 1024), 512, operations)
    assert attended.part == "attention"


def test_choosing_the_largest_sorts_only_where_it_was_asked_to():
    assert one(lambda x: x.topk(2, sorted=False), on_gpu(4, 6)).launches == 1
    assert one(lambda x: x.topk(2), on_gpu(4, 6)).launches == 3


def test_own_kernels_report_theirs():
    def call(x):
        launch(None, (1,), x, reads=(x,), writes=(8,), operations=3.0, name="attend")

    assert one(call, on_gpu(4)) == counting.Count("attention", Launch("attend", 16, 8, 3.0))


def test_tensors_say_that_they_are_on_a_gpu_only_within():
    tensor = on_gpu(3)
    with counting.pretending():
        assert (tensor.device.type, tensor.is_cuda) == ("cuda", True)
        assert torch.empty(3, device=tensor.device).is_meta
    assert tensor.device.type == "meta"


def test_a_launch_takes_the_longer_of_computing_and_moving():
    rates = census.Rates(products=100.0, attention=50.0, float32=10.0, bytes=1000.0)
    launched = Launch("mm", 300, 200, 200.0)
    assert rates.seconds("products", launched, half=True) == 2.0
    assert rates.seconds("attention", launched, half=True) == 4.0
    assert rates.seconds("products", launched, half=False) == 20.0
    assert rates.seconds("products", Launch("mm", 3000, 2000, 200.0), half=True) == 5.0


# The network.


def test_parts_add_up_to_all():
    counted = census.take(tiny.ARCHITECTURE, 2, backend="sdpa")
    parts = counted.parts
    assert set(parts) == set(counting.PARTS)
    assert counted.launches == sum(part.launches for part in parts.values())
    outside = sum(part.bytes for name, part in parts.items() if name not in ("products", "attention"))
    assert counted.bytes_per_member == outside / 2


@pytest.fixture(scope="module")
def full_size():
    """Four members of era5, as the GPU computes them."""
    return census.take(ERA5.architecture, 4)


def test_a_forward_at_full_size_keeps_to_what_was_aimed_at(full_size):
    assert full_size.launches <= 200
    assert full_size.bytes_per_member <= 15e9
    assert full_size.seconds_per_member <= 0.031


def test_at_full_size_operations_are_those_of_the_architecture_but_for_padding(full_size):
    total = sum(part.operations for part in full_size.parts.values()) / 4
    assert total == pytest.approx(flops.step_flops(ERA5.architecture).total, rel=0.002)


def test_every_kernel_of_our_own_has_a_part(full_size):
    launched = {count.launch.name for count in full_size.counts} & set(counting.KERNELS)
    # Of the optional backend fa4.
    assert launched == set(counting.KERNELS) - {"join"}
    with pytest.raises(KeyError), counting.pretending():
        launch(None, (1,), on_gpu(4), reads=(), writes=(), name="unheard of")


# What is compiled, and when.


def compiled_by(monkeypatch, call):
    """What Triton compiles for the launches of a call: one kernel for each type, constant, and kind of number."""
    kinds = set()

    def kind(argument):
        if isinstance(argument, int):
            return "one" if argument == 1 else "multiple of 16" if argument % 16 == 0 else "int"
        return argument.dtype if isinstance(argument, torch.Tensor) else "float"

    def record(_, grid, *arguments, reads, writes, name, operations=0.0, **constants):
        kinds.add((name, tuple(map(kind, arguments)), tuple(sorted(constants.items()))))

    monkeypatch.setattr(launched, "launch", record)
    monkeypatch.setattr(attention, "launch", record)
    with counting.pretending():
        call()
    return kinds


def step_of(variant, members):
    """A step on the device ``meta``."""
    architecture = variant.architecture
    with torch.device("meta"):
        network = MosaicNetwork(architecture).eval().requires_grad_(False)
        state = torch.empty(members, architecture.history, *architecture.grid.shape, architecture.channels)
        progress, noise = torch.empty(2), torch.empty(members, architecture.noise_width)
    network.use_backend("triton")
    network.prepare(HALF)
    return lambda: network(state, progress, noise)


def warm(variant):
    form, meta = Form("triton", KERNELS), torch.device("meta")
    for small in small_architectures(variant.architecture):
        run_small(small, meta, HALF, form)
    for stage in larger_stages(variant.architecture):
        run_selection(stage, meta, form)


@pytest.mark.parametrize("members", [1, 8])
@pytest.mark.parametrize("variant", [ERA5, HRES], ids=["era5", "hres"])
def test_no_kernel_is_left_to_compile_in_the_first_step(monkeypatch, variant, members):
    of_step = compiled_by(monkeypatch, step_of(variant, members))
    assert of_step - compiled_by(monkeypatch, lambda: warm(variant)) == set()
    assert len(of_step) < 30


def test_what_the_trials_compile_is_what_a_step_launches(monkeypatch):
    def draw(*shape, kind=HALF):
        return torch.empty(*shape, dtype=kind, device="meta")

    def try_all():
        for _, trial in trials(ERA5.architecture):
            trial(KERNELS, draw, HALF)

    further = compiled_by(monkeypatch, try_all) - compiled_by(monkeypatch, step_of(ERA5, 4))
    # A sum with what the encoder left, of the width of the bottleneck, which has no such sum.
    assert [(name, dict(constants)["WIDTH"]) for name, _, constants in further] == [("normalise", 1280)]


def test_the_command_prints_the_parts_and_whether_aims_are_reached(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--census", "--variant", "mini", "--members", "2"])
    assert gpu.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "Counted, not measured: mini, 2 members at once, float16; launches of all of them, the rest per member."
    )
    assert [line.split(" | ")[0][2:] for line in lines[4:14]] == list(counting.PARTS)
    assert lines[-3].startswith("launches: ")
    assert lines[-3].endswith(", aim 400: reached")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_nothing_is_measured_and_the_message_says_what_can_be_had(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--quick"])
    message = "no CUDA GPU that PyTorch can use; --census counts without one, --device cpu tries --quick"
    with pytest.raises(SystemExit, match=f"^{message}$"):
        gpu.main()
