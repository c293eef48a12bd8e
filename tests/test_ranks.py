"""ConnectedRanks processes that make one ensemble."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from running import ROOT
from toy_run import DyingEngine, job, toy_run

from ai_models_mosaic.errors import ForecastError, OptionError
from ai_models_mosaic.forecast.ranks import PORTS, Launch, SingleRank, find_launch

TOY = ROOT / "tests" / "toy_run.py"
TORCHRUN = {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "node7", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "gpu07",
    "SLURM_JOB_ID": "123456",
}


# Who launched.


def test_a_process_that_nobody_launched_is_alone():
    assert find_launch({}) == Launch(rank=0, size=1, local_rank=0)


def test_torchrun_is_understood():
    assert find_launch(TORCHRUN) == Launch(2, 4, 1, "node7", 29500)


def test_srun_is_understood_and_its_job_chooses_the_port():
    assert find_launch(SLURM) == Launch(3, 8, 1, "gpu07", PORTS[123456 % len(PORTS)])
    assert find_launch(SLURM | {"MASTER_ADDR": "other", "MASTER_PORT": "4242"}) == Launch(3, 8, 1, "other", 4242)


@pytest.mark.parametrize(
    ("nodes", "host"), [("a01", "a01"), ("a01,a02", "a01"), ("a[07-09,12]", "a07"), ("b3,a[1-2]", "b3")]
)
def test_rank_0_of_srun_is_on_the_first_node(nodes, host, monkeypatch):
    monkeypatch.setenv("PATH", "")  # without scontrol
    assert find_launch(SLURM | {"SLURM_STEP_NODELIST": nodes}).address == host


def test_torchrun_within_a_job_of_slurm_wins():
    assert find_launch(SLURM | TORCHRUN).rank == 2


@pytest.mark.parametrize("name", ["SLURM_NTASKS", "SLURM_PROCID"])
def test_the_script_of_a_batch_job_runs_alone(name):
    assert find_launch({"SLURM_JOB_ID": "1", name: "8"}) == Launch()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            TORCHRUN | {"RANK": "x"},
            "expected numbers from the launcher of several processes, got RANK=x, WORLD_SIZE=4, ",
        ),
        (TORCHRUN | {"RANK": "4"}, "; got rank 4 of 4 at node7 (MASTER_ADDR names it)"),
        (SLURM | {"SLURM_STEP_NODELIST": ""}, "; got rank 3 of 8 at no host (MASTER_ADDR names it)"),
    ],
)
def test_a_launch_that_makes_no_sense_is_refused(environment, message):
    with pytest.raises(OptionError, match=re.escape(message)):
        find_launch(environment)


def test_a_process_alone_shares_and_agrees_with_itself_and_has_nobody_to_talk_to():
    alone = SingleRank()
    assert alone.share(lambda: 3) == 3
    assert alone.agree(None) is False
    assert alone.agree(None, stop=True) is True
    with pytest.raises(ForecastError, match="broke"):
        alone.agree(ForecastError("broke"))
    with pytest.raises(ValueError, match="for rank 1"):
        alone.send(np.zeros(1, dtype=np.float32), 1)
    with pytest.raises(ValueError, match="of rank 1"):
        alone.receive(1, (1,))


# ConnectedRanks.


def several(size: int, *words: object) -> tuple[list[int], str]:
    """Statuses of the ranks, and what they said."""
    command = [sys.executable, str(TOY), "--several", str(size), *(str(word) for word in words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [int(status) for status in done.stdout.strip("[]\n").split(",")], done.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "out.grib"
    toy_run(str(path), job(5, 2))
    return path.read_bytes()


@pytest.mark.parametrize("size", [2, 3])
def test_several_processes_write_the_same_bytes_as_one(tmp_path: Path, whole: bytes, size: int):
    statuses, said = several(size, tmp_path / "out.grib")
    assert statuses == [0] * size, said
    assert (tmp_path / "out.grib").read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["out.grib"]


def test_more_processes_than_batches_write_the_same_bytes_too(tmp_path: Path):
    toy_run(str(tmp_path / "one.grib"), job(5, 2, per_batch=3))
    statuses, said = several(3, tmp_path / "three.grib", "--per-batch", 3)
    assert statuses == [0, 0, 0], said
    assert (tmp_path / "three.grib").read_bytes() == (tmp_path / "one.grib").read_bytes()


def test_a_lost_rank_ends_all_with_a_clear_message_and_any_number_goes_on(tmp_path: Path, whole: bytes):
    path = tmp_path / "out.grib"
    statuses, said = several(3, path, "--rank", 1, "--calls", 3, "--how", "die")
    assert statuses == [8, -signal.SIGKILL, 8]
    assert (
        "rank 0: rank 0 of 3 lost touch with rank 1, which may have died: see its own messages. What was complete is "
        in said
    )
    assert "run again with --resume, on any number of processes" in said
    left = tmp_path / "left"
    shutil.copytree(tmp_path, left)
    # SingleRank, without ever having known the others.
    toy_run(str(path), job(5, 2), resume=True)
    assert path.read_bytes() == whole
    path.unlink()
    shutil.copytree(left, tmp_path, dirs_exist_ok=True)
    statuses, said = several(2, path, "--resume")
    assert statuses == [0, 0], said
    assert path.read_bytes() == whole


def test_any_rank_may_be_lost_anywhere_even_inside_a_write_and_the_files_are_the_same_to_the_byte(tmp_path: Path):
    command = [sys.executable, TOY.with_name("faults.py"), tmp_path, "4", "0", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # One that was meant to die late may have been done before.
    assert re.fullmatch(r"4 runs of 3 ranks, [2-4] of which lost one, all the same to the byte\n", done.stdout)


def test_the_state_of_one_process_is_gone_on_with_by_three(tmp_path: Path, whole: bytes):
    path = tmp_path / "out.grib"
    with pytest.raises(ForecastError):
        toy_run(str(path), job(5, 2), engine=DyingEngine(8, "fail"))
    statuses, said = several(3, path, "--resume")
    assert statuses == [0, 0, 0], said
    assert path.read_bytes() == whole


@pytest.mark.parametrize(("how", "status"), [("fail", ForecastError.exit_status), ("stop", 143)])
def test_what_happens_to_one_rank_ends_all_with_the_same_status(tmp_path: Path, how: str, status: int):
    statuses, said = several(3, tmp_path / "out.grib", "--rank", 2, "--calls", 1, "--how", how)
    assert statuses == [status] * 3, said
    assert (tmp_path / "out.grib.partial").is_file()


def namespaces_permitted() -> bool:
    return (
        os.geteuid() == 0
        and shutil.which("ip") is not None
        and subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(not namespaces_permitted(), reason="needs root and network namespaces")
def test_two_hosts_that_share_a_network_and_nothing_else_of_it_write_the_same_bytes(tmp_path: Path, whole: bytes):
    tag = f"m{os.getpid() % 10_000}"
    names, hosts = [f"{tag}a", f"{tag}b"], ["10.231.7.1", "10.231.7.2"]
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
        subprocess.run(["ip", "link", "add", f"{tag}v0", "type", "veth", "peer", "name", f"{tag}v1"], check=True)
        for index, (name, host) in enumerate(zip(names, hosts, strict=True)):
            inside = ["ip", "-n", name]
            subprocess.run(["ip", "link", "set", f"{tag}v{index}", "netns", name], check=True)
            subprocess.run([*inside, "addr", "add", f"{host}/24", "dev", f"{tag}v{index}"], check=True)
            for device in (f"{tag}v{index}", "lo"):
                subprocess.run([*inside, "link", "set", device, "up"], check=True)
        ranks = [
            subprocess.Popen(
                ["ip", "netns", "exec", name, sys.executable, str(TOY), str(tmp_path / f"{index}.grib")],
                env={
                    **os.environ,
                    "RANK": str(index),
                    "WORLD_SIZE": "2",
                    "MASTER_ADDR": hosts[0],
                    "MASTER_PORT": "29511",
                    "GLOO_SOCKET_IFNAME": f"{tag}v{index}",
                },
                stderr=subprocess.PIPE,
                text=True,
            )
            for index, name in enumerate(names)
        ]
        said = [rank.communicate(timeout=300)[1] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0, 0], said
        # Rank 0 alone writes.
        assert [path.name for path in tmp_path.iterdir()] == ["0.grib"]
        assert (tmp_path / "0.grib").read_bytes() == whole
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
