"""Who else is told of a run: options of monitoring, beside the file of progress."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import OptionError
from ..options.declarations import may_change, option, section
from .health.options import HealthOptions

CONTROL = "run"
"""Heading of the list of options."""

METRICS_SUFFIX = ".prom"
"""Of the only files that node exporter reads."""

LOG_FORMATS = ("text", "json")


def parse_metrics_file(text: str) -> Path:
    """The path of a file of metrics.

    Raises
    ------
    OptionError
        If node exporter would not read a file of that name.
    """
    path = Path(text)
    if path.suffix != METRICS_SUFFIX:
        raise OptionError(f"--metrics-file: expected a name that ends in {METRICS_SUFFIX}, got {text!r}")
    return path


def parse_address(text: str) -> str:
    """The address of a server that takes messages.

    Raises
    ------
    OptionError
        If it is of another kind; what was given is not shown, for it may be secret.
    """
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise OptionError("--notify: expected an address such as https://host/path, of http or https")
    return text


@dataclass(frozen=True)
class Listeners:
    """Who is told of a run, and how; nothing that a run makes depends on it."""

    metrics_file: Path | None = option(
        "--metrics-file",
        group=CONTROL,
        parse=parse_metrics_file,
        metavar="FILE.prom",
        help="keep metrics of the run in Prometheus' text format, for node exporter's textfile collector",
        resume=may_change("it is no output"),
    )
    notify: str | None = option(
        "--notify",
        group=CONTROL,
        parse=parse_address,
        metavar="URL",
        help="post how the run ended, as JSON, to this address of http or https; a failure to do so is a warning",
        resume=may_change("it is no output"),
    )
    log_format: str | None = option(
        "--log-format",
        group=CONTROL,
        choices=LOG_FORMATS,
        help="json logs one object a line, errors included",
        shown="text",
        resume=may_change("it is no output"),
    )
    health: HealthOptions = section(HealthOptions)
