"""CDS, MARS and ECMWF's open data: accounts, reachability, dates and grids, checked before anything is asked.

The clients are those that the services offer, unchanged. Left alone they ask for a missing key on a terminal and
try an absent server for hours. A key is never part of a message.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path

from ..errors import InputError, OptionError

LOG = logging.getLogger(__name__)

CDS, MARS, OPEN_DATA = SOURCES = ("cds", "mars", "opendata")
"""The runner's names of the services."""

ERA5_BEGIN = date(1940, 1, 1)
ERA5_DELAY_DAYS = 5
"""How far ERA5 is behind real time."""

OPEN_DATA_DAYS = 4
"""How long data.ecmwf.int keeps a forecast."""

OPEN_DATA_HOST = "data.ecmwf.int"
"""Where the limit above holds; mirrors keep more."""

OPEN_DATA_NAME = "ECMWF open data"
OPEN_DATA_GRID_DEG = 0.25
OPERATIONAL_HOURS = (0, 6, 12, 18)

CDS_HELP = "https://cds.climate.copernicus.eu/how-to-api"
CDS_URL = "https://cds.climate.copernicus.eu/api"
MARS_HELP = "https://api.ecmwf.int/v1/key/"
MARS_CLIENT = "/usr/local/bin/mars"
"""Where a local client is, unless ``MARS_CLIENT_COMMAND`` says so."""

FIRST_PAUSES_S = (2.0, 4.0)
"""Between the tries to reach a service before anything is asked of it."""

TIMEOUT_S = (5.0, 15.0)
"""For a connection, and for an answer, to the question whether a service is there."""

NOT_ANSWERING = (407, 502, 503, 504)
"""Statuses with which proxies and gateways say that nobody is behind them."""


@dataclass(frozen=True)
class Service:
    """A service with the account to use.

    Parameters
    ----------
    name : str
        For messages.
    url : str
        Where it is; empty for a local MARS client, which needs no account here.
    origin : str
        Where the account was found.
    secrets : tuple of str
        Never to be shown.
    verify : bool
        Whether its certificate is checked.
    """

    name: str
    url: str
    origin: str = ""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    verify: bool = True

    def redacted(self, text: str) -> str:
        """The text without the keys of this account."""
        for secret in self.secrets:
            text = text.replace(secret, "[key]")
        return text


# Accounts.


def find_account(source: str) -> Service:
    """The account that the service's client is going to use.

    Parameters
    ----------
    source : str
        One of `SOURCES`.

    Raises
    ------
    InputError
        If there is none, or the service no longer takes it; says what to create where.
    """
    return {CDS: _cds_account, MARS: _mars_account, OPEN_DATA: _open_data}[source]()


def _cds_account() -> Service:
    from cdsapi.api import get_url_key_verify

    path = Path(os.environ.get("CDSAPI_RC", Path.home() / ".cdsapirc"))
    lines = f"  url: {CDS_URL}\n  key: YOUR-PERSONAL-ACCESS-TOKEN\nas {CDS_HELP} shows after logging in"
    try:
        # The client's own way of looking for them.
        url, key, verify = get_url_key_verify(None, None, None)
    except Exception as error:
        state = "is incomplete or cannot be read" if path.exists() else "is not there"
        raise InputError(
            "--input cds needs an account of the Climate Data Store: expected CDSAPI_URL and CDSAPI_KEY in the "
            f"environment, or the file {path}, which {state}. Let it hold the two lines\n{lines}"
        ) from error
    url_origin, key_origin = (
        name if os.environ.get(name) is not None else str(path) for name in ("CDSAPI_URL", "CDSAPI_KEY")
    )
    _check_url("CDS", url, url_origin, CDS_URL)
    if re.search(r"/v\d+/*$", url) or "cds-beta" in url:
        raise InputError(
            f"{url_origin}: {url} is an address of the old Climate Data Store, which was closed in 2024; "
            f"expected {CDS_URL}. Use the two lines\n{lines}"
        )
    if ":" in key:
        raise InputError(
            f"{key_origin}: the key has the old form UID:KEY, which the Climate Data Store no longer accepts; "
            f"expected a personal access token. Use the two lines\n{lines}"
        )
    if not re.fullmatch(r"[\w-]+", key):
        raise InputError(
            f"{key_origin}: expected a key of letters, digits and hyphens without quotes, got "
            f"{'an empty one' if not key else 'something else'}. Use the two lines\n{lines}"
        )
    return Service("CDS", url, key_origin, (key,), bool(verify))


