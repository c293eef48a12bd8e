"""How many members at once: from given numbers, and when the memory does not suffice after all."""

import logging
from contextlib import nullcontext

import numpy as np
import pytest
import tiny
import torch
from test_torch_engine import PROGRESS, STATISTICS, STD, physical_inputs
from toy_run import ToyEngine, initial_state

from ai_models_mosaic.checkpoints.format import build_network
from ai_models_mosaic.engines.batching import Halving, compare_memory, histories_that_fit
from ai_models_mosaic.engines.torch import TorchEngine
from ai_models_mosaic.errors import ForecastError
from ai_models_mosaic.forecast.options import parse_options
from ai_models_mosaic.forecast.progress import Watch
from ai_models_mosaic.forecast.ranks import SingleRank
from ai_models_mosaic.forecast.series import ForecastSeries, SeriesSettings
from ai_models_mosaic.inputs.requests import wanted_time
from ai_models_mosaic.variants import MINI

GB = 10**9
FULL = torch.cuda.OutOfMemoryError


def linear(weights, member):
    return lambda members: weights + members * member


@pytest.mark.parametrize(("available", "expected"), [(80 * GB, 54), (13 * GB, 0), (12 * GB, 0), (15 * GB, 2)])
def test_as_many_histories_stay_as_fit_beside_a_step(available, expected):
    assert histories_that_fit(available, 10 * GB, GB) == expected


class Device:
    """Doubles every number, and has room for so many at once."""

    def __init__(self, room):
        self.room, self.tried = room, []

    def __call__(self, numbers):
        def step(part):
            self.tried.append(len(numbers[part]))
            if len(numbers[part]) > self.room:
                raise FULL("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore of it.")
            return [2 * number for number in numbers[part]]

        return step


def flat(parts):
    return [number for part in parts for number in part]


def test_without_need_nothing_is_halved_and_nothing_said(caplog):
    device, numbers = Device(8), list(range(5))
    assert flat(Halving(FULL)(5, device(numbers))) == [0, 2, 4, 6, 8]
    assert device.tried == [5]
    assert caplog.text == ""


def test_members_are_halved_until_they_fit_and_stay_so(caplog):
    device, released, numbers = Device(3), [], list(range(17))
    halving = Halving(FULL, lambda: released.append(True))
    assert flat(halving(16, device(numbers))) == [2 * number for number in range(16)]
    assert device.tried == [16, 8, 4, *[2] * 8]
    assert len(released) == 3
    assert flat(halving(5, device(numbers))) == [0, 2, 4, 6, 8]
    assert flat(halving(1, device(numbers))) == [0]
    assert device.tried[11:] == [2, 2, 1, 1]
    assert [record.getMessage() for record in caplog.records] == [
        f"The memory does not suffice for {tried} members at once: going on with {then}. --members-per-batch {then} "
        "avoids the attempt"
        for tried, then in ((16, 8), (8, 4), (4, 2))
    ]


def test_before_members_are_halved_room_is_made_otherwise(caplog):
    device, released = Device(2), []

    def spill():
        device.room = 4
        return len(device.tried) == 1

    halving = Halving(FULL, lambda: released.append(True))
    assert flat(halving(4, device(list(range(4))), spill)) == [0, 2, 4, 6]
    assert (device.tried, released, caplog.text) == ([4, 4], [True], "")


def test_where_not_even_one_member_fits_the_forecast_ends_and_says_what_to_do():
    with pytest.raises(ForecastError) as caught:
        Halving(FULL)(3, Device(0)([1, 2, 3]))
    assert str(caught.value) == (
        "the memory does not suffice for one member; free some of it, or try --precision float16 or bfloat16, or a "
        "larger device. The device says: CUDA out of memory. Tried to allocate 2.00 GiB."
    )


def test_other_failures_are_not_taken_for_a_lack_of_memory():
    def broken(_):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match=r"^something else$"):
        Halving(FULL)(4, broken)


@pytest.mark.parametrize(
    ("measured", "level"),
    [(10 * GB, logging.INFO), (14.9 * GB, logging.INFO), (15.1 * GB, logging.WARNING), (4 * GB, logging.INFO)],
)
def test_half_as_much_again_as_was_estimated_is_worth_a_warning_and_less_is_not(caplog, measured, level):
    caplog.set_level(logging.INFO)
    compare_memory(10 * GB, int(measured), 4)
    (record,) = caplog.records
    assert record.levelno == level
    said = f"The first step of 4 members took {measured / GB:.2f} GB of the device's memory; 10.00 GB were estimated"
    assert record.getMessage().startswith(said)


