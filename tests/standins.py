"""Servers on 127.0.0.1 that answer as CDS, ECMWF's web API (MARS) and the open data do, and fail as they do.

The real clients talk to them, unpatched. A server keeps all requests that it received.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import eccodes
from grib_files import PRESSURE_LEVEL, SINGLE_LEVEL, STANDARD_HEIGHT_M, Layout, centre, message

KEY = "01234567-89ab-cdef-0123-456789abcdef"
MARS_KEY = "0123456789abcdef0123456789abcdef"
LICENCE = "Not all the required licences have been accepted; please visit {base}/datasets/{dataset}?tab=download#manage-licences to accept the required licence(s)."
OPEN_DATA_LAYOUT = Layout(columns=1440, rows=721, west=180.0)
BOUNDARY = "between-the-parts"


@dataclass(frozen=True)
class Faults:
    """What a server does wrong, or slowly."""

    status: int = 0
    """Refuse every request but that for the base with this status."""
    licence: bool = False
    """CDS: 403, a licence has to be accepted."""
    failure: str = ""
    """Jobs fail, with this reason."""
    polls: int = 0
    """How often a job is asked for before it is done."""
    missing: tuple[str, ...] = ()
    """Parameters that no answer holds."""
    truncated: bool = False
    """Answers end early, and the server says so nowhere."""
    announced_more: int = 0
    """Bytes that an answer is announced to have beyond those it has."""
    goes_away: bool = False
    """The server ends while a job is in its queue."""
    silent_s: float = 0.0
    """Every request but that for the base waits so long."""


@dataclass(frozen=True)
class Received:
    """A request."""

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: Any


@dataclass
class StandIn:
    """A server that runs."""

    port: int
    faults: Faults
    received: list[Received] = field(default_factory=list)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def asked_for(self) -> list[dict[str, Any]]:
        """The bodies of all that was posted: what was asked for, literally."""
        return [request.body.get("inputs", request.body) for request in self.received if request.body]

    @property
    def paths(self) -> list[str]:
        return [f"{request.method} {request.path}" for request in self.received]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *arguments: object) -> None:
        """Quiet: clients hang up on what fails."""


@contextmanager
def serving(**faults: Any) -> Iterator[StandIn]:
    """A server on a free port, for as long as the block runs."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.standin = StandIn(server.server_port, Faults(**faults))  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.standin  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# Fields.


@lru_cache(maxsize=4096)
def field_message(param: str, level: int | None, base: datetime, edition: int, grid_deg: float, label: str) -> bytes:
    """A field as CDS or MARS sends it."""
    layout = Layout(columns=round(360 / grid_deg), rows=round(180 / grid_deg) + 1)
    made = message(param, level, base=base, layout=layout, edition=edition)
    return labelled(made, {"class": label, "type": "an"})


def labelled(made: bytes, labels: dict[str, str]) -> bytes:
    """The message with the labels that ECMWF gives."""
    handle = eccodes.codes_new_from_message(made)
    common = {"centre": "ecmf", "setLocalDefinition": 1, "stream": "oper", "expver": "0001"}
    for key, value in (common | labels).items():
        eccodes.codes_set(handle, key, value)
    changed = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return changed


@lru_cache(maxsize=4096)
def open_data_message(param: str, level: int | None, base: datetime) -> bytes:
    """A field on the open data's grid; all but 2t are constant, to be quick."""
    labels = {"class": "od", "type": "fc"}
    if param == "2t":
        return labelled(message(param, level, base=base, layout=OPEN_DATA_LAYOUT), labels)
    value = centre(param, level) or 1e-6
    return _enlarged(labelled(message(param, level, base=base, values=value), labels))


@lru_cache(maxsize=1)
def _open_data_grid() -> bytes:
    return _sections(message("t", 500, values=1.0, layout=OPEN_DATA_LAYOUT))[3]


def _enlarged(made: bytes) -> bytes:
    """A constant field on the open data's grid; ecCodes takes 0.2 s to label a field of that size."""
    sections = _sections(made)
    points = OPEN_DATA_LAYOUT.columns * OPEN_DATA_LAYOUT.rows
    sections[3] = _open_data_grid()
    sections[5] = sections[5][:5] + points.to_bytes(4, "big") + sections[5][9:]
    return b"".join(sections.values())