def _mars_account() -> Service:
    from ecmwfapi import api

    command = os.environ.get("MARS_CLIENT_COMMAND", MARS_CLIENT)
    if Path(command).exists():
        if not os.access(command, os.X_OK):
            raise InputError(f"{command}: expected the MARS client, an executable file (MARS_CLIENT_COMMAND)")
        return Service("MARS", "", command)
    if "MARS_CLIENT_COMMAND" in os.environ:
        raise InputError(f"MARS_CLIENT_COMMAND: there is no file {command}; unset it to use ECMWF's web API")
    path = os.environ.get("ECMWF_API_RC_FILE") or str(Path.home() / ".ecmwfapirc")
    in_environment = any(os.environ.get(f"ECMWF_API_{name}") for name in ("KEY", "URL", "EMAIL"))
    origin = "ECMWF_API_KEY, ECMWF_API_URL and ECMWF_API_EMAIL" if in_environment else path
    advice = f"Save what {MARS_HELP} shows after logging in as {path}. Who has no access to MARS can use --input cds"
    try:
        key, url, email = values = api.get_apikey_values()
    except (api.APIKeyFetchError, api.APIKeyNotFoundError) as error:
        raise InputError(
            f"--input mars: the account in {origin} is incomplete or cannot be read: "
            f"expected all of url, key and email. {advice}"
        ) from error
    if values == api.ANONYMOUS_APIKEY_VALUES:
        raise InputError(
            "--input mars needs an account of ECMWF with access to MARS: expected ECMWF_API_KEY, ECMWF_API_URL and "
            f"ECMWF_API_EMAIL in the environment, or the file {path}, or the mars command ({command}). {advice}"
        )
    if not all(isinstance(value, str) for value in values) or not re.fullmatch(r"[\w-]+", key) or "@" not in email:
        raise InputError(f"--input mars: {origin}: expected a key of letters and digits, and an email. {advice}")
    _check_url("MARS", url, origin, api.ANONYMOUS_APIKEY_VALUES[1])
    return Service("MARS", url, origin, (key,))


def _open_data() -> Service:
    try:
        from ecmwf.opendata.urls import URLS
    except ValueError as error:
        raise InputError(
            "ECMWF_OPENDATA_URLS or ~/.ecmwf-opendata: expected JSON such as "
            f'{{"ecmwf": "https://{OPEN_DATA_HOST}/forecasts"}}: {error}'
        ) from error
    return Service(OPEN_DATA_NAME, URLS["ecmwf"])


def _check_url(name: str, url: str, origin: str, usual: str) -> None:
    if not re.match(r"https?://[^/\s]+\S*$", url):
        raise InputError(f"{origin}: expected the address of {name}, such as {usual}, got {url!r}")


# Reachability.


def check_reachable(service: Service, pauses_s: Sequence[float] = FIRST_PAUSES_S) -> None:
    """Wait for any answer of a service.

    Parameters
    ----------
    service : Service
        Whom to ask; a local client is taken to be there.
    pauses_s : sequence of float
        Seconds to wait after each try but the last.

    Raises
    ------
    InputError
        If it does not answer.
    """
    if not service.url:
        return
    problem = _ask(service)
    for number, pause in enumerate(pauses_s):
        if not problem:
            break
        LOG.warning(
            "%s at %s does not answer: %s. Trying again in %g s, %d times more at most",
            *(service.name, service.url, problem, pause, len(pauses_s) - number),
        )
        time.sleep(pause)
        problem = _ask(service)
    if problem:
        tries = f"{len(pauses_s) + 1} tries" if pauses_s else "1 try"
        raise InputError(
            f"{service.name} at {service.url} does not answer: {problem} ({tries}). Check the "
            "network and the proxy (https_proxy, no_proxy), or run the same command later"
        )


