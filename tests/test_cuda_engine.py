"""Graphs of the GPU, on the CPU: replayed by a stand-in, and where recording fails."""

import numpy as np
import pytest
import tiny
import torch
from test_torch_engine import PROGRESS, STATISTICS, physical_inputs

from ai_models_mosaic.checkpoints.format import build_network
from ai_models_mosaic.engines.cuda import GraphedStep, capture_graph
from ai_models_mosaic.engines.torch import TorchEngine


def advance(states, progress, noise):
    """Every input counts, and every member has its own."""
    return states[:, -1] * 2 + noise.sum(dim=1)[:, None] + progress[0]


def toy_inputs(members, seed=0):
    generator = np.random.default_rng(seed)
    history = generator.normal(size=(members, 2, 3)).astype(np.float32)
    return history, (0.5, 0.25), generator.normal(size=(members, 4)).astype(np.float32)


# Graphs.


def replaying(_, inputs):
    """A graph as a GPU would have it: memory of its own, and the same memory for every result."""
    fixed, made = [tensor.clone() for tensor in inputs], torch.empty(len(inputs[0]), 3)

    def replay(*new):
        for tensor, values in zip(fixed, new, strict=True):
            tensor.copy_(values)
        made.copy_(advance(*fixed))
        return made.clone()

    return replay


def tensors(members, seed=0):
    history, progress, noise = toy_inputs(members, seed)
    return torch.from_numpy(history), torch.tensor(progress), torch.from_numpy(noise)


def test_a_step_is_recorded_once_for_every_number_of_members(caplog):
    caplog.set_level("INFO")
    captured = []

    def capture(step, inputs):
        captured.append(len(inputs[0]))
        return replaying(step, inputs)

    step = GraphedStep(advance, capture)
    for turn, members in enumerate((2, 2, 3, 2, 3)):
        assert torch.equal(step(*tensors(members, turn)), advance(*tensors(members, turn)))
    assert captured == [2, 3]
    assert caplog.messages == [f"Recorded the step of {members} members as a CUDA graph" for members in (2, 3)]


def test_where_recording_fails_the_step_goes_on_without_and_it_is_not_tried_again(caplog):
    tried = []

    def capture(step, inputs):
        tried.append(True)
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    step = GraphedStep(advance, capture)
    for turn in range(3):
        assert torch.equal(step(*tensors(2, turn)), advance(*tensors(2, turn)))
    assert tried == [True]
    assert caplog.messages == [
        "No CUDA graph could be made of the step (operation not permitted when stream is capturing): going on without"
    ]


def test_a_graph_that_gives_other_numbers_is_not_used(caplog):
    step = GraphedStep(advance, lambda made, inputs: lambda *new: advance(*new) + 1e-6)
    assert torch.equal(step(*tensors(2)), advance(*tensors(2)))
    assert caplog.messages == [
        "No CUDA graph could be made of the step (replayed, it gives other numbers): going on without"
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_on_a_machine_without_a_gpu_recording_fails_for_real_and_the_step_goes_on(caplog):
    step = GraphedStep(advance)
    assert torch.equal(step(*tensors(2)), advance(*tensors(2)))
    assert "No CUDA graph could be made of the step (" in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_graphs_and_streams_make_the_bytes_of_the_plain_step():
    gpu = torch.device("cuda")
    network = build_network(tiny.ARCHITECTURE, tiny.checkpoint_of(tiny.parameters()), tiny.STATICS)
    history, noise = physical_inputs(4)
    plain, graphed = (TorchEngine(network, STATISTICS, gpu, graphs=graphs) for graphs in (False, True))
    on_gpu = [tensor.to(gpu) for tensor in (torch.from_numpy(history), torch.tensor(PROGRESS), torch.from_numpy(noise))]
    with torch.inference_mode():
        assert callable(capture_graph(plain._copied, tuple(on_gpu)))
    np.testing.assert_array_equal(graphed.step(history, PROGRESS, noise), plain.step(history, PROGRESS, noise))
