"""Files of weights that are strange in all ways: refused in one line, never taken for numbers that they have not."""

import io
import json
import re
import zipfile

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import save_file

from ai_models_mosaic.checkpoints.format import build_network, read_checkpoint
from ai_models_mosaic.checkpoints.npz_file import npz_arrays
from ai_models_mosaic.checkpoints.tensor_files import read_metadata
from ai_models_mosaic.errors import CheckpointError

KEY = "noise_generator.to_noise.weight"
DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def weights():
    return tiny.parameters()


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        build_network(tiny.ARCHITECTURE, read_checkpoint(path), tiny.STATICS)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{path}")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("[]", ": expected metadata that are texts by name, got []"),
        ("3", ": expected metadata that are texts by name, got 3"),
        ('{"untrained": true}', ": expected metadata that are texts by name, got {'untrained': True}"),
        ("{", ": expected metadata in JSON, got something else (Expecting property name enclosed in double quotes: "),
        (DEEP, ": expected metadata in JSON, got something else (expected at most 100 containers in one another"),
        ('{"recipe": "[]"}', ": expected a recipe with without_selected true or false, got []"),
        ('{"recipe": "null"}', ": expected a recipe with without_selected true or false, got None"),
        ('{"recipe": "{"}', ": expected metadata in JSON, got something else (Expecting property name"),
        (
            json.dumps({"recipe": DEEP}),
            ": expected metadata in JSON, got something else (expected at most 100 containers",
        ),
        (
            '{"recipe": "{\\"without_selected\\": \\"no\\"}"}',
            ": expected a recipe with without_selected true or false, got {'without_selected': 'no'}",
        ),
    ],
)
def test_metadata_of_another_form_are_refused(weights, tmp_path, said, expected):
    path = tmp_path / "tiny.safetensors"
    save_file(dict(weights), path, metadata={"mosaic": said})
    assert refusal(path).startswith(expected)


@pytest.mark.parametrize("header", [b"[]", b"{", b"null", DEEP.encode(), b'{"__metadata__": 3}', b"\xff"])
@pytest.mark.parametrize("read", [read_metadata, read_checkpoint])
def test_headers_of_another_form_are_refused(tmp_path, header, read):
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match=f"^{re.escape(str(path))} is not a complete safetensors file: "):
        read(path)


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path):
    path = tmp_path / "tiny.safetensors"
    path.write_bytes((2**60).to_bytes(8, "little") + b"{}")
    message = f"{path} is not a complete safetensors file: expected a header of at most 100000000 bytes, got {2**60}"
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        read_metadata(path)


@pytest.mark.filterwarnings(
    "ignore:Sparse CSR tensor", "ignore:.*nested tensors", "ignore:TypedStorage", "ignore:.*quant"
)
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda weight: weight.to_sparse(), "sparse_coo"),
        (lambda weight: weight.to_sparse_csr(), "sparse_csr"),
        (lambda weight: weight.to("meta"), "on meta"),
        (lambda weight: weight.to(torch.complex64), "torch.complex64"),
        (lambda weight: torch._neg_view(weight), "torch.float32 negated"),
    ],
    ids=["sparse", "compressed rows", "meta", "complex", "negated"],
)
def test_tensors_that_are_no_plain_numbers_are_refused(weights, tmp_path, change, kind):
    path = tmp_path / "tiny.pt"
    torch.save({**weights, KEY: change(weights[KEY])}, path)
    assert refusal(path) == f": expected plain tensors, got others: {KEY} {kind}; save the weights dense"


# The records of a zip file.


def rewritten(weights, path, change, compression=zipfile.ZIP_STORED):
    """A checkpoint whose records are changed, by their names after the first folder."""
    saved, made = io.BytesIO(), io.BytesIO()
    torch.save(dict(weights), saved)
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(made, "w", compression) as target:
        for part in source.infolist():
            content = change(part.filename.partition("/")[2], source.read(part))
            if content is not None:
                target.writestr(part.filename, content)
    path.write_bytes(made.getvalue())


