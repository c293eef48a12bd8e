"""The examples of docs/operations.md, each run in miniature."""

import configparser
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from running import BIN, ROOT, SAMPLE, keys, messages
from standins import Faults, serving

TEXT = (ROOT / "docs" / "operations.md").read_text()

SRUN = f"""#!{sys.executable}
# Stands in for SLURM's launcher: tasks on one machine, with the variables that srun sets.
import os, subprocess, sys
count = int(sys.argv[1].removeprefix("--ntasks="))
tasks = [
    subprocess.Popen(sys.argv[2:], env=os.environ | {{
        "SLURM_PROCID": str(task), "SLURM_STEP_NUM_TASKS": str(count), "SLURM_LOCALID": str(task),
        "SLURM_STEP_NODELIST": "localhost", "SLURM_JOB_ID": str(os.getpid()),
    }}) for task in range(count)
]
sys.exit(max(task.wait() for task in tasks))
"""


def blocks(language: str) -> list[str]:
    marked = re.sub(r"^<!-- not run:[^\n]*-->\n```.*?^```$", "", TEXT, flags=re.DOTALL | re.MULTILINE)
    return re.findall(rf"^```{language}\n(.*?)^```$", marked, flags=re.DOTALL | re.MULTILINE)


def script(word: str) -> str:
    (found,) = [block for block in blocks("bash") if word in block]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("operations")
    (made / "examples").mkdir()
    (made / "bin").mkdir()
    shutil.copy(SAMPLE, made / "examples")
    (made / "bin" / "srun").write_text(SRUN)
    (made / "bin" / "srun").chmod(0o755)
    return made


