"""What cannot be fetched from the hub is explained, and leaves nothing that looks whole."""

from __future__ import annotations

import pytest
from fetching import CHECKPOINT, CLIENT_BLOCK, FILES, PINS, STATICS, STATISTICS, Machine, digest
from hub_standin import COMMIT, Hub


def test_a_server_that_dies_leaves_what_came_for_the_next_run(hub: Hub, machine: Machine):
    hub.cut, hub.fault = CLIENT_BLOCK + 2**19, "dies"
    refused = machine.refused(HF_ENDPOINT=hub.address.replace("http://", "http://user:password@"))
    assert f"CheckpointError: {CHECKPOINT}: no answer from {hub.address} (ConnectError: " in refused
    assert "password" not in refused
    assert refused.endswith(
        "check the network, HTTPS_PROXY and HF_ENDPOINT. What came of a file is kept: the same command resumes it\n"
    )
    assert machine.has()
    assert [path.stat().st_size for path in machine.partial()] == [CLIENT_BLOCK]


def test_wrong_content_is_refused_naming_both_digests_and_is_not_kept(hub: Hub, machine: Machine):
    hub.fault = "wrong"
    refused = machine.refused()
    zeros = digest(bytes(len(FILES[CHECKPOINT])))
    assert refused.splitlines()[-1] == (
        f"CheckpointError: {CHECKPOINT} did not arrive as it should: expected SHA-256 {digest(FILES[CHECKPOINT])}, got "
        f"{zeros}; it was removed. Try again; if it stays so, a proxy or mirror on the way changes it"
    )
    assert machine.has()
    assert machine.partial() == []


def test_a_pinned_file_with_other_content_is_refused(machine: Machine):
    refused = machine.refused({**PINS, STATICS: "0" * 64})
    assert f"{STATICS} did not arrive as it should: expected SHA-256 {'0' * 64}, got {PINS[STATICS]}" in refused
    assert machine.has(CHECKPOINT, STATISTICS)


def test_a_digest_pinned_by_the_operator_is_compared_before_anything_is_fetched(hub: Hub, machine: Machine):
    machine.assets.mkdir()
    (machine.assets / "SHA256SUMS").write_text(f"{'a' * 64}  {CHECKPOINT}\n")
    refused = machine.refused()
    assert (
        f"{CHECKPOINT} was not fetched: expected SHA-256 {'a' * 64} (SHA256SUMS), but the hub offers "
        f"{digest(FILES[CHECKPOINT])} at {COMMIT}; " in refused
    )
    assert not hub.asked("GET", "/resolve/")


def test_a_file_without_any_digest_is_not_fetched(hub: Hub, machine: Machine):
    hub.fault = "no digest"
    assert f"{CHECKPOINT} was not fetched: the hub states no SHA-256 for it at {COMMIT}" in machine.refused()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", "{hub}/maxxxzdn/mosaic has no such file at this revision (HTTP 404)"),
        ("no revision", "{hub}/maxxxzdn/mosaic has no such revision (HTTP 404)"),
        ("no repository", "{hub} does not let us have maxxxzdn/mosaic (HTTP 401): it is gone or private, or HF_TOKEN "),
        ("gated", "{hub}/maxxxzdn/mosaic wants its terms accepted (HTTP 403): do so on that page, and set HF_TOKEN "),
        ("bad token", "{hub} does not let us have maxxxzdn/mosaic (HTTP 401): it is gone or private, or HF_TOKEN "),
        ("busy", "{hub} answered HTTP 503; try again later"),
        ("portal", "{hub} does not answer as a hub does (no X-Repo-Commit); check HF_ENDPOINT"),
        ("silent", "no answer from {hub} (ReadTimeout: "),
    ],
)
def test_what_the_hub_refuses_is_explained(hub: Hub, machine: Machine, fault: str, message: str):
    hub.fault = fault
    refused = machine.refused(HF_HUB_ETAG_TIMEOUT="1")
    assert message.format(hub=hub.address) in refused
    assert machine.has()


def test_a_file_that_the_repository_lacks_is_named(hub: Hub, machine: Machine):
    del hub.files[STATICS]
    assert f"{hub.address}: maxxxzdn/mosaic has no file {STATICS} at revision {COMMIT}" in machine.refused()


def test_a_hub_that_is_not_there_is_named(machine: Machine):
    refused = machine.refused(HF_ENDPOINT="http://user:password@127.0.0.1:9")
    assert "no answer from http://127.0.0.1:9 (ConnectError: " in refused
    assert "password" not in refused


def test_offline_says_what_is_missing_and_what_to_do(hub: Hub, machine: Machine):
    refused = machine.refused(HF_HUB_OFFLINE="1")
    assert refused == (
        f"CheckpointError: {CHECKPOINT}, {STATISTICS}, {STATICS}: not in assets, and HF_HUB_OFFLINE forbids to fetch; "
        "unset it, or run `ai-models-mosaic download` where there is a network and carry the folder here\n"
    )
    assert hub.requests == []


def test_a_proxy_is_honoured(hub: Hub, machine: Machine):
    machine.fetch(HF_ENDPOINT="http://hub.invalid", HTTP_PROXY=hub.address)
    assert machine.has(*FILES)
    assert {headers["host"] for headers in hub.asked("GET", "/resolve/")} == {"hub.invalid"}


def test_a_folder_that_cannot_be_written_is_named(machine: Machine):
    machine.assets.write_text("a file")
    assert "cannot be fetched into assets (Not a directory)" in machine.refused()


def test_a_file_that_does_not_fit_is_not_begun(hub: Hub, machine: Machine):
    hub.fault = "huge"
    refused = machine.refused()
    assert f"{CHECKPOINT} does not fit: expected 1000000017 MB free in assets/checkpoints, got " in refused
    assert not hub.asked("GET", "/resolve/")