OTHERS = " cannot be read as a checkpoint: expected every tensor's storage to be all of its record, got others"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda name, content: content[:-4] if name == "data/0" else content, OTHERS),
        (lambda name, content: content[: len(content) // 2] if name == "data/3" else content, OTHERS),
        (lambda name, content: b"" if name == "data/0" else content, OTHERS),
        (lambda name, content: content + bytes(64) if name == "data/0" else content, OTHERS),
        (lambda name, content: None if name == "data/0" else content, " cannot be read as a checkpoint: PytorchStream"),
        (lambda name, content: b"xx" if name == "byteorder" else content, " cannot be read as a checkpoint: Unknown"),
        (
            lambda name, content: content[: len(content) // 2] if name == "data.pkl" else content,
            " cannot be read as a checkpoint: ",
        ),
        (
            lambda name, content: content.replace(b"K\x00", b"J\xff\xff\xff\xff") if name == "data.pkl" else content,
            " cannot be read as a checkpoint: Tensor: invalid storage offset -1",
        ),
    ],
    ids=["shorter", "half", "empty", "longer", "absent", "byte order", "pickle", "offset"],
)
def test_records_that_are_not_what_the_pickle_says_are_refused(weights, tmp_path, change, expected):
    path = tmp_path / "tiny.pt"
    rewritten(weights, path, change)
    assert refusal(path).startswith(expected)


def test_compressed_records_are_refused_and_not_taken_for_numbers(weights, tmp_path):
    path = tmp_path / "tiny.pt"
    rewritten(weights, path, lambda _, content: content, zipfile.ZIP_DEFLATED)
    assert refusal(path) == " cannot be read as a checkpoint: expected weights that are not compressed"


def test_records_that_are_only_written_anew_are_read(weights, tmp_path):
    path = tmp_path / "tiny.pt"
    rewritten(weights, path, lambda _, content: content)
    assert all(torch.equal(tensor, weights[key]) for key, tensor in read_checkpoint(path).state.items())


# npz.


def npz_of(header, content=b"", **more):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", **more) as target:
        target.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content)
    return made.getvalue()


def header_of(shape, dtype="<f8"):
    return f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()


def damaged_deflate():
    content = bytearray(npz_of(header_of((5,)), bytes(40), compression=zipfile.ZIP_DEFLATED))
    content[40:60] = bytes(20)
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [
        npz_of(b"{'descr': '<f8', 'shape': ("),
        npz_of(b"('" * 2000),
        npz_of(b"(" * 9000),
        npz_of(b"\x00\xff{"),
        npz_of(header_of((10**13,))),
        npz_of(header_of((-5,)), bytes(40)),
        npz_of(header_of((5,), "|O"), bytes(40)),
        npz_of(header_of((5,), "<c16"), bytes(80)),
        npz_of(header_of((5,), "<U4"), bytes(80)),
        npz_of(header_of((5,)), bytes(39)),
        npz_of(header_of((5,)), bytes(10**6), compression=zipfile.ZIP_DEFLATED),
        damaged_deflate(),
        npz_of(header_of((5,)), bytes(40)).replace(b"\x00\x00a.npy", b"\x01\x00a.npy"),
    ],
    ids=[
        *("token", "quotes", "nesting", "no text", "memory", "negative", "objects", "complex", "text", "short", "bomb"),
        *("zlib", "names"),
    ],
)
def test_an_npz_file_that_is_strange_is_refused(tmp_path, content):
    with pytest.raises(CheckpointError, match=r"^a.npz(:| cannot be read as npz:) [^\n]+$"):
        npz_arrays(tmp_path.__class__("a.npz"), content, a=(5,))


def test_an_npz_file_is_read(tmp_path):
    content = npz_of(header_of((5,)), np.arange(5.0).tobytes())
    assert npz_arrays(tmp_path, content, a=(5,))["a"].tolist() == [0, 1, 2, 3, 4]
