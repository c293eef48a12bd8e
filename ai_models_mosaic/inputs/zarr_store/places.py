"""Where the bytes of a store lie: a folder, a zip file, a web server, or anything else that fsspec opens.

A place tells *not there* from *could not be read*: zarr 2 takes a broken connection for a chunk that was never
written, and fills it with whatever the memory held.
"""

from __future__ import annotations

import time
import zipfile
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, urlsplit, urlunsplit

from ...errors import InputError
from ...wording.redaction import redacted

if TYPE_CHECKING:
    import fsspec
    import requests

PAUSES_S = (1.0, 4.0)
"""Between the tries to get an answer from a web server."""

LONGEST_PAUSE_S = 30.0
"""A server that asks for a longer one is not waited for."""

TIMEOUT_S = (10.0, 60.0)
"""For a connection, and between two pieces of an answer."""

TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
"""Statuses that may be another the next time."""

MEANINGS = {
    401: "log-in wanted",
    403: "access refused, which some servers also say of what is not there",
    429: "too many requests",
}


class RefusedError(InputError):
    """Access was refused, which some services also say of what is not there."""


class Place(Protocol):
    """Bytes by key."""

    @property
    def is_near(self) -> bool:
        """Whether no network is between."""
        ...

    def read(self, key: str, start: int | None = None, end: int | None = None) -> bytes | None:
        """What stands at a key, or a part of it (negative from the end); None if the place says that there is nothing.

        Raises
        ------
        InputError
            If it cannot be read, or not be known whether it is there.
        """
        ...

    def names(self, folder: str) -> list[str]:
        """What a folder holds.

        Raises
        ------
        InputError
            If the place cannot tell.
        """
        ...


def place_of(path: str) -> Place:
    """The place that a path or URL names.

    Raises
    ------
    InputError
        If a package for it is missing, or it cannot be reached.
    """
    import fsspec

    if path.startswith(("http://", "https://")):
        return WebPlace(path)
    try:
        if "://" in path:
            system, root = fsspec.core.url_to_fs(path)
        elif zipfile.is_zipfile(path):
            system, root = fsspec.get_filesystem_class("zip")(path), _root_in_zip(path)
        else:
            system, root = fsspec.filesystem("file"), str(Path(path).absolute())
    except ImportError as error:
        raise InputError(f"reading {redacted(path)} needs another package: {error}") from error
    except Exception as error:
        raise InputError(f"{redacted(path)} cannot be opened: {type(error).__name__}: {error}") from error
    return FilePlace(system, root, redacted(path))


def _root_in_zip(path: str) -> str:
    """The one folder that all lies in, if there is one: ``zip -r`` of a store makes it so."""
    with zipfile.ZipFile(path) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    return tops.pop() if len(tops) == 1 else ""


class FilePlace:
    """A folder of a file system of fsspec.

    Parameters
    ----------
    system : fsspec file system
        Retries as it sees fit.
    root : str
        The store's folder in it.
    name : str
        For messages.
    """

    def __init__(self, system: fsspec.AbstractFileSystem, root: str, name: str) -> None:
        self._system, self._root, self._name = system, root.rstrip("/"), name
        self.is_near = "file" in system.protocol or "zip" in system.protocol

    def read(self, key: str, start: int | None = None, end: int | None = None) -> bytes | None:
        """As `Place`."""
        try:
            data: bytes = self._system.cat_file(self._path(key), start, end)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        except PermissionError as error:
            raise RefusedError(f"{self._name}: {key} cannot be read: access refused ({error})") from error
        except Exception as error:
            raise InputError(f"{self._name}: {key} cannot be read: {type(error).__name__}: {error}") from error
        return data

    def names(self, folder: str) -> list[str]:
        """As `Place`."""
        try:
            found = self._system.ls(self._path(folder), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except Exception as error:
            raise InputError(f"{self._name}: cannot be listed: {type(error).__name__}: {error}") from error
        return sorted(name.rstrip("/").rpartition("/")[2] for name in found)

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}".rstrip("/") if self._root else key


class WebPlace:
    """A folder of a web server, which is asked again a few times for what may pass.

    Parameters
    ----------
    url : str
        May have user and password, and a query, which goes with every request.
    """

    is_near = False

    def __init__(self, url: str) -> None:
        import requests

        self._parts, self._name = urlsplit(url), redacted(url)
        self._session = requests.Session()

    def read(self, key: str, start: int | None = None, end: int | None = None) -> bytes | None:
        """As `Place`."""
        for pause in (*PAUSES_S, None):
            problem, asked = "", None
            try:
                answer = self._ask(key, start, end)
            except _Unreachable as error:
                problem = str(error)
            else:
                if answer.status_code in (404, 410):
                    return None
                if answer.ok:
                    # A server that knows no ranges sends all.
                    return answer.content if answer.status_code == 206 else answer.content[start:end]
                meaning = MEANINGS.get(answer.status_code, answer.reason)
                problem = f"the server answered {answer.status_code} ({meaning})"
                if answer.status_code in (401, 403):
                    raise RefusedError(f"{self._name}: {key} cannot be read: {problem}")
                if answer.status_code not in TRANSIENT:
                    break
                asked = _pause_asked(answer.headers.get("Retry-After"))
            if pause is None:
                problem += f", {len(PAUSES_S) + 1} times"
                break
            if asked is not None and asked > LONGEST_PAUSE_S:
                problem += f" and asks to come back in {asked:.0f} s"
                break
            time.sleep(pause if asked is None else asked)
        raise InputError(f"{self._name}: {key} cannot be read: {problem}")

    def names(self, folder: str) -> list[str]:
        """As `Place`: web servers do not list."""
        raise InputError(
            f"{self._name} has no consolidated metadata, and a web server does not list what it has: "
            "run zarr.consolidate_metadata on the store"
        )

    def _ask(self, key: str, start: int | None, end: int | None) -> requests.Response:
        import requests

        path = f"{self._parts.path.rstrip('/')}/{quote(key)}"
        url = urlunsplit((self._parts.scheme, self._parts.netloc, path, self._parts.query, ""))
        # Compressed again on the way, the length of an answer would say nothing.
        headers = {"Accept-Encoding": "identity"}
        if start is not None or end is not None:
            first, last = (0 if start is None else start), ("" if end is None else end - 1)
            headers["Range"] = f"bytes={first}" if first < 0 else f"bytes={first}-{last}"
        try:
            return self._session.get(url, headers=headers, timeout=TIMEOUT_S)
        except requests.RequestException as error:
            # Its own text has the whole URL in it.
            cause = error.args[0] if error.args else error
            reason = getattr(cause, "reason", cause)
            raise _Unreachable(f"{type(error).__name__}: {type(reason).__name__}") from error


class _Unreachable(Exception):  # noqa: N818 - never leaves this module
    """Why there was no whole answer."""


def _pause_asked(text: str | None) -> float | None:
    """Seconds of a ``Retry-After``, which may be a date; None if there is none that can be read."""
    if text is None:
        return None
    try:
        return max(
            0.0, float(text) if text.strip().isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
        )
    except ValueError:
        return None
