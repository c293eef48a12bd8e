"""A training run on disk: its recipe, log, state, early pictures and checkpoint.

An output folder holds ``recipe.json``, ``statistics.npz``, ``log.csv``, ``validation.csv``,
``progress.png``, ``state.pt`` while the run is under way, and ``checkpoint.safetensors``, which the
plugin runs as it is.
"""

from __future__ import annotations

import csv
import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from .. import __version__
from ..checkpoints.format import Statistics, fitting_network, read_checkpoint, save_checkpoint
from ..errors import InputError, OptionError
from ..files import named_errors, parse_json, whole_file, write_whole
from ..model.buffers import CARRIED_BUFFERS
from ..wording.numbers import counted
from . import statistics as archive_statistics
from .archive import Archive, open_archives
from .divergence import Divergence
from .processes import Processes, processes
from .recipe import Recipe
from .trainer import Trainer, Update
from .validation import LEADS, Validation, draw_progress, validate

LOG = logging.getLogger(__name__)
STATE, CHECKPOINT, RECIPE = "state.pt", "checkpoint.safetensors", "recipe.json"
STATISTICS, LOG_FILE, VALIDATION_FILE = "statistics.npz", "log.csv", "validation.csv"
SAVE_SECONDS = 120.0
"""Time between two saved states."""


@dataclass(frozen=True)
class TrainingFolders:
    """Where a run reads and writes.

    Parameters
    ----------
    data : Path
        Folder to which the recipe's stores are relative.
    output : Path
        Folder of the run.
    memory_bytes : int
        States are held in memory where all of them together take no more.
    """

    data: Path
    output: Path
    memory_bytes: int


def train(
    recipe: Recipe, place: TrainingFolders, advance: Callable[[Update], None] = lambda update: None
) -> Path | None:
    """Run a recipe, or go on with it, to its end; returns the checkpoint, or None if told to stop before.

    Parameters
    ----------
    recipe : Recipe
        What to do.
    place : TrainingFolders
        Where.
    advance : callable
        Told every update; on the first process only.

    Raises
    ------
    OptionError
        If the output folder holds another recipe's run.
    InputError
        If a store does not serve, or none has a time that a sample or a validation can start from.
    ForecastError
        If gradients are no longer finite.
    """
    with processes() as among, _stopping() as stop:
        archives = _archives(recipe.training, recipe, place)
        validation = _archives(recipe.validation, recipe, place)
        _require_starts(recipe, archives, validation)
        statistics = _begin(recipe, place, archives, among)
        trainer = Trainer(recipe, archives, statistics, among)
        _start(trainer, recipe, place)
        return _train(trainer, place, validation, advance, stop)


def _train(
    trainer: Trainer,
    place: TrainingFolders,
    validation: Sequence[Archive],
    advance: Callable[[Update], None],
    stop: Callable[[], bool],
) -> Path | None:
    recipe, leads, saved = trainer.recipe, trainer.among.leads, time.monotonic()
    divergence = Divergence(recipe)
    for update in trainer.updates(stop):
        if leads:
            _append(place.output / LOG_FILE, update)
            divergence.tell(update.number, update.loss)
            advance(update)
        if trainer.done % recipe.validate_every == 0 or trainer.done == recipe.updates:
            if leads:
                _append(place.output / VALIDATION_FILE, _validated(trainer, place, validation))
                draw_progress(place.output)
            trainer.among.wait()
        if leads and (time.monotonic() - saved > SAVE_SECONDS or trainer.done == recipe.updates):
            _save(trainer, place.output / STATE)
            saved = time.monotonic()
    if not leads:
        return None
    if trainer.done < recipe.updates:
        _save(trainer, place.output / STATE)
        LOG.warning("stopped after %d of %d updates; the same command goes on", trainer.done, recipe.updates)
        return None
    path = export(trainer, place.output / CHECKPOINT)
    (place.output / STATE).unlink(missing_ok=True)
    return path


def export(trainer: Trainer, path: Path) -> Path:
    """Write the averaged weights as a checkpoint that the plugin runs, with the recipe inside."""
    recipe, statistics = trainer.recipe, trainer.statistics
    network = trainer.network
    buffers = dict(network.named_buffers())
    state = trainer.averaged | {name: buffers[name] for name in CARRIED_BUFFERS}
    metadata = {
        "variant": recipe.variant,
        "licence": "Apache-2.0",
        "trained_by": f"ai-models-mosaic {__version__}",
        "recipe": json.dumps(recipe.as_dict(), sort_keys=True),
        "training_data": json.dumps({Path(each.path).name: each.digest for each in trainer.archives}, sort_keys=True),
        "updates": str(trainer.done),
    }
    held = {name: tensor.cpu() for name, tensor in state.items()}
    save_checkpoint(path, held, Statistics(statistics.state_mean, statistics.state_std), metadata)
    return path


def _validated(trainer: Trainer, place: TrainingFolders, archives: Sequence[Archive]) -> Validation:
    with trainer.averaged_network() as network:
        return validate(network, trainer, archives, place.output)


