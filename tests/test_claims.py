"""The page of the paper's claims, made in full from a small world, and what it says of numbers that are known."""

import importlib
import re
import subprocess
import sys

import earthkit.data
import numpy as np
import pytest
import xarray
import zarr_cases
from running import ROOT

from ai_models_mosaic.inputs.states import read_initial_state

TRUTH = ROOT / "examples" / "mini-truth.grib"


@pytest.fixture
def module(monkeypatch):
    """Imports a module from beside the benchmarks."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Four days of the samples as the test run, and as a year of training over and over."""
    folder = tmp_path_factory.mktemp("world")
    states = read_initial_state(earthkit.data.from_source("file", str(TRUTH)), zarr_cases.GRID, zarr_cases.LAGS)
    test = xarray.concat([zarr_cases.sample_dataset(), zarr_cases.dataset_of(states)], "time")
    zarr_cases.stored(test, folder, "test.zarr")
    training = test[["geopotential", "temperature", "2m_temperature", "10m_u_component_of_wind", "specific_humidity"]]
    training = training.sel(level=[500, 700, 850]).isel(time=np.arange(41) % 4)
    times = np.datetime64("2001-01-01T06", "ns") + np.arange(41) * np.timedelta64(10, "D")
    zarr_cases.stored(training.assign_coords(time=times), folder, "train-1.zarr")
    return folder


@pytest.fixture(scope="module")
def output(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("claims")
    words = ("--world", world, "--output", folder, "--dates", 2, "--members", 2, "--days", 1, "--no-pictures")
    command = [sys.executable, str(ROOT / "benchmarks" / "claims.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_page_says_what_was_run_and_all_claims_with_their_numbers(output):
    page = (output / "claims.html").read_text(encoding="utf-8")
    for said in (
        "2 dates from 2008-04-26 to 2008-04-27, 2 members, 1 days, 6°, steps of 24 h",
        "<th>twin<td>mini-twin, SHA-256 ",
    ):
        assert said in page
    assert re.findall("<h2>(.*?)</h2>", page) == [
        "Where it falls short",
        "Spectra of members",
        "Spread and error",
        "Ranks",
        "Skill",
        "A deterministic twin blurs",
        "Members against the twin",
        "Pictures",
        "What was run",
    ]
    scores = (output / "verification" / "scores.csv").read_text()
    ratio = float(re.search(r"^mini,spread_skill,geopotential_500,\w*,24,([\d.]+),", scores, re.MULTILINE)[1])
    assert f"<tr><th>z500<td>{ratio:.2f} (" in page.replace(" class=short", "")


def test_dates_that_were_forecast_are_not_forecast_again(module, output, world):
    claims = module("claims")
    dates = claims.initial_dates(world / "test.zarr", 1, 2)
    before = {path: path.stat().st_mtime_ns for path in (output / "mini").glob("*.grib")}
    assert len(before) == 2
    claims.forecast(output / "mini", world / "test.zarr", dates, 1, "--num-ensemble-members", "2")
    assert {path: path.stat().st_mtime_ns for path in (output / "mini").glob("*.grib")} == before


def lines(**columns):
    """The same of every field, at 24 and 72 h."""
    names = (
        "geopotential_500",
        "temperature_850",
        "2m_temperature",
        "10m_u_component_of_wind",
        "specific_humidity_700",
    )
    return [
        {"forecast": "mini", "channel": name, "lead_hours": hours}
        | {key: value if isinstance(value, dict) else str(value) for key, value in columns.items()}
        for name in names
        for hours in ("24", "72")
    ]


@pytest.fixture
def results(module, tmp_path):
    table = module("claims_table")
    scores = [
        *lines(score="spread_skill", value=0.85, low=0.8, high=0.95),
        *lines(score="crps_fair", value=100, low=98, high=102),
        *lines(score="crps_skill_climatology", value=0.25, low=0.2, high=0.3),
        *lines(score="rmse_mean", value=200, low=190, high=210),
        *lines(score="rmse_climatology", value=400, low=390, high=410),
    ]
    scores[5]["value"] = "1.0"
    scores[21]["value"] = "-0.1"
    spectra = [
        line
        for wavenumber, ratio in ((2, 9.0), (3, 0.9), (8, 1.1), (15, 1.2), (16, 0.1))
        for line in lines(
            wavenumber=wavenumber, members_ratio=ratio, members_ratio_low=ratio - 0.1, members_ratio_high=ratio + 0.1
        )
    ]
    ranks = [
        line
        for frequency in (0.8, 1.0, 1.2)
        for line in lines(relative_frequency=frequency, low=frequency - 0.15, high=frequency + 0.25)
    ]
    calibrated = lines(spread_skill={"before": [0.88, 0.85, 0.91], "after": [1.02, 0.98, None]})
    calibrated[1]["spread_skill"] = {"before": [0.88, 0.85, 0.91], "after": [0.92, 0.9, 0.95]}
    return table.Results(scores, spectra, ranks, calibrated, tmp_path)


def test_numbers_are_held_against_what_is_aimed_at(results):
    power, spread, ranks, skill = (
        list(cells) for cells in (results.power(), results.spread(), results.ranks(), results.skill())
    )
    assert (power[0].text, power[0].reached) == ("0.90 (0.80–1.00) … 1.20 (1.10–1.30)", False)
    assert [(cell.field, cell.lead_hours) for cell in spread if cell.reached] == [("2m_temperature", 72)]
    assert (ranks[0].text, ranks[0].reached) == ("0.80 … 1.20, 1 of 3 not 1 within the interval", False)
    assert skill[0].text == "100, +25 % (+20 to +30)"
    assert [cell.field for cell in skill if not cell.reached] == ["geopotential_500"]
    calibrated = list(results.calibrated_spread())
    assert calibrated[0].text == "0.88 → 1.02 (0.98–nan)"
    assert [cell.lead_hours for cell in calibrated if not cell.reached] == [72]
    assert results.last_days_of_skill() == {"z500": 1, "t850": 3, "2t": 3, "10u": 3, "q700": 3}


def test_the_page_names_what_falls_short(module, results):
    page = module("claims_page").page(results, {"weights": "a & b"})
    assert "<b>Skill</b>: z500 at day 3<" in page
    assert "<td class=short>100, -10 % (+20 to +30)" in page
    assert "<th>weights<td>a &amp; b" in page
    assert "1 of 10 (aim: 0.9 to 1.1)" in page
    assert "<h2>Spread and error, calibrated</h2>" in page
    assert "9 of 10 (aim: 0.93 to 1.07)" in page
    assert "twin blurs" not in page
