"""The ensemble and its products as a Zarr store, after the conventions of CF and WeatherBench 2.

Dimensions are time, prediction_timedelta, number, level, longitude, latitude; a chunk holds a
variable of one member and lead time with all its levels, so that threads, and processes, never
write to the same one.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np

from ...arrays import FloatArray
from ...errors import OutputError
from ...files import PARTIAL_SUFFIX, named_errors, parse_json, partial_of
from ...params import Field
from ..grib.files import check_folder
from ..products import Product
from .folder import StoreFolder
from .format2 import ATTRIBUTES, GROUP, Format2Store
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
        If it cannot be created, numcodecs is not installed, another run is writing it, or there is nothing to
        go on with.
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
        self.is_named = False
        self._store = Format2Store(self._folder.partial)
        try:
            with named_errors(path):
                if resume:
                    self._go_on(finished=finished)
                else:
                    self._folder.begin()
                    self._create()
        except BaseException:
            self._folder.release()
            raise

    @property
    def place(self) -> Path:
        """Where the store is now."""
        return self._folder.final if self.is_named else self._folder.partial

    def _go_on(self, *, finished: bool) -> None:
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
        if not self._is_of_this_run():
            raise OutputError(
                f"cannot write {self.path}: expected the store of an unfinished run in {self.place}, got that of "
                "another. Run without --resume, and name stores by their initial time, such as {date}-{time}.zarr"
            )
        if not self.is_named:
            # What it says of itself may be damaged.
            self._create()

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
        with named_errors(self.path):
            for variable in self._variables:
                if variable.product is None:
                    channels = [field.channels[0] for field in variable.fields]
                    values = self._layout.region.take(np.moveaxis(fields[..., channels], -1, 0))
                    self._write(variable, where, values)

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
        with named_errors(self.path):
            self._write(variable, where, values)

    def flush(self) -> None:
        """Bring to disk all that was written; more may be written meanwhile.

        Raises
        ------
        OutputError
            If the system cannot.
        """
        with named_errors(self.path):
            self._store.flush()

    def complete(self) -> None:
        """Make sure that all was written, and consolidate the metadata; nothing may be written from now on.

        Raises
        ------
        OutputError
            If something of it was removed or cut, or the disk is full.
        """
        if self.is_named:
            return
        self._folder.check()
        with named_errors(self.path):
            for leftover in self.place.rglob(f"*{PARTIAL_SUFFIX}"):
                # Chunks that a death cut short.
                leftover.unlink()
            for variable in self._variables:
                self._refuse_missing(variable)
            self._store.consolidate()
            self._store.flush()

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
        along = [counts.get(name, 1) for name in variable.dimensions]
        expected, found = math.prod(along), self._store.whole_chunks(variable.name, along)
        if found != expected:
            raise OutputError(
                f"cannot write {self.path}: expected {expected} chunks of {variable.name} in {self.place}, got "
                f"{found}: others were removed while it was being written"
            )

    def _write(self, variable: Variable, where: tuple[int, ...], values: FloatArray) -> None:
        """Write a chunk: what is not counted in `where` is whole in each."""
        places = (*where, *(0 for _ in variable.dimensions[len(where) :]))
        self._store.write(variable.name, places, values.astype("<f4", copy=False))

    def _is_of_this_run(self) -> bool:
        held = Format2Store(self.place)
        return run_of(self.place) == self._run and all(
            held.holds(name, values) for name, (values, _) in coordinates(self._layout).items()
        )

    def _create(self) -> None:
        layout = self._layout
        run = {} if self._run is None else {RUN: self._run}
        self._store.begin()
        self._store.describe({"Conventions": "CF-1.8", **dict(layout.attributes), **run})
        sizes = {}
        for name, (values, attributes) in coordinates(layout).items():
            sizes[name] = values.shape[-1]
            self._store.put(name, values, attributes)
        for variable in self._variables:
            # Products come level by level, from any thread.
            whole = ("longitude", "latitude", *(("level",) if variable.product is None else ()))
            self._store.create(
                variable.name,
                shape=[sizes[name] for name in variable.dimensions],
                chunks=[sizes[name] if name in whole else 1 for name in variable.dimensions],
                attributes=variable.attributes,
            )


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
    with named_errors(path):
        partial = partial_of(path)
    check_folder(partial)


def run_of(store: Path) -> str | None:
    """Digest of the run that a store is of; None if it carries none, or is none."""
    try:
        found = parse_json((store / ATTRIBUTES).read_bytes())
    except (OSError, ValueError):
        return None
    return found.get(RUN) if isinstance(found, dict) else None
