"""Work in other threads whose results are used in the order in which it was asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import Queue
from threading import Thread
from typing import Any, Generic, TypeVar

Commit = Callable[[], object]
Job = Callable[[], Commit | None]

T = TypeVar("T")

MOST_WORKERS = 4
"""More encode faster than a step can be made."""

PENDING_PER_WORKER = 2
"""Jobs that may wait per worker; each holds the fields of one member."""


def usual_workers() -> int:
    """As many workers as there are cores for this process, up to `MOST_WORKERS`."""
    return min(MOST_WORKERS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


class OrderedQueue:
    """Runs jobs in worker threads, and what they return in one thread, in the order of the jobs.

    So encoding is shared by the workers and overlaps with the model, whose work and theirs is done
    in C without the interpreter's lock, and files are as if all had been written in turn.

    Parameters
    ----------
    workers : int
        Threads that run jobs; with 0 every job is run and committed at once by whoever puts it.
    """

    def __init__(self, workers: int) -> None:
        self._error: BaseException | None = None
        self._aborted = False
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="encode") if workers else None
        self._pending: Queue[Future[Commit | None] | _Mark[Any] | None] = Queue(max(1, PENDING_PER_WORKER * workers))
        self._committer = Thread(target=self._commit_all, name="write", daemon=True)
        if workers:
            self._committer.start()

    def put(self, job: Job) -> None:
        """Ask for a job; waits while too many are pending.

        Parameters
        ----------
        job : callable
            Run by a worker; returns what is to be called when all jobs before it are committed.

        Raises
        ------
        Exception
            What an earlier job, or its commit, raised; nothing after it is committed.
        """
        self._raise()
        if self._executor is None:
            commit = job()
            if commit is not None:
                commit()
            return
        self._pending.put(self._executor.submit(job))

    def mark(self, look: Callable[[], T]) -> Future[T]:
        """Look at what was made, between what was asked for before and what is asked for afterwards.

        Parameters
        ----------
        look : callable
            Called where commits are, when all before it are made.

        Returns
        -------
        Future
            Of what it gives. It fails as a job before it did, and is cancelled by `abort`.

        Raises
        ------
        Exception
            What an earlier job, or its commit, raised.
        """
        self._raise()
        mark: Future[T] = Future()
        if self._executor is None:
            mark.set_result(look())
        else:
            self._pending.put(_Mark(mark, look))
        return mark

    def flush(self) -> None:
        """Wait until all that was asked for is committed.

        Raises
        ------
        Exception
            What a job, or its commit, raised.
        """
        self._pending.join()
        self._raise()

    def close(self) -> None:
        """As `flush`, and end the threads.

        Raises
        ------
        Exception
            What a job, or its commit, raised.
        """
        self._stop()
        self._raise()

    def abort(self) -> None:
        """End the threads without committing what is still pending."""
        self._aborted = True
        self._stop()

    def _stop(self) -> None:
        if self._executor is None:
            return
        self._pending.put(None)
        self._committer.join()
        self._executor.shutdown()
        self._executor = None

    def _commit_all(self) -> None:
        while (future := self._pending.get()) is not None:
            if isinstance(future, _Mark):
                future.settle(self._error, aborted=self._aborted)
            elif self._error is not None or self._aborted:
                future.cancel()
            else:
                self._commit(future)
            self._pending.task_done()
        self._pending.task_done()

    def _commit(self, future: Future[Commit | None]) -> None:
        # Whatever it is, it is raised again where the forecast can be ended by it.
        try:
            commit = future.result()
            if commit is not None and not self._aborted:
                commit()
        except CancelledError:
            return
        except BaseException as error:
            self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error


@dataclass(frozen=True)
class _Mark(Generic[T]):
    """A look between commits, and who waits for it."""

    future: Future[T]
    look: Callable[[], T]

    def settle(self, error: BaseException | None, *, aborted: bool) -> None:
        if error is not None:
            self.future.set_exception(error)
        elif aborted:
            self.future.cancel()
            self.future.set_running_or_notify_cancel()
        else:
            try:
                self.future.set_result(self.look())
            except BaseException as failure:
                self.future.set_exception(failure)
