"""The state of a run is kept beside its steps, by time, and when it ends early."""

import os
import signal
import threading

import pytest
import tiny
from late_device import LateEngine
from test_torch_engine import CPU, STATISTICS, made_network, physical_inputs
from toy_run import GRID, START, DyingEngine, ToyEngine, initial_state, job, toy_run

from ai_models_mosaic.engines.torch import TorchEngine
from ai_models_mosaic.errors import ForecastError, OutputError, TerminatedError
from ai_models_mosaic.forecast import resume
from ai_models_mosaic.forecast.progress import Watch
from ai_models_mosaic.forecast.resume import ResumeState, read_record, state_folder
from ai_models_mosaic.forecast.rollout import Ensemble
from ai_models_mosaic.forecast.run import EnsembleJob
from ai_models_mosaic.forecast.saving import StateSaver
from ai_models_mosaic.outputs.grib.encoder import GribEncoder
from ai_models_mosaic.outputs.grib.keys import Labels
from ai_models_mosaic.outputs.queue import OrderedQueue
from ai_models_mosaic.state import InitialState

PATIENCE_S = 20
NEVER = 1e5


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    toy_run(str(folder / "out.grib"), job(3, 4, per_batch=2))
    return (folder / "out.grib").read_bytes()


def record_beside(path):
    return read_record(state_folder(str(path), START))


class InterruptedEngine(DyingEngine):
    """Gets Ctrl-C at a call."""

    def step(self, history, progress, noise):
        if self.calls == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return super().step(history, progress, noise)


@pytest.mark.parametrize("interval_s", [0.0, NEVER])
@pytest.mark.parametrize(
    ("engine", "error", "units"),
    [
        (lambda: DyingEngine(6, "fail"), ForecastError, 2 + 5),
        (lambda: DyingEngine(6, "stop"), TerminatedError, 2 + 6),
        (lambda: InterruptedEngine(6, ""), KeyboardInterrupt, 2 + 5),
    ],
)
def test_a_run_that_ends_early_keeps_all_that_was_complete(tmp_path, whole, interval_s, engine, error, units):
    path, made, watch = tmp_path / "out.grib", job(3, 4, per_batch=2), Watch()
    with pytest.raises(error), watch.listening():
        toy_run(str(path), made, engine=engine(), watch=watch, interval_s=interval_s)
    assert record_beside(path).units == units
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    again = DyingEngine(100, "")
    toy_run(str(path), made, resume=True, engine=again, interval_s=interval_s)
    assert 100 - again.calls == 8 - (units - 2)
    assert path.read_bytes() == whole


def test_a_run_shorter_than_the_interval_writes_no_state_and_of_its_end_only_the_lengths(tmp_path, whole, monkeypatch):
    saved, written = [], []
    save, save_state = ResumeState.save, resume.save_state
    monkeypatch.setattr(
        ResumeState, "save", lambda *known, **more: saved.append((known[1], more["finished"])) or save(*known, **more)
    )
    monkeypatch.setattr(resume, "save_state", lambda *known: written.append(known[0].name) or save_state(*known))
    toy_run(str(tmp_path / "out.grib"), job(3, 4, per_batch=2), interval_s=NEVER)
    assert (saved, written) == ([(10, True)], [])
    assert (tmp_path / "out.grib").read_bytes() == whole


def test_a_state_is_written_beside_the_next_steps(tmp_path, whole, monkeypatch):
    begun, goes_on, save_state = threading.Event(), threading.Event(), resume.save_state
    threads = set()

    def slow(*known):
        threads.add(threading.current_thread().name)
        begun.set()
        assert goes_on.wait(PATIENCE_S)
        return save_state(*known)

    monkeypatch.setattr(resume, "save_state", slow)
    # Else the share of the time would decide, which is another on every machine.
    monkeypatch.setattr(resume, "SHARE", 1.0)

    begin, savers = StateSaver._begin, []
    monkeypatch.setattr(
        StateSaver, "_begin", lambda saver, *known, **more: savers.append(saver) or begin(saver, *known, **more)
    )

    class Engine(ToyEngine):
        calls = 0

        def step(self, history, progress, noise):
            self.calls += 1
            # That of step 0 has no states; the next is begun after it, at this call or before.
            while self.calls == 3 and not (savers[0]._running.done() or begun.wait(0.01)):
                pass
            if self.calls == 6:
                goes_on.set()
            return super().step(history, progress, noise)

    toy_run(str(tmp_path / "out.grib"), job(3, 4, per_batch=2), engine=Engine(), interval_s=1e-9)
    assert threads == {"state_0"}
    assert (tmp_path / "out.grib").read_bytes() == whole


def test_a_state_that_cannot_be_written_ends_the_run_and_the_one_before_it_stands(tmp_path, whole, monkeypatch):
    path, made, save_state, written = tmp_path / "out.grib", job(3, 4, per_batch=2), resume.save_state, []

    def full(*known):
        written.append(known[0].name)
        if len(written) == 4:
            raise OutputError(f"cannot write {known[0]}: No space left on device")
        return save_state(*known)

    monkeypatch.setattr(resume, "save_state", full)
    with pytest.raises(OutputError, match="No space left on device"):
        toy_run(str(path), made)
    # Nothing of what failed is tried again, for it would lack what was noted.
    assert len(written) == 4
    assert record_beside(path).units == 2 + 3
    monkeypatch.undo()
    toy_run(str(path), made, resume=True)
    assert path.read_bytes() == whole


