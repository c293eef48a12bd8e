"""Forecasts from CDS, MARS and open data: the real clients against local stand-ins."""

from __future__ import annotations

import json
import os
import re
import stat
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ecmwf.opendata.urls import URLS
from grib_files import STANDARD_HEIGHT_M, centre, plausible
from running import Refused, Runner, elsewhere, keys, messages, values
from standins import KEY, MARS_KEY, StandIn, serving

from ai_models_mosaic.inputs import clients

MINI = ("mosaic", "--variant", "mini", "--lead-time", 24, "--patience", 0)
OLD = ("--date", "20080426", "--time", 6, "--input-grid", 6)
FROM_CDS = (*MINI, "--input", "cds", *OLD)
FROM_MARS = (*MINI, "--input", "mars", *OLD)
FROM_OPEN_DATA = (*MINI, "--input", "opendata")
SURFACE = ["2t", "10u", "10v", "msl"]
UPPER = ["z", "q", "t", "u", "v", "w"]
LEVELS = list(STANDARD_HEIGHT_M)
BEGINNING = "ai-models mosaic 0.1.0: "


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without accounts."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in [name for name in os.environ if name.startswith(("CDSAPI", "ECMWF", "MARS"))]:
        monkeypatch.delenv(name)
    return home


def cds(patch: pytest.MonkeyPatch, server: StandIn, key: str = KEY) -> None:
    patch.setenv("CDSAPI_URL", f"{server.url}/api")
    patch.setenv("CDSAPI_KEY", key)


def mars(patch: pytest.MonkeyPatch, server: StandIn, key: str = MARS_KEY) -> None:
    for name, value in {"URL": f"{server.url}/v1", "KEY": key, "EMAIL": "someone@example.org"}.items():
        patch.setenv(f"ECMWF_API_{name}", value)


def opendata(patch: pytest.MonkeyPatch, server: StandIn) -> None:
    # What ECMWF_OPENDATA_URLS sets when the client is imported, which it is.
    patch.setitem(URLS, "ecmwf", f"{server.url}/forecasts")


def recent() -> date:
    return (datetime.now(timezone.utc) - timedelta(days=1)).date()


def shown(refused: Refused) -> str:
    """The plugin's message, after what clients log."""
    return refused.message[refused.message.index(BEGINNING) :]


def nothing_written(run: Runner) -> bool:
    return [path.name for path in run.folder.iterdir()] == ["home"]


# What works.


def test_cds_as_it_stands_with_an_account_in_a_file_and_a_queue(tmp_path: Path, alone: Path):
    words = (
        "mosaic",
        "--variant",
        "mini",
        "--lead-time",
        24,
        "--input",
        "cds",
        "--input-grid",
        6,
        "--path",
        "out.grib",
    )
    with serving(polls=1) as server:
        (alone / ".cdsapirc").write_text(f"url: {server.url}/api\nkey: {KEY}\n")
        done = elsewhere(tmp_path, *words, timeout=120)
    assert done.returncode == 0, done.stderr
    newest = datetime.now(timezone.utc).date() - timedelta(days=6)
    assert f"Starting from {newest}, about the newest date that ERA5 has (--date overrides)" in done.stderr
    assert {keys(m, "dataDate", "dataTime", "step") for m in messages(tmp_path / "out.grib")} == {
        (int(f"{newest:%Y%m%d}"), 1200, step) for step in (0, 24)
    }
    days = [int(f"{day:%Y%m%d}") for day in (newest - timedelta(days=1), newest)]
    common = {"time": 12, "grid": [6.0, 6.0], "area": [90.0, 0.0, -90.0, 354.0], "product_type": "reanalysis"}
    assert server.asked_for == [
        *({"date": day, "param": SURFACE, **common} for day in days),
        *({"date": day, "param": UPPER, "level": LEVELS, **common} for day in days),
    ]
    assert [path.split("/")[-2] for path in server.paths if path.endswith("/execution")] == (
        ["reanalysis-era5-single-levels"] * 2 + ["reanalysis-era5-pressure-levels"] * 2
    )


