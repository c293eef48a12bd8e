"""The clients of CDS, MARS and open data at work: bounded when their server is lost, their failures in plain words.

The clients are those that the services offer, unchanged. Left alone they try a lost server for up to 17 hours,
wait for a silent one for ever, and fail with tracebacks.
"""

from __future__ import annotations

import errno
import io
import logging
import math
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from ..errors import InputError, MosaicError
from .services import CDS_HELP, MARS_HELP, OPEN_DATA_NAME, Service, check_reachable

LOG = logging.getLogger(__name__)

PAUSE_S = 20.0
"""Between the tries to reach a service that stopped answering."""

STALL_S = 120.0
"""Silence of a connection after which the MARS client, which knows no limit, is interrupted."""


@contextmanager
def patient_client(service: Service, patience_s: float) -> Iterator[None]:
    """Let a client work: bounded when its server is lost, and what it raises explained.

    Parameters
    ----------
    service : Service
        Whom the client asks.
    patience_s : float
        How long the server may be out of reach, s.

    Raises
    ------
    InputError
        Whatever the client raises.
    """
    watch = _Watch(service, patience_s)
    retries = logging.getLogger("multiurl.retry")
    limit = socket.getdefaulttimeout()
    retries.addFilter(watch)
    socket.setdefaulttimeout(STALL_S)
    try:
        with redirect_stdout(_Voice(watch)):
            yield
    except MosaicError:
        raise
    except Exception as error:
        raise InputError(service.redacted(explain(service, error))) from error
    finally:
        socket.setdefaulttimeout(limit)
        retries.removeFilter(watch)


class _Watch(logging.Filter):
    """Looks after a client that says it cannot reach its server: those of CDS and open data do so by logging."""

    def __init__(self, service: Service, patience_s: float) -> None:
        super().__init__()
        self.service = service
        self._pauses_s = (PAUSE_S,) * math.ceil(patience_s / PAUSE_S)

    def filter(self, record: logging.LogRecord) -> bool:
        """Wait for the server when the client is about to; all records pass."""
        if record.getMessage().startswith("Retrying in"):
            self.look()
        return True

    def look(self) -> None:
        """Wait for the server, or give up for the client, which would go on for up to 17 hours."""
        check_reachable(self.service, self._pauses_s)
        LOG.info("%s answers; its client goes on by itself", self.service.name)


class _Voice(io.TextIOBase):
    """Standard output of a client, line by line into the log; the MARS client prints what it does."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch, self._line = watch, ""

    def write(self, text: str) -> int:
        """Take what is printed; complete lines are logged at once, where a pipe would hold them back."""
        *lines, self._line = (self._line + text).split("\n")
        for line in filter(str.strip, lines):
            said = re.sub(r"^[\d-]{10} [\d:]{8} ", "", line)
            LOG.info("%s: %s", self._watch.service.name, self._watch.service.redacted(said))
            if said.startswith("Error contacting the WebAPI"):
                self._watch.look()
        return len(text)


def explain(service: Service, error: Exception) -> str:
    """A client's failure as a message: what happened, in the server's words, and what to do.

    Parameters
    ----------
    service : Service
        Whom the client asked.
    error : Exception
        What it raised.
    """
    import requests
    from ecmwf.datastores.processing import DownloadError, ProcessingFailedError
    from ecmwfapi.api import APIException

    text = str(error).strip() or type(error).__name__
    if isinstance(error, requests.HTTPError) and error.response is not None:
        if "/jobs/" in error.response.url:
            # A job that failed has its reason after a line on the request for its results.
            return f"{service.name} could not do what was asked: {text.partition(chr(10))[2] or text}"
        return _refusal(service, error.response.status_code, text)
    if isinstance(error, ProcessingFailedError):
        return f"{service.name} could not do what was asked: {text}"
    if isinstance(error, APIException):
        return f"{service.name} refused or could not do what was asked: {error.value}{_account_hint(service, text)}"
    if isinstance(error, DownloadError | AssertionError):
        return f"the download from {service.name} is not complete: {text}. Run the same command again"
    if isinstance(error, subprocess.CalledProcessError):
        return f"{service.origin}, the local client of MARS, ended with status {error.returncode}: see its report above"
    if isinstance(error, ValueError) and "index entries" in text:
        return f"{service.name} lack fields: {text}. A run just published may not be complete yet: try again later"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the answer of {service.name} could not be kept: {error.strerror}. It goes to AI_MODELS_MOSAIC_CACHE, or "
            "~/.cache, and with AI_MODELS_MOSAIC_CACHE=off to TMPDIR: name a folder with more room"
        )
    if isinstance(error, OSError):
        return f"the connection to {service.name} at {service.url} broke: {text}. Run the same command again"
    return f"the client of {service.name} failed with {type(error).__name__}: {text}. --debug shows where"


def _refusal(service: Service, status: int, text: str) -> str:
    if status == 401:
        return (
            f"{service.name} does not accept the key of {service.origin}: {text}\n"
            f"Expected the personal access token that {CDS_HELP} shows after logging in"
        )
    if status == 403:
        return (
            f"{service.name} refuses: {text}\nDo that once, logged in as the same user, and run the same command again"
        )
    if status == 404 and service.name == OPEN_DATA_NAME:
        return (
            f"{service.name} have no such file: {text}. It is either not published yet, which takes about 7 to 9 hours "
            "after the analysis, or no longer kept. Give another --date and --time"
        )
    return f"{service.name} refuses: {text}"


def _account_hint(service: Service, text: str) -> str:
    words = ("api key", "access", "auth", "token", "401", "403")
    if not any(word in text.lower() for word in words):
        return ""
    return f"\nThe account is that of {service.origin}; {MARS_HELP} shows its key. Is it allowed to use MARS?"
