"""What is done before an engine is loaded: weights copied, backends tried, kernels launched."""

import logging

import pytest
import tiny
import torch

from ai_models_mosaic.engines import warm_up
from ai_models_mosaic.engines.form import Form
from ai_models_mosaic.engines.warm_up import WarmUp, run_small, small_architectures
from ai_models_mosaic.model.fused import PLAIN
from ai_models_mosaic.variants import ERA5, MINI

CPU = torch.device("cpu")


def widths(stage):
    return stage.width, stage.query_heads, stage.gqa_ratio, stage.hidden_width, stage.local_block, stage.sparse_block


@pytest.mark.parametrize("architecture", [ERA5.architecture, MINI.architecture], ids=["era5", "mini"])
def test_small_networks_have_every_stage_with_few_pixels(architecture):
    small = small_architectures(architecture)
    whole = (*architecture.stages, architecture.bottleneck)
    assert [widths(one.stages[0]) for one in small] == [widths(stage) for stage in whole[:-1]]
    assert [widths(one.bottleneck) for one in small] == [widths(stage) for stage in whole[1:]]
    assert all(one.stages[0].pixels <= 12_288 and len(one.stages) == 1 for one in small)


def test_a_small_network_runs():
    for small in small_architectures(tiny.ARCHITECTURE):
        run_small(small, CPU, torch.bfloat16, Form("sdpa", PLAIN))


def test_the_form_is_the_one_that_was_chosen_and_every_network_runs_with_it(monkeypatch):
    ran, form = [], Form("reference", PLAIN)
    monkeypatch.setattr(warm_up, "run_small", lambda small, *others: ran.append((small, *others)))
    warm = WarmUp(tiny.ARCHITECTURE, CPU, torch.float32, lambda: form)
    assert warm.form() is form
    warm.wait()
    expected = [(small, CPU, torch.float32, form) for small in small_architectures(tiny.ARCHITECTURE)]
    assert sorted(ran, key=str) == sorted(expected, key=str)


def test_a_backend_that_is_unfit_is_said_where_it_is_asked_for(caplog):
    def refuse():
        raise ValueError("unfit")

    warm = WarmUp(tiny.ARCHITECTURE, CPU, torch.float32, refuse)
    with pytest.raises(ValueError, match=r"^unfit$"):
        warm.form()


def test_a_small_network_that_fails_is_logged_and_does_not_end_the_run(caplog):
    caplog.set_level(logging.INFO)
    warm = WarmUp(tiny.ARCHITECTURE, CPU, torch.float32, lambda: Form("no backend", PLAIN))
    warm.wait()
    assert caplog.messages[0].startswith("A small network could not be run ahead of the forecast: ValueError: expected")
