"""Which initial times a run is to start from, of all the ways to ask for them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone
from pathlib import Path

from ..errors import OptionError
from ..variants import Variant
from .fields import Wanted
from .requests import is_reanalysis, parse_date, parse_hour, wanted_time
from .services import newest_era5
from .times import parse_dates, read_dates

LOG = logging.getLogger(__name__)

DEFAULT_DATE, DEFAULT_TIME = "-1", 12
"""Yesterday, 12 UTC."""


@dataclass(frozen=True)
class AskedTimes:
    """What was typed; None where nothing was.

    Parameters
    ----------
    date : str or None
        As `sources.parse_date` reads it.
    time : int or None
        As `sources.parse_hour` reads it.
    dates : str or None
        Several initial times, as `times.parse_dates` reads them.
    staging_dates : str or None
        A file of them.
    """

    date: str | None = None
    time: int | None = None
    dates: str | None = None
    staging_dates: str | None = None


@dataclass(frozen=True)
class InitialTimes:
    """What to start from.

    Parameters
    ----------
    wanted : tuple of Wanted
        The initial times, at least one.
    starts : tuple of datetime
        The same, UTC, as far as they can be known without looking into the input: requests are made for these.
    """

    wanted: tuple[Wanted, ...]
    starts: tuple[datetime, ...]


def choose_times(asked: AskedTimes, source: str, variant: Variant) -> InitialTimes:
    """The initial times: exact for a service; for a file only as far as they were typed.

    Parameters
    ----------
    asked : AskedTimes
        What was typed.
    source : str
        ``file``, or one of `services.SOURCES`.
    variant : Variant
        What runs.

    Raises
    ------
    OptionError
        If they are asked for in two ways, or make no sense.
    InputError
        If the file of initial times cannot be read.
    """
    several = _several(asked, source)
    if several:
        return InitialTimes(several, tuple(time_of(one) for one in several))
    date = _default_date(source, variant) if asked.date is None else asked.date
    at = DEFAULT_TIME if asked.time is None else asked.time
    wanted = wanted_time(asked.date, asked.time) if source == "file" else wanted_time(date, at)
    return InitialTimes((wanted,), (parse_date(date).replace(hour=parse_hour(at)),))


def time_of(wanted: Wanted) -> datetime:
    """An initial time, UTC; of one of which only the day is known, midnight."""
    return wanted.time or datetime.combine(wanted.day or datetime(2000, 1, 1), time())


def utc_now() -> datetime:
    """The present, UTC, without zone."""
    return datetime.now(timezone.utc).replace(tzinfo=None)


def _several(asked: AskedTimes, source: str) -> tuple[Wanted, ...]:
    if sum(given is not None for given in (asked.date, asked.dates, asked.staging_dates)) > 1:
        raise OptionError("expected one of --date, --dates and --staging-dates, got two of them")
    if asked.staging_dates is not None:
        return read_dates(Path(asked.staging_dates))
    if asked.dates is None:
        return ()
    exact = source != "file" or asked.time is not None
    return parse_dates(asked.dates, parse_hour(DEFAULT_TIME if asked.time is None else asked.time) if exact else None)


def _default_date(source: str, variant: Variant) -> str:
    """Yesterday; ERA5 cannot have that, so it starts where it ends."""
    if not is_reanalysis(source, variant):
        return DEFAULT_DATE
    day = newest_era5(utc_now()) - timedelta(days=1)
    LOG.info("Starting from %s, about the newest date that ERA5 has (--date overrides)", day)
    return f"{day:%Y%m%d}"
