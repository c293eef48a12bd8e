"""A stand-in for the Hugging Face hub on 127.0.0.1: what the real client asks for, with the hub's ways and faults.

Large files are redirected, as on the hub, to another host (here: the same server, called localhost), with a signed
address that must not show up in any log.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

COMMIT = "232b632" + "0a" * 16 + "f"
REPOSITORY = "maxxxzdn/mosaic"
SIGNATURE = "Signature=secret-of-the-store"
STATUS = {
    "missing": (404, "EntryNotFound"),
    "no revision": (404, "RevisionNotFound"),
    "no repository": (401, "RepoNotFound"),
    "gated": (403, "GatedRepo"),
    "bad token": (401, ""),
    "busy": (503, ""),
}
PATIENCE_SECONDS = 30


class Hub(ThreadingHTTPServer):
    """The server.

    Parameters
    ----------
    files : dict of str to bytes
        What it has; those ending in .pt are large.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.fault = ""
        """A name in `STATUS`, or a way to fail that `_Handler` knows."""
        self.digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.cut = 0
        """Bytes after which transfers end or stall; the next transfer then goes through."""
        self.go_on = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def asked(self, method: str, part: str) -> list[dict[str, str]]:
        """Headers of the requests so far whose path has this part."""
        return [headers for verb, path, headers in self.requests if verb == method and part in path]

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub = self.server
        path = urlsplit(self.path).path  # a proxy is asked for whole addresses
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub.requests.append((self.command, path, {key.lower(): value for key, value in self.headers.items()}))
        if hub.fault == "silent":
            hub.go_on.wait(PATIENCE_SECONDS)
        elif hub.fault == "portal":
            self._reply(200, b"<html>Log in to this network</html>", {})
        elif path.startswith("/store/"):
            self._store(path.removeprefix("/store/"))
        elif found := re.fullmatch(rf"/{REPOSITORY}/resolve/([^/]+)/(.+)", path):
            self._resolve(found[1], found[2])
        elif found := re.fullmatch(rf"/api/models/{REPOSITORY}/paths-info/([^/]+)", path):
            self._paths_info(parse_qs(body.decode())["paths"])
        else:
            self._reply(404, b"", {})

    def _resolve(self, revision: str, name: str) -> None:
        hub = self.server
        fault = hub.fault
        if not COMMIT.startswith(revision):
            fault = "no revision"
        elif name not in hub.files:
            fault = "missing"
        if fault in STATUS:
            status, code = STATUS[fault]
            self._reply(status, b"{}", {"X-Error-Code": code} if code else {})
            return
        headers = {"X-Repo-Commit": COMMIT}
        if not name.endswith(".pt"):
            self._content(name, {**headers, "ETag": '"' + "5" * 40 + '"'})
            return
        store = f"http://localhost:{hub.server_address[1]}/store/{name}?{SIGNATURE}"
        linked = {"X-Linked-Etag": f'"{hub.digests[name]}"', "X-Linked-Size": str(len(hub.files[name]))}
        self._reply(302, b"", {**headers, **linked, "Location": store})

    def _store(self, name: str) -> None:
        """Large files; the store knows nothing of tokens, and must not be given any."""
        assert "authorization" not in {key.lower() for key in self.headers}
        self._content(name, {"ETag": '"of the store"'})

    def _paths_info(self, names: list[str]) -> None:
        found = []
        for name in names:
            if content := self.server.files.get(name):
                info = {"type": "file", "path": name, "size": len(content), "oid": "5" * 40}
                if name.endswith(".pt") and self.server.fault != "no digest":
                    size = 10**15 if self.server.fault == "huge" else len(content)
                    info["lfs"] = {"oid": self.server.digests[name], "size": size, "pointerSize": 134}
                found.append(info)
        self._reply(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def _content(self, name: str, headers: dict[str, str]) -> None:
        hub, content = self.server, self.server.files[name]
        if hub.fault == "wrong" and name.endswith(".pt"):
            content = bytes(len(content))
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        if start and hub.fault != "no ranges":
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._reply(206, content[start:], headers)
        else:
            self._reply(200, content, headers)

    def _reply(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        hub = self.server
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if hub.cut and len(content) > hub.cut:
            cut, hub.cut = hub.cut, 0
            self.wfile.write(content[:cut])
            self.wfile.flush()
            if hub.fault == "stalls":
                hub.go_on.wait(PATIENCE_SECONDS)
            if hub.fault == "dies":
                hub.socket.close()
            self.close_connection = True
            return
        self.wfile.write(content)


@contextmanager
def hub_with(files: dict[str, bytes]) -> Iterator[Hub]:
    """A hub that answers until the end of the block."""
    with Hub(files) as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.go_on.set()
            hub.shutdown()
