"""``ai-models-mosaic forecast``: what ``ai-models mosaic`` does, without the runner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from running import SAMPLE, Refused, Runner, elsewhere, keys, messages
from standins import KEY, serving

from ai_models_mosaic.cli import main
from ai_models_mosaic.commands.archive_requests import ArchiveRequests
from ai_models_mosaic.commands.config import read_config, write_config
from ai_models_mosaic.commands.forecast_run import parser
from ai_models_mosaic.errors import OptionError, OutputError

MINI = ("--variant", "mini", "--file", str(SAMPLE), "--lead-time", "24")
WITHOUT_THE_RUNNER = """
import sys
sys.modules["ai_models"] = None
from ai_models_mosaic.cli import main
sys.exit(main(sys.argv[1:]))
"""


def without_the_runner(folder: Path, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command where the runner cannot be imported."""
    command = [sys.executable, "-c", WITHOUT_THE_RUNNER, "forecast", *(str(word) for word in words)]
    environment = {**os.environ, **environment}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def forecast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command in this process; gives status, and what was printed."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> Refused | str:
        capsys.readouterr()
        try:
            status = main(["forecast", *(str(word) for word in words)])
        except SystemExit as error:
            status = int(str(error.code))
        shown = capsys.readouterr()
        return Refused(status, shown.err) if status else shown.out

    return run


def test_bytes_requests_and_provenance_are_those_of_the_plugin(run: Runner, tmp_path: Path):
    words = (*MINI, "--num-ensemble-members", 2, "--seed", 3, "--products", "mean@2t", "--expver", "abcd")
    reports = ("--archive-requests", "archive.req", "--dump-provenance", "provenance.json")
    run("mosaic", *words, *reports, "--path", "m{number}.grib", "--products-path", "mean.grib")
    names = sorted(path.name for path in tmp_path.iterdir())
    by_plugin = {name: (tmp_path / name).read_bytes() for name in names}
    for name in names:
        (tmp_path / name).unlink()
    done = without_the_runner(tmp_path, *words, *reports, "--path", "m{number}.grib", "--products-path", "mean.grib")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for name in names:
        found, wanted = (tmp_path / name).read_bytes(), by_plugin[name]
        if name.endswith(".json"):
            found, wanted = (
                {key: value for key, value in json.loads(text).items() if key != "written"} for text in (found, wanted)
            )
        assert found == wanted, name


def test_a_service_is_asked_without_the_runner(tmp_path: Path):
    words = ("--variant", "mini", "--input", "cds", "--input-grid", 6, "--date", "20080426", "--time", 6)
    with serving() as server:
        account = {"CDSAPI_URL": f"{server.url}/api", "CDSAPI_KEY": KEY, "HOME": str(tmp_path)}
        done = without_the_runner(tmp_path, *words, "--lead-time", 24, "--path", "out.grib", **account)
    assert done.returncode == 0, done.stderr
    assert {keys(m, "dataDate", "dataTime") for m in messages(tmp_path / "out.grib")} == {(20080426, 600)}
    assert len(server.asked_for) == 4


@pytest.mark.parametrize(
    "words",
    [
        ("--fields", "--input-grid", "1.5"),
        ("--assets-list",),
        ("--variant", "hres", "--retrieve-requests", "--date", "20260511", "--requests-extra", "use=bc,class=rd"),
        ("--variant", "era5", "--retrieve-requests", "--json", "--date", "20200101", "--retrieve-only-one-date"),
        ("--variant", "era5", "--retrieve-requests", "--dates", "20200101/to/20200103", "--time", "6"),
        ("--variant", "era5", "--retrieve-requests", "--json", "--retrieve-fields-type", "constants"),
    ],
)
def test_information_is_word_for_word_that_of_the_runner(forecast: Any, tmp_path: Path, words: tuple[str, ...]):
    by_runner = elsewhere(tmp_path, "mosaic", *words).stdout
    assert by_runner
    assert forecast(*words) == by_runner


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_archive_requests_of_several_files_are_those_of_the_runner(
    run: Runner, forecast: Any, tmp_path: Path, as_json: tuple[str, ...]
):
    words = (
        *MINI,
        "--path",
        "{step}.grib",
        "--archive-requests",
        "archive",
        "--requests-extra",
        "database=x",
        *as_json,
    )
    run("mosaic", *words)
    by_runner = (tmp_path / "archive").read_text()
    assert forecast(*words) == ""
    assert (tmp_path / "archive").read_text() == by_runner
    assert ("step" in by_runner, by_runner.count("database")) == (True, 2)


