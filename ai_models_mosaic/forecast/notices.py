"""A message to a server about the end of a run, whose loss is no reason for anything but a warning."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

LOG = logging.getLogger(__name__)

ANSWER_S = 10.0
"""Longest silence of the server, also while it is looked for."""

PAUSES_S = (1.0, 4.0)
"""Before every try after the first."""

BUSY = 429
"""Status of a server that wants to be asked again later, beside all from `FAILED` on."""

FAILED = 500


def post(address: str, message: Mapping[str, Any], pause: Callable[[float], None] = time.sleep) -> bool:
    """Post a message as JSON; gives whether it arrived, and warns if not.

    Parameters
    ----------
    address : str
        Of http or https; may hold a user and a password, which go into a header. Only its host is ever shown: all else
        may be secret.
    message : mapping of str to object
        As JSON can hold it.
    pause : callable
        Waits for so many seconds.
    """
    reason = ""
    for pause_s in (*PAUSES_S, None):
        reason, again = _attempt(address, message)
        if not reason:
            return True
        if not again or pause_s is None:
            break
        pause(pause_s)
    LOG.warning("--notify: %s was not told how the run ended: %s", _shown(address), reason)
    return False


def _attempt(address: str, message: Mapping[str, Any]) -> tuple[str, bool]:
    """Why it did not arrive, if so, and whether to try again."""
    import requests

    try:
        with _silent_client():
            # What answers with another address is not followed: a message that is posted there would be none.
            answer = requests.post(address, json=message, timeout=ANSWER_S, allow_redirects=False)
    except requests.Timeout:
        return f"no answer within {ANSWER_S:g} s", True
    except (requests.RequestException, ValueError, OSError) as error:
        return _cause(error), isinstance(error, requests.ConnectionError)
    status = answer.status_code
    if answer.ok and not answer.is_redirect:
        return "", False
    return f"it answered with HTTP status {status}", status == BUSY or status >= FAILED


def _cause(error: BaseException) -> str:
    """What the system said, or of what kind an error is: its own words have the whole address in them."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror and inner.errno is not None:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return type(error).__name__


@contextmanager
def _silent_client() -> Iterator[None]:
    """The client logs paths, which may be secret."""
    client = logging.getLogger("urllib3")
    before = client.level
    client.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        client.setLevel(before)


def _shown(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