def test_mars_is_asked_for_what_the_variant_needs(run: Runner, monkeypatch: pytest.MonkeyPatch):
    with serving(polls=1) as server:
        mars(monkeypatch, server)
        run(*FROM_MARS, "--path", "out.grib")
    common = {"class": "ea", "expver": "1", "type": "an", "stream": "oper", "time": 6}
    common |= {"grid": [6.0, 6.0], "area": [90.0, 0.0, -90.0, 354.0]}
    days = ["2008-04-25", "2008-04-26"]
    assert server.asked_for == [
        *({"date": [day], "param": SURFACE, "levtype": "sfc", **common} for day in days),
        *({"date": [day], "param": UPPER, "level": LEVELS, "levtype": "pl", **common} for day in days),
    ]
    assert {keys(m, "dataDate", "dataTime") for m in messages(run.path("out.grib"))} == {(20080426, 600)}


def test_printed_requests_are_complete_and_in_the_stream_of_their_own_hour(tmp_path: Path):
    words = ("mosaic", "--variant", "hres", "--retrieve-requests", "--date", "20260512", "--requests-extra", "use=bc")
    done = elsewhere(tmp_path, *words, timeout=60)
    requests = [dict(re.findall(r"(\w+)=([^,\n]+)", text)) for text in done.stdout.split("retrieve,")[1:]]
    common = {"class": "od", "type": "an", "expver": "1", "grid": "0.25/0.25", "area": "90/0/-90/359.75", "use": "bc"}
    levels = "/".join(str(level) for level in LEVELS)
    fields = {
        "pl": {"param": "q/t/u/v/w/z", "levelist": levels, "levtype": "pl"},
        "sfc": {"param": "10u/10v/2t/msl", "levelist": "off", "levtype": "sfc"},
    }
    states = [
        ("20260511", "18", "scda"),
        ("20260512", "0", "oper"),
        ("20260512", "6", "oper"),
        ("20260512", "12", "oper"),
    ]
    assert requests == [
        {
            "date": day,
            "time": hour,
            "stream": stream,
            "target": f"input_{day}_{int(hour):02d}_{kind}.grib",
            **common,
            **fields[kind],
        }
        for day, hour, stream in states
        for kind in ("pl", "sfc")
    ]


def test_printed_requests_as_json_can_be_cut_down_to_the_last_state(run: Runner):
    words = ("mosaic", "--variant", "era5", "--input", "cds", "--retrieve-requests", "--json", "--date", "20080426")
    found = json.loads(run(*words, "--retrieve-only-one-date", "--requests-extra", "target=mine,class=rd"))
    assert [(r["date"], r["time"], r["levtype"], r["grid"]) for r in found] == [
        (20080426, 12, levtype, [0.25, 0.25]) for levtype in ("pl", "sfc")
    ]
    assert {(r["target"], r["class"]) for r in found} == {("mine", "rd")}
    assert json.loads(run(*words, "--retrieve-fields-type", "constants")) == []
    refused = run.refused(*words, "--requests-extra", "target")
    assert (refused.status, shown(refused)) == (
        2,
        f"{BEGINNING}--requests-extra: expected key1=value1,key2=value2, got 'target'\n",
    )


