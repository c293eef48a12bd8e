"""The sample as Zarr stores in the layout of WeatherBench 2, and a server that hands them out and fails as servers do."""

import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import earthkit.data
import numpy as np
import xarray
import zarr

from ai_models_mosaic.channels import CHANNELS, LEVELS_HPA
from ai_models_mosaic.inputs.fields import Wanted
from ai_models_mosaic.inputs.states import initial_state_of, read_initial_state
from ai_models_mosaic.inputs.zarr import zarr_fields
from ai_models_mosaic.state import InitialState
from ai_models_mosaic.variants import MINI

SAMPLE = Path(__file__).parents[1] / "examples" / "mini-input.grib"
GRID, LAGS = MINI.architecture.grid, MINI.lags_hours

ZARR_3 = zarr.__version__.startswith("3")

FORMAT_2: dict[str, Any] = {"zarr_format": 2} if ZARR_3 else {}
"""Asks for the format that consolidated metadata are part of."""


@lru_cache(maxsize=1)
def sample_state() -> InitialState:
    return read_initial_state(earthkit.data.from_source("file", str(SAMPLE)), GRID, LAGS)


def read_zarr(path, grid, lags_hours, wanted: Wanted | None = None) -> InitialState:
    """Select, check and regrid the history of a store; without `wanted` the newest."""
    wanted = wanted or Wanted()
    return initial_state_of(zarr_fields(path, lags_hours, wanted), grid, lags_hours, wanted)


def sample_dataset() -> xarray.Dataset:
    """The sample as WeatherBench 2 would lay it out."""
    return dataset_of(sample_state())


def dataset_of(sample: InitialState) -> xarray.Dataset:
    """A history as WeatherBench 2 would lay it out: time, level, longitude, latitude from south to north."""
    variables: dict[str, Any] = {}
    for index, channel in enumerate(CHANNELS):
        fields = sample.values[..., index].copy()
        if channel.level_hpa is None:
            variables[channel.variable] = (("time", "longitude", "latitude"), fields)
        elif channel.variable not in variables:
            levels = sample.values[..., index : index + len(LEVELS_HPA)].copy()
            variables[channel.variable] = (("time", "level", "longitude", "latitude"), np.moveaxis(levels, -1, 1))
    coordinates = {
        "time": np.array(sample.times, dtype="datetime64[ns]"),
        "level": list(LEVELS_HPA),
        "longitude": list(GRID.longitude_deg),
        "latitude": list(GRID.latitude_deg),
    }
    return xarray.Dataset(variables, coordinates)


def stored(
    dataset: xarray.Dataset,
    folder: Path,
    name: str = "store.zarr",
    *,
    zarr_format: int = 2,
    consolidated: bool = True,
    encoding: dict[str, object] | None = None,
) -> str:
    """Written with one time in a chunk; `encoding` is for every variable."""
    options = {"zarr_format": zarr_format} if ZARR_3 else {}
    chunks: dict[str, dict[str, object]] = {
        str(name): {"chunks": tuple(1 if dim == "time" else size for dim, size in dataset[name].sizes.items())}
        for name in dataset.data_vars
    }
    for held in chunks.values():
        held.update(encoding or {})
    with warnings.catch_warnings():
        # Consolidated metadata are not part of format 3 yet.
        warnings.simplefilter("ignore")
        dataset.to_zarr(folder / name, mode="w", consolidated=consolidated, encoding=chunks, **options)
    return str(folder / name)


@dataclass
class Server:
    """What a server does, and what was asked of it."""

    folder: Path
    url: str = ""
    answers: dict[str, list[int | str]] = field(default_factory=dict)
    """Statuses by path, the last for ever; 200 serves the file, "broken" hangs up in the middle."""
    retry_after: str | None = None
    asked: Counter[str] = field(default_factory=Counter)


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    served = Server(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0].lstrip("/")
            served.asked[path] += 1
            answers = served.answers.get(path, [200])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            file = served.folder / path
            if answer == 200 and not file.is_file():
                answer = 404
            data = file.read_bytes() if file.is_file() else b""
            self.send_response(200 if answer == "broken" else int(answer))
            if answer not in (200, "broken"):
                data = b"no"
            if served.retry_after is not None:
                self.send_header("Retry-After", served.retry_after)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if answer == "broken" else data)

        def log_message(self, *arguments: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