def test_a_file_that_one_request_cannot_archive_is_named():
    requests = ArchiveRequests({})
    requests.add({"date": "20200101", "step": "0"}, Path("a.grib"))
    with pytest.raises(OutputError) as caught:
        requests.add({"date": "20200102", "step": "24"}, Path("a.grib"))
    assert str(caught.value) == (
        "--archive-requests: expected one date in a.grib, got 20200101 and 20200102; name files by it in --path"
    )


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--foo", "3"), 2, "unrecognized arguments: --foo 3. All options: ai-models-mosaic forecast --help"),
        (("--lead", "48"), 2, "unrecognized arguments: --lead 48. All options: "),
        (("--seed", "x"), 2, "argument --seed: invalid int value: 'x'. All options: "),
        (("--lead-time", "36"), 2, "--lead-time: expected a multiple of the step of 24 h, got 36"),
        (("--metadata", "step"), 2, "--metadata: expected KEY=VALUE, got 'step'"),
        (("--requests-extra", "a=b"), 2, "--requests-extra: expected --retrieve-requests or --archive-requests with"),
        (("--file", "absent.grib"), 3, "--file absent.grib: there is no such file"),
        (("--checkpoint", "absent.pt"), 4, "--checkpoint absent.pt: there is no such file"),
        (("--path", "absent/out.grib"), 6, "cannot write absent/out.grib: there is no folder absent; create it first"),
        (("--dump-provenance", "absent/a"), 6, "--dump-provenance: cannot write absent/a: there is no folder absent;"),
        (("--archive-requests", "absent/a"), 6, "--archive-requests: cannot write absent/a: there is no folder absent"),
        (("--date", "20080425"), 3, "the input lacks 82 of the 164 fields that a forecast from 2008-04-25 06:00 UTC"),
        (("--config", "absent.toml"), 2, "--config absent.toml: expected a TOML file, got [Errno 2] No such file"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    forecast: Any, tmp_path: Path, words: tuple[str, ...], status: int, message: str
):
    refused = forecast(*MINI, *words)
    assert refused.status == status
    assert message in refused.message
    assert list(tmp_path.iterdir()) == []


def test_help_is_in_groups_and_has_every_option(forecast: Any):
    shown = forecast("--help")
    for title in ("configuration", "start", "length and machine", "result", "ensemble", "engine", "noise", "output"):
        assert f"\n{title}:\n" in shown
    for option in ("--lead-time", "--num-ensemble-members", "--zarr", "--download-assets", "--write-config"):
        assert option in shown


# Configuration.


def test_a_configuration_is_run_and_what_is_typed_wins(forecast: Any, tmp_path: Path):
    (tmp_path / "run.toml").write_text(
        f'variant = "mini"\nfile = "{SAMPLE}"\nlead-time = 240\nseed = 5\nnum-ensemble-members = 2\nno-grib = false\n'
        'output-params = ["2t", "msl"]\nmetadata = ["stream=enfh", "expver=abcd"]\n'
    )
    assert forecast("--config", "run.toml", "--lead-time", 24, "--seed", 0, "--path", "a.grib") == ""
    words = ("--num-ensemble-members", 2, "--output-params", "2t,msl", "--metadata", "stream=enfh", "--expver", "abcd")
    assert forecast(*MINI, *words, "--path", "b.grib") == ""
    assert (tmp_path / "a.grib").read_bytes() == (tmp_path / "b.grib").read_bytes()
    assert {keys(m, "stream", "expver", "number") for m in messages(tmp_path / "a.grib")} == {
        ("enfh", "abcd", 1),
        ("enfh", "abcd", 2),
    }


