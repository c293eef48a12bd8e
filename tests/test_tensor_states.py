"""States where the network computes: on the CPU, and on a device that copies as late as it may."""

import gc
import signal
import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from late_device import GARBAGE, LateDevice, LateEngine
from test_torch_engine import CPU, PROGRESS, STATISTICS, STD, made_network, physical_inputs

from ai_models_mosaic.engines import ring
from ai_models_mosaic.engines.copies import SharedMemory, StreamedCopies
from ai_models_mosaic.engines.ring import HostRing, together
from ai_models_mosaic.engines.torch import TorchEngine
from ai_models_mosaic.errors import ForecastError, TerminatedError
from ai_models_mosaic.forecast.progress import Watch
from ai_models_mosaic.forecast.ranks import SingleRank
from ai_models_mosaic.forecast.rollout import Ensemble, rollout
from ai_models_mosaic.forecast.run import EnsembleJob, EnsembleRun, NoWriter
from ai_models_mosaic.state import InitialState

FULL = torch.cuda.OutOfMemoryError
PATIENCE_S = 20


@pytest.fixture(scope="module")
def network():
    return made_network()


@pytest.fixture
def late(network):
    return LateEngine(network, STATISTICS, CPU)


@pytest.fixture(scope="module")
def starts():
    """Members 1, 2 and 3 have one start, 4 and 5 each their own."""
    history, _ = physical_inputs(3)
    grid, times = tiny.ARCHITECTURE.grid, physical_times()
    own = [InitialState(grid, times, values) for values in history]
    return {1: own[0], 2: own[0], 3: own[0], 4: own[1], 5: own[2]}


def physical_times():
    from datetime import datetime

    return datetime(2020, 1, 1), datetime(2020, 1, 2)


def forecast(engine, starts, per_batch, steps=5, **more):
    """Values by member and step, copied when they are yielded."""
    ensemble = Ensemble(3, tuple(starts), per_batch)
    return {
        (member, made.step): values.copy()
        for made in rollout(engine, starts, ensemble, 24, steps, **more)
        for member, values in zip(made.members, made.values, strict=True)
    }


@pytest.fixture(scope="module")
def expected(network, starts):
    return {k: forecast(TorchEngine(network, STATISTICS, CPU), starts, k) for k in (1, 2, 5)}


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for place, values in wanted.items():
        np.testing.assert_array_equal(found[place], values, err_msg=str(place))


# A device with memory of its own.


@pytest.mark.parametrize("lend", [True, False])
@pytest.mark.parametrize("room", [0, 1, 3, 100])
@pytest.mark.parametrize("per_batch", [1, 2, 5])
def test_a_forecast_on_a_device_is_that_on_the_cpu_wherever_states_are_kept(
    late, starts, expected, per_batch, room, lend
):
    late.members_with_room = room
    assert_same(forecast(late, starts, per_batch, lend=lend), expected[per_batch])


def test_every_state_is_copied_out_once_and_none_back_that_stays(late, starts):
    forecast(late, starts, 5, steps=4, lend=True)
    points = tiny.ARCHITECTURE.grid.shape
    # In: three distinct starts of two states. Out: every step of all members at once, and its flags.
    assert late.late.copies == [*[(*points, 5)] * 6, *[(5, *points, 5), (5, 5)] * 4]


def test_of_members_without_room_each_history_is_read_again_at_every_step(late, starts):
    late.members_with_room = 1
    forecast(late, starts, 1, steps=3, lend=True)
    states = [shape for shape in late.late.copies if len(shape) == 3]
    # Member 1 stays, and 2 and 3 start from what it left there at the first step; later they have their own.
    assert len(states) == 2 + 2 * 2 + 2 * 4 * 2 - 2


def test_a_device_is_one_batch_ahead_and_the_cpu_is_not(network, late, starts):
    for engine, ahead in ((TorchEngine(network, STATISTICS, CPU), 0), (late, 1)):
        calls = []
        advance = engine.advance
        engine.advance = lambda *arguments, advance=advance, calls=calls: calls.append(1) or advance(*arguments)
        steps = rollout(engine, starts, Ensemble(3, tuple(starts), 5), 24, 5)
        assert next(steps).step == 0
        assert len(calls) == ahead
        assert next(steps).step == 1
        assert len(calls) == 1 + ahead


@pytest.mark.parametrize("broken", ["before copying out", "before reading again", "for the host"])
def test_the_stand_in_shows_a_wait_that_is_missing(late, starts, expected, monkeypatch, broken):
    late.members_with_room = 0
    begin = late.begin

    def begun(histories):
        states = begin(histories)
        if broken == "before copying out":
            late.late.streams[1].wait_stream = lambda _: None
        elif broken == "before reading again":
            late.late._compute.wait_stream = lambda _: None
        else:
            late.late.Event = type("Never", (late.late.Event,), {"synchronize": lambda _: None})
        return states

    monkeypatch.setattr(late, "begin", begun)
    with pytest.raises((ForecastError, AssertionError)):
        assert_same(forecast(late, starts, 2, lend=True), expected[2])


