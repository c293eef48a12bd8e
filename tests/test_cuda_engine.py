"""Streams and graphs of the GPU, run on the CPU: by the interface that both have, and where recording fails."""

import numpy as np
import pytest
import tiny
import torch
from test_torch_engine import PROGRESS, STATISTICS, physical_inputs

from ai_models_mosaic.checkpoints.format import build_network
from ai_models_mosaic.engines.cuda import GraphedStep, StreamedStep, capture_graph
from ai_models_mosaic.engines.torch import TorchEngine

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def engine():
    return TorchEngine(
        build_network(tiny.ARCHITECTURE, tiny.checkpoint_of(tiny.parameters()), tiny.STATICS), STATISTICS, CPU
    )


def advance(states, progress, noise):
    """Every input counts, and every member has its own."""
    return states[:, -1] * 2 + noise.sum(dim=1)[:, None] + progress[0]


def toy_inputs(members, seed=0):
    generator = np.random.default_rng(seed)
    history = generator.normal(size=(members, 2, 3)).astype(np.float32)
    return history, (0.5, 0.25), generator.normal(size=(members, 4)).astype(np.float32)


def expected_of(history, progress, noise):
    clock = torch.tensor(progress)
    return advance(torch.from_numpy(history), clock, torch.from_numpy(noise)).numpy()


# Transfers.


@pytest.mark.parametrize("at_once", [1, 2, 3, 5, 8])
def test_a_step_in_parts_by_streams_is_the_step_of_all(at_once):
    inputs = toy_inputs(5)
    found = StreamedStep(advance, CPU, torch.cpu)(*inputs, at_once)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected_of(*inputs))


def test_what_was_made_belongs_to_the_caller_and_the_inputs_stay():
    step, inputs = StreamedStep(advance, CPU, torch.cpu), toy_inputs(3)
    kept = [np.copy(part) for part in inputs]
    first = step(*inputs, 1)
    before = first.copy()
    step(*toy_inputs(3, seed=9), 1)
    np.testing.assert_array_equal(first, before)
    first[...] = 0
    np.testing.assert_array_equal(step(*inputs, 1), before)
    for part, other in zip(inputs, kept, strict=True):
        np.testing.assert_array_equal(part, other)


def test_arrays_that_are_not_contiguous_are_taken():
    history, progress, noise = toy_inputs(4)
    found = StreamedStep(advance, CPU, torch.cpu)(history[::-1], progress, noise[::-1], 3)
    np.testing.assert_array_equal(found, expected_of(history, progress, noise)[::-1])


def test_the_network_makes_the_same_bytes_with_streams_as_without(engine):
    history, noise = physical_inputs(5)
    streamed = StreamedStep(engine._advance, CPU, torch.cpu)
    with torch.inference_mode():
        found = streamed(history, PROGRESS, noise, 2)
    np.testing.assert_array_equal(found, engine.step(history, PROGRESS, noise))


class Recorder:
    """Streams and events as ``torch.cpu`` has them, that write down what is asked of them."""

    def __init__(self):
        self.said, self._current, recorder = [], "compute", self

        class Stream(torch.cpu.Stream):
            def __init__(self):
                self.name = ("to", "from")[sum(line[0] == "made" for line in recorder.said)]
                recorder.said.append(("made", self.name))

            def wait_stream(self, stream):
                recorder.said.append((self.name, "waits for", stream.name))

        class Compute(torch.cpu.Stream):
            name = "compute"

            def wait_stream(self, stream):
                recorder.said.append((self.name, "waits for", stream.name))

        class Event(torch.cpu.Event):
            def record(self, stream=None):
                recorder.said.append(("event on", stream.name))

            def synchronize(self):
                recorder.said.append(("host waits",))

        self.Stream, self.Event = Stream, Event
        self.stream = torch.cpu.stream
        self.current_stream = lambda device: Compute()


def test_every_part_is_computed_after_it_came_and_read_after_it_went_back():
    recorder = Recorder()

    def told(*inputs):
        recorder.said.append(("advance",))
        return advance(*inputs)

    StreamedStep(told, CPU, recorder)(*toy_inputs(3), 1)
    one = [("compute", "waits for", "to"), ("advance",), ("from", "waits for", "compute"), ("event on", "from")]
    # The host waits for a part only when the next is on its way.
    assert recorder.said[2:] == [*one, *one, ("host waits",), *one, ("host waits",), ("host waits",)]


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
        assert callable(capture_graph(plain._advance, tuple(on_gpu)))
    np.testing.assert_array_equal(graphed.step(history, PROGRESS, noise), plain.step(history, PROGRESS, noise))
