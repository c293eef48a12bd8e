"""The examples of docs/operations.md, each run in miniature."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running import BIN, ROOT, SAMPLE, keys, messages

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
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)


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


def test_a_task_of_the_array_runs_its_member_and_is_requeued_only_when_it_was_stopped(folder: Path):
    (folder / "bin" / "scontrol").write_text('#!/bin/sh\necho "$@" >> requeued\n')
    (folder / "bin" / "scontrol").chmod(0o755)
    done = bash(folder, script("#SBATCH --array"), SLURM_ARRAY_TASK_ID="17", SLURM_JOB_ID="4")
    assert done.returncode == 0, done.stderr
    assert members(folder / "array-17.grib") == {(17, 0), (17, 24)}
    assert not (folder / "requeued").exists()
    # A launcher that reports what a run that was stopped returns.
    (folder / "stopped").mkdir()
    (folder / "stopped" / "srun").write_text("#!/bin/sh\nexit 143\n")
    (folder / "stopped" / "srun").chmod(0o755)
    path = f'PATH="{folder}/stopped:$PATH"\n'
    done = bash(folder, path + script("#SBATCH --array"), SLURM_ARRAY_TASK_ID="17", SLURM_JOB_ID="4")
    assert done.returncode == 143
    assert (folder / "requeued").read_text() == "requeue 4\n"


def test_the_daily_script_waits_for_its_analysis_and_no_other_failure(folder: Path):
    daily = script("--input opendata")
    # The sample stands in for the service, and what is not there yet is a file.
    source = '--variant hres --assets "$HOME/assets" --input opendata --date "$day" --time 0 --lead-time 240'
    assert source in daily
    short = daily.replace(source, "--variant mini --file today.grib --lead-time 24")
    short = short.replace("--num-ensemble-members 24", "--num-ensemble-members 1")
    assert "sleep 600\n" in short
    late = short.replace("sleep 600", "cp examples/mini-input.grib today.grib")
    done = bash(folder, late, HOME=str(folder))
    assert done.returncode == 0, done.stderr
    assert "--file today.grib: there is no such file" in done.stderr
    (path,) = folder.glob("20??????.grib")
    assert members(path) == {(1, 0), (1, 24)}
    done = bash(folder, short.replace("--quiet", "--quiet --no-such-option"), HOME=str(folder))
    assert done.returncode == 2
    # A run that is still going on holds the lock.
    with (folder / "daily.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = bash(folder, short, HOME=str(folder))
    assert (done.returncode, done.stdout, done.stderr) == (75, "", "the run before is still going on\n")
    done = bash(folder, short, HOME=str(folder))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_loop_makes_the_members_one_by_one(folder: Path):
    done = bash(folder, script("for member in"))
    assert done.returncode == 0, done.stderr
    for member in (1, 2):
        assert members(folder / f"loop-{member}.grib") == {(member, 0), (member, 24)}