def _archives(names: Sequence[str], recipe: Recipe, place: TrainingFolders) -> list[Archive]:
    paths = [name if "://" in name else str(place.data / name) for name in names]
    archives = open_archives(paths, recipe.table.architecture.grid)
    for archive in archives:
        archive.warn_of_units()
    if sum(archive.bytes_needed for archive in archives) <= place.memory_bytes:
        for archive in archives:
            archive.hold()
    return archives


def _require_starts(recipe: Recipe, archives: Sequence[Archive], validation: Sequence[Archive]) -> None:
    """Refuse stores without a time whose history and targets are all there, before hours have gone by."""
    longest = max(phase.horizon for phase in recipe.phases)
    for what, stores, steps in (("train on", archives, longest), ("validate with", validation, max(LEADS))):
        variant = recipe.table
        leads = [variant.step_hours * ahead for ahead in range(1, steps + 1)]
        if not any(store.starts(variant.lags_hours, leads) for store in stores):
            lags = ", ".join(f"{lag:+d}" for lag in variant.lags_hours if lag)
            raise InputError(
                f"expected a time to {what}: one with states at {lags} h and {counted(steps, 'step')} of "
                f"{variant.step_hours} h after it, in one of {', '.join(store.path for store in stores)}; there is none"
            )
    both = sorted(set(recipe.training) & set(recipe.validation))
    if both:
        LOG.warning("%s: trained on and validated with, so the scores say nothing of other data", ", ".join(both))


def _begin(
    recipe: Recipe, place: TrainingFolders, archives: Sequence[Archive], among: Processes
) -> archive_statistics.ArchiveStatistics:
    """Record the recipe, or refuse another's folder; measure the archives once."""
    output = place.output
    if among.leads:
        output.mkdir(parents=True, exist_ok=True)
        _refuse_another(output / RECIPE, recipe)
        if not (output / STATISTICS).exists():
            grid, hours = recipe.table.architecture.grid, recipe.table.step_hours
            measured = archive_statistics.measure(archives, grid, hours, recipe.spectral_degree)
            held = read_checkpoint(place.data / recipe.start_from).statistics if recipe.start_from else None
            if held:
                # The weights know states as they were normalised when they were trained.
                measured = measured.normalised_by(held.mean, held.std)
            archive_statistics.save(measured, output / STATISTICS)
    among.wait()
    return archive_statistics.load(output / STATISTICS)


def _refuse_another(path: Path, recipe: Recipe) -> None:
    # By way of JSON, which knows no tuples.
    wanted = json.loads(json.dumps(recipe.as_dict()))
    if not path.exists():
        path.write_text(json.dumps(wanted, indent=1), encoding="utf-8")
        return
    # A run of an earlier version knows fewer keys.
    defaults = {field.name: field.default for field in fields(Recipe) if field.default is not MISSING}
    held = json.loads(json.dumps(defaults)) | _held(path)
    differing = [name for name in wanted if held.get(name) != wanted[name]]
    if differing:
        details = ", ".join(f"{name} {held.get(name)!r} there, {wanted[name]!r} now" for name in differing)
        raise OptionError(f"{path.parent} holds a run of another recipe: {details}; choose another --output")


def _held(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise OptionError(f"{path} cannot be read as the recipe of a run: {error}; choose another --output") from error
    return found if isinstance(found, dict) else {}


def _start(trainer: Trainer, recipe: Recipe, place: TrainingFolders) -> None:
    """Take up a saved state, or the weights to start from."""
    state = place.output / STATE
    if state.exists():
        held = torch.load(state, map_location=trainer.among.device, weights_only=True)
        # Of states that were saved before they had it, nothing is known.
        if held.get("training_data", trainer.training_data) != trainer.training_data:
            raise OptionError(f"{place.output} holds a run on other training data; choose another --output")
        trainer.load_state(held)
        LOG.info("going on after %d of %d updates", trainer.done, recipe.updates)
    elif recipe.start_from:
        found = read_checkpoint(place.data / recipe.start_from)
        fitting_network(recipe.table.architecture, found)
        trainer.load_weights(dict(found.state))
    if trainer.among.leads:
        for name in (LOG_FILE, VALIDATION_FILE):
            _cut(place.output / name, trainer.done)
    trainer.among.wait()


def _save(trainer: Trainer, path: Path) -> None:
    with named_errors(path), whole_file(path) as file:
        torch.save(trainer.state(), file)


def _append(path: Path, row: Update | Validation) -> None:
    names = [field.name for field in fields(row)]
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(names)
        writer.writerow([getattr(row, name) for name in names])


def _cut(path: Path, updates: int) -> None:
    """Drop the rows of updates that will be made again."""
    if not path.exists():
        return
    header, *rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [row for row in rows if row.endswith("\n") and int(row.split(",", 1)[0]) < updates]
    write_whole(path, ["".join([header, *kept]).encode()])


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Whether the run was told to stop (SIGTERM, Ctrl-C): the update under way is finished first."""
    told = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        told.set()

    if threading.current_thread() is not threading.main_thread():
        yield told.is_set
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield told.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
