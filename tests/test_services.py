"""Accounts, reachability, dates and grids of the services, and what their clients' failures say."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from datetime import date, datetime
from pathlib import Path

import pytest
from standins import KEY, MARS_KEY, serving

from ai_models_mosaic.errors import InputError, OptionError
from ai_models_mosaic.forecast.options import parse_options
from ai_models_mosaic.inputs.clients import explain, patient_client
from ai_models_mosaic.inputs.services import (
    Service,
    check_grid,
    check_reachable,
    check_times,
    find_account,
    kept_days,
    newest_era5,
)

NOW = datetime(2026, 11, 22, 11, 10)
URL = "https://cds.climate.copernicus.eu/api"
MARS_URL = "https://api.ecmwf.int/v1"
CDS_LINES = (
    "the two lines\n"
    "  url: https://cds.climate.copernicus.eu/api\n"
    "  key: YOUR-PERSONAL-ACCESS-TOKEN\n"
    "as https://cds.climate.copernicus.eu/how-to-api shows after logging in"
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without accounts."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith(("CDSAPI", "ECMWF", "MARS"))]:
        monkeypatch.delenv(name)
    return tmp_path


def refusal(source: str) -> str:
    with pytest.raises(InputError) as caught:
        find_account(source)
    return str(caught.value)


# The account of CDS.


def test_an_account_of_cds_in_a_file(home: Path):
    (home / ".cdsapirc").write_text(f"url: {URL}\nkey: {KEY}\n")
    found = find_account("cds")
    assert (found.url, found.origin, found.secrets, found.verify) == (URL, f"{home}/.cdsapirc", (KEY,), True)
    assert KEY not in repr(found)


def test_the_environment_wins_over_the_file_and_another_file_can_be_named(home: Path, monkeypatch: pytest.MonkeyPatch):
    (home / "other").write_text(f"url: {URL}\nkey: {KEY}\nverify: 0\n")
    monkeypatch.setenv("CDSAPI_RC", str(home / "other"))
    assert (find_account("cds").origin, find_account("cds").verify) == (f"{home}/other", False)
    monkeypatch.setenv("CDSAPI_KEY", "another")
    assert (find_account("cds").origin, find_account("cds").secrets) == ("CDSAPI_KEY", ("another",))


def test_no_account_of_cds_says_what_to_create_where(home: Path):
    assert refusal("cds") == (
        "--input cds needs an account of the Climate Data Store: expected CDSAPI_URL and CDSAPI_KEY in the environment, "
        f"or the file {home}/.cdsapirc, which is not there. Let it hold {CDS_LINES}"
    )


@pytest.mark.parametrize("text", ["", f"url: {URL}\n", f"key: {KEY}\n", "nonsense", f"url: {URL}\nkey: a\nverify: yes"])
def test_an_incomplete_file_for_cds_is_named(home: Path, text: str):
    (home / ".cdsapirc").write_text(text)
    assert f"or the file {home}/.cdsapirc, which is incomplete or cannot be read." in refusal("cds") + "."
    assert KEY not in refusal("cds")


def test_half_an_environment_is_not_enough(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CDSAPI_KEY", KEY)
    assert f"or the file {home}/.cdsapirc, which is not there" in refusal("cds")


@pytest.mark.parametrize(
    ("url", "key", "message"),
    [
        (URL, f"12345:{KEY}", ": the key has the old form UID:KEY, which the Climate Data Store no longer accepts; "),
        (URL, f'"{KEY}"', ": expected a key of letters, digits and hyphens without quotes, got something else"),
        (URL, "", ": expected a key of letters, digits and hyphens without quotes, got an empty one"),
        (f"{URL}/v2", KEY, f": {URL}/v2 is an address of the old Climate Data Store, which was closed in 2024; "),
        ("https://cds-beta.climate.copernicus.eu/api", KEY, " is an address of the old Climate Data Store"),
        ("cds.climate.copernicus.eu", KEY, f": expected the address of CDS, such as {URL}, got 'cds.climate."),
    ],
)
def test_what_cds_no_longer_takes_is_refused_by_name(home: Path, url: str, key: str, message: str):
    (home / ".cdsapirc").write_text(f"url: {url}\nkey: {key}\n")
    found = refusal("cds")
    assert found.startswith(f"{home}/.cdsapirc: ")
    assert message in found
    assert KEY not in found


# The account of MARS.


def mars_file(path: Path, **account: object) -> None:
    path.write_text(json.dumps({"url": MARS_URL, "key": MARS_KEY, "email": "a@b.int"} | account))


def test_an_account_of_mars_in_a_file_or_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch):
    mars_file(home / ".ecmwfapirc")
    found = find_account("mars")
    assert (found.url, found.origin, found.secrets) == (MARS_URL, f"{home}/.ecmwfapirc", (MARS_KEY,))
    mars_file(home / "other", key="f" * 32)
    monkeypatch.setenv("ECMWF_API_RC_FILE", str(home / "other"))
    assert find_account("mars").secrets == ("f" * 32,)
    for name, value in {"URL": MARS_URL, "KEY": "e" * 32, "EMAIL": "a@b.int"}.items():
        monkeypatch.setenv(f"ECMWF_API_{name}", value)
    assert find_account("mars").secrets == ("e" * 32,)


def test_no_account_of_mars_says_what_to_create_where(home: Path):
    assert refusal("mars") == (
        "--input mars needs an account of ECMWF with access to MARS: expected ECMWF_API_KEY, ECMWF_API_URL and "
        f"ECMWF_API_EMAIL in the environment, or the file {home}/.ecmwfapirc, or the mars command "
        "(/usr/local/bin/mars). Save what https://api.ecmwf.int/v1/key/ shows after logging in as "
        f"{home}/.ecmwfapirc. Who has no access to MARS can use --input cds"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is incomplete or cannot be read: expected all of url, key and email. "),
        (f"{{'key': '{MARS_KEY}'}}", "is incomplete or cannot be read: "),
        (json.dumps({"key": MARS_KEY, "url": MARS_URL}), "is incomplete or cannot be read: "),
        (json.dumps({"key": MARS_KEY, "url": MARS_URL, "email": "me"}), "expected a key of letters and digits, and an"),
        (json.dumps({"key": f"{MARS_KEY} ", "url": MARS_URL, "email": "a@b"}), "expected a key of letters and digits"),
        (json.dumps({"key": 12, "url": MARS_URL, "email": "a@b"}), "expected a key of letters and digits"),
        (json.dumps({"key": MARS_KEY, "url": "api", "email": "a@b"}), "expected the address of MARS, such as "),
    ],
)
def test_a_file_for_mars_that_is_wrong_is_named(home: Path, text: str, message: str):
    (home / ".ecmwfapirc").write_text(text)
    found = refusal("mars")
    assert f"{home}/.ecmwfapirc" in found
    assert message in found
    assert MARS_KEY not in found


def test_half_an_environment_for_mars_is_named(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ECMWF_API_KEY", MARS_KEY)
    assert "the account in ECMWF_API_KEY, ECMWF_API_URL and ECMWF_API_EMAIL is incomplete" in refusal("mars")


def test_a_local_client_needs_no_account_but_must_be_there(home: Path, monkeypatch: pytest.MonkeyPatch):
    client = home / "mars"
    monkeypatch.setenv("MARS_CLIENT_COMMAND", str(client))
    assert refusal("mars") == f"MARS_CLIENT_COMMAND: there is no file {client}; unset it to use ECMWF's web API"
    client.write_text("#!/bin/sh\n")
    assert "expected the MARS client, an executable file (MARS_CLIENT_COMMAND)" in refusal("mars")
    client.chmod(0o755)
    assert (find_account("mars").url, find_account("mars").origin) == ("", str(client))
    check_reachable(find_account("mars"))


# Open data.


def test_open_data_need_no_account_and_keep_four_days_only_at_ecmwf():
    assert find_account("opendata").secrets == ()
    assert kept_days(Service("ECMWF open data", "https://data.ecmwf.int/forecasts")) == 4
    assert kept_days(Service("ECMWF open data", "https://mirror.example.org/ecmwf")) is None


def test_unreadable_addresses_of_open_data_are_refused(tmp_path: Path):
    # They are read when the client is imported: by another process.
    program = "from ai_models_mosaic.inputs.services import find_account; find_account('opendata')"
    environment = {**os.environ, "ECMWF_OPENDATA_URLS": "https://mirror.example.org"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert 'InputError: ECMWF_OPENDATA_URLS or ~/.ecmwf-opendata: expected JSON such as {"ecmwf": "https://data.' in (
        done.stderr
    )


# Reachability.


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_any_answer_will_do():
    with serving() as server:
        check_reachable(Service("CDS", f"{server.url}/nowhere"))
    assert server.paths == ["GET /nowhere"]


def test_nobody_there_is_an_error_after_a_few_tries_each_said(caplog: pytest.LogCaptureFixture):
    service = Service("CDS", f"http://127.0.0.1:{closed_port()}/api")
    with pytest.raises(InputError) as caught:
        check_reachable(service, (0.01, 0.02))
    assert str(caught.value) == (
        f"CDS at {service.url} does not answer: Connection refused (3 tries). Check the network and the proxy "
        "(https_proxy, no_proxy), or run the same command later"
    )
    assert caplog.messages == [
        f"CDS at {service.url} does not answer: Connection refused. Trying again in 0.01 s, 2 times more at most",
        f"CDS at {service.url} does not answer: Connection refused. Trying again in 0.02 s, 1 times more at most",
    ]


def test_a_gateway_with_nobody_behind_it_is_no_answer():
    with serving(status=503) as server, pytest.raises(InputError, match="does not answer: HTTP 503 Service Unavail"):
        check_reachable(Service("CDS", f"{server.url}/nowhere"), ())


def test_a_proxy_is_honoured(monkeypatch: pytest.MonkeyPatch):
    with serving() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        check_reachable(Service("CDS", "http://cds.example.org/api"), ())
    assert proxy.paths == ["GET http://cds.example.org/api"]


# Dates.


@pytest.mark.parametrize(
    ("start", "reanalysis", "kept"),
    [
        (datetime(2026, 11, 17, 23), True, None),
        (datetime(1940, 1, 2), True, None),
        (datetime(2026, 11, 22, 6), False, None),
        (datetime(1990, 1, 1, 18), False, None),
        (datetime(2026, 11, 19, 12), False, 4),
    ],
)
def test_times_that_a_service_can_have(start: datetime, reanalysis: bool, kept: int | None):
    check_times(start, (-24, 0), NOW, reanalysis=reanalysis, kept_days=kept)


@pytest.mark.parametrize(
    ("start", "reanalysis", "message"),
    [
        (
            datetime(2026, 11, 18),
            True,
            "ERA5 is about 5 days behind real time: the newest date likely there is 2026-11-17, asked was for "
            "2026-11-18 00:00 UTC. Give --date 20261117 or earlier; newer analyses are in MARS (--input mars) and in the "
            "open data (--input opendata), with --variant hres",
        ),
        (
            datetime(1940, 1, 1, 12),
            True,
            "ERA5 begins on 1940-01-01: a forecast from 1940-01-01 12:00 UTC needs states from 1939-12-31 12:00 UTC on",
        ),
        (
            datetime(2026, 11, 22, 12),
            False,
            "--date and --time: 2026-11-22 12:00 UTC is in the future; it is 2026-11-22 11:10 UTC",
        ),
        (
            datetime(2026, 11, 19, 6),
            False,
            "a forecast from 2026-11-19 06:00 UTC needs states from 2026-11-18 06:00 UTC on, and that history is no "
            "longer available as open data: data.ecmwf.int keeps about four days. Give a date from 2026-11-19 12:00 UTC "
            "on, or take older states from MARS (--input mars) or from a file (--file)",
        ),
    ],
)
def test_times_that_a_service_cannot_have(start: datetime, reanalysis: bool, message: str):
    with pytest.raises(InputError) as caught:
        check_times(start, (-24, 0), NOW, reanalysis=reanalysis, kept_days=None if reanalysis else 4)
    assert str(caught.value) == message


@pytest.mark.parametrize("hour", [1, 3, 9, 23])
def test_operational_analyses_are_of_four_hours_only(hour: int):
    message = f"--time: expected 0, 6, 12 or 18, the hours of ECMWF's operational analyses, got {hour}"
    with pytest.raises(OptionError) as caught:
        check_times(datetime(2026, 11, 20, hour), (0,), NOW, reanalysis=False)
    assert str(caught.value) == message
    check_times(datetime(2001, 11, 20, hour), (0,), NOW, reanalysis=True)


def test_era5_ends_five_days_ago():
    assert newest_era5(NOW) == date(2026, 11, 17)


@pytest.mark.parametrize("degrees", [0, -1, 0.05, 7, 31, float("nan"), float("inf")])
def test_grids_that_do_not_fit_the_globe_are_refused(degrees: float):
    with pytest.raises(OptionError, match=r"expected degrees from 0\.1 to 30 that divide 180"):
        parse_options(["--input-grid", str(degrees)])


@pytest.mark.parametrize("degrees", [0.1, 0.25, 0.3, 0.7031250, 1.5, 6, 30])
def test_grids_that_fit_the_globe(degrees: float):
    check_grid("mars", degrees)
    assert parse_options(["--input-grid", str(degrees)]).input_grid_deg == degrees


# Failures.


def test_keys_are_removed_from_what_clients_say():
    service = Service("MARS", MARS_URL, "a file", (MARS_KEY,))
    with pytest.raises(InputError) as caught, patient_client(service, 0):
        raise RuntimeError(f"the server said {MARS_KEY}")
    assert str(caught.value) == (
        "the client of MARS failed with RuntimeError: the server said [key]. --debug shows where"
    )


def test_what_the_mars_client_prints_is_logged_line_by_line(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
):
    caplog.set_level("INFO")
    with patient_client(Service("MARS", MARS_URL, "a file", (MARS_KEY,)), 0):
        print("2026-11-22 11:25:14 Request is queued")
        print(f"\nmy key is {MARS_KEY}")
    assert caplog.messages == ["MARS: Request is queued", "MARS: my key is [key]"]
    assert capsys.readouterr().out == ""


def test_a_client_may_retry_as_long_as_its_server_answers(caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    retries = logging.getLogger("multiurl.retry")
    with serving() as server, patient_client(Service("CDS", f"{server.url}/api"), 0):
        retries.warning("Retrying in 120 seconds")
    assert caplog.messages == ["CDS answers; its client goes on by itself", "Retrying in 120 seconds"]
    assert retries.filters == []
    assert socket.getdefaulttimeout() is None


def test_a_client_whose_server_is_lost_is_stopped():
    service = Service("CDS", f"http://127.0.0.1:{closed_port()}/api")
    with pytest.raises(InputError, match=r"does not answer: Connection refused \(1 try\)"), patient_client(service, 0):
        logging.getLogger("multiurl.retry").warning("Retrying in 120 seconds")


def test_errors_of_our_own_pass_unchanged():
    with pytest.raises(OptionError, match=r"^as it was$"), patient_client(Service("CDS", ""), 0):
        raise OptionError("as it was")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (AssertionError(), "the download from CDS is not complete: AssertionError. Run the same command again"),
        (
            ConnectionResetError(104, "reset"),
            "the connection to CDS at u broke: [Errno 104] reset. Run the same command",
        ),
        (
            OSError(28, "No space left on device"),
            "the answer of CDS could not be kept: No space left on device. It goes to AI_MODELS_MOSAIC_CACHE, or ",
        ),
        (EOFError("asked"), "the client of CDS failed with EOFError: asked. --debug shows where"),
        (
            ValueError("Cannot find index entries matching {}"),
            "CDS lack fields: Cannot find index entries matching {}. A run just published may not be complete yet",
        ),
    ],
)
def test_failures_in_plain_words(error: Exception, message: str):
    assert explain(Service("CDS", "u"), error).startswith(message)