def _sections(made: bytes) -> dict[int, bytes]:
    """The sections of a GRIB2 message, by number."""
    found, start = {0: made[:16]}, 16
    while made[start : start + 4] != b"7777":
        length = int.from_bytes(made[start : start + 4], "big")
        found[made[start + 4]] = made[start : start + length]
        start += length
    return found | {8: made[start:]}


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _answer(request: dict[str, Any], faults: Faults, *, label: str, edition: int) -> bytes:
    """The fields that a request of CDS or MARS asks for."""
    params = [param for param in _listed(request["param"]) if param not in faults.missing]
    levels = [int(level) for level in _listed(request["level"])] if "level" in request else [None]
    day = datetime.strptime(str(_listed(request["date"])[0]).replace("-", ""), "%Y%m%d")
    base = day + timedelta(hours=int(request["time"]))
    grid = request["grid"][0]
    fields = [field_message(p, level, base, edition, grid, label) for p, level in itertools.product(params, levels)]
    data = b"".join(fields)
    return data[: -len(fields[-1]) // 2] if faults.truncated else data


@lru_cache(maxsize=8)
def open_data(base: datetime, missing: tuple[str, ...]) -> tuple[bytes, str]:
    """A file of the open data with its index, in an order of its own."""
    surface = [(param, None) for param in SINGLE_LEVEL]
    upper = [(param, level) for level in STANDARD_HEIGHT_M for param in ("gh", "r", *list(PRESSURE_LEVEL)[1:])]
    data, lines = b"", []
    for param, level in [*upper, *surface]:
        if param in missing:
            continue
        made = open_data_message(param, level, base)
        entry = {"domain": "g", "date": f"{base:%Y%m%d}", "time": f"{base:%H%M}", "expver": "0001", "class": "od"}
        entry |= {"type": "fc", "stream": "oper", "step": "0", "levtype": "sfc" if level is None else "pl"}
        entry |= {} if level is None else {"levelist": str(level)}
        lines.append(json.dumps(entry | {"param": param, "_offset": len(data), "_length": len(made)}))
        data += made
    return data, "\n".join(lines) + "\n"


# Answers.


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def standin(self) -> StandIn:
        return self.server.standin  # type: ignore[attr-defined]

    def log_message(self, *arguments: object) -> None:
        """Quiet."""

    def _take(self) -> str | None:
        """Keep the request; returns its path, or None if it was refused."""
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.standin.received.append(
            Received(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        )
        path = self.path.split("?")[0]
        faults = self.standin.faults
        if path in ("/api", "/v1", "/forecasts"):
            self._json({})
            return None
        time.sleep(faults.silent_s)
        if faults.status:
            self._json({"title": "refused", "detail": "as told", "error": "Invalid API key"}, faults.status)
            return None
        return path

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self._take()
        if path is None:
            return
        for start, answer in {
            "/api/": self._cds,
            "/v1/": self._mars,
            "/forecasts/": self._open_data,
            "/result/": self._result,
        }.items():
            if path.startswith(start):
                answer(path)
                return
        self._json({"title": "not found"}, 404)

    def do_DELETE(self) -> None:
        if self._take() is not None:
            self._json({})

    def do_POST(self) -> None:
        path = self._take()
        if path is None:
            return
        received = self.standin.received[-1].body
        if path.startswith("/api/"):
            dataset = path.split("/")[-2]
            if self._cds_refuses(dataset):
                return
            job = self._accept(received["inputs"], label="ea", edition=1)
            self._json(self._cds_job(job, "accepted"), 201)
        else:
            if self.headers["X-ECMWF-KEY"] != MARS_KEY:
                self._json({"error": "Invalid API key", "code": 401}, 401)
                return
            job = self._accept(received, label=received["class"], edition=2 if received["class"] == "od" else 1)
            address = f"/v1/services/mars/requests/{job}"
            self._json({"name": job, "status": "queued", "href": address}, 202, Location=address)

    def _accept(self, request: dict[str, Any], *, label: str, edition: int) -> str:
        job = uuid.uuid4().hex
        data = _answer(request, self.standin.faults, label=label, edition=edition)
        self.standin.jobs[job] = {"polls": 0, "data": data}
        return job

    def _poll(self, job: str) -> str:
        """The state of a job: running, failed or successful."""
        faults, known = self.standin.faults, self.standin.jobs[job]
        known["polls"] += 1
        if faults.goes_away:
            self.close_connection = True
            self.server.shutdown()
            self.server.server_close()
            return "running"
        if known["polls"] <= faults.polls:
            return "running"
        return "failed" if faults.failure else "successful"

    # CDS.

    def _cds_refuses(self, dataset: str) -> bool:
        detail = LICENCE.format(base=self.standin.url, dataset=dataset)
        if self.headers["PRIVATE-TOKEN"] != KEY:
            title = "authentication failed"
            self._json({"type": "permission denied", "title": title, "status": 401, "detail": title}, 401)
        elif self.standin.faults.licence:
            self._json({"title": "required licences not accepted", "status": 403, "detail": detail}, 403)
        else:
            return False
        return True

    def _cds(self, path: str) -> None:
        *_, kind, name = path.split("/")
        if name == "messages":
            self._json({"messages": []})
        elif kind == "processes":
            self._json({"id": name, "version": "1.0.0"})
        elif kind == "jobs":
            self._json(self._cds_job(name, self._poll(name)))
        elif self.standin.faults.failure:
            reason = self.standin.faults.failure
            self._json({"type": "job results failed", "title": "The job has failed", "traceback": reason}, 400)
        else:
            data = self.standin.jobs[kind]["data"]
            asset = {"type": "application/x-grib", "href": f"{self.standin.url}/result/{kind}.grib"}
            asset["file:size"] = len(data) + self.standin.faults.announced_more
            self._json({"asset": {"value": asset}})

    def _cds_job(self, job: str, status: str) -> dict[str, Any]:
        href = f"{self.standin.url}/api/retrieve/v1/jobs/{job}"
        links = [{"href": href, "rel": rel} for rel in ("self", "monitor")]
        links += [{"href": f"{href}/results", "rel": "results"}] if status in ("successful", "failed") else []
        moment = "2026-01-01T00:00:00"
        return {"jobID": job, "status": status, "created": moment, "updated": moment, "links": links}

    # MARS.

    def _mars(self, path: str) -> None:
        if path == "/v1/who-am-i":
            if self.headers["X-ECMWF-KEY"] != MARS_KEY:
                self._json({"error": "Invalid API key", "code": 401}, 401)
            else:
                self._json({"uid": "me", "full_name": "Stand In", "email": "a@b.c"})
        elif path.endswith("/info"):
            self._json({"info": {}})
        elif path.endswith("/news"):
            self._json({"news": "no news"})
        else:
            self._mars_job(path.split("/")[-1])

    def _mars_job(self, job: str) -> None:
        status, data = self._poll(job), self.standin.jobs[job]["data"]
        if status == "running":
            self._json(
                {"name": job, "status": "active"}, 202, **{"Location": self.path.split("?")[0], "Retry-After": "0"}
            )
        elif status == "failed":
            self._json({"name": job, "status": "aborted", "error": self.standin.faults.failure}, 400)
        else:
            href = f"{self.standin.url}/result/{job}.grib"
            size = len(data) + self.standin.faults.announced_more
            self._json({"name": job, "status": "complete", "href": href, "size": size})

    def _result(self, path: str) -> None:
        self._data(self.standin.jobs[path.split("/")[-1].removesuffix(".grib")]["data"])

    # Open data.

    def _open_data(self, path: str) -> None:
        match = re.fullmatch(
            r"/forecasts/(\d{8})/(\d\d)z/ifs/0p25/(oper|scda)/(\d{14})-0h-(oper|scda)-fc\.(index|grib2)", path
        )
        if match is None:
            self._json({"title": "not found"}, 404)
            return
        data, index = open_data(datetime.strptime(match[4], "%Y%m%d%H%M%S"), self.standin.faults.missing)
        if match[6] == "index":
            self._data(index.encode())
        else:
            self._data(data[: len(data) // 2] if self.standin.faults.truncated else data)

    # Bytes.

    def _json(self, content: dict[str, Any], status: int = 200, **headers: str) -> None:
        body = json.dumps(content).encode()
        self._send(body, status, {"Content-Type": "application/json", "Retry-After": "0"} | headers)

    def _data(self, data: bytes) -> None:
        """All of it, or the byte ranges that were asked for."""
        ranges = re.findall(r"(\d+)-(\d*)", self.headers.get("Range") or "")
        if not ranges:
            self._send(data, 200, {"Accept-Ranges": "bytes", "Content-Type": "application/x-grib"})
            return
        parts = [(int(first), int(last or len(data) - 1)) for first, last in ranges]
        if len(parts) == 1:
            first, last = parts[0]
            span = f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}"
            self._send(data[first : last + 1], 206, {"Content-Range": span, "Content-Type": "application/x-grib"})
            return
        body = b""
        for first, last in parts:
            head = (
                f"--{BOUNDARY}\r\nContent-Type: application/x-grib\r\nContent-Range: bytes {first}-{last}/{len(data)}"
            )
            body += head.encode() + b"\r\n\r\n" + data[first : last + 1] + b"\r\n"
        body += f"--{BOUNDARY}--\r\n".encode()
        self._send(body, 206, {"Content-Type": f"multipart/byteranges; boundary={BOUNDARY}"})

    def _send(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
