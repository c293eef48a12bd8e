"""The ensemble and its products as a Zarr store, after the conventions of CF and WeatherBench 2.

Dimensions are time, prediction_timedelta, number, level, longitude, latitude; a chunk holds a
variable of one member and lead time with all its levels, so that threads, and processes, never
write to the same one.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ...arrays import FloatArray
from ...errors import OutputError
from ...files import PARTIAL_SUFFIX, parse_json, partial_of, sync
from ...params import Field
from ..extras import require
from ..grib.files import check_folder
from ..products import Product
from .folder import GROUP, StoreFolder
from .layout import Layout, Variable, coordinates, variables

LOG = logging.getLogger(__name__)

RUN = "ai_models_mosaic_run"
"""Attribute with the digest of the run that made a store."""


class ZarrOutput:
    """A Zarr store that bears the suffix ``.partial`` until `finish`.

    Parameters
    ----------
    path : Path
        Its name when complete.
    layout : Layout
        What it holds.
    run : str or None
        Digest of what the run is, which the store carries; None where there is none.
    resume : bool
        Whether to go on with the partial store that is there.
    finished : bool
        Whether what is resumed may have its name already.

    Raises
    ------
    OutputError
        If it cannot be created, zarr is not installed, another run is writing it, or there is nothing to go on with.
    """

    def __init__(
        self, path: Path, layout: Layout, *, run: str | None = None, resume: bool = False, finished: bool = False
    ) -> None:
        self.path, self._run = path, run
        self._layout = layout
        self._variables = variables(layout)
        self._steps = {hours: index for index, hours in enumerate(layout.lead_times_hours)}
        self._numbers = {member: index for index, member in enumerate(layout.members)}
        self._product_of = {
            (variable.product, field): (variable, index)
            for variable in self._variables
            if variable.product is not None
            for index, field in enumerate(variable.fields)
        }
        self._folder = StoreFolder(path)
        if self._folder.final != path:
            LOG.info("%s is a symbolic link: writing %s", path, self._folder.final)
        self._unsynced: set[Path] = set()
        self.is_named = False
        zarr = require("zarr", f"writing {path}")
        try:
            with _named_errors(path):
                if resume:
                    self._go_on(zarr, finished=finished)
                else:
                    self._folder.begin()
                    self._group = zarr.open_group(str(self.place), mode="w-")
                    self._create(self._group)
                    self._unsynced.update(found for found in self.place.rglob("*") if found.is_file())
                self._arrays = {variable.name: self._group[variable.name] for variable in self._variables}
        except BaseException:
            self._folder.release()
            raise

    @property
    def place(self) -> Path:
        """Where the store is now."""
        return self._folder.final if self.is_named else self._folder.partial

    def _go_on(self, zarr: Any, *, finished: bool) -> None:
        """Take up the store of this run, which may have its name already."""
        partial, final = self._folder.partial, self._folder.final
        # A death while outputs were being named; what is beside the complete store may be another run's.
        self.is_named = finished and run_of(final) == self._run and (final / GROUP).exists()
        if self.is_named and (partial / GROUP).exists() and run_of(partial) == self._run:
            self.is_named = False
        if not (self.place / GROUP).exists():
            raise OutputError(
                f"cannot write {self.path}: expected the store of an unfinished run in {self.place}, got nothing"
            )
        if self.is_named:
            self._folder.tidy()
        else:
            self._folder.go_on()
        found = run_of(self.place)
        if found is not None and found != self._run:
            self._refuse(
                "that of another. Run without --resume, and name stores by their initial time, such as "
                "{date}-{time}.zarr"
            )
        self._refuse_changed(zarr)
        self._group = zarr.open_group(str(self.place), mode="r+")

    def _refuse_changed(self, zarr: Any) -> None:
        """Raise if a store is not as this run made it, but for the chunks of its variables."""
        made = zarr.storage.KVStore({})
        self._create(zarr.open_group(made))
        for key, content in made.items():
            if not _is_same(self.place / key, bytes(content)):
                self._refuse(f"another {key}, or none: it was damaged or changed. Run without --resume")

    def _refuse(self, found: str) -> NoReturn:
        raise OutputError(
            f"cannot write {self.path}: expected the store of an unfinished run in {self.place}, got {found}"
        )

    def write_member(self, lead_time_hours: int, member: int, fields: FloatArray) -> None:
        """Write all fields of a member.

        Parameters
        ----------
        lead_time_hours : int
            One of the layout's.
        member : int
            One of the layout's.
        fields : array (lon, lat, channel)
            On the whole grid.

        Raises
        ------
        OutputError
            If the store cannot be written to.
        """
        where = (0, self._steps[lead_time_hours], self._numbers[member])
        self._folder.check()
        with _named_errors(self.path):
            for variable in self._variables:
                if variable.product is None:
                    channels = [field.channels[0] for field in variable.fields]
                    values = self._layout.region.take(np.moveaxis(fields[..., channels], -1, 0))
                    self._arrays[variable.name][where] = values if "level" in variable.dimensions else values[0]
                    self._unsynced.add(self._chunk(variable, where))

    def write_product(self, lead_time_hours: int, product: Product, field: Field, values: FloatArray) -> None:
        """Write a product of a field.

        Parameters
        ----------
        lead_time_hours : int
            One of the layout's.
        product, field : Product, Field
            One of the layout's.
        values : array (lon, lat)
            On the region.

        Raises
        ------
        OutputError
            If the store cannot be written to.
        """
        variable, level = self._product_of[product, field]
        where = (0, self._steps[lead_time_hours], *((level,) if "level" in variable.dimensions else ()))
        self._folder.check()
        with _named_errors(self.path):
            self._arrays[variable.name][where] = values
            self._unsynced.add(self._chunk(variable, where))

    def flush(self) -> None:
        """Bring to disk all that was written; nothing may be written meanwhile.

        Raises
        ------
        OutputError
            If the system cannot.
        """
        with _named_errors(self.path):
            for path in (*self._unsynced, *{path.parent for path in self._unsynced}):
                sync(path)
        self._unsynced.clear()

    def complete(self) -> None:
        """Make sure that all was written, and consolidate the metadata; nothing may be written from now on.

        Raises
        ------
        OutputError
            If something of it was removed or cut, or the disk is full.
        """
        if self.is_named:
            return
        zarr = require("zarr", f"writing {self.path}")
        self._folder.check()
        with _named_errors(self.path):
            for leftover in self.place.rglob(f"*{PARTIAL_SUFFIX}"):
                # Chunks that a death cut short, under a name of zarr's.
                leftover.unlink()
            for variable in self._variables:
                self._refuse_missing(variable)
            zarr.consolidate_metadata(str(self.place))
            sync(self.place / ".zmetadata")

    def finish(self) -> Path:
        """Give the store its name, after `complete`; returns it.

        Raises
        ------
        OutputError
            If it cannot be renamed.
        """
        if not self.is_named:
            self._folder.finish()
            self.is_named = True
        return self.path

    def remove(self) -> None:
        """Remove a store that was only needed to make something else from it.

        Raises
        ------
        OutputError
            If it cannot be removed.
        """
        self._folder.remove()

    def release(self) -> None:
        """Let others write to it."""
        self._folder.release()

    def _refuse_missing(self, variable: Variable) -> None:
        """Raise if not all chunks of a variable are there: what is missing would be read as missing values."""
        counts = {"prediction_timedelta": len(self._steps), "number": len(self._numbers)}
        if variable.product is not None:
            counts["level"] = len(variable.fields)
        ranges = [range(counts.get(name, 1)) for name in variable.dimensions]
        expected = {".".join(str(place) for place in places) for places in itertools.product(*ranges)}
        with os.scandir(self.place / variable.name) as found:
            whole = {entry.name for entry in found if entry.name in expected and entry.stat().st_size > 0}
        if whole != expected:
            raise OutputError(
                f"cannot write {self.path}: expected {len(expected)} chunks of {variable.name} in {self.place}, got "
                f"{len(whole)}: others were removed while it was being written"
            )

    def _chunk(self, variable: Variable, where: tuple[int, ...]) -> Path:
        """The file of a chunk: what is not counted in `where` is whole in each."""
        places = (*where, *(0 for _ in variable.dimensions[len(where) :]))
        return self._folder.partial / variable.name / ".".join(str(place) for place in places)

    def _create(self, group: Any) -> None:
        """Make all of a store but the chunks of its variables."""
        layout = self._layout
        run = {} if self._run is None else {RUN: self._run}
        group.attrs.update({"Conventions": "CF-1.8", **dict(layout.attributes), **run})
        for name, (values, attributes) in coordinates(layout).items():
            # Without a fill value: zarr's, 0, would make xarray take the number 0 for missing.
            array = group.create_dataset(name, data=values, chunks=False, fill_value=None)
            array.attrs.update(attributes)
        sizes = {name: values.shape[-1] for name, (values, _) in coordinates(layout).items()}
        for variable in self._variables:
            # Products come level by level, from any thread.
            whole = ("longitude", "latitude", *(("level",) if variable.product is None else ()))
            array = group.create_dataset(
                variable.name,
                shape=[sizes[name] for name in variable.dimensions],
                chunks=[sizes[name] if name in whole else 1 for name in variable.dimensions],
                dtype="<f4",
                fill_value=np.nan,
            )
            array.attrs.update(variable.attributes)


def check_store(path: Path, option: str) -> None:
    """Raise before a long run if a store could not be written.

    Parameters
    ----------
    path : Path
        Its name.
    option : str
        Where it was typed.

    Raises
    ------
    OutputError
        If the path is a file, or a folder that is no store, or its folder is absent or not writable.
    """
    if path.exists() and not (path / GROUP).exists():
        raise OutputError(f"{option} {path}: there is something of this name that is no Zarr store; it is left alone")
    # A partial store of a run that ended early may be there: it is resumed, or replaced.
    with _named_errors(path):
        partial = partial_of(path)
    check_folder(partial)


def run_of(store: Path) -> str | None:
    """Digest of the run that a store is of; None if it carries none, or is none."""
    try:
        found = parse_json((store / ".zattrs").read_bytes())
    except (OSError, ValueError):
        return None
    return found.get(RUN) if isinstance(found, dict) else None


def _is_same(path: Path, content: bytes) -> bool:
    """Whether a file of a store holds this; of metadata, whether it says the same."""
    try:
        found = path.read_bytes()
        if not path.name.startswith("."):
            return found == content
        same: bool = parse_json(found) == parse_json(content)
    except (OSError, ValueError):
        return False
    return same


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    except KeyError as error:
        # zarr's own word for a folder that it cannot make.
        if isinstance(error.__cause__, OSError):
            raise OutputError(f"cannot write {path}: {error.__cause__.strerror}") from error
        raise
