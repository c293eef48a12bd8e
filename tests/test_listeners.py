"""Who else is told of a run: metrics for Prometheus, a message at its end, a log in JSON."""

from __future__ import annotations

import json
import logging
import os
import signal
import stat
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest
from listening import listening
from prometheus_client.parser import text_string_to_metric_families
from running import BIN, MINI, Runner, elsewhere
from steps import forecast_step

from ai_models_mosaic import __version__, load_model, open_input
from ai_models_mosaic.errors import InputError, OptionError
from ai_models_mosaic.forecast import notices
from ai_models_mosaic.forecast.bulletin import EVERY_S, Bulletin, RunStatus, metrics_text
from ai_models_mosaic.forecast.listeners import Listeners
from ai_models_mosaic.forecast.notices import post
from ai_models_mosaic.forecast.options import parse_options
from ai_models_mosaic.forecast.setup import ForecastSetup
from ai_models_mosaic.wording.log_lines import JsonLines

SECRET = "T0-PW-7f3a"  # noqa: S105
DAY = (*MINI, "--lead-time", 24, "--path", "out.grib")
PREFIX = "ai_models_mosaic_"


def metrics(path: Path) -> dict[str, float]:
    """Values by name without the prefix, of a file that Prometheus takes, all of it explained."""
    families = list(text_string_to_metric_families(path.read_text()))
    assert {(family.type, bool(family.documentation)) for family in families} == {("gauge", True)}
    assert all(len(family.samples) == 1 and family.name.startswith(PREFIX) for family in families)
    return {family.name.removeprefix(PREFIX): family.samples[0].value for family in families}


# Metrics.


def test_a_file_of_metrics_says_how_the_last_run_went(run: Runner):
    before = time.time()
    run(*DAY, "--num-ensemble-members", 2, "--metrics-file", "m.prom", "--zarr", "out.zarr")
    found = metrics(run.path("m.prom"))
    initial = datetime(2008, 4, 26, 6, tzinfo=timezone.utc).timestamp()
    stored = sum(path.stat().st_size for path in run.path("out.zarr").rglob("*") if path.is_file())
    assert (
        found.items()
        >= {
            "run_info": 1,
            "run_active": 0,
            "run_exit_status": 0,
            "run_initial_times_begun": 1,
            "run_initial_times_complete": 1,
            "run_initial_times_failed": 0,
            "run_initial_timestamp_seconds": initial,
            "run_valid_timestamp_seconds": initial + 86_400,
            "run_lead_time_seconds": 86_400,
            "run_members": 2,
            "run_steps": 1,
            "run_member_steps": 2,
            "run_member_steps_done": 2,
            "run_written_bytes": run.path("out.grib").stat().st_size + stored,
        }.items()
    )
    start, end, last = (found[f"{name}_timestamp_seconds"] for name in ("run_start", "run_end", "last_success"))
    assert before - 1e-3 <= start <= end <= time.time() + 1e-3
    assert last == end
    assert found["run_member_step_seconds"] > 0
    assert {"version": __version__} in [
        family.samples[0].labels for family in text_string_to_metric_families(run.path("m.prom").read_text())
    ]
    # For another user, as node exporter is.
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(run.path("m.prom").stat().st_mode) == 0o666 & ~umask
    # One that is complete already is a success, and one that fails keeps when the last success was.
    run(*DAY, "--num-ensemble-members", 2, "--metrics-file", "m.prom", "--zarr", "out.zarr", "--resume")
    again = metrics(run.path("m.prom"))
    assert (again["run_exit_status"], again["run_initial_times_complete"]) == (0, 1)
    assert again["run_written_bytes"] == found["run_written_bytes"]
    assert run.refused("mosaic", "--variant", "mini", "--file", "absent", "--metrics-file", "m.prom").status == 3
    failed = metrics(run.path("m.prom"))
    assert (failed["run_exit_status"], failed["last_success_timestamp_seconds"]) == (
        3,
        again["last_success_timestamp_seconds"],
    )
    assert "run_valid_timestamp_seconds" not in failed
    assert sorted(path.name for path in run.folder.iterdir() if "partial" in path.name) == []