def bash(folder: Path, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join((str(folder / "bin"), str(BIN), os.environ["PATH"]))
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        ["bash", "-c", text], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def members(path: Path) -> set[tuple[int, int]]:
    return {keys(message, "number", "step") for message in messages(path)}


def test_the_commands_run_in_order_and_several_processes_write_one_result(folder: Path):
    for block in blocks("sh"):
        done = bash(folder, block)
        assert done.returncode == 0, (block, done.stderr)
    assert members(folder / "several.grib") == {(member, step) for member in (1, 2, 3) for step in (0, 24)}
    assert (folder / "several.grib").read_bytes() == (folder / "srun.grib").read_bytes()
    assert (folder / "20080426-0600.grib").is_file()
    assert {keys(m, "number", "step", "shortName") for m in messages(folder / "again.grib")} == {
        (3, 24, "2t"),
        (3, 24, "z"),
    }
    assert sorted(path.name for path in folder.glob("*.state")) == []


OPERATIONS = ROOT / "examples" / "operations"


def tool(folder: Path, name: str, text: str) -> None:
    (folder / "bin" / name).write_text(text)
    (folder / "bin" / name).chmod(0o755)


def test_the_tasks_of_an_array_share_the_members_and_their_files_are_one(folder: Path):
    options = "--variant mini --file examples/mini-input.grib --lead-time 24"
    tool(folder, "scontrol", '#!/bin/sh\necho "$@" >> requeued\n')
    array = {"SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_JOB_ID": "4"}
    array |= {"MOSAIC_MEMBERS": "3", "MOSAIC_OPTIONS": options}
    for task in ("1", "2"):
        done = bash(folder, str(OPERATIONS / "slurm-array"), SLURM_ARRAY_TASK_ID=task, **array)
        assert done.returncode == 0, done.stderr
    assert members(folder / "members-00000.grib") == {(1, 0), (1, 24)}
    assert members(folder / "members-00001.grib") == {(member, step) for member in (2, 3) for step in (0, 24)}
    assert not (folder / "requeued").exists()
    done = bash(folder, str(OPERATIONS / "slurm-merge"))
    assert done.returncode == 0, done.stderr
    together = bash(folder, f"ai-models-mosaic forecast {options} --num-ensemble-members 3 --path together.grib")
    assert together.returncode == 0, together.stderr
    assert sorted(messages(folder / "ensemble.grib")) == sorted(messages(folder / "together.grib"))
    # A launcher that reports what a run that was stopped returns.
    (folder / "stopped").mkdir()
    (folder / "stopped" / "srun").write_text("#!/bin/sh\nexit 143\n")
    (folder / "stopped" / "srun").chmod(0o755)
    stopped = f'PATH="{folder}/stopped:$PATH"; {OPERATIONS / "slurm-array"}'
    done = bash(folder, stopped, SLURM_ARRAY_TASK_ID="2", **array)
    assert (done.returncode, (folder / "requeued").read_text()) == (143, "requeue 4_2\n")


def test_tasks_without_members_have_nothing_to_do(folder: Path):
    array = {"SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_ID": "0"}
    done = bash(folder, str(OPERATIONS / "slurm-array"), MOSAIC_MEMBERS="2", MOSAIC_OPTIONS="--no-such", **array)
    assert (done.returncode, done.stderr) == (0, "")


RUNS = """#!/bin/bash
# Stands in for the forecast: notes its words, and ends as the next line of the file statuses says.
echo "$@" >> words
status=$(head -n 1 statuses)
sed -i 1d statuses
while [ "$1" != --path ]; do shift; done
if [ "$status" = hang ]; then
    trap 'echo stopped >> words; exit 143' TERM
    echo hanging >> words
    for _ in $(seq 400); do sleep 0.05; done
fi
if [ "$status" = 0 ]; then touch "$2"; fi
exit "$status"
"""


@pytest.fixture
def daily(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    tool(tmp_path, "ai-models-mosaic", RUNS)
    return tmp_path


def open_data(folder: Path, *statuses: object, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "statuses").write_text("".join(f"{status}\n" for status in statuses))
    environment = {"MOSAIC_FOLDER": str(folder), "MOSAIC_PAUSE": "0.01", "MOSAIC_LOG": "-", **environment}
    return bash(folder, str(OPERATIONS / "forecast-open-data"), **environment)


def due(hour: int) -> str:
    """The day whose analysis of an hour was made eight hours ago or earlier, and is the newest."""
    return f"{datetime.now(timezone.utc) - timedelta(hours=8 + hour):%Y%m%d}"


def test_the_daily_script_waits_for_its_analysis_and_for_no_other_failure(daily: Path):
    assert open_data(daily, 3, 3, 0, MOSAIC_HOUR="12", TZ="Pacific/Auckland").returncode == 0
    words = (daily / "words").read_text().splitlines()
    name = f"{due(12)}-12"
    assert (
        words
        == [
            "forecast --config forecast.toml --input opendata "
            f"--date {due(12)} --time 12 --path forecasts/{name}.grib --metrics-file forecast.prom --resume"
        ]
        * 3
    )
    assert (daily / "latest.grib").resolve() == daily / "forecasts" / f"{name}.grib"
    (daily / "words").unlink()
    assert open_data(daily, 6, 0).returncode == 6
    assert open_data(daily, 3, 3, 0, MOSAIC_ATTEMPTS="2").returncode == 3
    assert len((daily / "words").read_text().splitlines()) == 3
    # Where it is not said otherwise, all goes into a file of the day.
    assert open_data(daily, 0, MOSAIC_LOG="").returncode == 0
    assert [path.suffix for path in (daily / "log").iterdir()] == [".log"]


def test_old_forecasts_go_when_a_new_one_is_there_and_not_before(daily: Path):
    (daily / "forecasts").mkdir()
    (daily / "log").mkdir()
    old = ["20200101-00.grib", "20200101-00.grib.provenance.json", "20200101-00.20200101T0000.state", "notes.txt"]
    for name in (*old, "20200102-00.grib"):
        path = daily / "forecasts" / name
        (path.mkdir if path.suffix == ".state" else path.touch)()
        age = 2 if name == "20200102-00.grib" else 8
        os.utime(path, (time.time() - age * 86_400,) * 2)
    (daily / "log" / "20200101.log").touch()
    os.utime(daily / "log" / "20200101.log", (0, 0))
    assert open_data(daily, 2).returncode == 2
    assert len(list((daily / "forecasts").iterdir())) == 5
    assert open_data(daily, 0).returncode == 0
    kept = {path.name for path in (daily / "forecasts").iterdir()}
    assert kept == {"notes.txt", "20200102-00.grib", f"{due(0)}-00.grib"}
    assert list((daily / "log").iterdir()) == []


def test_a_run_that_is_still_going_on_is_left_alone(daily: Path):
    with (daily / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = open_data(daily, 0)
    assert (done.returncode, done.stdout, done.stderr) == (75, "", "the run before is still going on\n")
    assert not (daily / "words").exists()


def test_a_signal_is_handed_on_and_waited_for(daily: Path):
    (daily / "statuses").write_text("hang\n0\n")
    environment = {**os.environ, "MOSAIC_FOLDER": str(daily), "MOSAIC_LOG": "-"}
    environment["PATH"] = f"{daily / 'bin'}:{environment['PATH']}"
    with subprocess.Popen([OPERATIONS / "forecast-open-data"], env=environment) as process:
        while not ((daily / "words").exists() and "hanging" in (daily / "words").read_text()):
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 143
    assert (daily / "words").read_text().splitlines()[1:] == ["hanging", "stopped"]


WAITING = """#!/bin/bash
# Stands in for the time between tries: something changes meanwhile.
n=$(ls "$CHANGES" | wc -l)
touch "$CHANGES/asked-$n"
while [ ! -e "$CHANGES/changed-$n" ]; do /bin/sleep 0.02; done
"""


def test_open_data_that_come_in_pieces_are_asked_for_until_they_are_whole(tmp_path: Path):
    changes = tmp_path / "changes"
    changes.mkdir()
    (tmp_path / "bin").mkdir()
    tool(tmp_path, "sleep", WAITING)
    (tmp_path / "forecast.toml").write_text('variant = "mini"\nlead-time = 24\npatience = 0\n')
    with serving(missing=("msl",)) as server:
        later = iter([Faults(truncated=True), Faults()])

        def change() -> None:
            # What was asked for after the one before, and what comes of it.
            for number, faults in zip((0, 2), later, strict=True):
                while not (changes / f"asked-{number}").exists() and not ended.is_set():
                    time.sleep(0.02)
                server.faults = faults
                (changes / f"changed-{number}").touch()

        ended = threading.Event()
        thread = threading.Thread(target=change)
        thread.start()
        urls = json.dumps({"ecmwf": f"{server.url}/forecasts"})
        environment = {"CHANGES": str(changes), "ECMWF_OPENDATA_URLS": urls, "HOME": str(tmp_path)}
        environment |= {"AI_MODELS_MOSAIC_CACHE": str(tmp_path / "cache")}
        done = open_data(tmp_path, **environment)
        ended.set()
        thread.join()
    assert done.returncode == 0, done.stderr
    assert "ECMWF open data lack fields: msl" in done.stderr
    assert (changes / "asked-2").exists()
    assert members(tmp_path / "latest.grib") == {(1, 0), (1, 24)}
    # Two states with two kinds of level, each whole.
    kept = sorted(len(messages(path)) for path in (tmp_path / "cache" / "retrieved").glob("*.grib"))
    assert kept == [4, 4, 78, 78]


def test_cron_starts_it_at_a_quarter_past_eight_utc():
    lines = [line for line in (OPERATIONS / "crontab").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "CRON_TZ=UTC"
    assert lines[-1].split() == ["15", "8", "*", "*", "*", "forecast-open-data"]
    assert (OPERATIONS / "forecast-open-data").stat().st_mode & 0o111


def test_systemd_takes_the_units(tmp_path: Path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd here")
    # Of this machine, the program and a user.
    text = (OPERATIONS / "mosaic-open-data.service").read_text()
    assert "User=mosaic\n" in text
    assert "ExecStart=/opt/mosaic/bin/forecast-open-data\n" in text
    text = text.replace("User=mosaic\n", "").replace("/opt/mosaic/bin/f", f"{OPERATIONS}/f")
    (tmp_path / "mosaic-open-data.service").write_text(text)
    shutil.copy(OPERATIONS / "mosaic-open-data.timer", tmp_path)
    units = [tmp_path / "mosaic-open-data.service", tmp_path / "mosaic-open-data.timer"]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    timer = configparser.ConfigParser(interpolation=None)
    timer.read(OPERATIONS / "mosaic-open-data.timer")
    assert timer["Timer"]["OnCalendar"].endswith(" UTC")


# ecFlow.

CLIENT = """#!/bin/sh
# Stands in for ecFlow's client: notes what the server is told.
echo "$@" >> told
"""


def rendered(name: str, variables: dict[str, str]) -> str:
    """A task's script as ecFlow makes it: files included, variables in their place."""
    suite = OPERATIONS / "ecflow"
    text = re.sub(
        r"^%include <(.+)>$", lambda found: (suite / found[1]).read_text(), (suite / name).read_text(), flags=re.M
    )
    return re.sub(r"%(\w+)(?::([^%]*))?%", lambda found: variables.get(found[1], found[2]) or "", text)


def test_the_tasks_of_the_suite_tell_the_server_what_they_do(folder: Path):
    tool(folder, "ecflow_client", CLIENT)
    text = (OPERATIONS / "ecflow" / "mosaic.def").read_text()
    variables = dict(re.findall(r"edit (\w+) '(.*)'", text))
    variables |= {
        "ECF_PORT": "3141",
        "ECF_HOST": "localhost",
        "ECF_NAME": "/mosaic/f",
        "ECF_PASS": "x",
        "ECF_TRYNO": "2",
    }
    variables |= {
        "MOSAIC_FOLDER": str(folder),
        "MOSAIC_BIN": str(folder / "bin"),
        "YMD": "20080426",
        "MOSAIC_LEAD": "24",
    }
    variables |= {"MOSAIC_TIME": "6", "MOSAIC_MEMBERS": "2", "MOSAIC_PAUSE": "0.01", "MOSAIC_LOOK": "0.01"}
    variables |= {"MOSAIC_OPTIONS": "--variant mini --file examples/mini-input.grib"}
    done = bash(folder, rendered("forecast.ecf", variables))
    assert done.returncode == 0, done.stderr
    assert members(folder / "20080426.grib") == {(member, step) for member in (1, 2) for step in (0, 24)}
    told = [re.sub(r"\d+$", "N", line) for line in (folder / "told").read_text().splitlines()]
    assert (told[0], told[-2:]) == ("--init=N", ["--meter=lead N", "--complete"])
    (folder / "told").unlink()
    done = bash(folder, rendered("report.ecf", variables | {"YMD": "19000101"}))
    assert done.returncode == 3
    assert (folder / "told").read_text().splitlines()[1:] == ["--abort=status 3"]


def test_ecflow_takes_the_suite():
    if shutil.which("ecflow_client") is None:
        pytest.skip("no ecFlow here")
    command = ["ecflow_client", f"--load={OPERATIONS / 'ecflow' / 'mosaic.def'}", "check_only"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_task_of_the_suite_has_a_script_and_every_variable_a_value():
    suite = OPERATIONS / "ecflow"
    text = (suite / "mosaic.def").read_text()
    tasks = re.findall(r"^ *task (\w+)$", text, flags=re.M)
    assert {f"{task}.ecf" for task in tasks} == {path.name for path in suite.glob("*.ecf")}
    known = {*re.findall(r"edit (\w+)", text), *re.findall(r"repeat date (\w+)", text)}
    used = {
        name for path in suite.iterdir() if path.suffix != ".def" for name in re.findall(r"%(\w+)%", path.read_text())
    }
    assert {name for name in used if not name.startswith("ECF_")} <= known


def test_the_loop_makes_the_members_one_by_one(folder: Path):
    done = bash(folder, script("for member in"))
    assert done.returncode == 0, done.stderr
    for member in (1, 2):
        assert members(folder / f"loop-{member}.grib") == {(member, 0), (member, 24)}
