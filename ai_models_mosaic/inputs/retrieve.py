"""Fields at some times: of a file, or asked of CDS, MARS or ECMWF's open data by their own clients.

What a service answered whole is kept in the cache folder, for a request may wait in a queue for
hours. Nothing is read into memory here: fields are read when they are wanted.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import shutil
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import eccodes

from ..channels import LEVELS_HPA, PRESSURE_LEVEL_PARAMS, SINGLE_LEVEL_PARAMS
from ..errors import InputError
from ..geometry.disk_cache import cache_folder
from ..variants import Variant
from .clients import patient_client
from .grib_messages import Damage, FileMessage, find_messages
from .requests import mars_keys
from .services import CDS, MARS, OPEN_DATA, OPEN_DATA_GRID_DEG, Service

LOG = logging.getLogger(__name__)

KEPT_BYTES = 10e9
"""Answers are kept up to here, the newest."""

STALE_S = 24 * 3600.0
"""Age of a folder that a run which was killed has left."""

CDS_DATASETS = {"sfc": "reanalysis-era5-single-levels", "pl": "reanalysis-era5-pressure-levels"}

Request = dict[str, Any]
"""Keys and values, as a client takes them."""


class Source(Protocol):
    """Where fields come from."""

    def fields(self, times: Sequence[datetime], folder: Path) -> Iterable[Any]:
        """The GRIB fields valid at some times, and perhaps others.

        Parameters
        ----------
        times : sequence of datetime
            UTC, without zone.
        folder : Path
            For what has to be fetched; must be there for as long as the fields are used.

        Raises
        ------
        InputError
            If they cannot be had.
        """


@dataclass(frozen=True)
class FileSource:
    """A GRIB file: gives all that it holds.

    Parameters
    ----------
    path : str
        Where it is.
    """

    path: str

    def fields(self, times: Sequence[datetime], folder: Path) -> Iterable[Any]:
        """As `Source.fields`."""
        return _read([Path(self.path)], f"--file {self.path}")


@dataclass(frozen=True)
class ServiceSource(ABC):
    """A service: asked once per time and kind of level.

    Parameters
    ----------
    service : Service
        Whom to ask, with the account.
    variant : Variant
        For whose input.
    grid_deg : float
        Grid to ask for.
    patience_s : float
        How long the server may be out of reach, s.
    """

    service: Service
    variant: Variant
    grid_deg: float
    patience_s: float

    @abstractmethod
    def request(self, time: datetime, levtype: str) -> Request:
        """What to ask for: the fields of a time, on a kind of level, ``sfc`` or ``pl``."""

    @abstractmethod
    def ask(self, request: Request, levtype: str, target: Path) -> None:
        """Let the client fetch the answer to a request into a file."""

    def fields(self, times: Sequence[datetime], folder: Path) -> Iterable[Any]:
        """As `Source.fields`; just these."""
        answers = []
        with patient_client(self.service, self.patience_s):
            for levtype, words in (("sfc", "surface"), ("pl", "pressure")):
                LOG.info("Loading %s fields from %s", words, self.service.name)
                for index, at in enumerate(times):
                    request, target = self.request(at, levtype), folder / f"{levtype}-{index}.grib"
                    count = len(request["param"]) * (len(LEVELS_HPA) if levtype == "pl" else 1)
                    key = [self.service.name, self.service.url or self.service.origin, levtype, request]
                    with_cache(key, count, target, partial(self.ask, request, levtype, target))
                    answers.append(target)
        return _read([answer for answer in answers if answer.stat().st_size], self.service.name)

    def _common(self, time: datetime, levtype: str) -> Request:
        """What all services are asked for in the same words."""
        params = SINGLE_LEVEL_PARAMS if levtype == "sfc" else PRESSURE_LEVEL_PARAMS
        area = [90.0, 0.0, -90.0, 360.0 - self.grid_deg]
        request = {"date": int(f"{time:%Y%m%d}"), "time": time.hour, "param": list(params)}
        request |= {"grid": [self.grid_deg, self.grid_deg], "area": area}
        return request | ({} if levtype == "sfc" else {"level": list(LEVELS_HPA)})


class CdsSource(ServiceSource):
    """ERA5 of the Climate Data Store."""

    def request(self, time: datetime, levtype: str) -> Request:
        """As `ServiceSource.request`."""
        return self._common(time, levtype) | {"product_type": "reanalysis"}

    def ask(self, request: Request, levtype: str, target: Path) -> None:
        """As `ServiceSource.ask`."""
        import cdsapi

        cdsapi.Client().retrieve(CDS_DATASETS[levtype], request).download(str(target))


class MarsSource(ServiceSource):
    """ERA5, or ECMWF's operational analyses, by the local MARS client or ECMWF's web API."""

    def request(self, time: datetime, levtype: str) -> Request:
        """As `ServiceSource.request`."""
        keys = {"levtype": levtype, **mars_keys(self.variant, time)}
        return self._common(time, levtype) | {"date": [f"{time:%Y-%m-%d}"]} | keys

    def ask(self, request: Request, levtype: str, target: Path) -> None:
        """As `ServiceSource.ask`."""
        if not self.service.url:
            _ask_local_client(self.service.origin, request, target)
            return
        from ecmwfapi import ECMWFService

        ECMWFService("mars").execute(request, str(target))


class OpenDataSource(ServiceSource):
    """Step 0 of the forecasts that ECMWF publishes, made equal to what MARS has: on its grid, with its parameters."""

    def request(self, time: datetime, levtype: str) -> Request:
        """As `ServiceSource.request`."""
        request = self._common(time, levtype)
        if levtype == "pl":
            # They have geopotential height only.
            request["param"] = [param for param in request["param"] if param != "z"] + ["gh"]
            request["levelist"] = request.pop("level")
        kept = {key: value for key, value in request.items() if key not in ("grid", "area")}
        return kept | {"step": 0, "resol": f"{OPEN_DATA_GRID_DEG:g}".replace(".", "p"), "levtype": levtype}

    def ask(self, request: Request, levtype: str, target: Path) -> None:
        """As `ServiceSource.ask`."""
        from ecmwf.opendata import Client

        from .open_data import check_complete, turn_to_greenwich

        as_published = target.with_suffix(".published")
        Client(source="ecmwf", model="ifs", preserve_request_order=True).retrieve(request, str(as_published))
        check_complete(as_published, self.service.name, request)
        turn_to_greenwich(as_published, target)
        as_published.unlink()


SOURCE_OF_INPUT: dict[str, type[ServiceSource]] = {CDS: CdsSource, MARS: MarsSource, OPEN_DATA: OpenDataSource}
"""Sources by the name of the service, as in `services.SOURCES`."""


def _ask_local_client(command: str, request: Request, target: Path) -> None:
    """Run the MARS client with a request in its own language."""
    lines = [f"{key}={'/'.join(map(str, v)) if isinstance(v, list) else v}," for key, v in request.items()]
    script = target.with_suffix(".request")
    script.write_text("\n".join(["retrieve,", *lines, f'target="{target}"']) + "\n", encoding="utf-8")
    subprocess.run([command, str(script)], check=True)  # noqa: S603


def _read(paths: Sequence[Path], origin: str) -> Iterable[FileMessage | Damage]:
    """The messages of GRIB files."""
    for path in paths:
        with path.open("rb") as file:
            start = file.read(2**16)
        if b"GRIB" not in start:
            raise InputError(f"{origin}: expected GRIB messages, got a file that starts with {start[:20]!r}")
    return itertools.chain.from_iterable(find_messages(path) for path in paths)


# What is kept.


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for what is fetched, gone at the end: in the cache folder, else where temporary files go."""
    with tempfile.TemporaryDirectory(prefix="run-", dir=_kept_folder()) as name:
        yield Path(name)