def test_a_state_that_is_not_finite_is_named_with_member_field_and_step(late, starts):
    advance, calls = late.advance, []

    def breaking(*arguments):
        made = advance(*arguments)
        calls.append(1)
        if len(calls) == 5:  # step 2, second batch
            made[1, 3, 2, 1] = torch.nan
        return made

    late.advance = breaking
    steps = rollout(late, starts, Ensemble(3, tuple(starts), 2), 24, 5, lend=True)
    # All before it is handed over, though the device was ahead.
    assert [next(steps).members for _ in range(3 + 3 + 1)][-1] == (1, 2)
    with pytest.raises(
        ForecastError, match=r"non-finite: 10m_u_component_of_wind of member 4 at step 2 \(\+48 h\), and 0 more fields"
    ):
        next(steps)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("copies", [SharedMemory(), StreamedCopies(CPU, LateDevice())])
def test_every_field_that_is_not_finite_is_found(copies, value):
    made = torch.full((3, 4, 3, 5), -7.0)
    for place in ((0, 0, 0, 0), (2, 3, 2, 4), (1, 2, 1, 3)):
        made[place] = value
    assert (~copies.finite(made)).nonzero().tolist() == [[0, 0], [1, 3], [2, 4]]


def test_a_step_that_fails_is_told_after_what_was_begun_before(late, starts):
    advance, calls = late.advance, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise ForecastError("the device broke")
        return advance(*arguments)

    late.advance = failing
    steps = rollout(late, starts, Ensemble(3, tuple(starts), 5), 24, 5, lend=True)
    assert [next(steps).step for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ForecastError, match=r"^the device broke$"):
        next(steps)


def test_states_that_fill_the_memory_are_kept_elsewhere_and_the_forecast_goes_on(late, starts, expected, caplog):
    advance, calls = late.advance, []

    def full_once(*arguments):
        calls.append(len(arguments[0]))
        if len(calls) == 6:
            raise FULL("CUDA out of memory.")
        return advance(*arguments)

    late.advance = full_once
    assert_same(forecast(late, starts, 2, lend=True), expected[2])
    assert calls[5:8] == [1, 1, 2]
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "The memory of the device does not suffice for the states of all members beside a step: they stay in the "
        "host's memory from now on"
    ]
    # All of them are read again from then on.
    assert sum(len(shape) == 3 for shape in late.late.copies) > 6 + 2 * 5 * 3


def test_a_batch_that_does_not_fit_is_halved_on_a_device_too(late, starts, expected, caplog):
    advance = late.advance

    def small(*arguments):
        if len(arguments[0]) > 2:
            raise FULL("CUDA out of memory.")
        return advance(*arguments)

    late.advance = small
    assert_same(forecast(late, starts, 5, lend=True), expected[5])
    assert "does not suffice for 5 members at once: going on with 2" in caplog.text


def test_what_was_restored_is_gone_on_from(late, starts, expected):
    ensemble = Ensemble(3, tuple(starts), 2)
    made = list(rollout(late, starts, ensemble, 24, 3))
    for room in (0, 100):
        late.members_with_room = room
        kept = [replace(one, values=one.values.copy()) for one in made if one.step in (2, 3)]
        later = rollout(late, starts, ensemble, 24, 5, restored=kept, done=12, lend=True)
        found = {
            (member, one.step): values.copy()
            for one in later
            for member, values in zip(one.members, one.values, strict=True)
        }
        assert_same(found, {place: values for place, values in expected[2].items() if place[1] > 3})


# Buffers.


def test_what_is_lent_cannot_be_written_to_and_does_not_change_while_it_is_read(late, starts):
    steps = rollout(late, starts, Ensemble(3, tuple(starts), 5), 24, 12, lend=True)
    assert next(steps).step == 0
    first = next(steps)
    part = first.values[2, :, :, 1:3]
    before = part.copy()
    for array in (first.values, part):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.setflags(write=True)
    del first
    for step in steps:
        assert not np.shares_memory(step.values, part)
        del step
    np.testing.assert_array_equal(part, before)
    assert not (part == np.float32(GARBAGE)).any()


def test_who_does_not_ask_to_be_lent_to_may_keep_all_and_change_it(late, starts, expected):
    kept = list(rollout(late, starts, Ensemble(3, tuple(starts), 1), 24, 5))
    assert len(kept) == 5 * 6
    for one in kept:
        assert one.step == 0 or one.values.flags.writeable
    np.testing.assert_array_equal(kept[5 * 5].values[0], expected[1][1, 5])


def test_there_are_no_more_buffers_than_histories_need_and_a_few(late, starts):
    states = late.begin({member: start.values for member, start in starts.items()})
    noise = np.zeros((5, 6), dtype=np.float32)
    places = set()
    for step in range(20):
        made = states.advance(range(1, 6), (step / 4, 0.0), noise)()
        places.add(made.values.ctypes.data)
        del made
    # Two states of a history, that which falls off, and that which is made.
    assert len(places) <= together(4 * 5 * 12 * 7 * 5)