def test_a_configuration_is_written_of_all_that_was_asked_for_and_reads_back(forecast: Any, tmp_path: Path):
    (tmp_path / "run.toml").write_text('lead-time = 48\npath = "a \\"b\\" {number}.grib"\n')
    words = ("--config", "run.toml", "--lead-time", "24", "--seed", "0", "--resume", "--output-area=-10/110/-45/155")
    words += ("--no-grib", "--zarr", "a.zarr", "--expver", "0001", "--no-assets-sub-directory")
    shown = forecast(*words, "--metadata", "a=b", "--metadata", "c=d", "--patience", "0.5", "--write-config", "n.toml")
    assert shown == "n.toml: to run it, ai-models-mosaic forecast --config n.toml\n"
    assert (tmp_path / "n.toml").read_text().splitlines() == [
        "lead-time = 24",
        "assets-sub-directory = false",
        'path = "a \\"b\\" {number}.grib"',
        'expver = "0001"',
        'metadata = ["a=b", "c=d"]',
        "seed = 0",
        "patience = 0.5",
        "resume = true",
        'output-area = "-10/110/-45/155"',
        "no-grib = true",
        'zarr = "a.zarr"',
    ]
    assert read_config(tmp_path / "n.toml", parser()) == [
        "--lead-time=24",
        "--no-assets-sub-directory",
        '--path=a "b" {number}.grib',
        "--expver=0001",
        "--metadata=a=b",
        "--metadata=c=d",
        "--seed=0",
        "--patience=0.5",
        "--resume",
        "--output-area=-10/110/-45/155",
        "--no-grib",
        "--zarr=a.zarr",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lead_time = 24", "expected names of options such as lead-time, got lead_time"),
        ('config = "other.toml"', "expected names of options such as lead-time, got config"),
        ("[output]\npath = 'a'", "expected a value for output, got a table"),
        ("lead-time 24", "expected a TOML file, got "),
    ],
)
def test_a_configuration_that_means_nothing_is_refused_by_name(tmp_path: Path, text: str, message: str):
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(OptionError) as caught:
        read_config(tmp_path / "run.toml", parser())
    assert str(caught.value).startswith(f"--config {tmp_path}/run.toml: {message}")


def test_a_value_of_a_configuration_is_checked_as_if_typed(forecast: Any, tmp_path: Path):
    (tmp_path / "run.toml").write_text('seed = "x"\n')
    refused = forecast("--config", "run.toml", *MINI)
    assert refused.message.endswith("argument --seed: invalid int value: 'x'. All options: ai-models-mosaic options\n")


def test_a_configuration_is_not_written_over_a_file(tmp_path: Path):
    (tmp_path / "run.toml").write_text("")
    with pytest.raises(OutputError, match=r"run.toml: expected the name of a new file: File exists$"):
        write_config(tmp_path / "run.toml", parser(), ["--seed", "1"])


def test_an_input_beside_a_file_is_refused_and_the_file_may_be_named_as_such(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["forecast", "--variant", "mini", "--file", str(SAMPLE), "--lead-time", "0", "--output-params", "2t"]
    assert main([*words, "--input", "cds"]) == 2
    assert (
        f"--input cds: expected it without --file {SAMPLE}, from which the run would start" in capsys.readouterr().err
    )
    Path("nightly.toml").write_text('input = "cds"\n')
    assert main([*words, "--config", "nightly.toml"]) == 2
    assert "leave one of them out, or say --input file where a configuration has the other" in capsys.readouterr().err
    assert not main([*words, "--config", "nightly.toml", "--input", "file", "--quiet"])
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".grib"] == ["mosaic.grib"]


def test_a_report_that_cannot_be_written_is_an_error_in_words_after_the_forecast(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["forecast", "--variant", "mini", "--file", str(SAMPLE), "--lead-time", "0", "--output-params", "2t"]
    assert main([*words, "--quiet", "--dump-provenance", "/dev/full"]) == 6
    assert capsys.readouterr().err.endswith(
        "--dump-provenance: the forecast is complete, but this is not: cannot write /dev/full: No space left on device\n"
    )
    assert (tmp_path / "mosaic.grib").exists()
