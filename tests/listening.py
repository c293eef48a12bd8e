"""A server on 127.0.0.1 that keeps what is posted to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Listener:
    """What came, and what is answered: one status per request, the last of them for ever."""

    port: int
    statuses: list[int]
    bodies: list[Any] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)
    """Until it is set, a server that is silent answers nobody."""

    def url(self, rest: str = "/", user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.port}{rest}"


@contextmanager
def listening(*statuses: int, silent: bool = False) -> Iterator[Listener]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            listener.heads.append({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}})
            listener.bodies.append(json.loads(body))
            if silent:
                listener.go_on.wait()
            self.send_response(listener.statuses.pop(0) if len(listener.statuses) > 1 else listener.statuses[0])
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    listener = Listener(server.server_port, list(statuses) or [200])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield listener
    finally:
        listener.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()
