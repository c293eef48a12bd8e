"""Fetching assets with the hub's real client, from a stand-in of the hub: what comes, from where, and how often."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fetching import CHECKPOINT, CLIENT_BLOCK, FILES, PINS, STATICS, STATISTICS, Machine, digest, finish, wait_until
from hub_standin import COMMIT, Hub, hub_with
from running import ROOT, SAMPLE


@dataclass(frozen=True)
class Fetched:
    """What was fetched, from whom, and what was logged."""

    hub: Hub
    machine: Machine
    log: str


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fetched]:
    """A machine that has fetched all from a hub of its own; to look at, and to copy from."""
    with hub_with(dict(FILES)) as hub:
        machine = Machine(tmp_path_factory.mktemp("fetched"), hub)
        yield Fetched(hub, machine, machine.fetch())


@pytest.fixture
def filled(machine: Machine, fetched: Fetched) -> Machine:
    """A machine that has all files, with their times."""
    shutil.copytree(fetched.machine.assets, machine.assets)
    return machine


def test_all_files_arrive_in_the_layout_of_the_hub_with_a_record_beside_each(fetched: Fetched):
    hub, machine = fetched.hub, fetched.machine
    assert machine.has(*FILES)
    assert machine.partial() == []
    record = machine.record()
    checkpoint = machine.assets / CHECKPOINT
    assert record.pop("recorded").startswith("20")
    assert record == {
        "sha256": digest(FILES[CHECKPOINT]),
        "size": len(FILES[CHECKPOINT]),
        "mtime_ns": checkpoint.stat().st_mtime_ns,
        "source": f"{hub.address}/maxxxzdn/mosaic",
        "revision": COMMIT,
        "licence": "CC-BY-NC-4.0",
    }
    assert machine.record(STATICS)["sha256"] == PINS[STATICS]
    assert checkpoint.stat().st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_licence_is_shown_once(fetched: Fetched):
    shown = fetched.log
    assert shown.count("The released weights are under CC-BY-NC-4.0, which forbids commercial use") == 1
    assert "Fetching checkpoints/era5_best.pt, 11.5 MB" in shown


def test_the_token_goes_to_the_hub_and_not_to_its_store(fetched: Fetched):
    hub = fetched.hub
    assert hub.asked("GET", "/resolve/")[0]["authorization"] == "Bearer hf_token-of-the-user"
    assert "authorization" not in hub.asked("GET", "/store/")[0]


def test_the_public_release_is_asked_for_and_its_full_commit_from_then_on(fetched: Fetched):
    revisions = [path.split("/")[4] for _, path, _ in fetched.hub.requests if "/resolve/" in path]
    assert revisions == ["232b632", COMMIT, COMMIT, COMMIT]


def test_nobody_is_asked_when_the_files_are_there_and_good(hub: Hub, filled: Machine):
    assert filled.fetch() == "INFO Nothing to fetch: era5 is all in assets\n"
    assert hub.requests == []


def test_a_converted_checkpoint_stands_for_the_released_one(hub: Hub, machine: Machine):
    (machine.assets / "checkpoints").mkdir(parents=True)
    (machine.assets / CHECKPOINT).with_suffix(".safetensors").touch()
    machine.fetch()
    assert machine.has(STATISTICS, STATICS)
    assert not hub.asked("GET", ".pt")


def test_only_what_is_missing_is_fetched(hub: Hub, filled: Machine):
    (filled.assets / STATICS).unlink()
    filled.fetch()
    assert filled.has(*FILES)
    assert len(hub.asked("GET", "/resolve/")) == len(hub.asked("GET", STATICS)) == 1


def test_a_checkpoint_brought_by_hand_is_checked_against_the_hub_and_not_fetched_again(hub: Hub, machine: Machine):
    machine.assets.mkdir()
    for name, content in FILES.items():
        (machine.assets / Path(name).name).write_bytes(content)
    machine.fetch()
    assert not hub.asked("GET", "/store/")
    record = json.loads((machine.assets / "era5_best.pt.json").read_text())
    assert (record["sha256"], record["revision"]) == (digest(FILES[CHECKPOINT]), COMMIT)


def test_a_checkpoint_brought_by_hand_is_used_unchecked_when_the_hub_cannot_be_asked(filled: Machine):
    (filled.assets / f"{CHECKPOINT}.json").unlink()
    said = filled.fetch(HF_HUB_OFFLINE="1")
    assert "WARNING The files are there and are used unchecked: checkpoints/era5_best.pt: not in assets, and " in said


def test_a_file_that_is_not_what_the_hub_has_is_set_aside_and_fetched_anew(machine: Machine):
    (machine.assets / "checkpoints").mkdir(parents=True)
    (machine.assets / CHECKPOINT).write_bytes(b"half a file")
    said = machine.fetch()
    assert machine.has(*FILES)
    assert (machine.assets / f"{CHECKPOINT}.bad").read_bytes() == b"half a file"
    assert f"(expected SHA-256 {digest(FILES[CHECKPOINT])}, got {digest(b'half a file')}): it is now era5_best" in said


def test_a_file_that_was_damaged_since_it_was_fetched_is_fetched_anew(filled: Machine):
    (filled.assets / CHECKPOINT).write_bytes(FILES[CHECKPOINT][:-1] + b"x")
    filled.fetch()
    assert filled.has(*FILES)


def test_a_transfer_that_breaks_off_goes_on_where_it_was(hub: Hub, machine: Machine):
    hub.cut = CLIENT_BLOCK + 2**19
    machine.fetch()
    assert machine.has(*FILES)
    assert [headers.get("range") for headers in hub.asked("GET", "/store/")] == [None, f"bytes={CLIENT_BLOCK}-"]


def test_a_killed_run_leaves_nothing_under_the_final_name_and_the_next_goes_on(hub: Hub, machine: Machine):
    hub.cut, hub.fault = CLIENT_BLOCK + 2**19, "stalls"
    process = machine.start()
    wait_until(lambda: [path for path in machine.partial() if path.stat().st_size == CLIENT_BLOCK])
    process.send_signal(signal.SIGKILL)
    finish(process)
    assert machine.has()
    said = machine.fetch()
    assert machine.has(*FILES)
    assert machine.partial() == []
    assert "Fetching checkpoints/era5_best.pt, 11.5 MB, 10.5 MB are there" in said
    assert hub.asked("GET", "/store/")[-1]["range"] == f"bytes={CLIENT_BLOCK}-"


def test_a_server_that_knows_no_ranges_sends_all_again(hub: Hub, machine: Machine):
    hub.cut, hub.fault = CLIENT_BLOCK + 2**19, "no ranges"
    machine.fetch()
    assert machine.has(*FILES)


def test_a_rest_that_does_not_fit_is_thrown_away_once(machine: Machine):
    rest = machine.assets / f"{CHECKPOINT}.{digest(FILES[CHECKPOINT])[:12]}.partial"
    rest.parent.mkdir(parents=True)
    rest.write_bytes(bytes(1000))
    said = machine.fetch()
    assert "what was left of an earlier run does not fit; starting anew" in said
    assert machine.has(*FILES)


def test_a_rest_that_is_too_long_is_thrown_away(machine: Machine):
    rest = machine.assets / f"{CHECKPOINT}.{digest(FILES[CHECKPOINT])[:12]}.partial"
    rest.parent.mkdir(parents=True)
    rest.write_bytes(bytes(len(FILES[CHECKPOINT]) + 1))
    machine.fetch()
    assert machine.has(*FILES)


def test_progress_is_logged_where_there_is_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    from ai_models_mosaic.checkpoints import hub

    caplog.set_level("INFO")
    monkeypatch.setattr(hub, "REPORT_SECONDS", -1)
    (tmp_path / "file").write_bytes(bytes(10**6))
    offer = hub.Offer("file", 4 * 10**6, "", "", "")
    with hub._Reporting(io.FileIO(tmp_path / "file", "ab"), offer, 10**6) as file:
        file.write(bytes(2 * 10**6))
    assert re.search(r"file: 3 of 4 MB, [0-9.]+ MB/s$", caplog.text, re.MULTILINE)
    assert (tmp_path / "file").stat().st_size == 3 * 10**6


def test_two_processes_at_once_fetch_each_file_once_and_both_succeed(hub: Hub, machine: Machine):
    hub.cut, hub.fault = CLIENT_BLOCK, "stalls"
    first, second = machine.start(), machine.start()
    wait_until(lambda: len(hub.asked("POST", "paths-info")) == 2)
    hub.go_on.set()
    done = [finish(first), finish(second)]
    assert [process.returncode for process in done] == [0, 0], done
    assert machine.has(*FILES)
    assert sum("range" not in headers for headers in hub.asked("GET", "/store/")) == 1


def test_a_process_that_waits_takes_over_from_one_that_dies(hub: Hub, machine: Machine):
    hub.cut, hub.fault = CLIENT_BLOCK + 2**19, "stalls"
    first = machine.start()
    wait_until(lambda: [path for path in machine.partial() if path.stat().st_size == CLIENT_BLOCK])
    second = machine.start()
    wait_until(lambda: len(hub.asked("POST", "paths-info")) == 2)
    time.sleep(1.5)
    first.kill()
    finish(first)
    done = finish(second)
    assert done.returncode == 0, done.stderr
    assert "INFO Another process is fetching era5_best.pt: waiting for it" in done.stdout
    assert machine.has(*FILES)
    assert hub.asked("GET", "/store/")[-1]["range"] == f"bytes={CLIENT_BLOCK}-"


# Through the commands that a user types. The released npz are pinned, and not ours to pass on: a SHA256SUMS of the
# operator puts the stand-in's in their place.


@pytest.fixture
def pinned(machine: Machine) -> Machine:
    machine.assets.mkdir()
    lines = [f"{digest(content)}  {name}\n" for name, content in FILES.items()]
    (machine.assets / "SHA256SUMS").write_text("".join(lines))
    return machine


def test_a_command_fetches_without_a_forecast_and_the_folder_can_be_carried_offline(pinned: Machine, tmp_path: Path):
    done = pinned.command("ai-models-mosaic", "download", "--variant", "era5", "--assets", "assets")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert pinned.has(*FILES)
    pinned.assets.rename(tmp_path / "carried")
    words = ("--variant", "era5", "--assets", "carried", "--assets-list", "--download-assets")
    for command in (("ai-models", "mosaic"), ("ai-models-mosaic", "forecast")):
        done = pinned.command(*command, *words, HF_HUB_OFFLINE="1")
        assert "Nothing to fetch: era5 is all in carried" in done.stderr
        assert done.stdout.splitlines() == list(FILES)


def test_the_bundled_variant_needs_nothing(machine: Machine, hub: Hub):
    done = machine.command("ai-models-mosaic", "download", "--variant", "mini")
    assert done.returncode == 0
    assert "Nothing to fetch: mini is all in ." in done.stderr
    assert hub.requests == []


def test_another_revision_can_be_asked_for(pinned: Machine, hub: Hub):
    done = pinned.command("ai-models-mosaic", "download", "--variant", "era5", "--assets", "a", "--revision", "9999999")
    assert done.returncode == 4
    assert f"{hub.address}/maxxxzdn/mosaic has no such revision (HTTP 404)" in done.stderr


@pytest.mark.parametrize("command", [("ai-models", "mosaic"), ("ai-models-mosaic", "forecast")])
def test_a_forecast_fetches_and_then_refuses_weights_that_are_none(pinned: Machine, command: tuple[str, str]):
    words = (*command, "--variant", "era5", "--assets", "assets", "--file", SAMPLE, "--download-assets")
    done = pinned.command(*words)
    assert pinned.has(*FILES)
    assert done.returncode == 4
    assert "assets/checkpoints/era5_best.pt is not a complete checkpoint: expected a zip file" in done.stderr


def test_the_released_statistics_are_pinned(machine: Machine):
    done = machine.command("ai-models-mosaic", "download", "--variant", "era5", "--assets", "assets")
    assert done.returncode == 4
    assert f"{STATISTICS} did not arrive as it should: expected SHA-256 9d6aae592fdc1a35a918c4663d1ee80" in done.stderr


def test_with_weights_of_the_users_own_only_the_rest_is_fetched(pinned: Machine, hub: Hub):
    weights = ROOT / "weights" / "mini.safetensors"
    words = ("mosaic", "--variant", "era5", "--assets", "assets", "--assets-list", "--checkpoint", weights)
    pinned.command("ai-models", *words, "--download-assets")
    assert pinned.has(STATISTICS, STATICS)
    assert not hub.asked("HEAD", ".pt")
