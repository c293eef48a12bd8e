"""The ensemble and its products as a Zarr store, after the conventions of CF and WeatherBench 2.

Dimensions are time, prediction_timedelta, number, level, longitude, latitude; a chunk holds a
variable of one member and lead time with all its levels, so that threads, and processes, never
write to the same one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..arrays import FloatArray
from ..errors import OutputError
from ..files import PARTIAL_SUFFIX, sync
from .extras import require
from .fields import Field
from .files import check_folder
from .layout import Layout, Variable, coordinates, variables
from .products import Product


class ZarrOutput:
    """A Zarr store that bears the suffix ``.partial`` until `finish`.

    Parameters
    ----------
    path : Path
        Its name when complete.
    layout : Layout
        What it holds.
    resume : bool
        Whether to go on with the partial store that is there.
    finished : bool
        Whether what is gone on with may have its name already.

    Raises
    ------
    OutputError
        If it cannot be created, zarr is not installed, or there is nothing to go on with.
    """

    def __init__(self, path: Path, layout: Layout, *, resume: bool = False, finished: bool = False) -> None:
        self.path, self.partial = path, path.with_name(path.name + PARTIAL_SUFFIX)
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
        self._named = finished and not self.partial.exists()
        place = path if self._named else self.partial
        zarr = require("zarr", f"writing {path}")
        if resume and not (place / ".zgroup").exists():
            raise OutputError(f"cannot write {path}: expected the store of an unfinished run in {place}, got nothing")
        with _named_errors(path):
            self._group = zarr.open_group(str(place), mode="r+" if resume else "w")
            if not resume:
                self._create()
            elif not self._is_of_this_run():
                raise OutputError(
                    f"cannot write {path}: expected the store of an unfinished run in {place}, got that of another. "
                    "Run without --resume, and name stores by their initial time, such as {date}-{time}.zarr"
                )
            self._unsynced = set() if resume else {found for found in place.rglob("*") if found.is_file()}
        self._arrays = {variable.name: self._group[variable.name] for variable in self._variables}

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
        self._refuse_removed()
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
        self._refuse_removed()
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

    def finish(self) -> Path:
        """Consolidate the metadata and give the store its name; returns it.

        Raises
        ------
        OutputError
            If it cannot be renamed.
        """
        if self._named:
            return self.path
        zarr = require("zarr", f"writing {self.path}")
        self._refuse_removed()
        with _named_errors(self.path):
            for leftover in self.partial.rglob(f"*{PARTIAL_SUFFIX}"):
                # Chunks that a death cut short, under a name of zarr's.
                leftover.unlink()
            zarr.consolidate_metadata(str(self.partial))
            sync(self.partial / ".zmetadata")
            replace_folder(self.partial, self.path)
        return self.path

    def _chunk(self, variable: Variable, where: tuple[int, ...]) -> Path:
        """The file of a chunk: what is not counted in `where` is whole in each."""
        places = (*where, *(0 for _ in variable.dimensions[len(where) :]))
        return self.partial / variable.name / ".".join(str(place) for place in places)

    def _refuse_removed(self) -> None:
        # zarr would make the folders again and leave out what is lost.
        if not (self.partial / ".zgroup").exists():
            raise OutputError(f"cannot write {self.path}: its partial store was removed while it was being written")

    def _is_of_this_run(self) -> bool:
        expected = {name: values for name, (values, _) in coordinates(self._layout).items()}
        return all(
            name in self._group and np.array_equal(self._group[name][...], values) for name, values in expected.items()
        )

    def _create(self) -> None:
        layout = self._layout
        self._group.attrs.update({"Conventions": "CF-1.8", **dict(layout.attributes)})
        for name, (values, attributes) in coordinates(layout).items():
            # Without a fill value: zarr's, 0, would make xarray take the number 0 for missing.
            array = self._group.create_dataset(name, data=values, chunks=False, fill_value=None)
            array.attrs.update(attributes)
        sizes = {name: values.shape[-1] for name, (values, _) in coordinates(layout).items()}
        for variable in self._variables:
            # Products come level by level, from any thread.
            whole = ("longitude", "latitude", *(("level",) if variable.product is None else ()))
            array = self._group.create_dataset(
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
    if path.exists() and not (path / ".zgroup").exists():
        raise OutputError(f"{option} {path}: there is something of this name that is no Zarr store; it is left alone")
    # A partial store of a run that ended early may be there: it is gone on with, or replaced.
    check_folder(path.with_name(path.name + PARTIAL_SUFFIX))


def replace_folder(partial: Path, path: Path) -> None:
    """Give a folder its name; an older one of that name goes."""
    old = path.with_name(path.name + ".old")
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    partial.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder that nobody must take for a whole one when a death leaves a part of it."""
    old = path.with_name(path.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    path.rename(old)
    shutil.rmtree(old, ignore_errors=True)


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
