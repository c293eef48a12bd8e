"""The options of ``report`` and ``plot``; light enough to be listed in every help text."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ..errors import OptionError
from ..options.moments import moment_of

KINDS = ("map", "mean", "spread", "member", "probability", "stamps", "spaghetti", "plumes", "tracks", "variance")
"""What ``plot`` draws."""

PROJECTIONS = ("globe", "north", "south")

CLUSTERS = 4
"""Scenarios of an ensemble, if nothing else is asked for."""

KINDS_OF_OPTION = {
    "params": {*KINDS} - {"probability", "tracks"},
    "steps": {*KINDS} - {"plumes", "tracks", "variance"},
    "members": {*KINDS} - {"variance"},
    "date": {*KINDS} - {"variance"},
    "threshold": {"probability"},
    "point": {"plumes"},
    "contour": {"spaghetti"},
    "projection": {*KINDS} - {"plumes", "variance"},
    "area": {*KINDS} - {"plumes"},
}
"""Which kinds of picture an option of ``plot`` is for."""

MOST_DPI = 2400

SUFFIXES = (".png", ".svg")


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of ``report``."""
    add_ensemble(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.html", help="the page")
    parser.add_argument(
        "--params", metavar="LIST", help="fields, such as z500,2t,10ws (z500, t850, msl, 2t, 10ws, as far as there)"
    )
    parser.add_argument(
        "--steps", metavar="HOURS", help="lead times of the maps, such as 24,48 or 0-240, or all (21 of them, evenly)"
    )
    parser.add_argument("--members", metavar="LIST", help="such as 1-10,15 (all)")
    parser.add_argument(
        "--threshold",
        action="append",
        metavar="EVENT",
        help="whose probability is shown, in SI units, such as '2t<273.15'; again for more (frost and gales)",
    )
    parser.add_argument(
        "--point",
        action="append",
        metavar="LAT,LON[,NAME]",
        help="where plumes are drawn, such as 52.5,13.4,Berlin; again for more (New York, Berlin, Tokyo)",
    )
    parser.add_argument(
        "--contour",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="of the spaghetti plot, in the units that are shown, such as z500=552; again for other fields",
    )
    parser.add_argument(
        "--scenarios",
        metavar="FIELD@HOURS[:K]",
        help="show K members (4) that stand for all, chosen by a field at a lead time over --area, with their weights, "
        "such as z500@120:3",
    )
    parser.add_argument(
        "--health", type=Path, metavar="FILE", help="what --health of the forecast recorded, whose curves are shown too"
    )
    _add_map(parser)


def add_plot_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of ``plot``."""
    parser.add_argument("kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    add_ensemble(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="a name that ends in .png or .svg")
    parser.add_argument("--params", metavar="LIST", help="the field, such as z500; of plumes, several (the usual ones)")
    parser.add_argument("--steps", metavar="HOURS", help="the lead time; of map, several (the middle one)")
    parser.add_argument("--members", metavar="LIST", help="such as 1-10,15 (all); of member, the one (the first)")
    parser.add_argument("--threshold", metavar="EVENT", help="of probability, in SI units, such as '2t<273.15'")
    parser.add_argument("--point", metavar="LAT,LON[,NAME]", help="of plumes, such as 52.5,13.4,Berlin")
    parser.add_argument("--contour", type=float, metavar="VALUE", help="of spaghetti, in the units that are shown")
    parser.add_argument("--dpi", type=int, default=150, metavar="N", help="dots per inch of a PNG (%(default)s)")
    _add_map(parser)


def require_options_of_kind(known: argparse.Namespace) -> None:
    """Refuse options of ``plot`` that its kind of picture takes no notice of, and dots that no picture can have.

    Raises
    ------
    OptionError
        Says which.
    """
    for name, kinds in KINDS_OF_OPTION.items():
        if getattr(known, name) is not None and known.kind not in kinds:
            listed = ", ".join(kind for kind in KINDS if kind in kinds)
            raise OptionError(f"--{name} is of {listed}; it changes nothing of {known.kind}")
    if not 1 <= known.dpi <= MOST_DPI:
        raise OptionError(f"--dpi: expected a number from 1 to {MOST_DPI}, got {known.dpi}")


def add_ensemble(parser: argparse.ArgumentParser) -> None:
    """Give a parser the files of an ensemble, and its initial time."""
    parser.add_argument(
        "ensemble",
        nargs="+",
        metavar="ENSEMBLE",
        help="GRIB files, folders or patterns, NetCDF files or patterns, or a Zarr store",
    )
    parser.add_argument("--date", metavar="DATE", help="initial time, if there are several: 2020-01-31T00")


def _add_map(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--projection",
        choices=PROJECTIONS,
        help="globe, or the north or south seen from its pole (what the grid covers)",
    )
    parser.add_argument("--area", metavar="N,W,S,E", help="a region, degrees, such as 72,-25,34,45")


@dataclass(frozen=True)
class Area:
    """A region, degrees; its east lies above its west."""

    north: float
    west: float
    south: float
    east: float


def area_of(text: str) -> Area:
    """A region from ``N,W,S,E``.

    Raises
    ------
    OptionError
        If it is none.
    """
    try:
        north, west, south, east = (float(word) for word in text.split(","))
    except ValueError as error:
        raise OptionError(f"--area: expected N,W,S,E in degrees, such as 72,-25,34,45; got {text}") from error
    if not (-90 <= south < north <= 90 and -360 <= west <= 360 and -360 <= east <= 360) or west == east:
        raise OptionError(f"--area: expected a north above its south and a west that is not the east; got {text}")
    west = (west + 180) % 360 - 180
    return Area(north, west, south, west + ((east - west) % 360 or 360))


def point_of(text: str) -> tuple[float, float, str]:
    """Latitude, longitude and name from ``LAT,LON[,NAME]``.

    Raises
    ------
    OptionError
        If it is none.
    """
    latitude, longitude, name = [*text.split(",", 2), "", "", ""][:3]
    try:
        found = (float(latitude), float(longitude), name.strip())
    except ValueError as error:
        raise OptionError(f"--point: expected LAT,LON[,NAME], such as 52.5,13.4,Berlin; got {text}") from error
    if not (-90 <= found[0] <= 90 and -180 <= found[1] <= 360):
        raise OptionError(f"--point: expected a latitude and a longitude in degrees, got {text}")
    return found


def contours_of(texts: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Fields and values from ``FIELD=VALUE``.

    Raises
    ------
    OptionError
        If one is of another form.
    """
    found = []
    for text in texts:
        name, _, value = text.partition("=")
        try:
            found.append((name, float(value)))
        except ValueError as error:
            raise OptionError(f"--contour: expected FIELD=VALUE, such as z500=552; got {text}") from error
    return tuple(found)


def scenarios_of(text: str) -> tuple[str, float, int]:
    """Field, lead time in hours and number of scenarios from ``FIELD@HOURS[:K]``.

    Raises
    ------
    OptionError
        If it is of another form.
    """
    match = re.fullmatch(r"(\w+)@(\d+(?:\.\d+)?)(?::(\d{1,4}))?", text)
    if match is None:
        raise OptionError(f"--scenarios: expected FIELD@HOURS or FIELD@HOURS:K, such as z500@120:3; got {text}")
    return match[1], float(match[2]), int(match[3] or CLUSTERS)


def date_of(text: str | None) -> datetime | None:
    """An initial time.

    Raises
    ------
    OptionError
        If it is none.
    """
    try:
        return None if text is None else moment_of(text)
    except ValueError as error:
        raise OptionError(f"--date: expected a date such as 2020-01-31T00; got {text}") from error


def chosen(option: str, text: str, known: Sequence[float]) -> list[float]:
    """The numbers that a list such as ``1-10,15`` names of those that there are; a range takes what lies in it.

    Raises
    ------
    OptionError
        If it is of another form, or names what is not there.
    """
    found: list[float] = []
    for word in filter(None, text.split(",")):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?\s*", word)
        if match is None:
            raise OptionError(f"{option}: expected numbers and ranges such as 1-10,15; got {text}")
        first, last = float(match[1]), float(match[2] or match[1])
        inside = [each for each in known if first <= each <= last]
        if not inside:
            raise OptionError(f"{option}: expected some of {_listed(known)}; got {word}")
        found += inside
    if not found:
        raise OptionError(f"{option}: expected some of {_listed(known)}; got nothing")
    return [each for each in known if each in found]


def _listed(known: Sequence[float]) -> str:
    words = [f"{each:g}" for each in known]
    return ", ".join(words if len(words) <= 12 else [*words[:6], "…", words[-1]])