def test_ctrl_c_waits_for_what_is_being_handed_over_and_a_second_does_not():
    watch, done = Watch(), []

    def interrupt(times):
        with watch.listening():
            with watch.shielded():
                for _ in range(times):
                    os.kill(os.getpid(), signal.SIGINT)
                done.append("whole")
            done.append("not this")

    with pytest.raises(KeyboardInterrupt):
        interrupt(1)
    assert done == ["whole"]
    with pytest.raises(KeyboardInterrupt):
        interrupt(2)
    assert done == ["whole"]


def test_what_a_program_does_with_ctrl_c_is_left_alone():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(True))
    try:
        watch = Watch()
        with watch.listening(), watch.shielded():
            os.kill(os.getpid(), signal.SIGINT)
        assert heard == [True]
    finally:
        signal.signal(signal.SIGINT, before)


# Marks.


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_mark_sees_what_was_asked_for_before_it_and_nothing_else(workers):
    queue, committed = OrderedQueue(workers), []
    marks = []
    for index in range(40):
        queue.put(lambda index=index: lambda: committed.append(index))
        if index % 10 == 4:
            marks.append(queue.mark(lambda: list(committed)))
    queue.close()
    assert [mark.result(PATIENCE_S) for mark in marks] == [list(range(end)) for end in (5, 15, 25, 35)]


def test_a_mark_after_a_job_that_failed_fails_and_nobody_waits_for_ever():
    queue, goes_on = OrderedQueue(1), threading.Event()

    def fails():
        assert goes_on.wait(PATIENCE_S)
        raise OutputError("full")

    queue.put(fails)
    mark = queue.mark(lambda: "reached")
    goes_on.set()
    with pytest.raises(OutputError, match="full"):
        mark.result(PATIENCE_S)
    queue.abort()


def test_a_mark_of_a_queue_that_is_given_up_is_cancelled():
    queue, goes_on = OrderedQueue(1), threading.Event()
    queue.put(lambda: goes_on.wait(PATIENCE_S) and None)
    mark = queue.mark(lambda: "reached")
    threading.Timer(0.05, goes_on.set).start()
    queue.abort()
    assert mark.cancelled()


def test_a_look_that_fails_is_told_to_who_asked():
    queue = OrderedQueue(1)
    mark = queue.mark(lambda: {}["absent"])
    with pytest.raises(KeyError):
        mark.result(PATIENCE_S)
    queue.close()


# On a device with memory of its own.


@pytest.fixture(scope="module")
def encoder():
    with GribEncoder(GRID, Labels(START, 5, {}), range(tiny.ARCHITECTURE.channels)) as made:
        yield made


@pytest.fixture(scope="module")
def starting():
    """A job of the tiny network: members 1 and 2 share their start."""
    history, _ = physical_inputs(4)
    own = [InitialState(GRID, initial_state().times, values) for values in history]
    starts = dict(zip(range(1, 6), (own[0], *own), strict=True))
    return EnsembleJob(starts, Ensemble(5, tuple(starts), 2), 24, 4)


@pytest.fixture(scope="module")
def network():
    return made_network()


@pytest.fixture(scope="module")
def on_the_cpu(tmp_path_factory, network, starting, encoder):
    path = tmp_path_factory.mktemp("cpu") / "out.grib"
    toy_run(str(path), starting, engine=TorchEngine(network, STATISTICS, CPU), encoder=encoder)
    return path.read_bytes()


@pytest.mark.parametrize(("room", "interval_s"), [(0, 0.0), (3, NEVER), (100, 0.0)])
def test_a_run_on_a_device_writes_the_bytes_of_the_cpu(
    tmp_path, network, starting, encoder, on_the_cpu, room, interval_s
):
    engine = LateEngine(network, STATISTICS, CPU)
    engine.members_with_room = room
    toy_run(str(tmp_path / "out.grib"), starting, engine=engine, encoder=encoder, interval_s=interval_s)
    assert (tmp_path / "out.grib").read_bytes() == on_the_cpu


@pytest.mark.parametrize(("calls", "interval_s"), [(1, 0.0), (2, NEVER), (5, NEVER), (12, 0.0)])
def test_a_run_on_a_device_that_fails_keeps_what_was_complete_and_goes_on(
    tmp_path, network, starting, encoder, on_the_cpu, calls, interval_s
):
    path, engine = tmp_path / "out.grib", LateEngine(network, STATISTICS, CPU)
    advance, left = engine.advance, [calls]

    def failing(*arguments):
        left[0] -= 1
        if not left[0]:
            raise ForecastError("the device broke")
        return advance(*arguments)

    engine.advance, engine.members_with_room = failing, calls % 4
    with pytest.raises(ForecastError):
        toy_run(str(path), starting, engine=engine, encoder=encoder, interval_s=interval_s)
    # Step 0, and all that was begun before.
    assert record_beside(path).units == 3 + calls - 1
    again = LateEngine(network, STATISTICS, CPU)
    again.members_with_room = 2
    toy_run(str(path), starting, engine=again, encoder=encoder, resume=True)
    assert path.read_bytes() == on_the_cpu