def test_metrics_that_cannot_be_kept_are_refused_before_the_forecast(run: Runner):
    refused = run.refused(*DAY, "--metrics-file", "absent/m.prom")
    assert refused.status == 6
    assert refused.message.endswith(
        "--metrics-file absent/m.prom: cannot write absent/m.prom: No such file or directory\n"
    )
    refused = run.refused(*DAY, "--metrics-file", "m.txt")
    assert refused.status == 2
    assert "--metrics-file: expected a name that ends in .prom, got 'm.txt'" in refused.message


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_metrics_follow_a_run_that_goes_on_with_another(tmp_path: Path):
    clock, path = Clock(), tmp_path / "m.prom"
    bulletin = Bulletin(Listeners(metrics_file=path), "program", clock)
    bulletin.check()
    assert metrics(path)["run_active"] == 1
    assert "run_exit_status" not in metrics(path)
    bulletin.begin(datetime(2020, 2, 29, 18), members=4, steps=3, done=5)
    for member, seconds in ((2, 4), (3, 2), (4, EVERY_S)):
        clock.now += seconds
        bulletin.advance(forecast_step(2, 48, (member,)))
        if member < 4:
            # It is written every so often only.
            assert metrics(path)["run_member_steps_done"] == 5
    found = metrics(path)
    assert (found["run_member_steps"], found["run_member_steps_done"]) == (12, 8)
    assert found["run_member_step_seconds"] == pytest.approx((6 + EVERY_S) / 3, rel=1e-5)
    assert (
        found["run_valid_timestamp_seconds"] == datetime(2020, 2, 29, 18, tzinfo=timezone.utc).timestamp() + 48 * 3600
    )
    # Step 0 is no work.
    bulletin.begin(datetime(2020, 3, 1), members=4, steps=3, done=0)
    bulletin.advance(forecast_step(0, 0, (1, 2, 3, 4)))
    clock.now += EVERY_S
    bulletin.advance(forecast_step(1, 24, (1, 2)))
    found = metrics(path)
    assert (found["run_initial_times_begun"], found["run_member_steps_done"]) == (2, 2)
    assert found["run_member_step_seconds"] == EVERY_S / 2


def test_metrics_that_can_no_longer_be_written_are_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder, clock = tmp_path / "m", Clock()
    folder.mkdir()
    bulletin = Bulletin(Listeners(metrics_file=folder / "m.prom"), "program", clock)
    bulletin.check()
    (folder / "m.prom").unlink()
    folder.rmdir()
    for _ in range(2):
        clock.now += EVERY_S
        bulletin.advance(forecast_step(1, 24, (1,)))
    bulletin.close(0)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.message.endswith("No such file or directory; nothing more is written there")


def test_numbers_keep_what_they_say():
    text = metrics_text(RunStatus("program", started=1_795_674_688.087798, seconds_per_member_step=1e-4))
    assert "_start_timestamp_seconds 1795674688.087798\n" in text
    assert "_member_step_seconds 0.0001\n" in text
    assert "_run_members 0\n" in text


# A message at the end.


def test_the_end_of_a_run_is_posted_without_what_is_secret(run: Runner, caplog: pytest.LogCaptureFixture):
    with listening() as server:
        url = server.url(f"/services/{SECRET}?token={SECRET}", user=f"me:{SECRET}@")
        run("--debug", *DAY, "--num-ensemble-members", 2, "--notify", url, "--dump-provenance", "dump.json")
    (body,), (head,) = server.bodies, server.heads
    assert (
        body.items()
        >= {
            "event": "end",
            "exit_status": 0,
            "message": "2 members × 1 step from 2008-04-26 06 UTC, complete; 1 file",
            "program": "ai-models mosaic",
            "version": __version__,
            "initial_time": "2008-04-26T06:00:00",
            "initial_times_complete": 1,
            "initial_times_failed": 0,
            "members": 2,
            "steps": 1,
            "files": ["out.grib"],
        }.items()
    )
    assert datetime.fromisoformat(body["started"]) <= datetime.fromisoformat(body["ended"])
    assert head["path"] == f"/services/{SECRET}?token={SECRET}"
    assert head["authorization"].startswith("Basic ")
    assert head["content-type"] == "application/json"
    assert SECRET not in json.dumps(body) + caplog.text
    for path in run.folder.iterdir():
        assert SECRET.encode() not in path.read_bytes(), path


def test_a_failure_is_posted_with_its_status_and_words(run: Runner):
    with listening() as server:
        notify = ("--notify", server.url())
        for words, status in (
            ((*MINI, "--lead-time", 25), 2),
            (("mosaic", "--variant", "mini", "--file", f"http://me:{SECRET}@127.0.0.1:9/x.zarr"), 3),
            ((*MINI, "--path", "absent/out.grib"), 6),
        ):
            assert run.refused(*words, *notify).status == status
        several = (*MINI, "--lead-time", 24, "--dates", "20080425/to/20080426", "--path", "{dataDate}.grib")
        assert run.refused(*several, *notify).status == 9
    assert [(body["event"], body["exit_status"]) for body in server.bodies] == [
        ("failed", status) for status in (2, 3, 6, 9)
    ]
    assert "--lead-time" in server.bodies[0]["message"]
    assert SECRET not in json.dumps(server.bodies)
    assert (server.bodies[3]["initial_times_complete"], server.bodies[3]["initial_times_failed"]) == (1, 1)


