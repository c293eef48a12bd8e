"""A forecast ready to be made again: the engine, the input and the labels that its card names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checkpoints.files import STATICS, STATISTICS, Assets, check_assets, locate
from ..checkpoints.integrity import digest_of, sha256
from ..engines.choice import EngineChoice, prepare_engine
from ..errors import CheckpointError, InputError
from ..geometry.grid import to_grib_order
from ..inputs.fields import Wanted, list_available
from ..inputs.grib_messages import find_messages
from ..inputs.lagged import lagged_states
from ..inputs.requests import check_file
from ..inputs.states import initial_states_of, input_digest
from ..inputs.zarr import is_zarr, zarr_fields
from ..outputs.calibration import MemberMover
from ..outputs.clipping import clipped
from ..outputs.grib.keys import labels_of_weights
from ..outputs.grib.output import GribEncoder, Labels
from ..state import ForecastStep, InitialState
from ..wording.redaction import is_redacted
from .lagged import brought_to_start
from .progress import Watch
from .provenance import VERSIONS, packages, versions
from .ranks import SingleRank
from .recorded import Card
from .rollout import rollout
from .tiles import NAME as TILINGS
from .tiles import take_tilings, tilings_of

if TYPE_CHECKING:
    from ..engines import LoadedEngine


@dataclass(frozen=True)
class Remake:
    """What makes steps of a forecast again.

    Parameters
    ----------
    card : Card
        Of the forecast.
    engine : LoadedEngine
        Of the same weights.
    starts : dict of int to InitialState
        Where members start.
    """

    card: Card
    engine: LoadedEngine
    starts: dict[int, InitialState]

    def labels(self) -> Labels:
        """What all messages of the forecast have in common."""
        said = labels_of_weights(untrained=self.engine.untrained, bundled=self.card.variant.bundled)
        card, time = self.card, next(iter(self.starts.values())).initial_time
        size, calibrated = card.found["ensemble_size"], card.calibration is not None
        return Labels(time, size, card.found["metadata"], packing=card.packing, calibrated=calibrated, **said)

    def steps(self, group: Sequence[int], hours: int) -> Iterator[ForecastStep]:
        """The steps of a group of members (`Card.group_of`), as they were written, from their start to a lead time."""
        for forecast in self._moved(group, hours):
            yield clipped(forecast) if self.card.clips_humidity else forecast

    def _moved(self, group: Sequence[int], hours: int) -> Iterator[ForecastStep]:
        """The same before they are clipped; moved about the mean of all, if they were."""
        ensemble, stride, calibration = self.card.ensemble, self.card.variant.step_hours, self.card.calibration
        starts = {member: self.starts[member] for member in group}
        if ensemble.lagging is not None:
            starts = brought_to_start(starts, ensemble, stride, self.engine, SingleRank(), Watch())
        batches = [tuple(group)] if calibration is None else list(ensemble.batches())
        steps = rollout(self.engine, starts, ensemble, stride, hours // stride, batches=batches)
        mover = MemberMover(calibration, ensemble.members)
        return (whole for step in steps if (whole := mover.add(step)) is not None)

    def messages(
        self, encoder: GribEncoder, forecast: ForecastStep, member: int, channels: Sequence[int]
    ) -> Iterator[bytes]:
        """Some channels of one member of a step."""
        whole = np.moveaxis(forecast.values[forecast.members.index(member)], -1, 0)
        fields = to_grib_order(self.card.region.take(whole)).astype(np.float64)
        for channel in channels:
            yield encoder.encode(channel, member, forecast.lead_time_hours, fields[channel]).to_bytes()

    @property
    def changes(self) -> tuple[tuple[str, Any, Any], ...]:
        """What is another than in the original run: name, then and now."""
        found, engine = self.card.found, self.engine
        then = {name: found.get(name) for name in ("engine", TILINGS, *VERSIONS)} | found["packages"]
        now = {"engine": engine.description, TILINGS: tilings_of(engine).get(TILINGS), **versions(), **packages()}
        return tuple((name, then.get(name), now[name]) for name in now if then.get(name) != now[name])


def prepare(card: Card, groups: Sequence[Sequence[int]], file: str | None, assets: Path | None) -> Remake:
    """Load all that makes some groups of members again.

    Parameters
    ----------
    card : Card
        Of the forecast.
    groups : sequence of sequence of int
        As `Card.group_of` gives them.
    file : str or None
        The input, if it is elsewhere than it was.
    assets : Path or None
        Folder of the weights, if they are elsewhere than they were.

    Raises
    ------
    InputError
        If the input is not there, or not the one of the forecast, or the factors by which members were moved are not,
        or members are more than the memory holds.
    CheckpointError
        If the weights are not.
    """
    _refuse_other_factors(card)
    engine = _load_engine(card, assets)
    members = [member for group in groups for member in group]
    _refuse_more_than_memory(card, engine, max(map(len, groups)))
    read = _read_input(card, file, members)
    return Remake(card, engine, {member: read[member] for member in members})


def _refuse_other_factors(card: Card) -> None:
    """Refuse a file of factors that is not the one by which members were moved, and read the one that is."""
    calibration = card.calibration
    if calibration is None:
        return
    path = Path(calibration.path).absolute()
    try:
        found = sha256(path) if path.is_file() else "no file there"
    except OSError as error:
        found = str(error)
    if found != calibration.sha256:
        raise InputError(
            f"the factors by which members of {card.path} were moved: expected the file {path} with SHA-256 "
            f"{calibration.sha256}, got {found}; put that file there again"
        )
    # Kept, so that the file is not needed any more.
    _ = calibration.content


def _refuse_more_than_memory(card: Card, engine: LoadedEngine, held: int) -> None:
    """Refuse to make more members together than this machine has memory for; a GPU takes them in parts."""
    architecture = card.variant.architecture
    state = architecture.grid.size * architecture.channels * 4
    batch = min(held, card.ensemble.per_batch)
    # Histories of all, for a batch the same in one array and its step; and what is moved, before and after.
    needed = state * architecture.history * (held + 2 * batch)
    needed += 0 if card.calibration is None else 2 * held * state
    needed += engine.memory_bytes(batch) if engine.description.startswith("CPU") else 0
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > here:
        why = "" if card.calibration is None else f" and moved all {held} of them about their mean"
        raise InputError(
            f"the forecast of {card.path} ran {batch} members at a time{why}, which takes {needed / 1e9:.1f} GB; this "
            f"machine has {here / 1e9:.1f} GB"
        )


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
    time, ensemble = datetime.fromisoformat(said["initial_time"]), card.ensemble
    members = list(dict.fromkeys([*card.found["members"], *batch]))
    read = partial(_read_states, card, source)
    if ensemble.lagging is None:
        starts = read(Wanted(time=time), members)
    else:
        starts = lagged_states(read, time, ensemble.lagging, members)
    digest = input_digest({one: starts[one] for one in card.found["members"]})
    if digest != said["sha256"]:
        raise InputError(
            f"{source} is not what the forecast of {card.path} started from: expected fields with SHA-256 "
            f"{said['sha256']}, got {digest}; give the right one with --file"
        )
    return starts


def _read_states(card: Card, source: str, wanted: Wanted, members: Sequence[int]) -> dict[int, InitialState]:
    variant, crossing = card.variant, card.ensemble.crossing
    if is_zarr(source):
        available = zarr_fields(source, variant.lags_hours, wanted)
    else:
        available = list_available(find_messages(Path(check_file(source))))
    count = 0 if crossing is None else crossing.starts
    return initial_states_of(available, variant.architecture.grid, variant.lags_hours, wanted, members, count)


def _load_engine(card: Card, assets: Path | None) -> LoadedEngine:
    choice, weights = _engine_choice(card, assets)
    if choice.name == "torch":
        # To read weights takes long, and more memory than to hash them.
        _refuse_other_weights(card, weights, digest_of(weights))
    engine = prepare_engine(card.variant, choice)()
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
