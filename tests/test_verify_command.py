"""The command ``verify``, from files to a folder with tables, a summary and pictures."""

import csv
import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
from miniature_cases import days, fields_of, forecast_dataset, stored, truth_dataset
from PIL import Image

from ai_models_mosaic.cli import main
from ai_models_mosaic.verification.plan import find_channels

CHANNELS = "z500,t850,2t"
DOCUMENTATION = Path(__file__).parent.parent / "docs" / "verification.md"
TABLES = {
    "scores.csv",
    "spectra.csv",
    "scales.csv",
    "rank_histogram.csv",
    "pit.csv",
    "reliability.csv",
    "comparison.csv",
    "summary.json",
    "overview.txt",
}
PICTURES = {
    "scores.png",
    "scorecard.png",
    "comparison.png",
    "crps_by_scale.png",
    "error_growth_members.png",
    "error_growth_one.png",
    "pit.png",
    "spread.png",
    "spectra_z500.png",
    "rank_histograms_members.png",
    "reliability_members.png",
    "reliability_one.png",
    "plume_members.png",
    "plume_one.png",
    *(f"maps_{name}_{channel}.png" for name in ("members", "one") for channel in CHANNELS.split(",")),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    dates = days(8)
    forecasts = forecast_dataset(dates)
    stored(forecasts, folder / "members.zarr")
    stored(forecasts.isel(number=0, drop=True), folder / "single.zarr")
    stored(truth_dataset(days(14)), folder / "truth.zarr")
    stored(truth_dataset(days(400)), folder / "training.zarr")
    return folder


def run(data: Path, output: Path, *words: object) -> int:
    return main(
        [
            *("verify", "--forecast", f"members={data / 'members.zarr'}", "--truth", str(data / "truth.zarr")),
            *("--channels", CHANNELS, "--output", str(output), "--bootstrap", "20", "--jobs", "1", *map(str, words)),
        ]
    )


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two forecasts, a climatology, everything."""
    output = tmp_path_factory.mktemp("report") / "new"
    status = run(
        data,
        output,
        *("--forecast", f"one={data / 'single.zarr'}", "--climatology", data / "training.zarr"),
        *("--spectra", "z500", "--case", "2020-01-03T00", "--point", -29, -61),
    )
    assert status == 0
    return output


def test_everything_is_in_the_folder_and_nothing_else(folder: Path):
    assert {path.name for path in folder.iterdir()} == TABLES | PICTURES


def test_pictures_are_pictures(folder: Path):
    for name in PICTURES:
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 300
            # Not blank.
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20


def test_the_tables_are_tidy(folder: Path):
    rows = table(folder / "scores.csv")
    assert list(rows[0]) == [
        *("forecast", "score", "channel", "units", "lead_hours", "value", "low", "high", "dates", "members")
    ]
    keys = [(row["forecast"], row["score"], row["channel"], row["lead_hours"]) for row in rows]
    assert len(set(keys)) == len(keys)
    assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in rows if row["score"] == "bias")
    scores = {name: {row["score"] for row in rows if row["forecast"] == name} for name in ("members", "one")}
    assert scores["members"] - scores["one"] == {
        *("spread", "spread_skill", "crps_plain", "brier_fair_below_q10", "brier_fair_above_q90"),
        *("pit_mean", "pit_spread"),
    }
    assert {row["forecast"] for row in table(folder / "rank_histogram.csv")} == {"members"}
    assert {row["channel"] for row in table(folder / "spectra.csv")} == {"geopotential_500"}
    assert {(row["forecast"], row["reference"]) for row in table(folder / "comparison.csv")} == {("one", "members")}


def test_differences_have_intervals_and_a_mark_where_these_exclude_zero(folder: Path):
    rows = table(folder / "comparison.csv")
    assert list(rows[0])[5:] == [
        *("ratio", "low", "high", "difference", "difference_low", "difference_high", "units", "significant", "dates")
    ]
    values = {
        (row["forecast"], row["score"], row["channel"], row["lead_hours"]): float(row["value"])
        for row in table(folder / "scores.csv")
    }
    for row in rows:
        place = (row["score"], row["channel"], row["lead_hours"])
        mine, other = (values[(name, *place)] for name in ("one", "members"))
        assert float(row["ratio"]) == pytest.approx(mine / other, rel=1e-6)
        assert float(row["difference"]) == pytest.approx(mine - other, rel=1e-6, abs=1e-9)
        low, high = float(row["difference_low"]), float(row["difference_high"])
        assert row["significant"] == ("better" if high < 0 else "worse" if low > 0 else "")
    assert {row["score"] for row in rows} == {
        *("rmse_mean", "crps_fair", "energy_score_fair", "rmse_members"),
        *("brier_below_q10", "brier_above_q90"),
    }
    # A single member's error is worse than that of the mean of four, beyond doubt.
    assert {row["significant"] for row in rows if row["score"] == "rmse_mean"} == {"worse"}


def test_any_forecast_may_be_the_one_that_others_are_compared_with(data: Path, tmp_path: Path):
    words = ("--no-pictures", "--spectra", "none", "--forecast", f"one={data / 'single.zarr'}")
    assert run(data, tmp_path, *words, "--against", "one") == 0
    rows = table(tmp_path / "comparison.csv")
    assert {(row["forecast"], row["reference"]) for row in rows} == {("members", "one")}
    assert {row["significant"] for row in rows if row["score"] == "rmse_mean"} == {"better"}
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["against"] == "one"


def test_bars_of_consistency_lie_round_what_was_forecast(folder: Path):
    for row in table(folder / "reliability.csv"):
        if row["forecast"] == "members" and row["consistency_low"]:
            low, high = float(row["consistency_low"]), float(row["consistency_high"])
            assert low - 1e-9 <= float(row["forecast_probability"]) <= high + 1e-9


def test_errors_by_scale_are_beside_what_they_grow_to(folder: Path):
    rows = table(folder / "scales.csv")
    row = next(row for row in rows if (row["forecast"], row["lead_hours"], row["wavenumber"]) == ("members", "48", "2"))
    saturation = float(row["members_error_power"]) / float(row["saturated_power"])
    assert float(row["members_saturation"]) == pytest.approx(saturation, rel=1e-6)
    assert float(row["mean_error_power"]) < float(row["members_error_power"])
    assert float(row["crps_fair_low"]) <= float(row["crps_fair"]) <= float(row["crps_fair_high"])


def test_the_summary_says_what_was_verified_and_how(folder: Path, data: Path):
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["sources"]["truth"] == [str(data / "truth.zarr")]
    assert summary["intervals"]["replicates"] == 20
    members = summary["forecasts"]["members"]
    assert (members["dates"], members["members"], members["lead_hours"]) == (8, 4, [24, 48, 72])
    assert (members["first_date"], members["block_length_dates"]) == ("2020-01-01T00:00", 2)
    assert members["skipped"] == {}
    rows = {
        (row["score"], row["channel"], row["lead_hours"]): float(row["value"])
        for row in table(folder / "scores.csv")
        if row["forecast"] == "members"
    }
    found = members["scores"]["crps_fair"]["temperature_850"]["48"]
    assert found == pytest.approx(rows["crps_fair", "temperature_850", "48"], rel=1e-5)
    low, high = members["spectral_ratio"]["members_over_truth_wavenumbers_1_to_15"]["geopotential_500"]["48"]
    assert 0 < low < high < 2


def test_the_overview_has_the_numbers_of_the_tables(folder: Path):
    lines = (folder / "overview.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "members: 8 initial dates, 4 members"
    assert lines[1].split() == ["lead", "RMSE", "persistence", "climatology", "CRPS", "spread/skill"]
    rows = {
        row["score"]: float(row["value"])
        for row in table(folder / "scores.csv")
        if (row["forecast"], row["channel"], row["lead_hours"]) == ("members", "temperature_850", "48")
    }
    (line,) = [
        line for line in lines[: lines.index("one: 8 initial dates, 1 member")] if "t850" in line and " 48 h" in line
    ]
    names = ("rmse_mean", "rmse_persistence", "rmse_climatology", "crps_fair", "spread_skill")
    assert line.split()[-5:] == [f"{rows[name]:.4g}" for name in names]
    assert [line.split()[-1] for line in lines if line.startswith("t850")][-1] == "–"


def test_the_same_command_writes_the_same_tables_again(data: Path, tmp_path: Path):
    for name in ("a", "b"):
        assert run(data, tmp_path / name, "--no-pictures", "--spectra", "none") == 0
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {"scores.csv", "rank_histogram.csv", "pit.csv", "summary.json", "overview.txt"}
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_folder_has_the_files_of_one_report(data: Path, tmp_path: Path):
    own = tmp_path / "notes.csv"
    own.write_text("mine")
    words = ("--spectra", "none", "--channels", "2t")
    assert (
        run(
            data, tmp_path, *words, "--forecast", f"one={data / 'single.zarr'}", "--climatology", data / "training.zarr"
        )
        == 0
    )
    assert {"comparison.csv", "reliability.csv", "maps_one_2t.png"} <= {path.name for path in tmp_path.iterdir()}
    assert run(data, tmp_path, *words, "--no-pictures") == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"notes.csv", "scores.csv", "rank_histogram.csv", "pit.csv", "summary.json", "overview.txt"}
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary["files"] == sorted(names - {"notes.csv", "summary.json"})
    summary["files"] = ["../notes.csv", "notes.csv.bak", 1]
    (tmp_path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    assert run(data, tmp_path, *words, "--no-pictures") == 0
    assert own.read_text() == "mine"


def test_leads_without_truth_are_told(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    short = stored(truth_dataset(days(9)), tmp_path / "short.zarr")
    with caplog.at_level(logging.WARNING):
        assert run(data, tmp_path / "out", "--no-pictures", "--truth", short) == 0
    assert "members: skipped fields without truth at the valid time: 9" in caplog.messages
    assert "No --climatology: no skill against it, no anomaly correlation, no events" in caplog.messages
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["forecasts"]["members"]["skipped"] == {"fields without truth at the valid time": 9}


def refusal(capsys: pytest.CaptureFixture[str], data: Path, output: Path, *words: object) -> str:
    assert run(data, output, *words) in (2, 3)
    assert not output.exists()
    return capsys.readouterr().err


def test_truth_on_another_grid_needs_leave_to_regrid(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    values = fields_of(find_channels(["2t"])[0], range(14)).repeat(2, axis=1).repeat(2, axis=2)[:, :, :13]
    fine = truth_dataset(days(14))[["2m_temperature"]].isel(latitude=0, longitude=0, drop=True)
    fine = fine.assign(**{"2m_temperature": (("time", "longitude", "latitude"), values)}).assign_coords(
        longitude=np.arange(24) * 15.0, latitude=np.arange(13) * 15.0 - 90
    )
    path = stored(fine, tmp_path / "fine.zarr")
    words = ("--truth", path, "--channels", "2t", "--no-pictures")
    message = refusal(capsys, data, tmp_path / "out", *words)
    assert (
        "the truth is on 24 × 13 points (15°), where 12 × 7 points (30°) was expected. --regrid of the command maps"
        in message
    )
    assert run(data, tmp_path / "out", *words, "--regrid") == 0


def test_options_that_cannot_be_honoured_are_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output = tmp_path / "out"
    for words, expected in {
        (
            "--channels",
            "z5",
        ): "--channels: expected some of 2t, 10u, 10v, msl, z, q, t, u, v, w, or one level such as z500, got 'z5'",
        ("--point", 95, 0): "--point: expected a latitude and a longitude in degrees, got 95 0",
        ("--case", "tomorrow"): "--case: expected a date such as 2020-01-31T00; got tomorrow",
        ("--lead-times", "a"): "--lead-times: expected numbers with commas between them, got a",
        ("--forecast", "members=x.grib"): "--forecast: expected a name of its own and a path, NAME=PATH; got members=x",
        ("--forecast", "=x"): "--forecast: expected a name of its own and a path",
        ("--block-length", "99"): "expected blocks of at most all 8 dates, got 99",
        ("--events", "1.5"): "expected quantiles between 0 and 1, got 1.5",
        (
            "--truth",
            "x.grib",
            str(data / "truth.zarr"),
        ): "--truth: expected Zarr stores and NetCDF files, or GRIB files, got both",
        ("--climatology", "x.grib"): "--climatology: expected Zarr stores (.zarr) or NetCDF files of a training period",
        ("--climatology", str(data / "truth.zarr")): "training period of a year or more; got 14 times over 13 days",
        ("--forecast", "absent.zarr"): "absent.zarr cannot be opened as a Zarr store",
        ("--forecast", "absent"): "absent: expected a GRIB file, a folder of files",
        ("--against", "nobody"): "--against: expected the name of a forecast, members; got nobody",
        ("--lead-times", "24.5"): "--lead-times: expected whole hours above 0, such as 24,120, got 24.5",
        ("--lead-times", "nan"): "--lead-times: expected whole hours above 0, such as 24,120, got nan",
        ("--seed", -1): "expected a seed from 0 to 2**64 - 1, got -1",
        ("--lead-times", "96"): "has none of the lead times [96] h: it has [24, 48, 72]",
    }.items():
        assert expected in refusal(capsys, data, output, *words)


def test_a_folder_that_cannot_be_written_is_told(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").write_text("in the way")
    assert run(data, tmp_path / "file", "--no-pictures", "--spectra", "none") == 6
    assert f"cannot write to {tmp_path / 'file'}" in capsys.readouterr().err


def test_a_single_date_is_verified_without_intervals(data: Path, tmp_path: Path):
    path = stored(forecast_dataset(days(1)), tmp_path / "one.zarr")
    status = main(
        [
            *("verify", "--forecast", path, "--truth", str(data / "truth.zarr"), "--output", str(tmp_path / "out")),
            *("--channels", "2t", "--bootstrap", "10", "--jobs", "1"),
        ]
    )
    assert status == 0
    rows = table(tmp_path / "out" / "scores.csv")
    assert {(row["low"], row["high"], row["dates"]) for row in rows} == {("", "", "1")}


def test_events_of_a_single_date_are_verified_without_intervals(data: Path, tmp_path: Path):
    path = stored(forecast_dataset(days(1)), tmp_path / "one.zarr")
    words = ("--forecast", path, "--truth", data / "truth.zarr", "--climatology", data / "training.zarr")
    assert (
        main(["verify", *map(str, words), *("--channels", "2t", "--jobs", "1", "--output", str(tmp_path / "out"))]) == 0
    )
    rows = table(tmp_path / "out" / "reliability.csv")
    assert {(row["low"], row["consistency_low"], row["dates"]) for row in rows} == {("", "", "1")}
    assert (tmp_path / "out" / "reliability_one.png").is_file()


def test_a_case_that_is_not_there_is_told(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    words = ("--no-pictures", "--spectra", "none", "--channels", "2t")
    assert run(data, tmp_path / "a", *words, "--case", "2020-01-03T09") == 0
    told = (
        "members: skipped maps and plumes of 2020-01-03 09:00:00 UTC, which was not verified "
        "(the nearest is 2020-01-03 00:00:00): 1"
    )
    assert told in caplog.messages
    caplog.clear()
    assert run(data, tmp_path / "b", *words, "--case", "2020-01-03T01+01:00") == 0
    assert not [message for message in caplog.messages if "maps and plumes" in message]


def test_the_example_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (program,) = re.findall(
        r"^```python\n(.*?)^```$", DOCUMENTATION.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    monkeypatch.chdir(tmp_path)
    exec(program, {})  # noqa: S102
    rows = table(tmp_path / "report" / "scores.csv")
    assert {row["dates"] for row in rows} == {"4"}
    spread = [float(row["value"]) for row in rows if row["score"] == "spread_skill"]
    assert spread == pytest.approx([1.0] * 4, abs=0.05)