def with_cache(key: object, count: int, target: Path, ask: Callable[[], None]) -> None:
    """Take an answer from the cache, or ask for it and keep it if it is whole.

    Parameters
    ----------
    key : object
        What the answer depends on, the server included, as JSON can hold it.
    count : int
        GRIB messages of a whole answer.
    target : Path
        The file where the answer goes, in a folder of `scratch`.
    ask : callable
        Writes it.
    """
    folder = _kept_folder()
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32] + ".grib"
    kept = None if folder is None else folder / name
    if kept is not None and _messages(kept) == count:
        try:
            # A link of one's own stays when another run makes room.
            os.link(kept, target)
        except OSError:
            LOG.debug("%s cannot be linked to", kept)
        else:
            LOG.info("Taking %s, as it was answered before", kept)
            return
    ask()
    if folder is not None and kept is not None and _messages(target) == count:
        with suppress(OSError):
            kept.unlink(missing_ok=True)
            os.link(target, kept)
        _make_room(folder)


def _kept_folder() -> Path | None:
    """Where answers are kept; None if nowhere."""
    folder = cache_folder()
    if folder is None:
        return None
    folder /= "retrieved"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        LOG.warning("Cannot keep what is fetched in %s: it is not writable", folder)
        return None
    return folder


def _messages(path: Path) -> int:
    """GRIB messages of a file; -1 if it is not there, or damaged."""
    try:
        with path.open("rb") as file:
            return int(eccodes.codes_count_in_file(file))
    except (OSError, eccodes.CodesInternalError):
        return -1


def _make_room(folder: Path) -> None:
    """Remove the oldest answers beyond what is kept, and what dead runs have left."""
    total = 0.0
    with suppress(OSError):
        for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True):
            if path.is_dir():
                if time.time() - path.stat().st_mtime > STALE_S:
                    shutil.rmtree(path, ignore_errors=True)
                continue
            total += path.stat().st_size
            if total > KEPT_BYTES:
                path.unlink(missing_ok=True)
