"""A released checkpoint as safetensors: the same network, or a refusal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny import ARCHITECTURE, STATICS, VARIANT, inputs, parameters

from ai_models_mosaic.checkpoints.convert import convert_checkpoint
from ai_models_mosaic.checkpoints.format import build_network, read_checkpoint
from ai_models_mosaic.checkpoints.integrity import check, read_record, sha256, write_record
from ai_models_mosaic.checkpoints.tensor_files import read_metadata
from ai_models_mosaic.cli import main
from ai_models_mosaic.errors import CheckpointError
from ai_models_mosaic.model.buffers import make_buffers


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A checkpoint in the layout of the release: a prefix, parameters, some buffers, nothing else."""
    state = parameters()
    state |= make_buffers(ARCHITECTURE, ("static_vars", "interp_to_hp.neighbors"), state, STATICS)
    path = tmp_path / "tiny_best.pt"
    torch.save({"model_state_dict": {f"model.{key}": value for key, value in state.items()}}, path)
    return path


def converted(source: Path) -> Path:
    target = source.with_suffix(".safetensors")
    convert_checkpoint(VARIANT, source, target, "CC-BY-NC-4.0")
    return target


def test_the_converted_network_is_the_same_to_the_bit(released: Path):
    before = build_network(ARCHITECTURE, read_checkpoint(released))
    after = build_network(ARCHITECTURE, read_checkpoint(converted(released)))
    assert before.state_dict().keys() == after.state_dict().keys()
    for key, value in after.state_dict().items():
        torch.testing.assert_close(value, before.state_dict()[key], rtol=0, atol=0, msg=key)
    with torch.inference_mode():
        assert torch.equal(before(*inputs()), after(*inputs()))


def test_the_buffers_of_the_file_are_kept_and_no_others_are_added(released: Path):
    assert read_checkpoint(converted(released)).state.keys() == read_checkpoint(released).state.keys()


def test_tensors_that_share_memory_are_written_apart(tmp_path: Path):
    state = parameters()
    first, second, *_ = (key for key, value in state.items() if value.shape == (32, 32))
    state[second] = state[first]
    torch.save(state, tmp_path / "shared.pt")
    found = read_checkpoint(converted(tmp_path / "shared.pt")).state
    assert torch.equal(found[first], found[second])
    assert torch.equal(found[first], state[first])


def test_the_file_says_what_it_was_made_of(released: Path):
    assert read_metadata(converted(released)) == {
        "variant": "tiny",
        "licence": "CC-BY-NC-4.0",
        "source": "tiny_best.pt",
        "source_sha256": sha256(released),
    }


def test_what_is_known_of_the_source_is_handed_on(released: Path):
    write_record(released, sha256(released), "https://hub/maxxxzdn/mosaic", "232b632", "MIT")
    target = converted(released)
    said, record = read_metadata(target), read_record(target)
    assert (said["licence"], said["revision"]) == ("MIT", "232b632")
    assert said["source"] == "https://hub/maxxxzdn/mosaic, tiny_best.pt"
    assert record is not None
    assert (record.sha256, record.licence, record.revision) == (sha256(target), "MIT", "232b632")
    check(target, target.parent)


def test_the_same_source_gives_the_same_file(released: Path):
    first = converted(released).read_bytes()
    assert converted(released).read_bytes() == first


def test_a_source_that_was_changed_since_it_was_fetched_is_refused(released: Path):
    write_record(released, "0" * 64, "https://hub/maxxxzdn/mosaic", "232b632", "MIT")
    with pytest.raises(CheckpointError, match=f"expected SHA-256 {'0' * 64} .* got {sha256(released)}"):
        converted(released)
    assert not released.with_suffix(".safetensors").exists()


def test_weights_of_another_network_are_refused_by_the_command(
    released: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    target = tmp_path / "out.safetensors"
    assert main(["convert-checkpoint", "--variant", "mini", str(released), str(target)]) == 4
    said = capsys.readouterr().err
    assert f"{released} does not fit the network: missing parameters: " in said
    assert said.endswith("Is it another variant's?\n")
    assert not target.exists()


def test_the_command_converts_what_the_plugin_can_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from running import ROOT
    from safetensors.torch import load_file

    state = load_file(ROOT / "weights" / "mini.safetensors")
    released, target = tmp_path / "mini.pt", tmp_path / "again.safetensors"
    torch.save(state, released)
    words = ["--variant", "mini", "--licence", "Apache-2.0", str(released), str(target)]
    assert main(["convert-checkpoint", *words]) == 0
    again = load_file(target)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], state[key]) for key in state)
    assert read_metadata(target)["licence"] == "Apache-2.0"


def test_a_target_of_another_kind_is_refused(released: Path):
    with pytest.raises(CheckpointError, match=r"out\.pt: expected a name that ends in \.safetensors"):
        convert_checkpoint(VARIANT, released, released.with_name("out.pt"), "MIT")


def test_a_target_that_cannot_be_written_is_named(released: Path):
    with pytest.raises(CheckpointError, match=r"absent/out\.safetensors cannot be written: No such file or directory"):
        convert_checkpoint(VARIANT, released, released.parent / "absent" / "out.safetensors", "MIT")


def test_no_code_runs_while_converting(tmp_path: Path):
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("executed",)

    torch.save({"model_state_dict": parameters(), "extra": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="asks to unpickle more than tensors"):
        converted(tmp_path / "evil.pt")


def test_a_record_is_json_that_people_can_read(released: Path):
    record = json.loads(Path(f"{converted(released)}.json").read_text())
    assert list(record) == ["sha256", "size", "mtime_ns", "source", "revision", "licence", "recorded"]
