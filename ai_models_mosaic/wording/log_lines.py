"""The log for programs: one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from types import TracebackType

from .redaction import redacted

STANDARD = frozenset([*vars(logging.makeLogRecord({})), "message", "asctime"])
"""What every record has; all else was given by whoever logs."""

HEADLINE = ("time", "level", "logger", "message")
"""What every line has, in this order."""


class JsonLines(logging.Formatter):
    """Makes a JSON object of a record: what every line has, what whoever logs has added, and a traceback.

    Parameters
    ----------
    before : Formatter or None
        What made lines until now.
    """

    def __init__(self, before: logging.Formatter | None = None) -> None:
        super().__init__()
        self.before = before

    def format(self, record: logging.LogRecord) -> str:
        """One line, without passwords."""
        time = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        shown = dict(zip(HEADLINE, (time, record.levelname, record.name, record.getMessage()), strict=True))
        shown |= {name: value for name, value in vars(record).items() if name not in STANDARD and name not in shown}
        if record.exc_info:
            shown["traceback"] = self.formatException(record.exc_info)
        return json.dumps({name: _clean(value) for name, value in shown.items()}, default=str, ensure_ascii=False)


def log_as(form: str) -> None:
    """Let all that this process logs on standard error, and the tracebacks of bugs, have a form from now on.

    Parameters
    ----------
    form : str
        ``json``, or ``text`` for what it was before.
    """
    handlers = _handlers()
    if form == "json" and not handlers:
        # Nobody logs but Python itself, and that from warnings on.
        logging.basicConfig(level=logging.getLogger().level)
        handlers = _handlers()
    for handler in handlers:
        formatter = handler.formatter
        if form == "json" and not isinstance(formatter, JsonLines):
            handler.setFormatter(JsonLines(formatter))
        elif form != "json" and isinstance(formatter, JsonLines):
            handler.setFormatter(formatter.before)
    logging.captureWarnings(form == "json")
    if form == "json":
        sys.excepthook = _log_bug


def logs_json() -> bool:
    """Whether the log is for programs."""
    return any(isinstance(handler.formatter, JsonLines) for handler in _handlers())


def _handlers() -> list[logging.Handler]:
    """Those that write on standard error; whatever else is there, somebody else has put there."""
    return [
        handler
        for handler in logging.getLogger().handlers
        if type(handler) is logging.StreamHandler and handler.stream is sys.stderr
    ]


def _clean(value: object) -> object:
    return redacted(value) if isinstance(value, str) else value


def _log_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    message = str(error) or kind.__name__
    logging.getLogger(__name__.split(".")[0]).critical(message, exc_info=(kind, error, trace))
