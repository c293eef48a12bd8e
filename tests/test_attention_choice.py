"""Which attention backend runs, and how it is tried."""

import logging
from types import MappingProxyType

import pytest
import tiny
import torch

from ai_models_mosaic.forecast.options import parser
from ai_models_mosaic.model import attention
from ai_models_mosaic.model.attention import BACKENDS
from ai_models_mosaic.model.attention import choice as attention_choice
from ai_models_mosaic.model.attention.choice import (
    AGREEMENT,
    NAMES,
    Shape,
    UnfitBackendError,
    candidates,
    choose_backend,
    difference,
    shapes,
    try_backend,
)
from ai_models_mosaic.model.attention.problem import BlockLayout, Problem
from ai_models_mosaic.variants import ERA5, MINI

CPU, GPU = torch.device("cpu"), torch.device("cuda")
F32 = torch.float32


def changed(monkeypatch: pytest.MonkeyPatch, **backends) -> None:
    """Let backends be others for a test."""
    monkeypatch.setattr(attention, "BACKENDS", MappingProxyType({**BACKENDS, **backends}))


def doubled(problem: Problem) -> torch.Tensor:
    """Wrong by much."""
    return 2 * BACKENDS["reference"](problem)


def nothing(problem: Problem) -> torch.Tensor:
    return torch.full_like(problem.gates[..., :1], float("nan")).expand(problem.query.shape)


def other_lists(problem: Problem) -> torch.Tensor:
    """The lists of the other group: what a mask with too few heads gives."""
    return BACKENDS["reference"](Problem(**{**vars(problem), "lists": problem.lists.flip(1)}))


def broken(_: Problem) -> torch.Tensor:
    raise RuntimeError("no compiler\nand much more")


@pytest.mark.parametrize(
    ("variant", "device", "dtype", "names"),
    [
        (ERA5, CPU, torch.float32, ("tiled", "sdpa", "reference")),
        (MINI, CPU, torch.float32, ("sdpa", "reference")),
        (ERA5, CPU, torch.bfloat16, ("sdpa", "reference")),
        (ERA5, GPU, torch.float32, ("sdpa", "reference")),
        (ERA5, GPU, torch.float16, ("triton", "sdpa", "reference")),
        (MINI, GPU, torch.bfloat16, ("triton", "sdpa", "reference")),
    ],
)
def test_the_kernel_is_first_where_there_are_tensor_cores_for_it_and_tiles_where_they_are_full(
    variant, device, dtype, names
):
    assert candidates(variant.architecture, device, dtype) == names


@pytest.mark.parametrize("dtype", AGREEMENT)
@pytest.mark.parametrize("architecture", [tiny.ARCHITECTURE, MINI.architecture, ERA5.architecture])
def test_what_is_chosen_on_a_cpu_is_far_within_the_tolerance(architecture, dtype):
    chosen = "tiled" if architecture is ERA5.architecture and dtype == F32 else "sdpa"
    assert choose_backend("auto", architecture, CPU, dtype) == chosen
    assert try_backend(chosen, architecture, CPU, dtype) < AGREEMENT[dtype] / 5


def test_what_is_asked_for_is_taken():
    assert choose_backend("reference", tiny.ARCHITECTURE, CPU, F32) == "reference"
    assert try_backend("reference", tiny.ARCHITECTURE, CPU, F32) == 0


@pytest.mark.parametrize(
    ("wrong", "got"), [(doubled, r"\d\.\de[-+]\d\d"), (nothing, "nan"), (other_lists, r"\d\.\de[-+]\d\d")]
)
def test_a_backend_that_disagrees_with_the_reference_is_refused(monkeypatch, wrong, got):
    changed(monkeypatch, sdpa=wrong)
    for architecture in (tiny.ARCHITECTURE, ERA5.architecture):
        with pytest.raises(
            UnfitBackendError,
            match=rf"^attention backend sdpa is wrong on cpu in float32: expected to differ from the reference by at most "
            rf"1e-03, got {got}$",
        ):
            choose_backend("sdpa", architecture, CPU, F32)


def test_a_backend_that_fails_is_refused_in_one_line(monkeypatch):
    changed(monkeypatch, sdpa=broken)
    with pytest.raises(
        UnfitBackendError, match=r"^attention backend sdpa does not run on cpu in float32: RuntimeError: no compiler$"
    ):
        choose_backend("sdpa", tiny.ARCHITECTURE, CPU, F32)


def test_without_being_asked_for_an_unfit_backend_gives_way_to_the_next_with_a_warning(monkeypatch, caplog):
    changed(monkeypatch, sdpa=broken)
    with caplog.at_level(logging.WARNING):
        assert choose_backend("auto", tiny.ARCHITECTURE, CPU, F32) == "reference"
    assert caplog.messages == [
        "attention backend sdpa does not run on cpu in float32: RuntimeError: no compiler; trying the next"
    ]


def test_where_none_works_all_reasons_are_told(monkeypatch):
    changed(monkeypatch, sdpa=broken, reference=broken)
    with pytest.raises(
        UnfitBackendError, match=r"^no attention backend works here: .*sdpa does not.*; .*reference does not"
    ):
        choose_backend("auto", tiny.ARCHITECTURE, CPU, F32)


def test_without_triton_its_backend_says_so(monkeypatch):
    monkeypatch.setattr(attention_choice, "find_spec", lambda name: None)
    with pytest.raises(
        UnfitBackendError, match=r"^attention backend triton: expected the package triton, which PyTorch"
    ):
        choose_backend("triton", tiny.ARCHITECTURE, CPU, torch.float16)


def test_without_flash_attention_4_its_backend_says_where_it_comes_from(monkeypatch):
    monkeypatch.setattr(attention_choice, "find_spec", lambda name: None)
    with pytest.raises(
        UnfitBackendError,
        match=r"^attention backend fa4: expected the package flash-attn-4, by pip install --pre flash-attn-4; found none$",
    ):
        choose_backend("fa4", tiny.ARCHITECTURE, CPU, torch.float16)


def test_flash_attention_4_is_never_taken_without_being_asked_for():
    for device in (CPU, torch.device("cuda")):
        for dtype in (torch.float32, torch.float16):
            assert "fa4" not in candidates(ERA5.architecture, device, dtype)


def test_every_shape_of_an_architecture_is_tried_once():
    assert shapes(ERA5.architecture) == (Shape(BlockLayout(1024, 128, 3), 4, 64),)
    assert [(shape.width, shape.layout.sparse) for shape in shapes(MINI.architecture)] == [(16, 32), (40, 16), (48, 16)]


@pytest.mark.parametrize("layout", [BlockLayout(64, 16, 3), BlockLayout(48, 32, 2), BlockLayout(8, 8, 1)])
def test_a_trial_leaves_blocks_that_are_not_selected(monkeypatch, layout):
    seen = []

    def watched(problem: Problem) -> torch.Tensor:
        seen.append(problem)
        return BACKENDS["sdpa"](problem)

    changed(monkeypatch, sdpa=watched)
    assert difference("sdpa", Shape(layout, 2, 8), CPU, F32) < 1e-5
    (problem,) = seen
    pixels = problem.query.shape[2]
    assert pixels % layout.local == pixels % layout.sparse == 0
    assert problem.lists.shape[2] > layout.selected
    assert problem.key.shape[1] == 2
    assert problem.query.shape[1] == 4


def test_the_option_offers_every_backend():
    (option,) = (action for action in parser()._actions if action.dest == "attention_backend")
    assert tuple(option.choices) == NAMES
