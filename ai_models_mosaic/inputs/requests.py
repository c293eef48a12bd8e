"""What to ask a service for, and which variant suits a source."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import MappingProxyType
from typing import Any

from eccodes import CodesInternalError

from ..channels import LEVELS_HPA, PRESSURE_LEVEL_PARAMS, SINGLE_LEVEL_PARAMS
from ..errors import InputError, OptionError
from ..variants import AUTO, ERA5, HRES, MINI, VARIANTS, Variant
from .field_kinds import integer, text
from .field_origins import times_of
from .fields import Wanted
from .grib_messages import FileMessage, find_messages
from .zarr import is_zarr

LOG = logging.getLogger(__name__)

DEFAULT_GRID_DEG = 0.25
"""Grid to ask for: regridding conservatively from it is how the training data were made."""

CYCLE_50R1 = datetime(2026, 5, 12, 6)
"""From this cycle on, the analyses of 06 and 18 UTC are in stream oper, as those of 00 and 12 UTC."""

NETCDF = "netCDF, which is no input: ask the CDS for data_format grib"

FOREIGN: Mapping[bytes, str] = MappingProxyType(
    {
        b"CDF\x01": NETCDF,
        b"CDF\x02": NETCDF,
        b"CDF\x05": NETCDF,
        b"\x89HDF\r\n\x1a\n": NETCDF.replace("netCDF", "netCDF 4 (HDF5)"),
        b"PK\x03\x04": "a zip archive: unpack it, or ask the CDS for download_format unarchived",
        b"\x1f\x8b": "a file compressed with gzip: unpack it",
        b"BZh": "a file compressed with bzip2: unpack it",
        b"BUFR": "BUFR, which is for observations",
    }
)
"""Files that are not GRIB by how they begin, whatever stands in them, and what to do."""

VARIANT_OF_INPUT: Mapping[str, Variant] = MappingProxyType({"cds": ERA5, "mars": HRES, "opendata": HRES})
VARIANT_OF_CLASS: Mapping[str, Variant] = MappingProxyType({"ea": ERA5, "od": HRES})
CLASS_OF_VARIANT = MappingProxyType({ERA5.name: "ea", HRES.name: "od", MINI.name: "ea"})


def choose_variant(asked: str, source: str, file: str | None) -> Variant:
    """The variant that was asked for, or the one that suits the source, with a line that says why.

    Parameters
    ----------
    asked : str
        A variant's name, or ``auto``.
    source : str
        The runner's ``--input``.
    file : str or None
        The runner's ``--file``: a GRIB file or a Zarr store.

    Raises
    ------
    OptionError
        If nothing suggests a variant.
    InputError
        If the file is no GRIB file, or none of its messages can be read.
    """
    if asked != AUTO:
        return VARIANTS[asked]
    if file is not None and is_zarr(file):
        variant, reason = ERA5, f"{file} is a Zarr store, as those of ERA5 in WeatherBench 2"
    elif source == "file" and file is not None:
        variant, reason = _variant_of_file(Path(file))
    elif source in VARIANT_OF_INPUT:
        variant, reason = VARIANT_OF_INPUT[source], f"the input is {source}"
    else:
        raise OptionError(f"--variant auto cannot choose for --input {source} without a file; give --variant")
    LOG.info("Variant %s, because %s (--variant overrides)", variant.name, reason)
    return variant


def _variant_of_file(path: Path) -> tuple[Variant, str]:
    """The variant that a file's labels suggest, and why."""
    classes, steps, shapes = set(), set(), set()
    for label, step, shape in _labels(path):
        if label in VARIANT_OF_CLASS:
            return VARIANT_OF_CLASS[label], f"{path} is of class {label}"
        classes.add(label)
        steps.add(step)
        shapes.add(shape)
    if not classes:
        raise InputError(f"--file {path}: expected GRIB messages, found none that is whole and can be read")
    if MINI.architecture.grid.shape in shapes:
        return MINI, f"{path} is on its grid of {MINI.architecture.grid}"
    for variant in (ERA5, HRES):
        if min((step for step in steps if step > 0), default=0) == variant.step_hours:
            return variant, f"{path} holds steps of {variant.step_hours} h"
    raise OptionError(
        f"--variant auto cannot choose for {path}: expected class {' or '.join(VARIANT_OF_CLASS)}, "
        f"got {', '.join(sorted(classes))}; give --variant"
    )


def _labels(path: Path) -> Iterator[tuple[str, int, tuple[int, int]]]:
    """Class, step in hours, and points along longitude and latitude (0 if not regular) of every whole message."""
    try:
        for message in find_messages(path):
            if isinstance(message, FileMessage):
                with suppress(CodesInternalError), message.headers() as handle:
                    yield _label(handle)
    except OSError as error:
        raise InputError(f"--file {path} cannot be read: {error}") from error


def _label(handle: int) -> tuple[str, int, tuple[int, int]]:
    times, regular = times_of(handle), text(handle, "gridType") == "regular_ll"
    columns, rows = (integer(handle, key) or 0 if regular else 0 for key in ("Ni", "Nj"))
    step = times.lead_time_s // 3600 if times is not None else 0
    return text(handle, "class") or "no class", step, (columns, rows)


