import gc
import hashlib
import os
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from recorder import Recorder
from safetensors.torch import save_file

from ai_models_mosaic.checkpoints.format import (
    Statistics,
    build_network,
    read_checkpoint,
    save_checkpoint,
)
from ai_models_mosaic.checkpoints.integrity import sha256
from ai_models_mosaic.checkpoints.npz_file import npz_arrays
from ai_models_mosaic.errors import CheckpointError
from ai_models_mosaic.variants import ERA5, MINI

STATISTICS = Statistics(np.arange(5.0), np.array([0.1, 1.0, 1e5, 1 / 3, 2.0]))
INCOMPLETE = "is not a complete checkpoint: expected a zip file as torch.save writes it, or safetensors; fetch it again"
NO_STATE_DICT = "holds no state dict: expected tensors by name, or those in 'model_state_dict'"


@pytest.fixture(scope="module")
def weights():
    return tiny.parameters()


def with_prefix(state):
    return {f"model.{key}": tensor for key, tensor in state.items()}


def refusal(path, what):
    return f"^{re.escape(f'{path} {what}')}$"


def run(network, members=1):
    with torch.no_grad():
        return network(*tiny.inputs(members))


# Layouts.


def save_released(state, path):
    optimiser = {"state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-3}]}
    content = {"epoch": 41, "model_state_dict": with_prefix(state), "optimizer_state_dict": optimiser, "best": None}
    torch.save(content, path)


LAYOUTS = {
    "released.pt": save_released,
    "bare.pt": lambda state, path: torch.save(with_prefix(state), path),
    "no_prefix.pt": torch.save,
    "nested_no_prefix.ckpt": lambda state, path: torch.save({"model_state_dict": state}, path),
    "prefix.safetensors": lambda state, path: save_file(with_prefix(state), path),
    "no_prefix.safetensors": save_file,
}


@pytest.fixture(params=LAYOUTS)
def saved(request, weights, tmp_path):
    path = tmp_path / request.param
    LAYOUTS[request.param](weights, path)
    return path


def test_every_layout_is_read_with_all_its_tensors(saved, weights):
    found = read_checkpoint(saved)
    assert found.path == saved
    assert found.state.keys() == weights.keys()
    assert all(torch.equal(found.state[key], weight) for key, weight in weights.items())
    assert (found.statistics, found.untrained) == (None, False)


def test_every_tensor_of_the_network_is_that_of_the_file_and_not_a_copy(saved):
    checkpoint = read_checkpoint(saved)
    network = build_network(tiny.ARCHITECTURE, checkpoint, tiny.STATICS)
    held = dict(network.named_parameters())
    assert held.keys() == checkpoint.state.keys()
    assert all(held[key].data_ptr() == tensor.data_ptr() for key, tensor in checkpoint.state.items())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_tensors_are_mapped_from_a_private_copy(saved):
    checkpoint = read_checkpoint(saved)
    maps = Path("/proc/self/maps").read_text().splitlines()
    assert not [line for line in maps if line.endswith(str(saved))]
    ranges = [
        tuple(int(bound, 16) for bound in line.split()[0].split("-"))
        for line in maps
        if line.endswith(f"/memfd:{saved.name} (deleted)")
    ]
    for key, tensor in checkpoint.state.items():
        assert any(start <= tensor.data_ptr() < end for start, end in ranges), key


def flip(path):
    """Write over a file in place."""
    content = np.fromfile(path, dtype=np.uint8)
    with path.open("r+b") as file:
        file.write((content ^ 1).tobytes())


@pytest.mark.parametrize("harm", [flip, lambda path: os.truncate(path, 0)])
def test_what_becomes_of_the_file_does_not_touch_the_weights_in_use(saved, weights, harm):
    digest = sha256(saved)
    found = read_checkpoint(saved)
    harm(saved)
    assert all(torch.equal(found.state[key], weight) for key, weight in weights.items())
    assert found.sha256 == digest != sha256(saved)


def test_a_network_is_for_inference(weights):
    network = build_network(tiny.ARCHITECTURE, tiny.checkpoint_of(weights), tiny.STATICS)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_building_makes_no_weights_of_its_own_first(weights):
    complete = build_network(tiny.ARCHITECTURE, tiny.checkpoint_of(weights), tiny.STATICS).state_dict()
    before = torch.random.get_rng_state()
    with Recorder() as recorder:
        build_network(tiny.ARCHITECTURE, tiny.checkpoint_of(dict(complete)))
    assert recorder.shapes, "the mode saw what was made on the meta device"
    # The weights are three hundred times that.
    assert recorder.new_bytes < 1000
    assert torch.equal(torch.random.get_rng_state(), before)


# Misfits.


def misfit(state, path="tiny.pt"):
    with pytest.raises(CheckpointError) as caught:
        build_network(tiny.ARCHITECTURE, tiny.checkpoint_of(state, path), tiny.STATICS)
    return str(caught.value)


def test_a_missing_parameter_is_an_error_whichever_it_is(weights):
    for key in weights:
        state = {other: tensor for other, tensor in weights.items() if other != key}
        expected = f"tiny.pt does not fit the network: missing parameters: {key}. Is it another variant's?"
        assert misfit(state) == expected


def test_an_unexpected_key_is_an_error(weights):
    found = misfit({**weights, "norm.weight": torch.ones(32)})
    assert found == "tiny.pt does not fit the network: unexpected keys: norm.weight. Is it another variant's?"


@pytest.mark.parametrize(
    ("key", "shape", "expected"),
    [
        ("preprocess.0.weight", (32, 21), "(32, 21) instead of (32, 20)"),
        ("bottleneck.blocks.0.ffn.w2.weight", (48, 96, 1), "(48, 96, 1) instead of (48, 96)"),
        ("interp_to_hp.neighbors", (192, 5), "(192, 5) instead of (192, 4)"),
        ("static_vars", (84, 6), "(84, 6) instead of (84, 1, 6)"),
    ],
)
def test_a_wrong_shape_is_an_error_for_parameters_and_buffers(weights, key, shape, expected):
    kind = torch.int64 if key.endswith("neighbors") else torch.float32
    found = misfit({**weights, key: torch.zeros(shape, dtype=kind)})
    assert found == f"tiny.pt does not fit the network: wrong shapes: {key} {expected}. Is it another variant's?"


@pytest.mark.parametrize(
    ("key", "shape", "kind", "expected"),
    [
        ("preprocess.3.weight", (32, 32), torch.float16, "torch.float16 instead of torch.float32"),
        ("postprocess.3.weight", (5, 32), torch.float64, "torch.float64 instead of torch.float32"),
        ("interp_to_ll.neighbors", (84, 4), torch.int32, "torch.int32 instead of torch.int64"),
    ],
)
def test_a_wrong_dtype_is_an_error(weights, key, shape, kind, expected):
    found = misfit({**weights, key: torch.zeros(shape, dtype=kind)})
    assert found == f"tiny.pt does not fit the network: wrong dtypes: {key} {expected}. Is it another variant's?"


def test_all_misfits_are_named_in_one_message(weights):
    state = {**weights, "a.weight": torch.ones(1), "b.weight": torch.ones(1)}
    del state["preprocess.0.weight"], state["noise_generator.to_noise.weight"]
    state["preprocess.3.weight"] = state["preprocess.3.weight"][:1].half()
    assert misfit(state, "folder/any.pt") == (
        "folder/any.pt does not fit the network: "
        "missing parameters: noise_generator.to_noise.weight, preprocess.0.weight; "
        "unexpected keys: a.weight, b.weight; "
        "wrong shapes: preprocess.3.weight (1, 32) instead of (32, 32); "
        "wrong dtypes: preprocess.3.weight torch.float16 instead of torch.float32. Is it another variant's?"
    )


def test_more_than_eight_misfits_are_counted(weights):
    names = [f"extra.{number}" for number in range(1, 10)]
    found = misfit({**weights, **{name: torch.ones(1) for name in names}})
    expected = f"unexpected keys: {', '.join(names[:8])} and 1 more. Is it another variant's?"
    assert found == f"tiny.pt does not fit the network: {expected}"
    assert "more" not in misfit({**weights, **{name: torch.ones(1) for name in names[:8]}})


def test_the_weights_of_one_variant_do_not_fit_another():
    bundled = read_checkpoint(Path(__file__).parent.parent / "weights" / MINI.checkpoint)
    with pytest.raises(CheckpointError) as caught:
        build_network(ERA5.architecture, bundled)
    assert str(caught.value).startswith(f"{bundled.path} does not fit the network: missing parameters: ")
    assert "preprocess.0.weight (64, 174) instead of (768, 174)" in str(caught.value)


def test_a_key_spelled_with_and_without_prefix_is_refused(weights, tmp_path):
    # Else one of the two is dropped without a word.
    path = tmp_path / "twice.pt"
    key = "preprocess.3.weight"
    torch.save({**with_prefix(weights), key: torch.zeros(32, 32)}, path)
    with pytest.raises(CheckpointError, match=re.escape(key)):
        build_network(tiny.ARCHITECTURE, read_checkpoint(path), tiny.STATICS)


# Buffers.


@pytest.mark.parametrize(
    "key",
    [
        "static_vars",
        "interp_to_hp.neighbors",
        "interp_to_ll.rel_pos",
        "encoder_stages.0.blocks.1.attention.q_rope.cos_freqs",
        "decoder_stages.0.blocks.0.attention.k_rope.sin_freqs",
        "downsample_layers.0.rel_pos",
        "upsample_layers.0.rel_pos",
    ],
)
def test_buffers_of_the_file_win_over_computed_ones(weights, key):
    computed = build_network(tiny.ARCHITECTURE, tiny.checkpoint_of(weights), tiny.STATICS)
    other = torch.roll(computed.state_dict()[key], 1, dims=0)
    network = build_network(tiny.ARCHITECTURE, tiny.checkpoint_of({**weights, key: other}), tiny.STATICS)
    assert network.state_dict()[key].data_ptr() == other.data_ptr()
    assert (run(network) - run(computed)).abs().max() > 1e-4


def test_a_file_with_static_fields_needs_no_others(weights):
    key = "static_vars"
    computed = build_network(tiny.ARCHITECTURE, tiny.checkpoint_of(weights), tiny.STATICS)
    network = build_network(tiny.ARCHITECTURE, tiny.checkpoint_of({**weights, key: computed.static_vars}))
    assert torch.equal(run(network), run(computed))


def test_missing_static_fields_are_an_error(weights):
    message = "tiny.pt carries no static fields, and none were found: the static fields are needed, and were not given"
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        build_network(tiny.ARCHITECTURE, tiny.checkpoint_of(weights))


def test_neighbours_that_are_no_points_of_the_grid_are_named(weights):
    key = "interp_to_hp.neighbors"
    neighbours = torch.full((192, 4), tiny.ARCHITECTURE.grid.size)
    with pytest.raises(CheckpointError, match=re.escape(key)):
        build_network(tiny.ARCHITECTURE, tiny.checkpoint_of({**weights, key: neighbours}), tiny.STATICS)


# Unsafe, damaged and foreign files.


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("place", ["beside", "in the state dict", "alone"])
def test_a_file_that_would_run_code_is_refused_and_runs_none(weights, tmp_path, place):
    path, mark = tmp_path / "unsafe.pt", tmp_path / "mark"
    content = {
        "beside": {"model_state_dict": with_prefix(weights), "config": Payload(mark)},
        "in the state dict": {"model_state_dict": {**with_prefix(weights), "a": Payload(mark)}},
        "alone": Payload(mark),
    }[place]
    torch.save(content, path)
    sentence = (
        f"{path} was refused: it asks to unpickle more than tensors and plain containers, which could run any code "
        "on this machine; save only the state dict"
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(sentence)}"):
        read_checkpoint(path)
    assert not mark.exists()
    # The trap was armed.
    torch.load(path, weights_only=False)
    assert mark.exists()


def test_the_refusal_does_not_pass_on_advice_to_load_the_file_anyway(tmp_path):
    torch.save(Payload(tmp_path / "mark"), tmp_path / "unsafe.pt")
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(tmp_path / "unsafe.pt")
    assert "`weights_only` set to `False`" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 1, 100, 0.3, 0.9, -1])
