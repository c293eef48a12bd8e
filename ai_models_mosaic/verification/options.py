"""The options of ``verify``; light enough to be listed in every help text."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import OptionError
from ..options.moments import moment_of
from .plan import DEFAULT_CHANNELS, EVENT_PROBABILITIES, Event, Plan, find_channels


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of ``verify``."""
    parser.add_argument(
        "--forecast",
        action="append",
        required=True,
        metavar="[NAME=]PATH",
        help="GRIB or NetCDF file or pattern, folder of GRIB, or Zarr store; again for forecasts to be drawn beside it",
    )
    parser.add_argument(
        "--truth", nargs="+", required=True, metavar="PATH", help="analyses in GRIB, or in Zarr or NetCDF"
    )
    parser.add_argument(
        "--climatology", nargs="+", default=[], metavar="ZARR", help="stores of a training period of a year or more"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where tables and pictures go")
    parser.add_argument(
        "--channels", default=",".join(DEFAULT_CHANNELS), metavar="LIST", help="such as z500,2t, or all (%(default)s)"
    )
    parser.add_argument("--spectra", metavar="LIST", help="channels to make spectra of; none for none (all verified)")
    parser.add_argument("--lead-times", default="", metavar="HOURS", help="such as 24,120,240 (all there are)")
    parser.add_argument(
        "--events",
        default=",".join(f"{probability:g}" for probability in EVENT_PROBABILITIES),
        metavar="QUANTILES",
        help="climatological quantiles below or above which events lie (%(default)s)",
    )
    parser.add_argument("--with-control", action="store_true", help="count an unperturbed control as a member")
    parser.add_argument("--regrid", action="store_true", help="map truth and climatology to the forecasts' grid")
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="N", help="replicates (%(default)s)")
    parser.add_argument("--block-length", type=int, metavar="DATES", help="dates drawn together (the longest lead's)")
    parser.add_argument("--confidence", type=float, default=0.95, metavar="P", help="of the intervals (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of intervals and of equal ranks (%(default)s)")
    parser.add_argument(
        "--against", default="", metavar="NAME", help="the forecast that all others are compared with (the first)"
    )
    parser.add_argument("--case", metavar="DATE", help="initial date of maps and plumes, 2020-01-31T00 (the first)")
    parser.add_argument(
        "--point", nargs=2, type=float, default=(50.0, 10.0), metavar=("LAT", "LON"), help="of the plumes (50 10)"
    )
    parser.add_argument("--jobs", type=_positive, metavar="N", help="processes that draw pictures (one per core)")
    parser.add_argument("--no-pictures", action="store_true", help="tables and summary only")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return number


def plan_of(known: argparse.Namespace) -> Plan:
    """The plan that options ask for.

    Raises
    ------
    OptionError
        If one cannot be understood.
    """
    channels = spectra = find_channels(_words(known.channels))
    if known.spectra is not None:
        spectra = find_channels(_words(known.spectra.replace("none", "")), "--spectra")
    leads = _lead_hours(known.lead_times)
    latitude, longitude = known.point
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 360):
        raise OptionError(f"--point: expected a latitude and a longitude in degrees, got {latitude:g} {longitude:g}")
    try:
        case = None if known.case is None else moment_of(known.case)
    except ValueError as error:
        raise OptionError(f"--case: expected a date such as 2020-01-31T00; got {known.case}") from error
    return Plan(
        channels=channels,
        spectra=spectra,
        lead_hours=leads,
        events=tuple(map(Event, dict.fromkeys(_numbers("--events", known.events)))),
        seed=known.seed,
        illustrated=case,
        point_deg=(latitude, longitude),
    )


def plan_of_channels(channels: str, lead_times: str) -> Plan:
    """A plan of some channels and their spectra at some lead times, both as they are typed.

    Raises
    ------
    OptionError
        If one cannot be understood.
    """
    chosen = find_channels(_words(channels))
    return Plan(chosen, chosen, _lead_hours(lead_times))


def _lead_hours(text: str) -> tuple[int, ...]:
    numbers = _numbers("--lead-times", text)
    if not all(number.is_integer() and number > 0 for number in numbers):
        raise OptionError(f"--lead-times: expected whole hours above 0, such as 24,120, got {text}")
    return tuple(map(int, numbers))


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(word) for word in _words(text)]
    except ValueError as error:
        raise OptionError(f"{option}: expected numbers with commas between them, got {text}") from error