def check_file(name: str | None) -> str:
    """The runner's ``--file``, if it is a GRIB file or the name of a Zarr store.

    Raises
    ------
    InputError
        If there is none, or it is of another kind.
    """
    if name is None:
        raise InputError("--input file: expected --file with the name of a GRIB file or a Zarr store")
    if is_zarr(name):
        return name
    path = Path(name)
    if path.is_dir():
        raise InputError(
            f"--file {path}: expected a GRIB file or a Zarr store, got a folder without Zarr's .zgroup or zarr.json"
        )
    if not path.is_file():
        raise InputError(f"--file {path}: there is no such file")
    try:
        with path.open("rb") as file:
            start = file.read(16)
        is_grib = next(find_messages(path), None) is not None
    except OSError as error:
        raise InputError(f"--file {path} cannot be read: {error}") from error
    for magic, what in FOREIGN.items():
        if start.startswith(magic):
            raise InputError(f"--file {path}: expected a GRIB file, got {what}")
    if not is_grib:
        raise InputError(f"--file {path}: expected a GRIB file, got one that starts with {start[:4]!r}")
    return name


def parse_date(text: str, today: datetime | None = None) -> datetime:
    """Midnight of the runner's ``--date``: ``YYYYMMDD``, ``YYYY-MM-DD``, or days from today such as -1.

    Parameters
    ----------
    text : str
        As typed.
    today : datetime or None
        UTC; None for now.

    Raises
    ------
    OptionError
        If it is no date.
    """
    today = today or datetime.now(timezone.utc).replace(tzinfo=None)
    try:
        if re.fullmatch(r"\d{8}|\d{4}-\d{2}-\d{2}", text):
            return datetime.strptime(text.replace("-", ""), "%Y%m%d")
        days = int(text)
        if days > 0:
            raise ValueError
        return (today + timedelta(days=days)).replace(hour=0, minute=0, second=0, microsecond=0)
    except (ValueError, OverflowError):
        raise OptionError(f"--date: expected YYYYMMDD, YYYY-MM-DD, or 0, -1, … days from today, got {text!r}") from None


def parse_hour(time: int) -> int:
    """Hour of the runner's ``--time``: 6 and 600 are both 06 UTC.

    Raises
    ------
    OptionError
        If it is no full hour of the day.
    """
    hour, minute = divmod(time, 100) if time >= 100 else (time, 0)
    if not 0 <= hour <= 23 or minute:
        raise OptionError(f"--time: expected an hour from 0 to 23, got {time}")
    return hour


def wanted_time(date: str | None, time: int | None) -> Wanted:
    """The initial time to look for in a file, from the options that were typed.

    Parameters
    ----------
    date : str or None
        The runner's ``--date``; None if it was not typed.
    time : int or None
        The runner's ``--time``; None if it was not typed.
    """
    hour = None if time is None else parse_hour(time)
    if date is None:
        return Wanted(hour=hour)
    day = parse_date(date)
    return Wanted(time=day.replace(hour=hour)) if hour is not None else Wanted(day=day.date())


def is_reanalysis(source: str, variant: Variant) -> bool:
    """Whether a service's fields for a variant are those of ERA5, and not operational ones."""
    return source == "cds" or (source == "mars" and CLASS_OF_VARIANT[variant.name] == "ea")


def mars_keys(variant: Variant, valid_time: datetime) -> dict[str, str]:
    """Keys that a MARS request needs beside date, parameters and levels.

    Parameters
    ----------
    variant : Variant
        era5 is served from ERA5 (class ea), hres from the operational analysis (class od).
    valid_time : datetime
        UTC; decides the stream.
    """
    label = CLASS_OF_VARIANT[variant.name]
    short_cut_off = label == "od" and valid_time < CYCLE_50R1 and valid_time.hour in (6, 18)
    return {"class": label, "expver": "1", "type": "an", "stream": "scda" if short_cut_off else "oper"}


def mars_requests(
    variant: Variant, times: Sequence[tuple[int, int]], grid_and_area: Mapping[str, Any], extra: Mapping[str, str]
) -> list[dict[str, Any]]:
    """One MARS request per state and type of level, each complete in itself.

    MARS carries keys over from one request of a file to the next, a web client does not: so none is
    left out, and ``levelist=off`` undoes what the request before may have set. Each has a target of
    its own, for a second request with the same one may overwrite it.

    Parameters
    ----------
    variant : Variant
        Decides class, type and stream.
    times : sequence of (int, int)
        Date as YYYYMMDD and hour of every state, oldest first.
    grid_and_area : mapping
        The keys ``grid`` and ``area``.
    extra : mapping
        Keys that win over all others.
    """
    levels: dict[str, dict[str, Any]] = {
        "pl": {"levelist": list(LEVELS_HPA), "param": list(PRESSURE_LEVEL_PARAMS)},
        "sfc": {"levelist": "off", "param": list(SINGLE_LEVEL_PARAMS)},
    }
    return [
        {
            "date": day,
            "time": hour,
            "levtype": levtype,
            **fields,
            **grid_and_area,
            **mars_keys(variant, datetime.strptime(str(day), "%Y%m%d").replace(hour=hour)),
            "target": f"input_{day}_{hour:02d}_{levtype}.grib",
            **extra,
        }
        for day, hour in times
        for levtype, fields in levels.items()
    ]


def parse_extra(text: str | None) -> dict[str, str]:
    """Keys and values of the runner's ``--requests-extra``.

    Raises
    ------
    OptionError
        If it is not of the form ``key1=value1,key2=value2``.
    """
    pairs = [part.split("=") for part in text.split(",")] if text else []
    if not all(len(pair) == 2 and pair[0] for pair in pairs):
        raise OptionError(f"--requests-extra: expected key1=value1,key2=value2, got {text!r}")
    return {key.strip(): value.strip() for key, value in pairs}
