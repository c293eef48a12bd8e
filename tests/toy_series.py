"""A whole session with a toy for a network: identity, resume state, cards and files as a run of the runner has them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from grib_writer import GribWriter
from toy_run import FIELDS, GRID, START, ToyEngine, initial_state

from ai_models_mosaic.checkpoints.files import DataFile
from ai_models_mosaic.errors import TerminatedError
from ai_models_mosaic.forecast.options import Options, parse_options
from ai_models_mosaic.forecast.progress import Watch
from ai_models_mosaic.forecast.ranks import SingleRank
from ai_models_mosaic.forecast.series import ForecastSeries, SeriesSettings
from ai_models_mosaic.inputs.fields import Wanted
from ai_models_mosaic.outputs.grib.output import GribEncoder, Labels, grib_template
from ai_models_mosaic.variants import MINI, Variant

WORDS = ("--num-ensemble-members", "3", "--members-per-batch", "1")


class LoadedToy(ToyEngine):
    """With all that a run records of an engine, and stops its run at a call if told to."""

    checkpoint, untrained, origin = None, False, None

    def __init__(
        self,
        stops_at: int | None = None,
        weights: str = "w" * 64,
        data: tuple[DataFile, ...] = (),
        precision: str = "float32",
    ) -> None:
        self.precision = precision
        self.calls, self._stops_at, self.checkpoint_sha256, self.data = 0, stops_at, weights, data

    def best_batch(self, members):
        return 1

    def step(self, history, progress, noise):
        self.calls += 1
        if self.calls == self._stops_at:
            signal.raise_signal(signal.SIGTERM)
        return super().step(history, progress, noise)


@dataclass(frozen=True)
class Toy:
    """All that a session is made of, to be changed one by one."""

    path: str
    words: tuple[str, ...] = WORDS
    variant: Variant = MINI
    steps: int = 2
    metadata: dict[str, str] = field(default_factory=dict)
    initial_time: datetime = START
    input_number: int = 0
    more_paths: tuple[str, ...] = ()

    def __call__(self, *words: str, engine: LoadedToy | None = None) -> LoadedToy:
        """Run it, with these options as well; returns the engine."""
        return self.run(parse_options([*self.words, *words]), engine)

    def run(self, options: Options, engine: LoadedToy | None = None) -> LoadedToy:
        engine = engine or LoadedToy()
        templates = tuple(grib_template(path, "--path", self.metadata) for path in (self.path, *self.more_paths))
        settings = SeriesSettings(self.variant, options, self.steps, self.metadata, templates, "toy")
        start = initial_state(self.input_number)
        start = replace(start, times=tuple(time + (self.initial_time - START) for time in start.times))
        labels = Labels(self.initial_time, options.ensemble_size, self.metadata)

        @contextmanager
        def output(*_: object) -> Iterator[GribWriter]:
            with GribEncoder(GRID, labels, range(FIELDS)) as encoder:
                yield GribWriter(self.path, encoder)

        ForecastSeries(
            settings,
            SingleRank(),
            Watch(),
            read=lambda _: dict.fromkeys(options.members, start),
            load=lambda: engine,
            output=output,
        ).run([Wanted(time=self.initial_time)])
        return engine

    def stopped(self, *words: str, engine: LoadedToy | None = None) -> None:
        """Run it until a signal stops it after some steps."""
        try:
            self(*words, engine=engine or LoadedToy(stops_at=1))
        except TerminatedError:
            return
        raise RuntimeError("it did not stop")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.grib"))}
