"""The options that choose what is written, in which form, and where."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field

from ..errors import OptionError
from .packing import PACKING, Packing, parse_packing
from .products import Product, parse_products
from .selection import AREA, LEVELS, PARAMS, STEPS, Selection, parse_area, parse_names, parse_numbers


@dataclass(frozen=True)
class OutputOptions:
    """What the user asked of the output.

    Parameters
    ----------
    selection : Selection
        Which part of the forecast.
    products : tuple of Product
        Products to write beside the members.
    members : bool
        Whether members are written.
    grib : bool
        Whether GRIB is written.
    products_path : str or None
        Where products go as GRIB.
    zarr, netcdf : str or None
        Where these go, if anywhere; may hold ``{date}`` and ``{time}``.
    packing : Packing
        Of GRIB messages.
    workers : int or None
        Threads that encode; None for as many as there are cores, up to 4.

    Raises
    ------
    OptionError
        If nothing would be written.
    """

    selection: Selection = field(default_factory=Selection)
    products: tuple[Product, ...] = ()
    members: bool = True
    grib: bool = True
    products_path: str | None = None
    zarr: str | None = None
    netcdf: str | None = None
    packing: Packing = field(default_factory=Packing)
    workers: int | None = None

    def __post_init__(self) -> None:
        if not self.members and not self.products:
            raise OptionError("--no-members: expected --products with it, or nothing would be written")
        if not self.grib and self.zarr is None and self.netcdf is None:
            raise OptionError("--no-grib: expected --zarr or --netcdf with it, or nothing would be written")
        if self.products_path is not None and not (self.products and self.grib):
            raise OptionError("--products-path: expected --products with it, and GRIB to be written")
        if self.workers is not None and self.workers < 0:
            raise OptionError(f"--output-workers: expected 0 or more, got {self.workers}")


def add_arguments(group: argparse._ArgumentGroup) -> None:
    """Add the options of the output to a group of a parser."""
    add = group.add_argument
    add(
        PARAMS,
        metavar="LIST",
        help="write only these, such as 2t,msl,z500 or all levels of z; ECMWF's or WeatherBench's names (default: all)",
    )
    add(LEVELS, metavar="LIST", help="write only these pressure levels, hPa, such as 500,850 (default: all)")
    add(
        STEPS,
        metavar="LIST",
        help="write only these lead times, hours, such as 24,48 or 24/to/240/by/24 (default: all, 0 included)",
    )
    add(
        AREA,
        metavar="N/W/S/E",
        help="write only the points in this area, degrees, such as 75/-15/30/45; give a negative first number "
        "as --output-area=-10/110/-45/155 (default: the globe)",
    )
    add(
        "--products",
        metavar="LIST",
        help="write mean, spread, min, max, quantile:PERCENT, percentile:PERCENT, probability:FIELD>VALUE (or <, >=, "
        "<=) of all members, such as mean,quantile:90@2t/z500,probability:10ws>15",
    )
    add("--no-members", action="store_true", help="write products only, and no fields of members")
    add(
        "--products-path",
        metavar="PATH",
        help="GRIB files of products, with keys in braces as in --path (default: --path with -products before its "
        "ending, or --path itself with --no-members)",
    )
    add("--zarr", metavar="PATH", help="write a Zarr store too; may hold {date} and {time} of the initial time")
    add("--netcdf", metavar="PATH", help="write a NetCDF file too; may hold {date} and {time} of the initial time")
    add("--no-grib", action="store_true", help="write no GRIB, only what --zarr and --netcdf ask for")
    add(
        PACKING,
        metavar="{simple,ccsds}",
        default="simple",
        help="of GRIB: ccsds is smaller at the same precision, and slower (default: simple)",
    )
    add(
        "--bits-per-value",
        metavar="BITS",
        help="precision of GRIB, for all or by parameter: 16, or z=18,q=12, or 14,z=18 (default: 16)",
    )
    add(
        "--output-workers",
        type=int,
        metavar="N",
        help="threads that encode while the model goes on; 0 encodes in turn with it (default: one per core, up to 4)",
    )


def output_options(known: argparse.Namespace) -> OutputOptions:
    """The options of the output, from what a parser with `add_arguments` found.

    Parameters
    ----------
    known : argparse.Namespace
        What was typed.

    Raises
    ------
    OptionError
        If a value makes no sense, or nothing would be written.
    """
    return OutputOptions(
        selection=Selection(
            params=None if known.output_params is None else parse_names(known.output_params, PARAMS),
            levels=None if known.output_levels is None else parse_numbers(known.output_levels, LEVELS),
            steps=None if known.output_steps is None else parse_numbers(known.output_steps, STEPS),
            area=None if known.output_area is None else parse_area(known.output_area),
        ),
        products=() if known.products is None else parse_products(known.products),
        members=not known.no_members,
        grib=not known.no_grib,
        products_path=known.products_path,
        zarr=known.zarr,
        netcdf=known.netcdf,
        packing=parse_packing(known.packing, known.bits_per_value),
        workers=known.output_workers,
    )
