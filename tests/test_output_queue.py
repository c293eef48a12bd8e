"""Jobs run side by side; what comes of them is used in turn."""

import threading

import pytest

from ai_models_mosaic.outputs.queue import MOST_WORKERS, PENDING_PER_WORKER, OrderedQueue, usual_workers

PATIENCE_S = 20


def test_there_are_as_many_workers_as_cores_within_reason():
    assert 1 <= usual_workers() <= MOST_WORKERS


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_commits_follow_the_order_of_the_jobs_however_many_workers_there_are(workers):
    committed = []
    queue = OrderedQueue(workers)
    for index in range(200):
        queue.put(lambda index=index: lambda: committed.append(index))
    queue.flush()
    assert committed == list(range(200))
    queue.put(lambda: lambda: committed.append("last"))
    queue.close()
    assert committed[-1] == "last"


def test_a_job_that_ends_early_waits_for_those_before_it():
    first_may_end, second_ended, committed = threading.Event(), threading.Event(), []

    def first():
        assert first_may_end.wait(PATIENCE_S)
        return lambda: committed.append(1)

    def second():
        second_ended.set()
        return lambda: committed.append(2)

    queue = OrderedQueue(2)
    queue.put(first)
    queue.put(second)
    assert second_ended.wait(PATIENCE_S)
    assert committed == []
    first_may_end.set()
    queue.close()
    assert committed == [1, 2]


def test_jobs_run_at_the_same_time_and_commits_never_do():
    together, alone, most = threading.Barrier(3, timeout=PATIENCE_S), threading.Lock(), []

    def job():
        together.wait()
        return commit

    def commit():
        assert alone.acquire(blocking=False)
        most.append(threading.current_thread().name)
        alone.release()

    queue = OrderedQueue(3)
    for _ in range(6):
        queue.put(job)
    queue.close()
    assert most == ["write"] * 6


def test_whoever_asks_waits_while_too_much_is_pending():
    may_end, asked = threading.Event(), []

    def wait():
        assert may_end.wait(PATIENCE_S)

    def ask():
        for index in range(20):
            queue.put(wait)
            asked.append(index)

    queue = OrderedQueue(2)
    asking = threading.Thread(target=ask)
    asking.start()
    asking.join(0.3)
    # One more is in the hands of the thread that commits.
    assert len(asked) <= 2 * PENDING_PER_WORKER + 1
    may_end.set()
    asking.join(PATIENCE_S)
    queue.close()
    assert len(asked) == 20


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("where", ["job", "commit"])
def test_what_goes_wrong_reaches_whoever_asks_and_nothing_after_it_is_committed(workers, where):
    committed = []

    def bad():
        if where == "job":
            raise KeyError("worker")
        return lambda: committed[17]

    def ask():
        queue.put(bad)
        for _ in range(50):
            queue.put(lambda: lambda: committed.append("after"))
            queue.flush()

    queue = OrderedQueue(workers)
    queue.put(lambda: lambda: committed.append("before"))
    with pytest.raises((KeyError, IndexError)):
        ask()
    assert "before" in committed
    assert workers == 0 or "after" not in committed
    queue.abort()


def test_a_failure_is_raised_again_when_the_queue_is_closed_and_its_threads_end():
    before = threading.active_count()
    queue = OrderedQueue(3)
    queue.put(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        queue.close()
    assert threading.active_count() == before


def test_what_is_pending_when_all_is_given_up_is_not_committed():
    started, may_end, committed = threading.Event(), threading.Event(), []

    def slow():
        started.set()
        assert may_end.wait(PATIENCE_S)
        return lambda: committed.append("slow")

    before = threading.active_count()
    queue = OrderedQueue(1)
    queue.put(slow)
    queue.put(lambda: lambda: committed.append("next"))
    assert started.wait(PATIENCE_S)
    threading.Timer(0.1, may_end.set).start()
    queue.abort()
    assert committed == []
    queue.abort()
    assert threading.active_count() <= before + 1


def test_a_queue_that_was_never_used_ends_at_once():
    for workers in (0, 2):
        OrderedQueue(workers).close()
        OrderedQueue(workers).abort()
