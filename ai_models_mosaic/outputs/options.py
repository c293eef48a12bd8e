"""The options that choose what is written, in which form, and where."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import OptionError
from ..options.declarations import may_change, option, section, told_by
from .calibration import Calibration, parse_calibration
from .grib.packing import Packing
from .products import Product, parse_products
from .selection import GROUP, Selection


@dataclass(frozen=True)
class OutputOptions:
    """What the user asked of the output.

    Raises
    ------
    OptionError
        If nothing would be written.
    """

    selection: Selection = section(Selection)
    products: tuple[Product, ...] = option(
        "--products",
        group=GROUP,
        parse=parse_products,
        metavar="LIST",
        default=(),
        help="write mean, spread, min, max, quantile:PERCENT, percentile:PERCENT, probability:FIELD>VALUE (or <, >=, "
        "<=) of all members, such as mean,quantile:90@2t/z500,probability:10ws>15",
    )
    members: bool = option(
        "--no-members", group=GROUP, default=True, help="write products only, and no fields of members"
    )
    grib: bool = option(
        "--no-grib", group=GROUP, default=True, help="write no GRIB, only what --zarr and --netcdf ask for"
    )
    products_path: str | None = option(
        "--products-path",
        group=GROUP,
        metavar="PATH",
        help="GRIB files of products, with keys in braces as in --path, and {product}",
        shown="--path with -{product} before its ending, or --path itself with --no-members",
    )
    zarr: str | None = option(
        "--zarr",
        group=GROUP,
        metavar="PATH",
        help="write a Zarr store too; may hold {date} and {time} of the initial time",
    )
    netcdf: str | None = option(
        "--netcdf",
        group=GROUP,
        metavar="PATH",
        help="write a NetCDF file too; may hold {date} and {time} of the initial time, and {number} for a file per "
        "member, as CDO needs it",
    )
    clip_humidity: bool = option(
        "--clip-humidity",
        group=GROUP,
        default=False,
        help="write specific humidity below zero as zero, and make products of that; the forecast goes on unchanged",
    )
    calibration: Calibration | None = option(
        "--calibration",
        group=GROUP,
        parse=parse_calibration,
        metavar="FILE",
        help="move members about their mean by the factors of this file, which ai-models-mosaic calibrate fitted, in "
        "all that is written; the forecast goes on unchanged",
        resume=told_by("calibration", "the same may lie elsewhere"),
    )
    packing: Packing = section(Packing)
    workers: int | None = option(
        "--output-workers",
        group=GROUP,
        parse=int,
        metavar="N",
        help="threads that encode while the model goes on; 0 encodes in turn with it",
        shown="one per core, up to 4",
        resume=may_change("the bytes are the same"),
    )

    def __post_init__(self) -> None:
        if not self.members and not self.products:
            raise OptionError("--no-members: expected --products with it, or nothing would be written")
        if not self.grib and self.zarr is None and self.netcdf is None:
            raise OptionError("--no-grib: expected --zarr or --netcdf with it, or nothing would be written")
        if self.products_path is not None and not (self.products and self.grib):
            raise OptionError("--products-path: expected --products with it, and GRIB to be written")
        if self.workers is not None and self.workers < 0:
            raise OptionError(f"--output-workers: expected 0 or more, got {self.workers}")