def test_a_server_that_is_busy_is_asked_again_and_one_that_refuses_is_not(caplog: pytest.LogCaptureFixture):
    pauses: list[float] = []
    with listening(503, 429, 200) as server:
        assert post(server.url(), {"a": 1}, pauses.append)
    assert (server.bodies, pauses, caplog.messages) == ([{"a": 1}] * 3, [1.0, 4.0], [])
    for status in (404, 302):
        with listening(status) as server:
            assert not post(server.url(f"/{SECRET}"), {}, pauses.append)
        assert (len(server.bodies), len(pauses)) == (1, 2)
        assert caplog.messages.pop() == (
            f"--notify: http://127.0.0.1:{server.port} was not told how the run ended: it answered with HTTP status {status}"
        )
        caplog.clear()


def test_a_server_that_is_silent_or_gone_is_given_up(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    pauses: list[float] = []
    monkeypatch.setattr(notices, "ANSWER_S", 0.05)
    with listening(silent=True) as server:
        assert not post(server.url(f"/{SECRET}"), {}, pauses.append)
    assert caplog.messages[-1].endswith(": no answer within 0.05 s")
    assert not post(server.url(f"/{SECRET}"), {}, pauses.append)
    assert caplog.messages[-1] == (
        f"--notify: http://127.0.0.1:{server.port} was not told how the run ended: Connection refused"
    )
    assert (len(pauses), len(caplog.messages)) == (4, 2)


def test_a_message_that_does_not_arrive_changes_no_status(run: Runner, caplog: pytest.LogCaptureFixture):
    with listening(404) as server:
        run(*DAY, "--notify", server.url())
        assert run.refused(*DAY, "--notify", server.url(), "--output-steps", 48).status == 2
    warned = [record.levelname for record in caplog.records if record.name == notices.__name__]
    assert (len(server.bodies), warned) == (2, ["WARNING"] * 2)
    assert run.path("out.grib").is_file()


@pytest.mark.parametrize("address", ["ftp://host/x", "file:///etc/passwd", "host/x", "http://", "http://[x", ""])
def test_other_addresses_are_refused_and_not_shown(address: str):
    with pytest.raises(OptionError) as caught:
        parse_options(["--notify", address])
    assert str(caught.value) == "--notify: expected an address such as https://host/path, of http or https"


def test_of_several_processes_the_first_tells(monkeypatch: pytest.MonkeyPatch):
    for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with listening() as server:
        options = parse_options(["--variant", "mini", "--notify", server.url()])
        for rank in ("1", "0"):
            monkeypatch.setenv("RANK", rank)
            with pytest.raises(InputError):
                ForecastSetup(options, "file", "absent.grib")
            assert len(server.bodies) == (rank == "0")


def test_a_program_may_have_them_too(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    model = load_model("mini")
    forecast = model.forecast(open_input(MINI[-1], model), members=1, lead_time_hours=24)
    with listening() as server:
        forecast.write(tmp_path / "out.grib", metrics_file=tmp_path / "m.prom", notify=server.url())
    assert metrics(tmp_path / "m.prom")["run_exit_status"] == 0
    assert [(body["event"], body["program"]) for body in server.bodies] == [("end", "ai_models_mosaic")]


SIGNALLED = """
import os, signal, sys, time
from pathlib import Path
from ai_models_mosaic.forecast.bulletin import Bulletin
from ai_models_mosaic.forecast.endings import told
from ai_models_mosaic.forecast.listeners import Listeners
from ai_models_mosaic.forecast.progress import Watch

url, metrics, number, how = sys.argv[1:]
number = int(number)
signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
bulletin = Bulletin(Listeners(Path(metrics), url), "program")
with told(bulletin):
    if how == "second":
        with Watch(bulletin=bulletin).listening():
            signal.raise_signal(number)
            signal.raise_signal(number)
    if how == "bug":
        [][1]
    try:
        signal.raise_signal(number)
    except Exception:
        # What a client does that tries again whatever happens.
        time.sleep(60)
"""


@pytest.mark.parametrize(
    ("number", "how", "left", "told", "message"),
    [
        (signal.SIGTERM, "first", -15, 143, "ended by SIGTERM"),
        (signal.SIGTERM, "second", -15, 143, "ended by SIGTERM"),
        (signal.SIGHUP, "first", -1, 129, "ended by SIGHUP"),
        (signal.SIGINT, "first", -2, 130, "interrupted"),
        (signal.SIGTERM, "bug", 1, 1, "IndexError: list index out of range"),
    ],
)
def test_a_run_that_a_signal_or_a_bug_ends_is_told_of_and_ends_as_ever(
    tmp_path: Path, number: int, how: str, left: int, told: int, message: str
):
    with listening() as server:
        command = [sys.executable, "-c", SIGNALLED, server.url(), str(tmp_path / "m.prom"), str(int(number)), how]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == left, done.stderr
    assert [(body["event"], body["exit_status"], body["message"]) for body in server.bodies] == [
        ("failed", told, message)
    ]
    assert metrics(tmp_path / "m.prom")["run_exit_status"] == told


def test_a_run_that_is_asked_to_stop_is_told_of(tmp_path: Path):
    with listening() as server:
        words = (*MINI, "--lead-time", 24 * 400, "--output-params", "2t", "--path", "long.grib", "--metrics-file")
        command = [str(BIN / "ai-models"), *map(str, (*words, "m.prom", "--notify", server.url())), "--quiet"]
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
            while process.poll() is None and (
                not (tmp_path / "m.prom").exists()
                or "member_steps_done" not in (tmp_path / "m.prom").read_text()
                or metrics(tmp_path / "m.prom")["run_initial_times_begun"] == 0
            ):
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate()
    assert process.returncode == 143, said
    (body,) = server.bodies
    assert (body["event"], body["exit_status"]) == ("failed", 143)
    assert body["message"].startswith("stopped by a signal after step ")
    assert metrics(tmp_path / "m.prom")["run_exit_status"] == 143


# The log in JSON.


def lines(text: str) -> list[dict[str, object]]:
    found = [json.loads(line) for line in text.splitlines()]
    for line in found:
        assert list(line)[:4] == ["time", "level", "logger", "message"]
        assert datetime.fromisoformat(line["time"]).utcoffset() == timezone.utc.utcoffset(None)
    return found


def test_every_line_of_the_log_is_an_object(tmp_path: Path):
    done = elsewhere(tmp_path, *DAY, "--log-format", "json")
    assert (done.returncode, done.stdout) == (0, "")
    (step,) = [line for line in lines(done.stderr) if "step" in line]
    assert (step["level"], step["logger"]) == ("INFO", "ai_models_mosaic.forecast.progress")
    assert (step["step"], step["steps"], step["lead_time_hours"], step["members"]) == (1, 1, 24, 1)
    url = f"http://me:{SECRET}@127.0.0.1:9/x.zarr"
    done = elsewhere(tmp_path, "mosaic", "--variant", "mini", "--file", url, "--log-format", "json", "--quiet")
    assert (done.returncode, SECRET in done.stderr) == (3, False)
    (error,) = lines(done.stderr)
    assert (error["level"], error["exit_status"], error["program"]) == ("ERROR", 3, "ai-models mosaic")


@pytest.mark.parametrize(
    "words",
    [("--log-format", "json", "inspect", "absent.grib"), ("inspect", "absent.grib", "--log-format", "json")],
)
def test_all_commands_have_that_log(tmp_path: Path, words: tuple[str, ...]):
    done = subprocess.run([BIN / "ai-models-mosaic", *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    (error,) = lines(done.stderr)
    assert (done.returncode, error["level"], error["exit_status"]) == (3, "ERROR", 3)
    assert str(error["message"]).startswith("absent.grib cannot be read as GRIB")


BUG = f"""
import logging, warnings
from ai_models_mosaic.wording.log_lines import log_as
from ai_models_mosaic.wording.redaction import redact_process
redact_process()
log_as("json")
log_as("json")
logging.getLogger("a.library").warning("from %s", "http://me:{SECRET}@host/x", extra={{"source": "ftp://me:{SECRET}@host"}})
warnings.warn("two\\nlines")
raise ValueError("http://me:{SECRET}@host/x")
"""


def test_libraries_warnings_and_bugs_are_in_it_without_passwords():
    done = subprocess.run([sys.executable, "-c", BUG], capture_output=True, text=True, check=False)
    assert (done.returncode, SECRET in done.stderr) == (1, False)
    library, warning, bug = lines(done.stderr)
    assert (library["message"], library["source"]) == ("from http://***@host/x", "ftp://***@host")
    assert (warning["level"], warning["logger"]) == ("WARNING", "py.warnings")
    assert "two\nlines" in str(warning["message"])
    assert (bug["level"], bug["message"]) == ("CRITICAL", "http://***@host/x")
    assert str(bug["traceback"]).startswith("Traceback (most recent call last)")


def test_what_json_cannot_hold_is_there_as_text():
    record = logging.makeLogRecord({"msg": "m", "levelname": "INFO", "name": "n", "path": Path("a"), "created": 0.5})
    assert JsonLines().format(record) == (
        '{"time": "1970-01-01T00:00:00.500+00:00", "level": "INFO", "logger": "n", "message": "m", "path": "a"}'
    )
