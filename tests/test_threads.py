"""How many threads a run takes, and how they wait."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from running import MINI, SAMPLE, elsewhere

from ai_models_mosaic import load_model
from ai_models_mosaic.commands.checks import IDENTITY_MODEL
from ai_models_mosaic.engines.choice import EngineChoice, prepare_engine
from ai_models_mosaic.engines.threads import best_threads, cores, quota, wait_passively
from ai_models_mosaic.errors import CheckpointError
from ai_models_mosaic.variants import ERA5
from ai_models_mosaic.variants import MINI as MINI_VARIANT

FREE = float("inf")

GROUPS: dict[str, tuple[dict[str, str], float]] = {
    "nothing": ({}, FREE),
    "version 2, no limit": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, FREE),
    "version 2, in a container": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
    "version 2, the least of all above": (
        {
            "proc/self/cgroup": "0::/user.slice/job\n",
            "sys/fs/cgroup/cpu.max": "800000 100000\n",
            "sys/fs/cgroup/user.slice/cpu.max": "200000 100000\n",
            "sys/fs/cgroup/user.slice/job/cpu.max": "max 100000\n",
        },
        2,
    ),
    "version 2, under the path of the host": (
        {"proc/self/cgroup": "0::/docker/0a1b\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"},
        3,
    ),
    "version 1": (
        {
            "proc/self/cgroup": "5:memory:/other\n4:cpu,cpuacct:/job\n",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/other/cpu.cfs_quota_us": "1\n",
        },
        0.5,
    ),
    "version 1, no limit": (
        {
            "proc/self/cgroup": "1:cpu:/\n0::/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        FREE,
    ),
    "both, the limit in version 2": (
        {
            "proc/self/cgroup": "1:cpu:/\n0::/a\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/unified/a/cpu.max": "400000 100000\n",
        },
        4,
    ),
    "nonsense": (
        {"proc/self/cgroup": "0::/../..\n7\n\n", "sys/fs/cgroup/cpu.max": "1 2 3\n", "cpu.max": "1000 100000\n"},
        FREE,
    ),
    "a period of nothing": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100 0\n"}, FREE),
}


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(("files", "processors"), GROUPS.values(), ids=GROUPS)
def test_the_least_quota_of_all_control_groups_counts(tmp_path: Path, files: dict[str, str], processors: float):
    assert quota(written(tmp_path, files)) == processors


def test_this_process_has_cores_and_perhaps_a_quota():
    assert 1 <= cores() <= (os.cpu_count() or 1)
    assert quota() > 0


@pytest.mark.parametrize(
    ("most", "limit", "environment", "threads"),
    [
        (8, "max", {}, 8),
        (8, "350000", {}, 3),
        (8, "50000", {}, 1),
        (2, "800000", {}, 2),
        (8, "max", {"OMP_NUM_THREADS": "4"}, None),
        (8, "350000", {"MKL_NUM_THREADS": "4"}, None),
    ],
)
def test_threads_are_those_that_the_process_may_use_unless_the_user_said(
    tmp_path: Path, most: int, limit: str, environment: dict[str, str], threads: int | None
):
    root = written(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": f"{limit} 100000\n"})
    assert best_threads(ERA5.architecture, most, environment, root) == threads


def test_little_work_is_done_by_few_threads(tmp_path: Path):
    assert best_threads(MINI_VARIANT.architecture, 64, {}, tmp_path) == 2


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_what_the_user_says_of_waiting_stays(name: str):
    environment = {name: "1"}
    wait_passively(environment)
    assert environment == {name: "1"}


POLICY = """
from ai_models_mosaic import cli
cli.main(["options"])
import torch
"""


@pytest.mark.parametrize(("given", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_the_threads_of_a_command_wait_passively_unless_the_user_says_otherwise(given: dict[str, str], policy: str):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", POLICY],
        env=environment | given | {"OMP_DISPLAY_ENV": "TRUE"},
        capture_output=True,
        text=True,
        check=True,
    )
    if "OPENMP DISPLAY ENVIRONMENT BEGIN" not in done.stderr:
        pytest.skip("this PyTorch has another OpenMP")
    assert f"OMP_WAIT_POLICY = '{policy}'" in done.stderr


@pytest.mark.parametrize(
    ("words", "environment", "threads"),
    [((), {}, "1|2"), (("--num-threads", 3), {"OMP_NUM_THREADS": "1"}, "3")],
)
def test_a_run_takes_what_is_best_unless_the_user_says_otherwise(
    tmp_path: Path, words: tuple[object, ...], environment: dict[str, str], threads: str
):
    kept = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    done = elsewhere(tmp_path, *MINI, "--lead-time", 24, "--output", "none", *words, env=kept | environment)
    assert re.search(rf"Running on CPU \((?:{threads}) threads\)", done.stderr), done.stderr


DIGESTS = """
import hashlib, sys
import torch
from ai_models_mosaic import load_model, open_input
model = load_model("mini")
for threads in (1, 2, 3):
    torch.set_num_threads(threads)
    forecast = model.forecast(open_input(sys.argv[1], model), members=1, lead_time_hours=24)
    print(hashlib.sha256(b"".join(step.values.tobytes() for step in forecast)).hexdigest())
"""


def test_members_have_the_same_bytes_with_any_number_of_threads():
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, "-c", DIGESTS, SAMPLE], env=environment, capture_output=True, text=True, check=True
    )
    digests = done.stdout.split()
    assert (len(digests), len(set(digests))) == (3, 1)


def test_a_program_keeps_the_threads_that_it_has():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        load_model("mini")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_threads_of_onnx_runtime_sleep_in_a_process_of_our_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    runtime = pytest.importorskip("onnxruntime")
    opened = []

    def session(_: object, settings: Any, **__: object) -> None:
        opened.append(settings)
        raise ValueError("enough")

    monkeypatch.setattr(runtime, "InferenceSession", session)
    (tmp_path / "m.onnx").write_bytes(IDENTITY_MODEL)
    for own_process in (True, False):
        choice = EngineChoice("onnx", onnx_model=tmp_path / "m.onnx", own_process=own_process, threads=3)
        with pytest.raises(CheckpointError, match="enough"):
            prepare_engine(MINI_VARIANT, choice)
    ours, theirs = opened
    assert ours.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    with pytest.raises(RuntimeError):
        theirs.get_session_config_entry("session.intra_op.allow_spinning")
    assert ours.intra_op_num_threads == theirs.intra_op_num_threads == 3


def test_deterministic_runs_do_not_fill_memory_that_is_written_to_before_it_is_read():
    script = (
        "import torch\nfrom ai_models_mosaic.engines.choice import _make_torch_deterministic\n_make_torch_deterministic()\n"
        "print(torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"
