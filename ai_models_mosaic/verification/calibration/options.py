"""The options of ``calibrate``; light enough to be listed in every help text."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from ...errors import OptionError
from ..plan import DEFAULT_CHANNELS


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of ``calibrate``."""
    parser.add_argument(
        "--forecast",
        action="append",
        required=True,
        metavar="[FACTOR=]PATH",
        help="GRIB or NetCDF file or pattern, folder of GRIB, or Zarr store, of past dates: one to fit the spread; "
        "several, each after the noise factor it was made with, to fit the noise",
    )
    parser.add_argument(
        "--truth", nargs="+", required=True, metavar="PATH", help="analyses in GRIB, or in Zarr or NetCDF"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the factors, JSON")
    parser.add_argument(
        "--channels", default=",".join(DEFAULT_CHANNELS), metavar="LIST", help="such as z500,2t, or all (%(default)s)"
    )
    parser.add_argument("--lead-times", default="", metavar="HOURS", help="such as 24,120,240 (all there are)")
    parser.add_argument(
        "--bound",
        type=float,
        default=0.15,
        metavar="SHARE",
        help="how far the power of members may be from the truth's in a band of wavenumbers (%(default)s)",
    )
    parser.add_argument(
        "--wavenumbers", metavar="FIRST-LAST", help="where it may not be farther (3 to half the grid's highest)"
    )
    parser.add_argument("--regrid", action="store_true", help="map the truth to the forecasts' grid")
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="N", help="replicates (%(default)s)")
    parser.add_argument(
        "--block-length",
        type=int,
        metavar="DATES",
        help="dates drawn together, and in turn fitted to and tried on (the longest lead's)",
    )
    parser.add_argument("--confidence", type=float, default=0.95, metavar="P", help="of the intervals (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the intervals (%(default)s)")


def wavenumbers_of(known: argparse.Namespace) -> tuple[int, int] | None:
    """First and last wavenumber that were asked for.

    Raises
    ------
    OptionError
        If they cannot be understood.
    """
    if known.wavenumbers is None:
        return None
    first, hyphen, last = known.wavenumbers.partition("-")
    if not (hyphen and first.isdecimal() and last.isdecimal()):
        raise OptionError(f"--wavenumbers: expected FIRST-LAST, such as 3-15, got {known.wavenumbers}")
    return int(first), int(last)


def by_noise_factor(forecasts: list[str]) -> Mapping[float, str]:
    """Paths of several forecasts by the noise factor before them.

    Raises
    ------
    OptionError
        If one has none, two have the same, or 1 is neither among nor between them.
    """
    found: dict[float, str] = {}
    for text in forecasts:
        name, equals, path = text.partition("=")
        try:
            factor = float(name)
        except ValueError:
            factor = -1.0
        if not equals or not path or not 0 < factor <= 10 or factor in found:
            raise OptionError(
                "--forecast: expected the noise factor of each of several forecasts, as in --forecast 0.8=a.zarr "
                f"--forecast 1.2=b.zarr, each another; got {text}"
            )
        found[factor] = path
    if not min(found) <= 1 <= max(found):
        raise OptionError(f"--forecast: expected noise factors on both sides of 1, or 1, got {sorted(found)}")
    return found
