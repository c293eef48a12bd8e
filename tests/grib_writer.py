"""Members in GRIB files and nothing else: the least that a run can write to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ai_models_mosaic.outputs.grib.encoder import GribEncoder
from ai_models_mosaic.outputs.grib.files import MessageFiles, abandon_files, close_files
from ai_models_mosaic.outputs.grib.output import GribOutput
from ai_models_mosaic.state import ForecastStep


class GribWriter(GribOutput):
    """Files of its own, and no threads."""

    def __init__(self, path: str, encoder: GribEncoder, on_message: Callable | None = None) -> None:
        self.files = MessageFiles()
        super().__init__(path, encoder, on_message, files=self.files)

    @property
    def paths(self) -> list[Path]:
        return self.files.paths

    def write(self, forecast: ForecastStep) -> None:
        for job in self.jobs(forecast):
            commit = job()
            if commit is not None:
                commit()

    def mark(self) -> Callable[[], dict[str, int]]:
        positions = self.files.positions()

        def reached() -> dict[str, int]:
            self.files.flush()
            return positions

        return reached

    def recall(self, forecast: ForecastStep) -> None:
        pass

    def close(self) -> None:
        close_files(self.files)

    def abort(self) -> None:
        abandon_files(self.files)

    def __enter__(self) -> GribWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()