@pytest.mark.parametrize(
    ("name", "sentence"), [("a.pt", INCOMPLETE), ("a.safetensors", "is not a complete safetensors file: ")]
)
def test_a_truncated_file_is_refused(weights, tmp_path, kept, name, sentence):
    path = tmp_path / name
    LAYOUTS["bare.pt" if name == "a.pt" else "prefix.safetensors"](weights, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(CheckpointError, match=f"^{re.escape(f'{path} {sentence}')}"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "sentence"), [("a.pt", INCOMPLETE), ("a.safetensors", "is not a complete safetensors file: ")]
)
@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", b"<html>404</html>" * 99])
def test_a_text_file_is_refused(tmp_path, name, sentence, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"^{re.escape(f'{path} {sentence}')}"):
        read_checkpoint(path)


def test_the_old_format_of_torch_is_refused(weights, tmp_path):
    path = tmp_path / "old.pt"
    torch.save(with_prefix(weights), path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=refusal(path, INCOMPLETE)):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_an_absent_file_and_a_folder_are_refused(tmp_path, name):
    path = tmp_path / name
    message = f"^{re.escape(f'no checkpoint at {path}: expected a .pt or .safetensors file')}$"
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)
    path.mkdir()
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_a_zip_file_of_other_things_is_refused(tmp_path):
    path = tmp_path / "other.pt"
    np.savez(path.with_suffix(".npz"), a=np.ones(3))
    path.with_suffix(".npz").rename(path)
    with pytest.raises(CheckpointError, match=f"^{re.escape(str(path))} cannot be read as a checkpoint: "):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "content",
    [
        [torch.ones(1)],
        torch.ones(1),
        {1: torch.ones(1)},
        {"preprocess.0.weight": torch.ones(1), "epoch": 3},
        {"model_state_dict": None},
        {"model_state_dict": {"a": {"b": torch.ones(1)}}},
    ],
    ids=["list", "tensor", "numbers for keys", "epoch among the tensors", "nothing", "nested"],
)
def test_other_contents_are_no_state_dict(tmp_path, content):
    path = tmp_path / "other.pt"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=refusal(path, NO_STATE_DICT)):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "damaged",
    [
        b"\x80\x02h\x77.",
        b"\x80\x02a.",
        b"\x80\x02X\x02\x00\x00\x00\xff\xfe.",
        b"\x80\x02X\x10",
        b"\x80\x02",
        b"\x80\x02K\x01Q.",
    ],
    ids=["unknown memo", "empty stack", "no UTF-8", "half a length", "no end", "no such tensor"],
)
def test_a_damaged_pickle_is_an_error_that_names_the_file(tmp_path, damaged):
    # What is mapped is not held against its checksum, so damage reaches the unpickler.
    path = tmp_path / "damaged.pt"
    with zipfile.ZipFile(path, "w") as file:
        for name, content in (("data.pkl", damaged), ("version", b"3\n"), ("byteorder", b"little")):
            file.writestr(f"archive/{name}", content)
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        read_checkpoint(path)


