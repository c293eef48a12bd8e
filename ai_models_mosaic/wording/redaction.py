"""Passwords and tokens in URLs: hidden in all that is shown or kept.

A source such as ``https://user:password@host/era5.zarr`` stands in cards, logs, progress files and messages, which
are passed on and archived; libraries put it into theirs.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Callable
from types import TracebackType

HIDDEN = "***"
"""What stands for a password or a token."""

_IN_AUTHORITY = re.compile(
    r"""(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*:/{1,2})
    (?:
        [^\s/?\#"]*@                                 # all before the last @ of the authority
        |
        [^\s/?\#"@:]*:(?!\d*(?:[/?\#"\s]|$))[^\s"]*?@   # a password with characters that should have been quoted
    )""",
    re.VERBOSE,
)
"""User and password of a URL. Paths lose a slash where they are taken for names of files."""

_IN_QUERY = re.compile(
    r"""(?P<name>[?&;\#](?:
        [\w.%~-]*(?:token|secret|passw|pwd|credential|signature|auth|api-?_?key|access-?_?key)[\w.%~-]*
        |
        sig|sas|key|code|user|username|login
    )=)[^\s&;\#"'<>()]+""",
    re.VERBOSE | re.IGNORECASE,
)
"""What a signed URL or one with a token has after the question mark."""


def redacted(text: str) -> str:
    """The text with the user, password and tokens of every URL in it hidden; the same if there are none.

    Parameters
    ----------
    text : str
        Whatever is shown or kept: a URL, a message, a line of JSON.
    """
    if ":/" not in text and "=" not in text:
        return text
    return _IN_QUERY.sub(rf"\g<name>{HIDDEN}", _IN_AUTHORITY.sub(rf"\g<scheme>{HIDDEN}@", text))


def is_redacted(text: str) -> bool:
    """Whether something was hidden, so that a URL can no longer be opened."""
    return f"{HIDDEN}@" in text or f"={HIDDEN}" in text


def redact_process() -> None:
    """Hide them in every log record and traceback of this process from now on, whichever library makes it."""
    made = logging.getLogRecordFactory()
    if not isinstance(made, _Records):
        logging.setLogRecordFactory(_Records(made))
    if sys.excepthook is not _show:
        sys.excepthook = _show


class _Records:
    """Makes log records without passwords.

    Parameters
    ----------
    made : callable
        Makes them as they are.
    """

    def __init__(self, made: Callable[..., logging.LogRecord]) -> None:
        self._made = made

    def __call__(self, *arguments: object, **more: object) -> logging.LogRecord:
        record: logging.LogRecord = self._made(*arguments, **more)
        try:
            said = record.getMessage()
        except (TypeError, ValueError, KeyError):
            # Whoever shows it says what is wrong with it.
            return record
        shown = redacted(said)
        if shown != said:
            record.msg, record.args = shown, None
        return record


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(redacted("".join(traceback.format_exception(kind, error, trace))))