def test_a_local_mars_client_is_used_without_an_account(run: Runner, monkeypatch: pytest.MonkeyPatch):
    script = run.path("mars")
    script.write_text('#!/bin/sh\ncat "$1" >> asked\necho "mars - ERROR - no such user"\nexit 3\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("MARS_CLIENT_COMMAND", str(script))
    refused = run.refused(*FROM_MARS)
    assert refused.message.endswith(f"{script}, the local client of MARS, ended with status 3: see its report above\n")
    asked = run.path("asked").read_text().splitlines()
    assert asked[:1] == ["retrieve,"]
    assert {"class=ea,", "expver=1,", "type=an,", "stream=oper,", "levtype=sfc,", "grid=6.0/6.0,"} <= set(asked)


def test_open_data_are_recentred_and_height_becomes_geopotential(run: Runner, monkeypatch: pytest.MonkeyPatch):
    with serving() as server:
        opendata(monkeypatch, server)
        run(*FROM_OPEN_DATA, "--path", "out.grib")
    start = datetime.combine(recent(), datetime.min.time()) + timedelta(hours=12)
    fields = {keys(m, "shortName", "level"): m for m in messages(run.path("out.grib")) if keys(m, "step") == (0,)}
    assert keys(fields["2t", 2], "dataDate", "dataTime") == (int(f"{start:%Y%m%d}"), 1200)
    longitudes, latitudes = np.meshgrid(np.arange(0, 360, 6), np.linspace(90, -90, 31))
    expected = plausible("2t", None, start)(longitudes, latitudes).ravel()
    assert abs(values(fields["2t", 2]) - expected)[60:-60].max() < 0.2
    for level in (50, 500, 1000):
        np.testing.assert_allclose(values(fields["z", level]), centre("z", level), rtol=1e-6)
    days = [f"{start - timedelta(days=back):%Y%m%d}" for back in (1, 0)]
    names = [f"/forecasts/{day}/12z/ifs/0p25/oper/{day}120000-0h-oper-fc" for day in days]
    expected_paths = {f"{method}{name}" for name in names for method in ("GET ", "HEAD ")}
    assert set(server.paths) == {"GET /forecasts"} | {f"{path}.grib2" for path in expected_paths} | {
        f"GET {name}.index" for name in names
    }
    assert any("," in request.headers.get("range", "") for request in server.received)


# What fails at the service.


def test_a_key_that_cds_does_not_accept(run: Runner, monkeypatch: pytest.MonkeyPatch):
    with serving() as server:
        cds(monkeypatch, server, key="76543210-89ab-cdef-0123-456789abcdef")
        refused = run.refused(*FROM_CDS)
    assert refused.status == 3
    assert shown(refused) == (
        f"{BEGINNING}CDS does not accept the key of CDSAPI_KEY: 401 Client Error: Unauthorized for url: "
        f"{server.url}/api/retrieve/v1/processes/reanalysis-era5-single-levels/execution\n"
        "authentication failed\nauthentication failed\n"
        "Expected the personal access token that https://cds.climate.copernicus.eu/how-to-api shows after logging in\n"
    )
    assert nothing_written(run)


def test_a_licence_that_is_not_accepted_is_named_by_its_address(run: Runner, monkeypatch: pytest.MonkeyPatch):
    with serving(licence=True) as server:
        cds(monkeypatch, server)
        refused = run.refused(*FROM_CDS)
    page = f"{server.url}/datasets/reanalysis-era5-single-levels?tab=download#manage-licences"
    assert f"please visit {page} to accept the required licence(s)." in refused.message
    assert refused.message.endswith("\nDo that once, logged in as the same user, and run the same command again\n")
    assert nothing_written(run)


REASON = "MARS returned no data, please check your selection."


def test_a_failed_job_of_cds_ends_with_the_servers_reason(run: Runner, monkeypatch: pytest.MonkeyPatch):
    with serving(failure=REASON) as server:
        cds(monkeypatch, server)
        refused = run.refused(*FROM_CDS)
    assert shown(refused) == f"{BEGINNING}CDS could not do what was asked: The job has failed\n{REASON}\n"


def test_a_failed_job_of_mars_ends_with_the_servers_reason(run: Runner, monkeypatch: pytest.MonkeyPatch):
    with serving(failure="Expected 82, got 0.") as server:
        mars(monkeypatch, server)
        refused = run.refused(*FROM_MARS)
    assert shown(refused) == (
        f"{BEGINNING}MARS refused or could not do what was asked: ecmwf.API error 1: Expected 82, got 0.\n"
    )


def test_a_key_that_mars_does_not_accept(run: Runner, monkeypatch: pytest.MonkeyPatch):
    with serving() as server:
        mars(monkeypatch, server, key="f" * 32)
        refused = run.refused(*FROM_MARS)
    assert shown(refused) == (
        f"{BEGINNING}MARS refused or could not do what was asked: ecmwf.API error 1: Invalid API key\n"
        "The account is that of ECMWF_API_KEY, ECMWF_API_URL and ECMWF_API_EMAIL; https://api.ecmwf.int/v1/key/ "
        "shows its key. Is it allowed to use MARS?\n"
    )
    assert "f" * 32 not in refused.message


def test_a_download_that_ends_early(run: Runner, monkeypatch: pytest.MonkeyPatch):
    with serving(announced_more=100) as server:
        cds(monkeypatch, server)
        refused = run.refused(*FROM_CDS)
    assert shown(refused).startswith(f"{BEGINNING}the download from CDS is not complete: Download failed: downloaded ")
    assert refused.message.endswith(". Run the same command again\n")
    assert nothing_written(run)


@pytest.mark.parametrize("service", ["CDS", "MARS"])
def test_a_file_that_the_service_cut_short(run: Runner, monkeypatch: pytest.MonkeyPatch, service: str):
    with serving(truncated=True) as server:
        (cds if service == "CDS" else mars)(monkeypatch, server)
        refused = run.refused(*(FROM_CDS if service == "CDS" else FROM_MARS))
    assert "Traceback" not in refused.message
    assert "bytes, but the file ends after 2844: it was cut short" in refused.message
    assert nothing_written(run)


@pytest.mark.parametrize("service", ["CDS", "MARS"])
def test_missing_fields_are_all_named(run: Runner, monkeypatch: pytest.MonkeyPatch, service: str):
    with serving(missing=("w", "msl")) as server:
        (cds if service == "CDS" else mars)(monkeypatch, server)
        refused = run.refused(*(FROM_CDS if service == "CDS" else FROM_MARS))
    assert shown(refused).startswith(
        f"{BEGINNING}the input lacks 28 of the 164 fields that a forecast from 2008-04-26 06:00 UTC needs:\n"
    )
    assert nothing_written(run)


@pytest.mark.parametrize("service", ["CDS", "MARS"])
def test_a_server_that_goes_away_while_the_job_is_queued(run: Runner, monkeypatch: pytest.MonkeyPatch, service: str):
    with serving(goes_away=True) as server:
        (cds if service == "CDS" else mars)(monkeypatch, server)
        refused = run.refused(*(FROM_CDS if service == "CDS" else FROM_MARS))
    base = f"{server.url}/{'api' if service == 'CDS' else 'v1'}"
    assert refused.status == 3
    assert shown(refused) == (
        f"{BEGINNING}{service} at {base} does not answer: Connection refused (1 try). Check the network and the "
        "proxy (https_proxy, no_proxy), or run the same command later\n"
    )
    assert nothing_written(run)


def test_a_mars_server_that_falls_silent_does_not_hang_the_run(run: Runner, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(clients, "STALL_S", 0.3)
    with serving(silent_s=1.0) as server:
        mars(monkeypatch, server)
        refused = run.refused(*FROM_MARS)
    assert shown(refused) == (
        f"{BEGINNING}the connection to MARS at {server.url}/v1 broke: timed out. Run the same command again\n"
    )


def test_open_data_that_lack_a_field(run: Runner, monkeypatch: pytest.MonkeyPatch):
    with serving(missing=("msl",)) as server:
        opendata(monkeypatch, server)
        refused = run.refused(*FROM_OPEN_DATA)
    assert shown(refused) == (
        f"{BEGINNING}ECMWF open data lack fields: msl, of {recent() - timedelta(days=1):%Y%m%d} 12 UTC. A run just "
        "published may not be complete yet: try again later\n"
    )
    assert nothing_written(run)


def test_open_data_that_are_not_there(run: Runner, monkeypatch: pytest.MonkeyPatch):
    with serving(status=404) as server:
        opendata(monkeypatch, server)
        refused = run.refused(*FROM_OPEN_DATA)
    assert f"{BEGINNING}ECMWF open data have no such file: 404 Client Error: Not Found for url: {server.url}" in (
        refused.message
    )
    assert "It is either not published yet, which takes about 7 to 9 hours after the analysis" in refused.message


def test_open_data_that_end_early(run: Runner, monkeypatch: pytest.MonkeyPatch):
    with serving(truncated=True) as server:
        opendata(monkeypatch, server)
        refused = run.refused(*FROM_OPEN_DATA)
    assert f"{BEGINNING}the download from ECMWF open data is not complete: " in refused.message
    assert nothing_written(run)


# What is refused before anything is asked.


def test_an_unreachable_server_is_tried_three_times(
    run: Runner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    with serving() as server:
        cds(monkeypatch, server)
    refused = run.refused(*FROM_CDS)
    assert f"CDS at {server.url}/api does not answer: Connection refused (3 tries)." in refused.message
    assert "Connection refused. Trying again in 4 s, 1 times more at most" in caplog.text
    assert nothing_written(run)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--input", "cds"), 3, "--input cds needs an account of the Climate Data Store: expected CDSAPI_URL and "),
        (("--input", "mars"), 3, "--input mars needs an account of ECMWF with access to MARS: expected ECMWF_API_KEY"),
        (("--input", "opendata", "--input-grid", "1.5"), 2, "--input-grid: open data are on 0.25° only, got 1.5;"),
        (("--input", "opendata", "--input-grid", "0.1"), 2, "--input-grid: open data are on 0.25° only, got 0.1;"),
        (("--input", "cds", "--input-grid", "0"), 2, "--input-grid: expected degrees from 0.1 to 30 that divide 180"),
        (
            ("--input", "opendata", "--time", "5"),
            2,
            "--time: expected 0, 6, 12 or 18, the hours of ECMWF's operational",
        ),
        (("--input", "opendata", "--date", "20260101"), 3, "and that history is no longer available as open data: "),
        (("--input", "opendata", "--date", "21000101"), 3, "--date and --time: 2100-01-01 12:00 UTC is in the future;"),
    ],
)
def test_what_a_service_cannot_have_is_refused_first(run: Runner, words: tuple[str, ...], status: int, message: str):
    refused = run.refused(*MINI, *words)
    assert (refused.status, nothing_written(run)) == (status, True)
    assert message in refused.message


@pytest.mark.parametrize(
    ("days", "message"),
    [
        (1, "ERA5 is about 5 days behind real time: the newest date likely there is "),
        (40_000, "ERA5 begins on 1940-01-01"),
    ],
)
def test_dates_that_era5_does_not_have_are_never_queued(
    run: Runner, monkeypatch: pytest.MonkeyPatch, days: int, message: str
):
    asked = datetime.now(timezone.utc) - timedelta(days=days)
    with serving() as server:
        cds(monkeypatch, server)
        refused = run.refused(*MINI, "--input", "cds", "--date", f"{asked:%Y%m%d}")
    assert message in refused.message
    assert server.received == []


def test_no_key_is_ever_shown(tmp_path: Path):
    environment: dict[str, Any] = dict(os.environ)
    with serving(licence=True, failure="why") as server:
        environment |= {"CDSAPI_URL": f"{server.url}/api", "CDSAPI_KEY": KEY, "ECMWF_API_URL": f"{server.url}/v1"}
        environment |= {"ECMWF_API_KEY": MARS_KEY, "ECMWF_API_EMAIL": "someone@example.org"}
        for words in (FROM_CDS, FROM_MARS):
            done = elsewhere(tmp_path, "--debug", *words, env=environment, timeout=120)
            assert done.returncode == 1
            assert "InputError: " in done.stderr
            assert KEY not in done.stdout + done.stderr
            assert MARS_KEY not in done.stdout + done.stderr
    sent = {request.headers.get(name) for request in server.received for name in ("private-token", "x-ecmwf-key")}
    assert sent == {KEY, MARS_KEY, None}