# Files of our own.


@pytest.fixture
def own(weights, tmp_path):
    path = tmp_path / "own.safetensors"
    save_checkpoint(path, weights, STATISTICS, {"untrained": "true", "seed": "7"})
    return path


def test_what_is_saved_is_read_again(own, weights):
    found = read_checkpoint(own)
    assert found.state.keys() == weights.keys()
    assert all(torch.equal(found.state[key], weight) for key, weight in weights.items())
    assert found.metadata == {"untrained": "true", "seed": "7"}
    assert found.untrained
    assert found.statistics is not None
    for read, saved in ((found.statistics.mean, STATISTICS.mean), (found.statistics.std, STATISTICS.std)):
        assert read.dtype == np.float64
        assert read.tolist() == saved.tolist()


def test_a_saved_file_is_readable_as_any_other_and_leaves_nothing_beside_it(own, tmp_path):
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert own.stat().st_mode == ordinary.stat().st_mode
    ordinary.unlink()
    assert [path.name for path in tmp_path.iterdir()] == ["own.safetensors"]


def test_saving_again_replaces_the_file_as_a_whole(own, weights):
    mapped = read_checkpoint(own)
    save_checkpoint(own, {"a": torch.ones(2)}, STATISTICS, {})
    assert read_checkpoint(own).state.keys() == {"a"}
    # Who had mapped the old one keeps it.
    assert all(torch.equal(mapped.state[key], weight) for key, weight in weights.items())


