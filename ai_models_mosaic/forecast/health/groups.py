"""The flight recorder of an ensemble that is made group by group, each carried to the end before the next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...state import ForecastStep
from .record import Line
from .recorder import Recorder

if TYPE_CHECKING:
    from ..run import EnsembleJob


class GroupRecorder:
    """Keeps the record to members that are written: to the byte that of an ordinary run of as many.

    Parameters
    ----------
    recorder : Recorder
        Looks at members, and has the file.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._header: Line = {}
        self._group: list[Line] = []
        self._complete: list[Line] = []
        self._written = 0

    @contextmanager
    def of(self, whole: EnsembleJob, engine: object) -> Iterator[None]:
        """While this lasts, groups of a run come, whose job is that of all members there may be.

        Raises
        ------
        MosaicError
            If the bands cannot be read.
        """
        self._header = self._recorder.prepare(whole, engine, in_groups=True)
        try:
            yield
        except BaseException as error:
            if not self._written:
                self.wrote(0)
            self._recorder.fail(error)
            raise
        self._recorder.end()

    def begin(self, job: EnsembleJob, engine: object, units: int) -> None:
        """A group begins."""
        self._group = []
        self._recorder.expect(len(job.ensemble.members))

    def recall(self, forecast: ForecastStep) -> None:
        """No group is gone on with."""

    def advance(self, forecast: ForecastStep) -> None:
        """A batch of the group made a step."""
        self._group += self._recorder.lines_of(forecast)

    def end(self) -> None:
        """The group is complete."""
        self._complete += self._group

    def fail(self, error: BaseException) -> None:
        """The group is dropped."""
        self._recorder.warn()

    def wrote(self, size: int) -> None:
        """So many members are written: all that are complete."""
        self._written = size
        lines = sorted(self._complete, key=lambda line: (line["step"], line["member"]))
        self._recorder.rewrite({**self._header, "members": list(range(1, size + 1))}, lines if size else ())
