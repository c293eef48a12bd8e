"""The kinds of files that a run reads, each with a command that reads them, and what may come of it."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grib_files
import numpy as np
import torch
import toy_command
import xarray
import zarr  # noqa: F401 - once, and not in every child
from fuzz_changes import (
    Random,
    bytes_changed,
    bytes_file_changed,
    grib_changed,
    json_changed,
    json_file_changed,
    npy_changed,
    pick,
    zarr_changed,
    zip_changed,
)
from fuzz_graph import graph_changed, write_graph
from safetensors import safe_open
from toy_command import RUN
from toy_variant import VARIANT

from ai_models_mosaic.channels import CHANNELS, LEVELS_HPA
from ai_models_mosaic.checkpoints.format import METADATA_KEY, save_checkpoint

WHEN = ("--date", "20200102", "--time", "12")
SHORT = ("--lead-time", 24, "--bits-per-value", 24, "--path", "out.grib")
FROM_FILE = ("--file", "in.grib", *WHEN)
WITH_WEIGHTS = ("--checkpoint", "toy.safetensors")
LONG = (*RUN, *FROM_FILE, *WITH_WEIGHTS, "--lead-time", 72, "--num-ensemble-members", 2, "--path", "out.grib", "--zarr")
LONG = (*LONG, "out.zarr", "--products", "mean@2t", "--resume")
MADE_AGAIN = ("replay", "out.grib.provenance.json", "--member", 1, "--steps", "0-24", "--output", "again.grib")

Values = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """What is damaged, and how it is read.

    Parameters
    ----------
    name : str
        Of the kind.
    prepare : callable
        Writes what is whole into a folder.
    damage : callable
        Changes something in it; returns what, in words.
    words : tuple
        The command that reads it.
    statuses : tuple of int
        Refusals.
    output : tuple of str
        Patterns of what it makes.
    told : callable
        What of the folder tells one input from another.
    needed : callable
        Whether a damage takes away what must have been read, so that no digest excuses another output.
    """

    name: str
    prepare: Callable[[Path], None]
    damage: Callable[[Random, Path], str]
    words: tuple[object, ...]
    statuses: tuple[int, ...]
    output: tuple[str, ...] = ("out.grib",)
    told: Callable[[Path], Any] = lambda folder: _card(folder)
    needed: Callable[[str], bool] = lambda what: False


def _card(folder: Path) -> Values:
    """What the card beside the output says, but for the time."""
    found: Values = json.loads((folder / "out.grib.provenance.json").read_text())
    return {name: value for name, value in found.items() if name != "written"}


# Input.


def _two_editions(folder: Path) -> None:
    """Half of the fields in each; among them one that is not needed, and states of a day before."""
    toy_command.write_inputs(folder)
    times = (grib_files.YESTERDAY, grib_files.NOW)
    fields = [grib_files.complete_history(*times, edition=edition) for edition in (1, 2)]
    messages = [fields[index % 2][key] for index, key in enumerate(fields[0])]
    messages.insert(70, grib_files.message("tp", values=0.001, base=grib_files.NOW))
    grib_files.write(folder / "in.grib", messages)


def _store(folder: Path) -> None:
    toy_command.write_inputs(folder)
    times = (grib_files.YESTERDAY, grib_files.NOW)
    arrays: dict[str, np.ndarray] = {}
    for channel in CHANNELS:
        arrays.setdefault(
            channel.variable, np.stack([_values(channel.param, channel.level_hpa, time) for time in times])
        )
        if channel.level_hpa is not None and arrays[channel.variable].ndim == 3:
            levels = [[_values(channel.param, level, time) for level in LEVELS_HPA] for time in times]
            arrays[channel.variable] = np.array(levels)
    grid = VARIANT.architecture.grid
    upper = ("time", "level", "longitude", "latitude")
    dataset = xarray.Dataset(
        {
            name: (upper if values.ndim == 4 else ("time", *upper[2:]), values.astype(np.float32))
            for name, values in arrays.items()
        },
        {
            "time": np.array(times, dtype="datetime64[ns]"),
            "level": list(LEVELS_HPA),
            "longitude": list(grid.longitude_deg),
            "latitude": list(grid.latitude_deg),
        },
    )
    chunks = {name: {"chunks": (1, *values.shape[1:])} for name, values in arrays.items()}
    dataset.to_zarr(folder / "in.zarr", mode="w", consolidated=True, encoding=chunks)


def _values(param: str, level: int | None, time: Any) -> np.ndarray:
    grid = VARIANT.architecture.grid
    longitude, latitude = np.meshgrid(grid.longitude_deg, grid.latitude_deg, indexing="ij")
    return grib_files.plausible(param, level, time)(longitude, latitude)


# Weights.


def _safetensors_changed(random: Random, folder: Path) -> str:
    path = folder / "toy.safetensors"
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    how = pick(random, ("bytes", "header", "header", "what it says of itself", "numbers"))
    if how == "bytes":
        return bytes_file_changed(random, path)
    header = data[8:end]
    if how == "header":
        header = json_changed(random, header)
    elif how == "numbers":
        data = data[:end] + bytes_changed(random, data[end:])[: len(data) - end].ljust(len(data) - end, b"\x00")
    else:
        said = json.loads(header)
        said["__metadata__"][METADATA_KEY] = json_changed(random, _said_of_weights()).decode(errors="replace")
        header = json.dumps(said).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[end:])
    return how


def _said_of_weights() -> bytes:
    recipe = json.dumps({"without_selected": False, "seed": 1, "stages": [{"steps": 1}]})
    return json.dumps({"untrained": "true", "licence": "MIT", "variant": "toy", "recipe": recipe}).encode()


def _torch_file(folder: Path) -> None:
    toy_command.write_inputs(folder)
    with safe_open(folder / "toy.safetensors", framework="pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    torch.save({"model_state_dict": state, "epoch": 3}, folder / "toy.pt")


def _torch_file_changed(random: Random, folder: Path) -> str:
    path = folder / "toy.pt"
    how = pick(random, ("bytes", "zip", "zip", "tensors", "tensors"))
    if how == "bytes":
        return bytes_file_changed(random, path)
    if how == "zip":
        return zip_changed(random, path)
    state = torch.load(path, weights_only=True)["model_state_dict"]
    name = pick(random, sorted(state))
    what, change = pick(random, TENSORS)
    state[name] = change(state[name])
    if what == "another key":
        state[pick(random, ("", "model." + name, "more"))] = state[name]
    torch.save(pick(random, (state, {"model_state_dict": state})), path)
    return f"{name} {what}"


TENSORS: tuple[tuple[str, Callable[[torch.Tensor], Any]], ...] = (
    ("sparse", lambda found: found.to_sparse()),
    ("meta", lambda found: found.to("meta")),
    ("float64", lambda found: found.double()),
    ("complex", lambda found: found.to(torch.complex64)),
    ("a parameter", lambda found: torch.nn.Parameter(found.float())),
    ("not there", lambda found: None),
    ("a number", lambda found: 3),
    ("expanded", lambda found: found.flatten()[:1].expand(found.numel()).reshape(found.shape)),
    ("turned", lambda found: found.flip(0) if found.ndim else found),
    ("not finite", lambda found: torch.full_like(found, float("nan")) if found.is_floating_point() else found - 1),
    ("huge", lambda found: found * 10**9),
    ("another key", lambda found: found),
    ("empty", lambda found: found[:0] if found.ndim else found),
)


def _arrays(folder: Path) -> None:
    toy_command.write_inputs(folder)
    save_checkpoint(folder / "toy.safetensors", toy_command.weights(with_statics=False), None, {"untrained": "true"})
    found, grid = toy_command.statistics(), VARIANT.architecture.grid
    np.savez(folder / str(VARIANT.statistics), state_mean=found.mean, state_std=found.std)
    np.savez(
        folder / str(VARIANT.statics),
        data=toy_command.static_fields(),
        latitude=np.array(grid.latitude_deg),
        longitude=np.array(grid.longitude_deg),
    )


def _arrays_changed(random: Random, folder: Path) -> str:
    path = folder / str(pick(random, (VARIANT.statistics, VARIANT.statics)))
    return bytes_file_changed(random, path) if random.random() < 0.3 else zip_changed(random, path, npy_changed)


# An unfinished run, and the card of one that is complete.


def _unfinished(folder: Path) -> None:
    toy_command.write_inputs(folder)
    (folder / "other.txt").write_text("somebody else's\n" * 1000)
    ended = toy_command.run(folder, *LONG, before=toy_command.at_step(3, toy_command.end_by(signal.SIGTERM)))
    if ended.status != 143:
        raise SystemExit(f"expected a run that was stopped, got status {ended.status}:\n{ended.said}")


def _unfinished_changed(random: Random, folder: Path) -> str:
    state = next(folder.glob("*.state"))
    arrays = sorted(state.glob("*.npy"))
    how = pick(random, ("record", "record", "position", "array", "array", "gone", "exchanged", "output"))
    if how == "record":
        return json_file_changed(random, state / "run.json")
    if how == "position":
        found = json.loads((state / "run.json").read_text())
        name = pick(random, ("other.txt", str(folder / "other.txt"), "./other.txt", "in.grib", "out.grib.partial"))
        found["positions"][name] = pick(random, (0, 10, -1, 2**70, "1", None, 1.5, [1]))
        for tails in [found["tails"]] if isinstance(found.get("tails"), dict) else []:
            tails[name] = pick(random, (None, "0" * 64))
        (state / "run.json").write_text(json.dumps(found))
        return f"position of {name}"
    if how == "output":
        return _partial_changed(random, folder)
    one = pick(random, arrays)
    if how == "array":
        one.write_bytes(pick(random, (npy_changed, bytes_changed))(random, one.read_bytes()))
    elif how == "exchanged":
        one.write_bytes(pick(random, arrays).read_bytes())
    else:
        one.unlink()
    return f"{one.name} {how}"


def _partial_changed(random: Random, folder: Path) -> str:
    """Another length, another store, or less of it; of bytes that change in the midst of a file nobody has a digest."""
    store = folder / "out.zarr.partial"
    files = [path for path in sorted(store.rglob("*")) if path.is_file()]
    said = [path for path in files if path.name.startswith(".")]
    how = pick(random, ("cut", "longer", "gone", "what the store says", "a chunk gone", "the store gone"))
    if how == "what the store says":
        return bytes_file_changed(random, pick(random, said))
    if how == "a chunk gone":
        one = pick(random, sorted({*files} - {*said}))
        one.unlink()
        return f"{one.relative_to(folder)} gone"
    if how == "the store gone":
        shutil.rmtree(store)
        return how
    path = folder / str(pick(random, ("out.grib.partial", "out-mean.grib.partial")))
    if how == "gone":
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes(data[: int(random.integers(len(data)))] if how == "cut" else data + random.bytes(100))
    return f"{path.name} {how}"


def _complete(folder: Path) -> None:
    toy_command.write_inputs(folder)
    words = (*RUN, *FROM_FILE, *WITH_WEIGHTS, "--num-ensemble-members", 2, *SHORT)
    ended = toy_command.run(folder, *words)
    if ended.status != 0:
        raise SystemExit(f"expected a complete run, got status {ended.status}:\n{ended.said}")


WEIGHTS = (*RUN, *FROM_FILE, *SHORT)

KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "grib",
            _two_editions,
            lambda random, folder: grib_changed(random, folder / "in.grib"),
            (*RUN, *FROM_FILE, *WITH_WEIGHTS, *SHORT),
            (3,),
        ),
        Kind(
            "zarr",
            _store,
            lambda random, folder: zarr_changed(random, folder / "in.zarr"),
            (*RUN, "--file", "in.zarr", *WHEN, *WITH_WEIGHTS, *SHORT),
            (3,),
            needed=lambda what: what.startswith("chunk") and what.endswith("gone"),
        ),
        Kind("safetensors", toy_command.write_inputs, _safetensors_changed, (*WEIGHTS, *WITH_WEIGHTS), (4, 5)),
        Kind("torch", _torch_file, _torch_file_changed, (*WEIGHTS, "--checkpoint", "toy.pt"), (4, 5)),
        Kind("npz", _arrays, _arrays_changed, (*WEIGHTS, *WITH_WEIGHTS), (4, 5)),
        Kind(
            "onnx",
            write_graph,
            graph_changed,
            (*WEIGHTS, "--engine", "onnx", "--onnx-model", "toy.onnx"),
            # Also that of a graph of another variant or precision.
            (2, 4, 5),
        ),
        Kind(
            "state",
            _unfinished,
            _unfinished_changed,
            LONG,
            (6, 7),
            ("out.grib", "out-mean.grib", "out.zarr/**/*", "other.txt", "in.grib"),
            lambda folder: None,
        ),
        Kind(
            "replay",
            _complete,
            lambda random, folder: json_file_changed(random, folder / "out.grib.provenance.json"),
            MADE_AGAIN,
            # Also those of an option that does not fit the card, and of fields that are others.
            (2, 3, 4, 5, 6, 10),
            ("again.grib",),
            lambda folder: None,
        ),
    )
}