def test_slices_and_transposes_can_be_saved(tmp_path):
    path = tmp_path / "views.safetensors"
    table = torch.arange(12.0).view(3, 4)
    save_checkpoint(path, {"transposed": table.T, "column": table[:, 1]}, STATISTICS, {})
    found = read_checkpoint(path).state
    assert torch.equal(found["transposed"], table.T)
    assert found["column"].tolist() == [1, 5, 9]


def test_a_whole_network_with_its_shared_tables_can_be_saved(weights, tmp_path):
    network = build_network(tiny.ARCHITECTURE, tiny.checkpoint_of(weights), tiny.STATICS)
    path = tmp_path / "whole.safetensors"
    save_checkpoint(path, network.state_dict(), STATISTICS, {})
    found = read_checkpoint(path).state
    assert found.keys() == network.state_dict().keys()
    assert torch.equal(run(build_network(tiny.ARCHITECTURE, read_checkpoint(path))), run(network))


def test_a_failed_save_leaves_the_file_of_that_name_as_it_was(own, weights):
    with pytest.raises(NotImplementedError):
        save_checkpoint(own, {"a": torch.empty(2, device="meta")}, STATISTICS, {})
    assert read_checkpoint(own).state.keys() == weights.keys()


# Statistics.

MEAN, STD = [0.0, 280.0], [1.0, 20.0]
SENTENCE = "expected finite means and positive standard deviations in the statistics"
BAD = [
    ([0.0, np.nan], STD),
    ([-np.inf, 0.0], STD),
    (MEAN, [1.0, np.nan]),
    (MEAN, [np.inf, 1.0]),
    (MEAN, [1.0, 0.0]),
    (MEAN, [1.0, -20.0]),
]


