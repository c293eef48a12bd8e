"""Fields of files and services: the same bytes as through the runner's own inputs, with the same clients."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import earthkit.data
import numpy as np
import pytest
from ai_models.inputs import get_input
from ai_models.inputs.compute import make_z_from_gh
from ai_models.inputs.recenter import recenter
from ecmwf.opendata.urls import URLS
from grib_files import message
from running import SAMPLE, changed, messages
from standins import KEY, MARS_KEY, OPEN_DATA_LAYOUT, StandIn, serving

from ai_models_mosaic.channels import LEVELS_HPA, PRESSURE_LEVEL_PARAMS, SINGLE_LEVEL_PARAMS
from ai_models_mosaic.errors import InputError
from ai_models_mosaic.inputs.open_data import turn_to_greenwich
from ai_models_mosaic.inputs.requests import mars_keys
from ai_models_mosaic.inputs.retrieve import SOURCE_OF_INPUT, FileSource, scratch, with_cache
from ai_models_mosaic.inputs.services import find_account
from ai_models_mosaic.variants import MINI

START = datetime(2026, 5, 11, 12)
TIMES = (START - timedelta(days=1), START)


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home without accounts, and caches that begin empty."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AI_MODELS_MOSAIC_CACHE", str(tmp_path / "cache"))
    for name in [name for name in os.environ if name.startswith(("CDSAPI", "ECMWF", "MARS"))]:
        monkeypatch.delenv(name)
    with earthkit.data.config.temporary({"cache-policy": "user", "user-cache-directory": str(home / "earthkit")}):
        yield home


def reach(patch: pytest.MonkeyPatch, server: StandIn) -> None:
    """Let all clients ask this server."""
    patch.setenv("CDSAPI_URL", f"{server.url}/api")
    patch.setenv("CDSAPI_KEY", KEY)
    for name, value in {"URL": f"{server.url}/v1", "KEY": MARS_KEY, "EMAIL": "someone@example.org"}.items():
        patch.setenv(f"ECMWF_API_{name}", value)
    patch.setitem(URLS, "ecmwf", f"{server.url}/forecasts")


def ours(name: str, grid_deg: float, times: tuple[datetime, ...] = TIMES) -> list[bytes]:
    source = SOURCE_OF_INPUT[name](find_account(name), MINI, grid_deg, 0)
    with scratch() as folder:
        return [field.message() for field in source.fields(times, folder)]


def of_the_runner(name: str, grid_deg: float) -> list[bytes]:
    def complete(request: dict[str, Any]) -> None:
        request.update(mars_keys(MINI, START) if name == "mars" else {})

    owner = SimpleNamespace(
        param_sfc=SINGLE_LEVEL_PARAMS,
        param_level_pl=(PRESSURE_LEVEL_PARAMS, LEVELS_HPA),
        param_level_ml=([], []),
        grid=[grid_deg, grid_deg],
        area=[90, 0, -90, 360 - grid_deg],
        retrieve={},
        patch_retrieve_request=complete,
        datetimes=lambda: [(int(f"{time:%Y%m%d}"), time.hour) for time in TIMES],
    )
    return [field.message() for field in get_input(name, owner).all_fields]


@pytest.mark.parametrize(("name", "grid_deg"), [("cds", 6), ("mars", 6), ("opendata", 0.25)])
def test_requests_and_fields_are_those_of_the_runners_own_input(
    monkeypatch: pytest.MonkeyPatch, name: str, grid_deg: float
):
    with serving() as server:
        reach(monkeypatch, server)
        theirs = of_the_runner(name, grid_deg)
        asked, paths = server.asked_for, server.paths
        server.received.clear()
        found = ours(name, grid_deg)
    assert len(found) == 164
    assert sorted(found) == sorted(theirs)
    assert server.asked_for == asked
    if name == "opendata":
        assert sorted(set(server.paths)) == sorted(set(paths))


@pytest.mark.parametrize("param", ["gh", "t"])
def test_noise_turned_and_made_geopotential_is_packed_as_by_the_runner(tmp_path: Path, param: str):
    random = np.random.default_rng(0)
    published = message(param, 500, base=START, layout=OPEN_DATA_LAYOUT)
    noisy = changed(published, 5000 + 100 * random.standard_normal(1440 * 721), bitsPerValue=16)
    (tmp_path / "published.grib").write_bytes(noisy)
    turn_to_greenwich(tmp_path / "published.grib", tmp_path / "turned.grib")
    # The runner's temporary files are there for as long as what was made of them.
    turned = recenter(earthkit.data.from_source("file", str(tmp_path / "published.grib")))
    theirs = make_z_from_gh(turned) if param == "gh" else turned
    assert (tmp_path / "turned.grib").read_bytes() == theirs[0].message()


def test_an_answer_is_asked_for_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path):
    caplog.set_level("INFO")
    with serving() as server:
        reach(monkeypatch, server)
        first = ours("cds", 6)
        assert [len(server.asked_for), len(ours("cds", 6)), len(server.asked_for)] == [4, 164, 4]
        (kept, *_) = sorted((tmp_path / "cache" / "retrieved").glob("*.grib"))
        kept.write_bytes(kept.read_bytes()[:-100])
        assert ours("cds", 6) == first
    assert len(server.asked_for) == 5
    assert f"Taking {kept}, as it was answered before" in caplog.text
    assert [path.suffix for path in (tmp_path / "cache" / "retrieved").iterdir()] == [".grib"] * 4


def test_another_server_is_asked_anew(monkeypatch: pytest.MonkeyPatch):
    for _ in range(2):
        with serving() as server:
            reach(monkeypatch, server)
            ours("mars", 6)
        assert len(server.asked_for) == 4


@pytest.mark.parametrize("fault", [{"missing": ("w",)}, {"truncated": True}])
def test_an_answer_that_is_not_whole_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: dict[str, Any]
):
    with serving(**fault) as server:
        reach(monkeypatch, server)
        SOURCE_OF_INPUT["cds"](find_account("cds"), MINI, 6, 0).fields(TIMES, tmp_path)
    kept = [len(messages(path)) for path in (tmp_path / "cache" / "retrieved").glob("*.grib")]
    assert kept == ([4, 4] if "missing" in fault else [])


def test_the_newest_answers_are_kept_and_what_dead_runs_left_is_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    folder = tmp_path / "cache" / "retrieved"
    (folder / "run-dead").mkdir(parents=True)
    os.utime(folder / "run-dead", (0, 0))
    monkeypatch.setattr("ai_models_mosaic.inputs.retrieve.KEPT_BYTES", 200_000)
    for number in range(3):
        with scratch() as here:
            with_cache(number, 0, here / "answer", lambda to=here: (to / "answer").write_bytes(bytes(90_000)))
        os.utime(max(folder.glob("*.grib"), key=lambda path: path.stat().st_mtime), (number, number))
    with scratch() as here:
        with_cache(3, 0, here / "answer", lambda: (here / "answer").write_bytes(bytes(90_000)))
    assert [path.stat().st_size for path in folder.iterdir()] == [90_000, 90_000]


def test_without_a_cache_everything_is_asked_for_and_nothing_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("AI_MODELS_MOSAIC_CACHE", "off")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with serving() as server:
        reach(monkeypatch, server)
        for _ in range(2):
            ours("cds", 6)
    assert len(server.asked_for) == 8
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_cache_that_cannot_be_is_said_and_done_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with scratch() as folder:
        with_cache("key", 0, folder / "answer", lambda: (folder / "answer").write_bytes(b""))
        assert folder.parent != tmp_path / "cache"
        assert (folder / "answer").exists()
    assert f"Cannot keep what is fetched in {tmp_path}/cache/retrieved: it is not writable" in caplog.messages


def test_a_local_mars_client_is_handed_the_request_in_its_language(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    script = tmp_path / "mars"
    script.write_text(
        f'#!/bin/sh\ncat $1 >> {tmp_path}/asked\ncp {SAMPLE} "$(sed -n \'s/target="\\(.*\\)"/\\1/p\' $1)"\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("MARS_CLIENT_COMMAND", str(script))
    assert len(ours("mars", 6, (START,))) == 2 * len(messages(SAMPLE))
    surface, upper = (tmp_path / "asked").read_text().split("retrieve,\n")[1:]
    assert surface.splitlines()[:-1] == [
        "date=2026-05-11,",
        "time=12,",
        "param=2t/10u/10v/msl,",
        "grid=6/6,",
        "area=90.0/0.0/-90.0/354.0,",
        "levtype=sfc,",
        "class=ea,",
        "expver=1,",
        "type=an,",
        "stream=oper,",
    ]
    assert "level=50/100/150/200/250/300/400/500/600/700/850/925/1000,\n" in upper


def test_a_file_gives_all_it_holds_whatever_the_times(tmp_path: Path):
    assert [field.message() for field in FileSource(str(SAMPLE)).fields((), tmp_path)] == messages(SAMPLE)


def test_an_answer_that_is_no_grib_is_refused(tmp_path: Path):
    (tmp_path / "page.html").write_text("<html>maintenance</html>")
    with pytest.raises(InputError) as caught:
        FileSource(str(tmp_path / "page.html")).fields((), tmp_path)
    assert str(caught.value) == (
        f"--file {tmp_path}/page.html: expected GRIB messages, got a file that starts with b'<html>maintenance</h'"
    )
