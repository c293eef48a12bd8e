"""What will be written where, worked out and checked before the first field."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from .. import __version__
from ..errors import OptionError, OutputError
from ..geometry.grid import LatLonGrid, Region
from ..options.crossing import OPTION as CROSSED
from ..params import Field
from .calibration import NOTE as CALIBRATED
from .clipping import NOTE as CLIPPED
from .extras import require
from .grib.encoder import GribEncoder
from .grib.files import check_writable, is_stream
from .grib.keys import Labels
from .grib.output import GribOutput, check_output, grib_template, told_apart
from .options import OutputOptions
from .placeholders import NETCDF_NAMES, NUMBER_KEYS, PRODUCT, TIME_NAMES, PathTemplate, Word
from .products import OPTION, Product
from .store.cf import Part
from .store.layout import Layout
from .store.zarr import check_store
from .variance import split_products

SCRATCH_SUFFIX = ".scratch"
"""Of the Zarr store that NetCDF files are made from, where no store was asked for."""

STORE_NAMES = {"--zarr": TIME_NAMES, "--netcdf": NETCDF_NAMES}
"""What may stand in braces, by option."""

PRODUCTS_FILE = "products"
"""What stands for the number in the name of the NetCDF file of products, where members have files of their own."""


@dataclass(frozen=True)
class OutputPlan:
    """All that is known of the output before the first field.

    Parameters
    ----------
    path : str or None
        Of GRIB files, with keys in braces; None if no GRIB is written.
    options : OutputOptions
        What the user asked for.
    grid : LatLonGrid
        The variant's.
    step_hours : int
        Length of a step, h.
    steps : int
        Steps of the forecast.
    members : tuple of int
        Members of this run, in their order: products are made when all of them are there.
    starts : int
        Of a crossed ensemble, whose variance is split for stores: how many starts it has; else 0.

    Raises
    ------
    OptionError
        If lead times or area are not the forecast's, or two products are the same.
    """

    path: str | None
    options: OutputOptions
    grid: LatLonGrid
    step_hours: int
    steps: int
    members: tuple[int, ...]
    starts: int = 0

    def __post_init__(self) -> None:
        named = [(product.name, field) for product, field in self.products]
        for index, (name, field) in enumerate(named):
            if (name, field) in named[:index]:
                raise OptionError(f"{OPTION}: {name.replace('_', ' ')} of {field.label} is asked for twice")
        for product in self.options.products:
            if not product.fields_of(self.options.selection):
                raise OptionError(f"{OPTION}: none of the fields of {product.name} is on the levels of --output-levels")
        # These raise if they are not the forecast's.
        _ = self.lead_times_hours, self.region

    @property
    def lead_times_hours(self) -> tuple[int, ...]:
        """What is written, hours."""
        return self.options.selection.lead_times(self.step_hours, self.steps)

    @property
    def region(self) -> Region:
        """Where."""
        return self.options.selection.region(self.grid)

    @property
    def fields(self) -> tuple[Field, ...]:
        """What is written of every member."""
        return self.options.selection.fields if self.options.members else ()

    @property
    def products(self) -> tuple[tuple[Product, Field], ...]:
        """What is written of all members together: field by field in the order of the state."""
        chosen = (*self.options.products, *split_products(self.starts))
        made = [(product, field) for product in chosen for field in product.fields_of(self.options.selection)]
        order = {field: index for index, field in enumerate(dict.fromkeys(field for _, field in made))}
        return tuple(sorted(made, key=lambda pair: (pair[1].channels, order[pair[1]])))

    @property
    def grib_products(self) -> tuple[tuple[Product, Field], ...]:
        """Those that GRIB has keys for."""
        return tuple((product, field) for product, field in self.products if not product.starts)

    @property
    def messages(self) -> int:
        """How many GRIB messages are written."""
        of_members = len(self.members) * len(self.fields) if self.path is not None else 0
        of_products = len(self.grib_products) if self.products_path is not None else 0
        return len(self.lead_times_hours) * (of_members + of_products)

    @property
    def channels(self) -> tuple[int, ...]:
        """The channels that products are made from, ascending."""
        return tuple(sorted({channel for _, field in self.products for channel in field.channels}))

    @property
    def products_path(self) -> str | None:
        """Where products go as GRIB.

        Raises
        ------
        OutputError
            If `path` names files by member and nothing else was said.
        """
        if self.path is None or not self.options.products:
            return None
        if self.options.products_path is not None:
            return self.options.products_path
        if re.search(rf"\{{({'|'.join(NUMBER_KEYS)})\b", self.path):
            raise OutputError(
                f"--path {self.path} names files by member, which products do not have: "
                "say where they go with --products-path"
            )
        if not self.options.members or is_stream(Path(self.path)):
            return self.path
        return told_apart(self.path)

    @property
    def _products_option(self) -> str:
        return "--path" if self.options.products_path is None else "--products-path"

    @property
    def _typed(self) -> tuple[tuple[str, str], ...]:
        """Option and path of all that is written."""
        paths = (
            ("--path", self.path if self.options.members else None),
            (self._products_option, self.products_path),
            ("--zarr", self.options.zarr),
            ("--netcdf", self.options.netcdf),
        )
        return tuple((option, path.rstrip("/")) for option, path in paths if path is not None)

    def templates(self, labels: Labels) -> tuple[PathTemplate, ...]:
        """The paths of all that is written, names in braces not filled.

        Parameters
        ----------
        labels : Labels
            Of the run; any initial time will do.

        Raises
        ------
        OutputError
            If something stands in braces that is not filled, or as `products_path`.
        """
        return tuple(
            PathTemplate(path, option, STORE_NAMES[option])
            if option in STORE_NAMES
            else grib_template(path, option, labels.metadata, (PRODUCT,) if path == self.products_path else ())
            for option, path in self._typed
        )

    @property
    def anchor(self) -> str | None:
        """Beside what the state of an unfinished run is kept; None where some of the output is no file or store.

        Raises
        ------
        OutputError
            As `products_path`.
        """
        found = [path for _, path in self._typed]
        places = [place for path in found if (place := Path(path)).exists()]
        return None if not found or any(is_stream(place) for place in places) else found[0]

    def zarr_path(self, labels: Labels) -> Path | None:
        """Where the Zarr store goes, if one was asked for.

        Parameters
        ----------
        labels : Labels
            Of the run; fills ``{date}`` and ``{time}``.

        Raises
        ------
        OutputError
            If the path holds something else in braces.
        """
        return _filled(self.options.zarr, "--zarr", labels)

    def netcdf_files(self, labels: Labels) -> dict[Path, Part]:
        """The NetCDF files that were asked for, and what goes into each.

        There is one, or one for every member where ``{number}`` stands in its name, and one more for products.

        Raises
        ------
        OutputError
            If the path holds something else in braces, or does not tell members apart.
        """
        if self.options.netcdf is None:
            return {}
        # Of whatever order the run is: CF wants coordinates that ascend.
        members = tuple(sorted(self.members)) if self.options.members else ()
        if not PathTemplate(self.options.netcdf, "--netcdf", NETCDF_NAMES).tells_members_apart:
            parts: list[tuple[int | str, Part]] = [("", Part(members))]
        else:
            parts = [(member, Part((member,), alone=True, products=False)) for member in members]
            parts += [(PRODUCTS_FILE, Part(()))] if self.products else []
        files = {}
        for number, part in parts:
            path = _filled(self.options.netcdf, "--netcdf", labels, number)
            if path is None or path in files:
                raise OutputError(f"--netcdf {self.options.netcdf}: expected a file for every member, got {path} twice")
            files[path] = part
        return files

    def store_path(self, labels: Labels) -> Path | None:
        """Where a Zarr store is written: the user's, or the one that NetCDF files are made from."""
        netcdf = next(iter(self.netcdf_files(labels)), None)
        return self.zarr_path(labels) or (netcdf and netcdf.with_name(netcdf.name + SCRATCH_SUFFIX))

    def layout(self, labels: Labels) -> Layout:
        """What a Zarr store of the run holds."""
        return Layout(
            region=self.region,
            initial_time=labels.initial_time,
            lead_times_hours=self.lead_times_hours,
            members=self.members if self.options.members else (),
            fields=self.fields,
            products=self.products,
            attributes=(
                ("title", "Ensemble forecast of Mosaic"),
                ("source", f"ai-models-mosaic {__version__}"),
                ("experiment_version", labels.metadata.get("expver", labels.expver)),
                ("institution", "the user of ai-models-mosaic"),
                *((("comment", "; ".join(self._notes)),) if self._notes else ()),
            ),
        )

    @property
    def _notes(self) -> list[str]:
        """What was done to the fields before they were written."""
        wanted = {CALIBRATED: self.options.calibration, CLIPPED: self.options.clip_humidity}
        return [note for note, asked in wanted.items() if asked]

    def encoder(self, labels: Labels) -> GribEncoder:
        """Makes the messages of members.

        Raises
        ------
        OutputError
            If ecCodes refuses one of the user's keys.
        """
        return GribEncoder(self.region, labels, [field.channels[0] for field in self.fields])

    def product_encoder(self, labels: Labels) -> GribEncoder:
        """Makes the messages of products.

        Raises
        ------
        OutputError
            If ecCodes refuses one of the user's keys.
        """
        return GribEncoder(self.region, labels, (), self.grib_products, len(self.members))

    def check(self, labels: Labels, *, archived: bool = False, source: str | None = None) -> None:
        """Raise before a long run if its output could not be made, or not be written.

        Parameters
        ----------
        labels : Labels
            Of the run; any initial time will do.
        archived : bool
            Whether requests are made that archive a file each, which can be of one type only.
        source : str or None
            The file of the input.

        Raises
        ------
        OptionError
            If the variance of a crossed ensemble is split for no store.
        OutputError
            If two outputs would be one file, or one the input, a file to be archived would hold several types,
            ecCodes refuses one of the user's
            keys, a placeholder is no GRIB key, a package is not there, or a folder is absent or
            not writable.
        """
        self.templates(labels)
        if self.starts and self.store_path(labels) is None:
            raise OptionError(
                f"{CROSSED}: expected --zarr or --netcdf with it, for the split of the variance: GRIB cannot hold it"
            )
        if self.path is not None:
            if self.options.members:
                # What ecCodes says of the user's keys can differ by field.
                channels = [field.channels[0] for field in self.fields][: None if labels.metadata else 1]
                with GribEncoder(self.region, labels, channels) as encoder:
                    check_output(self.path, encoder)
            if self.products_path is not None:
                with self.product_encoder(labels) as encoder:
                    products = GribOutput(self.products_path, encoder, option=self._products_option)
                    products.check_products_writable()
                    products.check_told_apart()
                    if archived:
                        products.check_one_type()
        if (zarr := self.zarr_path(labels)) is not None:
            require("zarr", f"--zarr {zarr}")
            check_store(zarr, "--zarr")
        for netcdf in self.netcdf_files(labels):
            require("zarr", f"--netcdf {netcdf}")
            require("netCDF4", f"--netcdf {netcdf}")
            check_writable(netcdf)
        self._check_own_places(labels, source)

    def _check_own_places(self, labels: Labels, source: str | None) -> None:
        """Raise if an output would go over another, or over the input; members and products may share a file."""
        taken = {} if source is None else {Path(source).resolve(): f"the input {source}"}
        for option, place, _ in self.places(labels):
            before = taken.setdefault(place.resolve(), option)
            shared = all(each.startswith(("--path ", "--products-path ")) for each in (option, before))
            if before != option and not shared and not is_stream(place):
                raise OutputError(f"{option}: expected a file of its own, got that of {before}")

    def check_apart(self, labels: Labels, times: Sequence[datetime]) -> None:
        """Raise if two of several initial times would be written to the same file or store.

        Parameters
        ----------
        labels : Labels
            Of the run.
        times : sequence of datetime
            The initial times, UTC.

        Raises
        ------
        OutputError
            If the placeholders do not tell them apart.
        """
        seen: dict[tuple[str, Path], datetime] = {}
        for time in times if len(times) > 1 else ():
            for option, place, names in self.places(replace(labels, initial_time=time)):
                # Links of several names may lead to one file.
                before = seen.setdefault((option, place.resolve()), time)
                if before != time:
                    raise OutputError(
                        f"{option}: expected a file for every initial time, got {place} for {before} and "
                        f"for {time}; name it by them, such as {names}"
                    )

    def places(self, labels: Labels) -> Iterator[tuple[str, Path, str]]:
        """Option as typed, one file or store of it, and a path that would tell initial times apart."""
        keys = "{dataDate}-{dataTime:04d}"
        if self.path is not None and self.options.members:
            with GribEncoder(self.region, labels, [self.fields[0].channels[0]]) as encoder:
                place = GribOutput(self.path, encoder).path_of(encoder.first_message(self.members[0]))
            yield f"--path {self.path}", place, f"{keys}-{{number}}.grib"
        if self.products_path is not None:
            with GribEncoder(self.region, labels, (), self.grib_products[:1], len(self.members)) as encoder:
                output = GribOutput(self.products_path, encoder, option=self._products_option)
                place = output.path_of(next(encoder.product_messages()))
            yield f"{self._products_option} {self.products_path}", place, f"{keys}-{{product}}.grib"
        for option, typed, filled in (
            ("--zarr", self.options.zarr, self.zarr_path(labels)),
            *(("--netcdf", self.options.netcdf, file) for file in self.netcdf_files(labels)),
        ):
            if filled is not None:
                yield f"{option} {typed}", filled, f"{{date}}-{{time}}.{option.removeprefix('--')}"


def _filled(path: str | None, option: str, labels: Labels, number: int | str = "") -> Path | None:
    if path is None:
        return None
    values = {
        "date": f"{labels.initial_time:%Y%m%d}",
        "time": f"{labels.initial_time:%H%M}",
        "number": number if isinstance(number, int) else Word(number),
    }
    return PathTemplate(path.rstrip("/"), option, STORE_NAMES[option]).fill(values.__getitem__)
