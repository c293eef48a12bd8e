"""What a terminal, a pipe or a cron job sees of the commands."""

import json
import logging
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ai_models.model import Timer
from running import BIN, MINI, SAMPLE, elsewhere

from ai_models_mosaic import __version__
from ai_models_mosaic.forecast.console import hush

LONG = (
    *(*MINI, "--lead-time", 120, "--num-ensemble-members", 4, "--output-params", "2t", "--path", "m.grib"),
    *("--progress-file", "progress"),
)


def own(folder: Path, *words: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "ai-models-mosaic"), *(str(word) for word in words)]
    options = {"capture_output": True, "text": True, "check": False, **options}
    return subprocess.run(command, cwd=folder, **options)  # type: ignore[call-overload, no-any-return]


def as_at_a_terminal() -> None:
    """Jobs in the background of a script do not hear these signals, nor do their children."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def steps(folder: Path) -> int:
    progress = folder / "progress"
    return progress.read_text().count('"step",') if progress.exists() else 0


def stopped_by(number: signal.Signals, folder: Path) -> tuple[int, str]:
    """Status and words of a forecast that gets a signal when it has made some steps."""
    command = [str(BIN / "ai-models"), *(str(word) for word in LONG)]
    with subprocess.Popen(
        command, cwd=folder, stderr=subprocess.PIPE, text=True, preexec_fn=as_at_a_terminal
    ) as process:
        while steps(folder) < 6 and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(number)
        _, said = process.communicate()
    return process.returncode, said


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = elsewhere(folder, *LONG)
    assert done.returncode == 0, done.stderr
    return (folder / "m.grib").read_bytes()


def test_ctrl_c_is_one_line_and_leaves_what_resume_goes_on_with(tmp_path: Path, undisturbed: bytes):
    status, said = stopped_by(signal.SIGINT, tmp_path)
    assert status == 130
    assert "Traceback" not in said
    assert [line for line in said.splitlines() if "interrupted" in line] == [
        f"ai-models mosaic {__version__}: interrupted"
    ]
    last = json.loads((tmp_path / "progress").read_text().splitlines()[-1])
    assert (last["event"], last["exit_status"], last["message"]) == ("failed", 130, "interrupted")
    assert not (tmp_path / "m.grib").exists()
    done = elsewhere(tmp_path, *LONG, "--resume")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "m.grib").read_bytes() == undisturbed


def test_a_terminal_that_hangs_up_ends_a_run_as_a_kill_does(tmp_path: Path, undisturbed: bytes):
    status, said = stopped_by(signal.SIGHUP, tmp_path)
    assert (status, "Traceback" in said) == (-signal.SIGHUP, False)
    done = elsewhere(tmp_path, *LONG, "--resume")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "m.grib").read_bytes() == undisturbed


def test_ctrl_c_in_a_command_of_our_own_is_one_line(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    command = [str(BIN / "ai-models-mosaic"), "inspect", "pipe"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=tmp_path, text=True, preexec_fn=as_at_a_terminal, **pipes)
    # Opening a pipe waits for its other end: when we have it, the command is at work.
    with process, (tmp_path / "pipe").open("wb"):
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate()
    assert (process.returncode, said) == (130, "")
    assert complained == f"ai-models-mosaic {__version__}: interrupted\n"


def test_quiet_says_nothing_when_all_is_well(tmp_path: Path):
    words = (*MINI, "--lead-time", 24, "--num-ensemble-members", 2, "--path", "m.grib", "--quiet")
    words = (*words, "--products", "mean", "--zarr", "m.zarr", "--netcdf", "m.nc")
    done = elsewhere(tmp_path, *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert {path.name for path in tmp_path.iterdir()} >= {"m.grib", "m-mean.grib", "m.zarr", "m.nc"}
    done = elsewhere(tmp_path, *words, "--resume")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = elsewhere(tmp_path, *words, "--seed", "-1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"ai-models mosaic {__version__}: ")


def test_quiet_ends_with_the_run_that_asked_for_it(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    for quiet in (True, False):
        hush(quiet=quiet)
        with Timer(f"quiet {quiet}"):
            pass
    assert [message.split(":")[0] for message in caplog.messages] == ["quiet False"]


def test_a_clock_that_is_set_back_is_no_time_taken(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    hush(quiet=False)
    for title, later in (("set back", 3600.0), ("as ever", -90.0)):
        with Timer(title) as timer:
            timer.start += later
    assert caplog.messages == ["as ever: 1 minute 30 seconds."]


READERS = {
    "help": ("--help",),
    "options": ("options",),
    "inspect": ("inspect", SAMPLE),
    "of a command": ("verify", "-h"),
}


@pytest.mark.parametrize("words", READERS.values(), ids=READERS)
def test_a_reader_that_has_gone_is_no_reason_to_complain(tmp_path: Path, words: tuple[object, ...]):
    reading, writing = os.pipe()
    os.close(reading)
    done = own(tmp_path, *words, capture_output=False, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_requests_for_a_reader_that_has_gone_are_no_reason_to_complain_either(tmp_path: Path):
    reading, writing = os.pipe()
    os.close(reading)
    words = ("mosaic", "--variant", "era5", "--input", "mars", "--date", "20200101", "--retrieve-requests")
    command = [str(BIN / "ai-models"), *words]
    done = subprocess.run(command, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_standard_output_that_is_full_is_a_failure_of_the_output(tmp_path: Path):
    with Path("/dev/full").open("w") as full:
        done = own(tmp_path, "options", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 6
    assert done.stderr == (
        f"ai-models-mosaic {__version__}: standard output: cannot be written: No space left on device\n"
    )


def test_a_log_that_nobody_reads_stops_no_forecast_and_changes_no_status(tmp_path: Path):
    reading, writing = os.pipe()
    os.close(reading)
    command = [str(BIN / "ai-models"), *map(str, (*MINI, "--lead-time", 24, "--path", "m.grib"))]
    done = subprocess.run(command, cwd=tmp_path, stdout=writing, stderr=writing, check=False)
    assert (done.returncode, (tmp_path / "m.grib").is_file()) == (0, True)
    command[command.index(str(SAMPLE))] = "absent.grib"
    assert subprocess.run(command, cwd=tmp_path, stdout=writing, stderr=writing, check=False).returncode == 3
    os.close(writing)


ASCII = {**os.environ, "PYTHONIOENCODING": "ascii"}


def test_a_terminal_that_knows_ascii_only_gets_the_rest_escaped(tmp_path: Path):
    done = own(tmp_path, "options", env=ASCII)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"mini (24 h, 6\xb0, bundled)" in " ".join(done.stdout.split())
    done = own(tmp_path, "inspect", SAMPLE, env=ASCII)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"  grid     regular_ll 60 \xd7 31" in done.stdout.splitlines()
    done = own(tmp_path, "--help", env=ASCII)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"ai-models mosaic \u2026" in done.stdout


def test_names_of_files_that_no_encoding_has_are_shown_escaped(tmp_path: Path):
    name = os.fsdecode(b"f\xffn.grib")
    (tmp_path / name).write_bytes(SAMPLE.read_bytes())
    done = own(tmp_path, "inspect", name)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(r"f\udcffn.grib: 164 GRIB messages")
    done = elsewhere(tmp_path, "mosaic", "--variant", "mini", "--file", "ä.grib", env=ASCII)
    assert done.returncode == 3
    assert r"--file \xe4.grib: there is no such file" in done.stderr