@pytest.mark.parametrize(("mean", "std"), BAD)
def test_statistics_that_cannot_normalise_are_refused_in_a_file(tmp_path, mean, std):
    path = tmp_path / "a.safetensors"
    save_file({"statistics.state_mean": torch.tensor(mean), "statistics.state_std": torch.tensor(std)}, path)
    with pytest.raises(CheckpointError, match=SENTENCE):
        read_checkpoint(path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_statistics_are_read_from_either_kind_of_file_and_are_no_weights(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    state = {"model.statistics.state_mean": torch.tensor(MEAN), "statistics.state_std": torch.tensor(STD)}
    (torch.save if suffix == ".pt" else save_file)({**state, "model.a": torch.ones(1)}, path)
    found = read_checkpoint(path)
    assert found.statistics is not None
    assert (found.statistics.mean.tolist(), found.statistics.std.tolist()) == (MEAN, STD)
    assert found.state.keys() == {"a"}


# npz.


def test_arrays_of_an_npz_file_come_in_float64(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.float32([0.5, 2]), b=np.int64([[1]]), other=np.ones(9))
    found = npz_arrays(path, path.read_bytes(), a=(2,), b=(1, 1))
    assert {name: array.tolist() for name, array in found.items()} == {"a": [0.5, 2], "b": [[1]]}
    assert all(array.dtype == np.float64 for array in found.values())


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"a": (3,)}, "expected 'a' of shape (3,), got (2,)"),
        ({"a": (2,), "c": (2, 1)}, "expected 'c' of shape (2, 1), got nothing"),
    ],
)
def test_a_missing_or_misshapen_array_is_an_error(tmp_path, shapes, expected):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.ones(2))
    with pytest.raises(CheckpointError, match=f"^{re.escape(f'{path}: {expected}')}$"):
        npz_arrays(path, path.read_bytes(), **shapes)


def test_pickled_objects_in_an_npz_file_are_refused_and_not_opened(tmp_path):
    path, mark = tmp_path / "a.npz", tmp_path / "mark"
    np.savez(path, a=np.array([Payload(mark)], dtype=object))
    message = f"{path} cannot be read as npz: Object arrays cannot be loaded when allow_pickle=False"
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        npz_arrays(path, path.read_bytes(), a=(1,))
    assert not mark.exists()
    np.load(path, allow_pickle=True)["a"]
    assert mark.exists(), "the trap was armed"


def overwrite(path):
    content = path.read_bytes()
    path.write_bytes(content[:1000] + bytes(3000) + content[4000:])


def save_plain_array(path):
    with path.open("wb") as file:
        np.save(file, np.ones(2000))


@pytest.mark.parametrize(
    "damage",
    [
        overwrite,
        save_plain_array,
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b"404: not found"),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(pickle.dumps(Payload(path.with_name("mark")))),
    ],
    ids=["overwritten", "an npy file", "truncated", "text", "empty", "a pickle"],
)
def test_an_npz_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path, damage):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.random.default_rng(0).normal(size=2000))
    damage(path)
    with pytest.raises(CheckpointError, match=f"^{re.escape(str(path))} cannot be read as npz: "):
        npz_arrays(path, path.read_bytes(), a=(2000,))
    gc.collect()  # a file left open would warn here
    assert not (tmp_path / "mark").exists()


def test_digests_are_those_of_the_standard(tmp_path):
    # FIPS 180-2, appendix B; the last is longer than what is read at a time.
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    path.write_bytes(b"a" * 3_000_000)
    assert sha256(path) == hashlib.sha256(b"a" * 3_000_000).hexdigest()