# With the network.


@pytest.fixture(scope="module")
def network():
    return build_network(tiny.ARCHITECTURE, tiny.checkpoint_of(tiny.parameters()), tiny.STATICS)


def filling_up(network, room):
    """An engine whose network does not fit with more than so many members."""
    engine = TorchEngine(network, STATISTICS, torch.device("cpu"))
    forward, tried = engine.network.forward, []

    def limited(state, progress, noise, started=None):
        tried.append(len(state))
        if len(state) > room:
            raise FULL("CUDA out of memory.")
        return forward(state, progress, noise, started)

    return engine, limited, tried


def test_members_have_the_same_bytes_in_any_batch_and_after_halving(network, monkeypatch, caplog):
    history, noise = physical_inputs(7)
    engine, limited, tried = filling_up(network, 2)
    alone = np.concatenate([engine.step(history[k : k + 1], PROGRESS, noise[k : k + 1]) for k in range(7)])
    for size in (2, 3, 7):
        parts = [engine.step(history[k : k + size], PROGRESS, noise[k : k + size]) for k in range(0, 7, size)]
        np.testing.assert_array_equal(np.concatenate(parts), alone)
    monkeypatch.setattr(engine.network, "forward", limited)
    np.testing.assert_array_equal(engine.step(history, PROGRESS, noise), alone)
    assert tried == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert "does not suffice for 7 members at once: going on with 3" in caplog.text
    assert np.abs((alone[0] - alone[1]) / STD).max() > 0.1


def test_a_lack_of_memory_that_passes_ends_no_run(network, monkeypatch):
    history, noise = physical_inputs(2)
    engine, _, _ = filling_up(network, 2)
    expected = engine.step(history, PROGRESS, noise)
    forward, failures = engine.network.forward, [FULL("once")]

    def once(*arguments):
        if failures:
            raise failures.pop()
        return forward(*arguments)

    monkeypatch.setattr(engine.network, "forward", once)
    np.testing.assert_array_equal(engine.step(history, PROGRESS, noise), expected)


def test_one_member_is_the_best_batch_so_that_its_bytes_depend_on_no_other(network):
    assert TorchEngine(network, STATISTICS, torch.device("cpu")).best_batch(24) == 1


# In a run.


class ChoosingEngine(ToyEngine):
    """Finds two members best, and tells how many it got and was asked about."""

    precision, checkpoint, checkpoint_sha256, untrained, origin, data = "float32", None, None, False, None, ()

    def __init__(self):
        self.sizes, self.asked = [], []

    def best_batch(self, members):
        self.asked.append(members)
        return 2

    def step(self, history, progress, noise):
        self.sizes.append(len(history))
        return super().step(history, progress, noise)


class SeveralRanks(SingleRank):
    size = 3


def session_of(engine, *words, ranks=None):
    settings = SeriesSettings(MINI, parse_options(["--num-ensemble-members", "5", *words]), 2, {}, (), "toy")
    starts = dict.fromkeys(range(1, 6), initial_state())
    return ForecastSeries(
        settings,
        ranks or SingleRank(),
        Watch(),
        read=lambda _: starts,
        load=lambda: engine,
        output=lambda *_: nullcontext(None),
    )


def test_a_run_takes_the_batch_that_the_engine_finds_best_and_records_it():
    engine = ChoosingEngine()
    session = session_of(engine)
    session.run([wanted_time("20200229", 18)] * 2)
    assert engine.sizes == [2, 2, 1] * 2 * 2
    # The network is loaded once, and asked once.
    assert engine.asked == [5]
    for card in session.provenance:
        assert card["members_per_batch"] == card["options"]["members_per_batch"] == 2


def test_a_batch_that_was_asked_for_is_taken_without_asking_the_engine():
    engine = ChoosingEngine()
    session_of(engine, "--members-per-batch", "4").run([wanted_time("20200229", 18)])
    assert engine.sizes == [4, 1] * 2
    assert engine.asked == []


def test_the_best_batch_is_sought_among_the_members_of_one_rank():
    engine = ChoosingEngine()
    session = session_of(engine, ranks=SeveralRanks())
    assert session._engine is engine
    assert engine.asked == [2]