def _ask(service: Service) -> str:
    """What is wrong with a service, or an empty string: any answer of its own will do."""
    import requests

    try:
        with requests.get(service.url, timeout=TIMEOUT_S, verify=service.verify, stream=True) as answer:
            return f"HTTP {answer.status_code} {answer.reason}" if answer.status_code in NOT_ANSWERING else ""
    except requests.Timeout:
        return f"silence for {max(TIMEOUT_S):g} s"
    except requests.RequestException as error:
        cause = getattr(error.args[0], "reason", error) if error.args else error
        return re.sub(r"^\[Errno -?\d+\] ", "", str(cause).rsplit(": ", 1)[-1])


# Dates and grids.


def check_times(
    initial_time: datetime,
    lags_hours: Sequence[int],
    now: datetime,
    *,
    reanalysis: bool,
    kept_days: int | None = None,
) -> None:
    """Refuse times that a service cannot have.

    Parameters
    ----------
    initial_time, now : datetime
        UTC, without zone.
    lags_hours : sequence of int
        Hours of the states relative to the initial time.
    reanalysis : bool
        Whether the states are of ERA5; else of ECMWF's operational analyses.
    kept_days : int or None
        How long the service keeps its data; None for ever.

    Raises
    ------
    OptionError
        If there is no analysis at that hour.
    InputError
        If the states are not there yet, or no longer.
    """
    oldest = initial_time + timedelta(hours=min(lags_hours))
    if not reanalysis:
        check_hour(initial_time.hour)
    if initial_time > now:
        raise InputError(f"--date and --time: {_utc(initial_time)} is in the future; it is {_utc(now)}")
    newest = newest_era5(now)
    if reanalysis and initial_time.date() > newest:
        raise InputError(
            f"ERA5 is about {ERA5_DELAY_DAYS} days behind real time: the newest date likely there is {newest}, "
            f"asked was for {_utc(initial_time)}. Give --date {newest:%Y%m%d} or earlier; newer analyses are "
            "in MARS (--input mars) and in the open data (--input opendata), with --variant hres"
        )
    if reanalysis and oldest.date() < ERA5_BEGIN:
        raise InputError(
            f"ERA5 begins on {ERA5_BEGIN}: a forecast from {_utc(initial_time)} needs states from {_utc(oldest)} on"
        )
    if kept_days is not None and oldest < now - timedelta(days=kept_days):
        raise InputError(
            f"a forecast from {_utc(initial_time)} needs states from {_utc(oldest)} on, and that history is no longer "
            f"available as open data: {OPEN_DATA_HOST} keeps about four days. Give a date from "
            f"{_utc(_first_start(now, kept_days, lags_hours))} on, or take older states from MARS (--input mars) "
            "or from a file (--file)"
        )


def check_hour(hour: int) -> None:
    """Refuse an hour without an operational analysis.

    Raises
    ------
    OptionError
        If it is none of 0, 6, 12, 18.
    """
    if hour not in OPERATIONAL_HOURS:
        raise OptionError(f"--time: expected 0, 6, 12 or 18, the hours of ECMWF's operational analyses, got {hour}")


def kept_days(service: Service) -> int | None:
    """How long a service keeps its data; None if that is unknown, as for a mirror."""
    return OPEN_DATA_DAYS if OPEN_DATA_HOST in service.url else None


def newest_era5(now: datetime) -> date:
    """The newest day that ERA5 is likely to have."""
    return (now - timedelta(days=ERA5_DELAY_DAYS)).date()


def _first_start(now: datetime, days: int, lags_hours: Sequence[int]) -> datetime:
    """The earliest initial time whose states are all kept."""
    start = now - timedelta(days=days, hours=min(lags_hours))
    return start.replace(minute=0, second=0, microsecond=0) + timedelta(hours=6 - start.hour % 6)


def _utc(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def check_grid(source: str, grid_deg: float) -> None:
    """Refuse a grid that a service does not serve.

    Parameters
    ----------
    source : str
        One of `SOURCES`.
    grid_deg : float
        Degrees between points.

    Raises
    ------
    OptionError
        If it is another.
    """
    if source == OPEN_DATA and grid_deg != OPEN_DATA_GRID_DEG:
        raise OptionError(f"--input-grid: open data are on {OPEN_DATA_GRID_DEG}° only, got {grid_deg:g}; leave it out")
