"""Keeps the state of a run beside its steps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from ..state import ForecastStep
from .resume import Noted, ResumeState

LOG = logging.getLogger(__name__)

Mark = Callable[[], Callable[[], Mapping[str, int]]]
"""See `StepWriter.mark`."""


class StateSaver:
    """Saves the state of a run in a thread of its own, from arrays that are in the host's memory already.

    Parameters
    ----------
    state : ResumeState
        Where it is kept.
    mark : callable
        Of the writer of the output.
    """

    def __init__(self, state: ResumeState, mark: Mark) -> None:
        self._state, self._mark = state, mark
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._running: Future[None] | None = None
        self._failed = False

    def note(self, batch: int, forecast: ForecastStep) -> None:
        """Keep a step of a batch in mind for the next state."""
        self._state.note(batch, forecast)

    def save_if_due(self, units: int) -> None:
        """Begin to save the state, if it is time for that and the last one is done.

        Parameters
        ----------
        units : int
            Batches of members whose steps are done: noted, and taken by the writer.

        Raises
        ------
        MosaicError
            If this state, or the last one, cannot be written.
        """
        if self._running is not None and not self._running.done() and self._state.interval_s:
            return
        self._wait()
        if self._state.is_due:
            self._begin(units)

    def save(self, units: int, *, finished: bool = False) -> None:
        """Save the state, if anything was done since the last, and wait until it is on disk; as `save_if_due`.

        Raises
        ------
        MosaicError
            As `save_if_due`.
        """
        self._wait()
        if units > self._state.record.units or finished:
            self._begin(units, finished=finished)
            self._wait()

    def save_after(self, error: BaseException, units: int) -> None:
        """Save the state of a run that ends early, where that is still possible; nothing is raised.

        Parameters
        ----------
        error : BaseException
            Why it ends.
        units : int
            As of `save_if_due`.
        """
        if self._failed:
            return
        try:
            self.save(units)
        except Exception as failure:
            if failure is not error:
                LOG.warning("What was done since the last state cannot be kept: %s", failure)

    def close(self) -> None:
        """End the thread."""
        self._executor.shutdown()

    def _begin(self, units: int, *, finished: bool = False) -> None:
        reached = self._mark()
        # Between these lines, what was noted is lost to every other state.
        self._failed = True
        self._running = self._executor.submit(self._write, units, reached, self._state.noted(), finished=finished)
        self._failed = False

    def _write(self, units: int, reached: Callable[[], Mapping[str, int]], noted: Noted, *, finished: bool) -> None:
        self._state.save(units, reached(), finished=finished, noted=noted)

    def _wait(self) -> None:
        """Wait for the state that is being saved."""
        if self._running is None:
            return
        try:
            self._running.result()
        except Exception:
            # What was noted for it is lost, and a later state would lack that.
            self._failed, self._running = True, None
            raise
        self._running = None
