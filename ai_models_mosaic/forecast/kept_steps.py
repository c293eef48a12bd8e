"""Steps of members that are kept until it is settled how many members there will be."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType

import numpy as np

from ..errors import OutputError
from ..files import named_errors
from ..geometry.grid import LatLonGrid
from ..state import ForecastStep


@dataclass(frozen=True)
class _Header:
    """What a step says beside its values, which are lent and must not be held."""

    step: int
    lead_time_hours: int
    grid: LatLonGrid
    initial_time: datetime
    channels: int

    @classmethod
    def of(cls, forecast: ForecastStep) -> _Header:
        channels = forecast.values.shape[-1]
        return cls(forecast.step, forecast.lead_time_hours, forecast.grid, forecast.initial_time, channels)


class KeptSteps:
    """Keeps what is to be written of every member in a file without a name, which ends with the process.

    Parameters
    ----------
    folder : Path
        Where the file is; each member takes steps × channels × points × 4 bytes of it.
    steps : sequence of int
        Those that are kept, ascending.
    channels : sequence of int
        Those that are kept.

    Raises
    ------
    OutputError
        If there can be no such file.
    """

    def __init__(self, folder: Path, steps: Sequence[int], channels: Sequence[int]) -> None:
        self._folder = folder
        self._places = {step: place for place, step in enumerate(steps)}
        self._channels = list(channels)
        self._headers: dict[int, _Header] = {}
        with named_errors(folder):
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - it lives as long as this

    @property
    def steps(self) -> tuple[int, ...]:
        """Those that are kept."""
        return tuple(self._places)

    def write(self, forecast: ForecastStep) -> None:
        """Keep a step of some members, if it is one of those to be kept.

        Raises
        ------
        OutputError
            If the disk is full.
        """
        if forecast.step not in self._places:
            return
        header = self._headers[forecast.step] = _Header.of(forecast)
        with named_errors(self._folder):
            for member, fields in zip(forecast.members, forecast.values, strict=True):
                content = fields[..., self._channels].tobytes()
                self._file.seek(self._offset(header, member))
                written = self._file.write(content)
                if written != len(content):
                    raise OSError(
                        0, f"only {written} of {len(content)} bytes of a member were taken; is the disk full?"
                    )

    def read(self, step: int, members: Sequence[int]) -> ForecastStep:
        """A step of some members that were kept; channels that were not are zero.

        Raises
        ------
        OutputError
            If the file cannot be read.
        """
        header = self._headers[step]
        values = np.zeros((len(members), *header.grid.shape, header.channels), dtype=np.float32)
        shape = (*header.grid.shape, len(self._channels))
        for place, member in enumerate(members):
            with named_errors(self._folder):
                self._file.seek(self._offset(header, member))
                content = self._file.read(4 * math.prod(shape))
            if len(content) != 4 * math.prod(shape):
                raise OutputError(
                    f"expected member {member} at step {step} in a file in {self._folder}, got {len(content)} bytes"
                )
            values[place][..., self._channels] = np.frombuffer(content, np.float32).reshape(shape)
        return ForecastStep(step, header.lead_time_hours, tuple(members), values, header.grid, header.initial_time)

    def recall(self, forecast: ForecastStep) -> None:
        """Nothing goes on with it."""

    def mark(self) -> Callable[[], Mapping[str, int]]:
        """Nothing goes on with it."""
        return dict

    def close(self) -> None:
        """A group of members is complete; the next may come."""

    def abort(self) -> None:
        """As `close`: what is kept of members that are not complete is never asked for."""

    def __enter__(self) -> KeptSteps:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _offset(self, header: _Header, member: int) -> int:
        """Where a member's fields of a step begin; members are numbered from 1."""
        place = (member - 1) * len(self._places) + self._places[header.step]
        return place * header.grid.size * len(self._channels) * 4
