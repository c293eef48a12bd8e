"""Some fields of a forecast made again, from the card that stands beside its output."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import eccodes
import numpy as np

from ..channels import CHANNELS
from ..checkpoints.files import STATICS, STATISTICS, Assets, check_assets, locate
from ..checkpoints.integrity import digest_of
from ..engines.choice import EngineChoice, prepare_engine
from ..errors import CheckpointError, InputError, OptionError, OutputError
from ..files import parse_json
from ..geometry.grid import to_grib_order
from ..inputs.fields import Wanted, list_available
from ..inputs.grib_messages import find_messages
from ..inputs.requests import check_file
from ..inputs.states import initial_states_of, input_digest
from ..inputs.zarr import is_zarr, zarr_fields
from ..options.number_lists import parse_ranges
from ..outputs.calibration import StepGatherer
from ..outputs.grib.files import MessageFiles, check_writable
from ..outputs.grib.keys import labels_of_weights
from ..outputs.grib.output import GribEncoder, Labels, is_grib
from ..params import CHANNEL_FIELDS, named
from ..state import ForecastStep, InitialState
from ..wording.redaction import is_redacted
from .provenance import SUFFIX, packages
from .recorded import Card
from .rollout import rollout
from .tiles import NAME as TILINGS
from .tiles import take_tilings, tilings_of

if TYPE_CHECKING:
    from ..engines import LoadedEngine

Key = tuple[int, int, str, int]
"""Member, hours, parameter and level of a message."""


@dataclass(frozen=True)
class Comparison:
    """Fields made again against those of the original.

    Parameters
    ----------
    fields : int
        Made again.
    identical : int
        Of them, those whose messages in the original are the same to the byte.
    differing : tuple of (Key, float, float)
        Of those that differ, the key, the largest difference, and that over the field's standard deviation.
    backend : tuple of (str, object, object)
        What is another than in the original run: name, then and now.
    """

    fields: int
    identical: int
    differing: tuple[tuple[Key, float, float], ...]
    backend: tuple[tuple[str, Any, Any], ...]

    def __str__(self) -> str:
        lines = [f"{name} was {then}, is {now}" for name, then, now in self.backend]
        compared = self.identical + len(self.differing)
        if not compared:
            return "\n".join([*lines, f"{self.fields} fields made again; the original is not there to compare with"])
        lines.append(f"{self.fields} fields made again, {self.identical} of {compared} identical to the original's")
        if self.differing:
            key, difference, share = max(self.differing, key=lambda found: found[2])
            lines.append(
                f"farthest off: {key[2]} at level {key[3]} of member {key[0]} at +{key[1]} h, by {difference:.3g}, "
                f"{share:.1e} of the field's standard deviation"
            )
        return "\n".join(lines)


def choose_hours(text: str, card: Card) -> tuple[int, ...]:
    """Lead times such as ``24,96-120``, in hours.

    Raises
    ------
    OptionError
        If it is no such list, or names no step of the variant's.
    """
    stride = card.variant.step_hours
    chosen: set[int] = set()
    for hours in parse_ranges(text, "--steps"):
        steps = {hour for hour in hours if hour % stride == 0}
        if not steps:
            raise OptionError(
                f"--steps: expected hours, multiples of {stride}, such as {stride},{2 * stride}-{4 * stride}, "
                f"got {text!r}"
            )
        chosen |= steps
    return tuple(sorted(chosen))


def choose_channels(text: str | None) -> tuple[int, ...]:
    """Indices of the channels that a list such as ``2t,z500,u`` names; a parameter alone means all its levels.

    Raises
    ------
    OptionError
        If a name is of no channel.
    """
    if text is None:
        return tuple(range(len(CHANNELS)))
    fields = [field for name in text.split(",") for field in named(name.strip(), "--params", CHANNEL_FIELDS)]
    return tuple(sorted({index for field in fields for index in field.channels}))


def replay(
    card: Card,
    member: int,
    hours: Sequence[int],
    channels: Sequence[int],
    output: Path,
    *,
    file: str | None = None,
    assets: Path | None = None,
) -> Comparison:
    """Make some fields again, write them, and compare them with the original where it is.

    Parameters
    ----------
    card : Card
        Of the forecast.
    member : int
        Which.
    hours : sequence of int
        Lead times, ascending.
    channels : sequence of int
        Indices in `channels.CHANNELS`.
    output : Path
        Where to.
    file : str or None
        The input, if it is elsewhere than it was.
    assets : Path or None
        Folder of the weights, if they are elsewhere than they were.

    Raises
    ------
    InputError
        If the input is not there, or not the one of the forecast.
    CheckpointError
        If the weights are not.
    OptionError
        If the member cannot be made alone.
    OutputError
        If the file cannot be written.
    """
    check_writable(output)
    _refuse_own_files(card, output, file)
    batch = card.batch_of(member)
    engine = _load_engine(card, assets)
    _refuse_large_batch(card, engine, batch)
    read = _read_input(card, file, batch)
    calibration = card.calibration
    # The mean about which a member was moved is of all of them.
    starts = {one: read[one] for one in (batch if calibration is None else card.ensemble.members)}
    said = labels_of_weights(untrained=engine.untrained, bundled=card.variant.bundled)
    size, initial_time = card.found["ensemble_size"], starts[member].initial_time
    labels = Labels(
        initial_time, size, card.found["metadata"], packing=card.packing, calibrated=calibration is not None, **said
    )
    files = MessageFiles()
    made: dict[Key, bytes] = {}
    with GribEncoder(card.region, labels) as encoder:
        for forecast in _steps(card, engine, starts, max(hours)):
            if forecast.lead_time_hours not in hours:
                continue
            for message in _encoded(card, encoder, forecast, member, channels):
                files.append(output, message)
                made[_key(message)] = message
    files.finish()
    return _compare(card, engine, made)


def _refuse_large_batch(card: Card, engine: LoadedEngine, batch: Sequence[int]) -> None:
    """Refuse more members at a time than this machine has memory for; a GPU takes them in parts."""
    architecture = card.variant.architecture
    # The histories, the same in one array, and what comes out.
    states = 3 * architecture.history * architecture.grid.size * architecture.channels * 4
    needed = len(batch) * states + (engine.memory_bytes(len(batch)) if engine.description.startswith("CPU") else 0)
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > here:
        raise InputError(
            f"the forecast of {card.path} ran {len(batch)} members at a time, which takes {needed / 1e9:.1f} GB; this "
            f"machine has {here / 1e9:.1f} GB"
        )


def _refuse_own_files(card: Card, output: Path, file: str | None) -> None:
    """Refuse to write over what is to be compared with, or read."""
    kept = [card.path, *_originals(card), Path(file or str(card.found["input"]["source"]))]
    if any(output.resolve() == path.resolve() for path in kept):
        raise OutputError(f"--output {output}: expected a new file, got one of the forecast itself or its input")


def _encoded(
    card: Card, encoder: GribEncoder, forecast: ForecastStep, member: int, channels: Sequence[int]
) -> Iterator[bytes]:
    """Messages of some channels of one member of a step."""
    whole = np.moveaxis(forecast.values[forecast.members.index(member)], -1, 0)
    fields = to_grib_order(card.region.take(whole)).astype(np.float64)
    for channel in channels:
        yield encoder.encode(channel, member, forecast.lead_time_hours, fields[channel]).to_bytes()


def _steps(card: Card, engine: LoadedEngine, starts: dict[int, InitialState], hours: int) -> Iterator[ForecastStep]:
    """The steps of the members of a batch, from where they start to a lead time; of all, moved, if they were."""
    stride, calibration = card.variant.step_hours, card.calibration
    batches = [tuple(starts)] if calibration is None else list(card.ensemble.batches())
    made = rollout(engine, starts, card.ensemble, stride, hours // stride, batches=batches)
    if calibration is None:
        return made
    gatherer = StepGatherer(card.ensemble.members)
    return (calibration.moved(whole) for forecast in made if (whole := gatherer.add(forecast)) is not None)


def _read_input(card: Card, file: str | None, batch: Sequence[int]) -> dict[int, InitialState]:
    said = card.found["input"]
    source = file or said["source"]
    if file is None and not is_zarr(source) and not Path(source).is_file():
        raise InputError(f"the input of {card.path} was {source}, which is no file that is there: give it with --file")
    if is_redacted(source):
        raise InputError(
            f"the input of {card.path} was {source}, whose password or token is kept nowhere: give the whole address "
            "with --file"
        )
    variant, wanted = card.variant, Wanted(time=datetime.fromisoformat(said["initial_time"]))
    if is_zarr(source):
        available = zarr_fields(source, variant.lags_hours, wanted)
    else:
        available = list_available(find_messages(Path(check_file(source))))
    members = list(dict.fromkeys([*card.found["members"], *batch]))
    starts = initial_states_of(available, variant.architecture.grid, variant.lags_hours, wanted, members)
    digest = input_digest({one: starts[one] for one in card.found["members"]})
    if digest != said["sha256"]:
        raise InputError(
            f"{source} is not what the forecast of {card.path} started from: expected fields with SHA-256 "
            f"{said['sha256']}, got {digest}; give the right one with --file"
        )
    return starts


def _load_engine(card: Card, assets: Path | None) -> LoadedEngine:
    choice, weights = _engine_choice(card, assets)
    load = prepare_engine(card.variant, choice)
    if choice.name == "torch":
        # To read weights takes long, and more memory than to hash them.
        _refuse_other_weights(card, weights, digest_of(weights))
    engine = load()
    take_tilings(engine, card.found.get(TILINGS))
    # The file may be another since it was looked at.
    _refuse_other_weights(card, weights, engine.checkpoint_sha256)
    _refuse_other_data(card, engine)
    return engine


def _engine_choice(card: Card, assets: Path | None) -> tuple[EngineChoice, Path]:
    """What ran the forecast, as far as this machine has it; and the file of its weights."""
    options = card.found["options"]
    if options.get("engine") == "onnx":
        graph = Path(str(card.found["weights"]["file"]))
        graph = graph if assets is None else assets / graph.name
        return EngineChoice("onnx", onnx_model=graph), graph
    files = _locate(card, assets)
    check_assets(card.variant, files, full=False)
    from ..engines.torch import choose_device

    choice = EngineChoice(
        files=files,
        precision=card.found["precision"],
        attention_backend=card.attention_backend(choose_device(only_gpu=False).type),
        compiled=options.get("compiled", False),
        threads=card.threads,
    )
    return choice, files.checkpoint


def _locate(card: Card, assets: Path | None) -> Assets:
    variant = card.variant
    if assets is not None:
        return locate(variant, assets)
    checkpoint = Path(str(card.found["weights"]["file"]))
    if not checkpoint.is_file():
        raise CheckpointError(f"the weights of {card.path} were {checkpoint}, not there now: give --assets FOLDER")
    # Laid out as on the hub, or flat.
    nested = checkpoint.parent.name == str(Path(variant.checkpoint).parent)
    found = locate(variant, checkpoint.parent.parent if nested else checkpoint.parent, checkpoint)
    said = {what: Path(file["file"]) for what, file in card.data.items()}
    there = {what: path for what, path in said.items() if path.is_file()}
    return replace(found, statistics=there.get(STATISTICS, found.statistics), statics=there.get(STATICS, found.statics))


def _refuse_other_weights(card: Card, path: Path, digest: str | None) -> None:
    wanted = card.found["weights"]["sha256"]
    if digest != wanted:
        raise CheckpointError(
            f"{path} is not what made the forecast of {card.path}: expected SHA-256 {wanted}, "
            f"got {digest}; give the folder of the right one with --assets"
        )


def _refuse_other_data(card: Card, engine: LoadedEngine) -> None:
    """Refuse normalisation, static fields or external data that are not those of the forecast."""
    now = {file.what: file for file in engine.data}
    for what, file in card.data.items():
        if what not in now or now[what].sha256 != file["sha256"]:
            got = f"{now[what].path} with {now[what].sha256}" if what in now else "none"
            raise CheckpointError(
                f"the {what} of {card.path}: expected {file['file']} with SHA-256 {file['sha256']}, got {got}; give "
                "the folder of the right one with --assets"
            )


def _compare(card: Card, engine: LoadedEngine, made: dict[Key, bytes]) -> Comparison:
    then = {"engine": card.found["engine"], TILINGS: card.found.get(TILINGS), **card.found["packages"]}
    now = {"engine": engine.description, TILINGS: tilings_of(engine).get(TILINGS), **packages()}
    backend = tuple((name, then.get(name), now[name]) for name in now if then.get(name) != now[name])
    identical, differing = set(), {}
    for original in _originals(card):
        for message in _messages(original):
            key = _key(message)
            if made.get(key) == message:
                identical.add(key)
            elif key in made:
                differing[key] = _distance(message, made[key])
    apart = tuple((key, *found) for key, found in differing.items() if key not in identical)
    return Comparison(len(made), len(identical), apart, backend)


def _originals(card: Card) -> Iterator[Path]:
    """The files of the forecast that are beside the card."""
    for beside in sorted(card.path.parent.glob(f"*{SUFFIX}")):
        original = beside.with_name(beside.name.removesuffix(SUFFIX))
        try:
            run = parse_json(beside.read_bytes()).get("run")
        except (OSError, ValueError, AttributeError):
            continue
        if is_grib(original) and (beside == card.path or (run is not None and run == card.found.get("run"))):
            yield original


def _messages(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            try:
                yield eccodes.codes_get_message(handle)
            finally:
                eccodes.codes_release(handle)


def _key(message: bytes) -> Key:
    handle = eccodes.codes_new_from_message(message)
    try:
        number = eccodes.codes_get_long(handle, "number") if eccodes.codes_is_defined(handle, "number") else 0
        hours, level = (eccodes.codes_get_long(handle, name) for name in ("endStep", "level"))
        return number, hours, eccodes.codes_get_string(handle, "shortName"), level
    finally:
        eccodes.codes_release(handle)


def _distance(first: bytes, second: bytes) -> tuple[float, float]:
    """Largest difference of two fields, and that over the standard deviation of the first."""
    decoded = []
    for message in (first, second):
        handle = eccodes.codes_new_from_message(message)
        try:
            decoded.append(eccodes.codes_get_values(handle))
        finally:
            eccodes.codes_release(handle)
    difference = float(np.abs(decoded[0] - decoded[1]).max())
    return difference, difference / float(decoded[0].std() or 1.0)