def test_a_buffer_is_handed_out_again_only_when_its_last_array_is_gone():
    found = HostRing((2, 3), 1, pinned=False)
    lease = found.take()
    lease.tensor.fill_(7)
    array = lease.array()
    part = array[1, 1:]
    view = memoryview(part)
    del lease, array, part
    gc.collect()
    assert found._free.empty()
    assert list(view) == [7, 7]
    del view
    assert found.take().array().shape == (2, 3)


def test_who_wants_a_buffer_waits_until_one_is_given_back(monkeypatch, caplog):
    monkeypatch.setattr(ring, "PATIENCE_S", 0.01)
    found = HostRing((2, 3), 2, pinned=False)
    held = [found.take().array() for _ in range(2)]
    got = []

    def want():
        got.append(found.take().array().ctypes.data)

    waiting = threading.Thread(target=want)
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    assert "All buffers for states are in use for 0 s: waiting for the output" in caplog.messages
    place = held[1].ctypes.data
    del held[1]
    waiting.join(PATIENCE_S)
    assert got == [place]


class Hoarder(NoWriter):
    """Never gives anything back."""

    def __init__(self):
        self.kept = []

    def write(self, forecast):
        self.kept.append(forecast)


def test_a_run_whose_buffers_are_lost_ends_when_it_is_asked_to(late, starts, monkeypatch):
    monkeypatch.setattr(ring, "HEED_S", 0.01)
    monkeypatch.setattr(ring, "PATIENCE_S", 0.02)
    watch, hoarder = Watch(), Hoarder()
    # It is waiting when it says so.
    monkeypatch.setattr(ring.LOG, "warning", lambda *_: signal.raise_signal(signal.SIGTERM))
    run = EnsembleRun(
        EnsembleJob(starts, Ensemble(3, tuple(starts), 5), 24, 99), late, SingleRank(), hoarder, None, watch
    )
    with watch.listening(), pytest.raises(TerminatedError, match=r"^stopped by a signal after step \d+ \(.* as asked"):
        run()
    assert 4 < len(hoarder.kept) < 99
    # What was begun before was still handed over, and is whole.
    last = hoarder.kept[-1]
    assert last.step == len(hoarder.kept) - 1
    assert not (last.values == np.float32(GARBAGE)).any()


def test_states_and_their_buffers_are_gone_with_the_run(late, starts, monkeypatch):
    begin, alive = late.begin, []

    def begun(histories):
        states = begin(histories)
        alive.extend((weakref.ref(states), weakref.ref(states._copies)))
        return states

    monkeypatch.setattr(late, "begin", begun)
    job = EnsembleJob(starts, Ensemble(3, tuple(starts), 5), 24, 5)
    gc.disable()
    try:
        EnsembleRun(job, late, SingleRank(), NoWriter(), None, Watch())()
        assert [one() for one in alive] == [None, None]
    finally:
        gc.enable()


def test_where_memory_cannot_be_pinned_other_memory_does(monkeypatch, caplog):
    empty = torch.empty

    def refusing(*arguments, **keywords):
        if keywords.get("pin_memory"):
            raise RuntimeError("cannot pin\nmore of it")
        return empty(*arguments, **keywords)

    monkeypatch.setattr(ring.torch, "empty", refusing)
    assert HostRing((2, 3), 2, pinned=True).take().array().shape == (2, 3)
    assert caplog.messages == ["No more memory can be pinned for states, which takes longer to copy to: cannot pin"]


@pytest.mark.parametrize(("size", "count"), [(1, 1), (64, 1), (9_525_120, 7), (76_200_960, 7), (4 * 1024**2 + 1, 7)])
def test_buffers_are_allocated_together_where_a_power_of_two_would_waste_much(size, count):
    assert together(size) == count


# On the CPU.


def test_on_the_cpu_nothing_is_copied_and_nobody_can_change_what_the_next_step_starts_from(network, starts):
    states = TorchEngine(network, STATISTICS, CPU).begin({1: starts[1].values})
    made = states.advance([1], PROGRESS, np.ones((1, 6), dtype=np.float32))()
    assert made.values.ctypes.data == states._histories[1][-1].host.data_ptr()
    assert not made.lent
    with pytest.raises(ValueError, match="read-only"):
        made.values[...] = 0
    assert np.abs((made.values[0] - starts[1].values[-1]) / STD).max() > 0.1


def test_starts_that_lie_otherwise_or_are_read_only_are_taken_as_they_are(network, starts):
    values = starts[1].values
    turned = np.asfortranarray(values)
    fixed = values.copy()
    fixed.setflags(write=False)
    noise = np.ones((1, 6), dtype=np.float32)
    found = [
        TorchEngine(network, STATISTICS, CPU).begin({1: start}).advance([1], PROGRESS, noise)().values
        for start in (values, turned, fixed, turned[::-1][::-1])
    ]
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
