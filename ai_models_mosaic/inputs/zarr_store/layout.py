"""The layout of WeatherBench 2, under whatever names and in whatever units it comes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from ...channels import CHANNELS
from ...errors import InputError
from ...wording.redaction import redacted

if TYPE_CHECKING:
    import xarray

LOG = logging.getLogger(__name__)

DIMENSIONS = {
    "time": ("time", "valid_time"),
    "level": ("level", "isobaricInhPa", "isobaricInPa", "pressure_level", "plev", "pressure", "air_pressure"),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon"),
}
"""Names that each dimension may have."""

MEMBER = ("number", "realization", "sample", "member", "ensemble", "ensemble_member")
"""Names of the dimension of ensemble members."""

LEAD_TIME = ("prediction_timedelta", "lead_time", "step", "timedelta")
"""Names of the dimension of lead times."""

HOURS = {
    **dict.fromkeys(("hours", "hour", "h"), 1.0),
    **dict.fromkeys(("days", "day", "d"), 24.0),
    **dict.fromkeys(("minutes", "minute", "min"), 1 / 60),
    **dict.fromkeys(("seconds", "second", "s"), 1 / 3600),
    **dict.fromkeys(("nanoseconds", "nanosecond", "ns"), 1 / 3.6e12),
}
"""Hours in a unit of lead times that are plain integers."""

STATISTICS = ("quantile", "percentile", "probability", "threshold", "statistic", "stat", "event")
"""Dimensions whose every entry is a product of an ensemble or a period, and no state."""

PASCALS = {
    **dict.fromkeys(("pa", "pascal", "pascals"), 1.0),
    **dict.fromkeys(("hpa", "hectopascal", "hectopascals", "mb", "mbar", "millibar", "millibars"), 100.0),
    **dict.fromkeys(("kpa", "kilopascal", "kilopascals"), 1000.0),
}
"""Units of levels, lower case."""

UNITS_OF_NAME = {"isobaricInhPa": "hPa", "isobaricInPa": "Pa"}
"""Names of the dimension of levels that say its units."""

HIGHEST_HPA = 1100.0
"""A pressure that no level has: with more, another unit is meant."""

VARIABLES = frozenset(channel.variable for channel in CHANNELS)

MOST_LISTED = 12


def arranged(
    dataset: xarray.Dataset, path: str, dimensions: Mapping[str, Sequence[str]], optional: Sequence[str] = ()
) -> xarray.Dataset:
    """A store with its dimensions under one name each, and none that nothing is known of.

    Parameters
    ----------
    dataset : xarray.Dataset
        As opened.
    path : str
        For messages.
    dimensions : mapping of str to sequence of str
        Names that each dimension may have.
    optional : sequence of str
        Dimensions that may be absent.

    Raises
    ------
    InputError
        If a dimension is absent or has no values, or the fields have others than these, of more than one entry.
    """
    found = {
        wanted: next((name for name in names if name in dataset.dims), None) for wanted, names in dimensions.items()
    }
    missing = [wanted for wanted, name in found.items() if name is None and wanted not in optional]
    if missing:
        expected = "; ".join(f"{wanted} ({' or '.join(dimensions[wanted])})" for wanted in missing)
        raise InputError(
            f"{redacted(path)} lacks dimensions: expected {expected}; got "
            + ", ".join(str(name) for name in dataset.dims)
        )
    for wanted, name in found.items():
        if name is not None:
            dataset = _renamed(dataset, name, wanted)
    if found.get("level") in UNITS_OF_NAME and "level" in dataset.coords:
        dataset["level"].attrs.setdefault("units", UNITS_OF_NAME[str(found["level"])])
    return _without_others(dataset, path, [*dimensions])


def _renamed(dataset: xarray.Dataset, name: str, wanted: str) -> xarray.Dataset:
    if name == wanted:
        return dataset
    if wanted in dataset.variables:
        if name not in dataset.coords and dataset[wanted].dims == (name,):
            # The values of the dimension stand under the other of its names.
            return dataset.swap_dims({name: wanted})
        dataset = dataset.drop_vars(wanted)
    return dataset.rename({name: wanted})


def _without_others(dataset: xarray.Dataset, path: str, known: Sequence[str]) -> xarray.Dataset:
    """Drop dimensions of one entry, refuse more."""
    others = {
        str(name): dataset.sizes[name]
        for variable in sorted(VARIABLES & {str(name) for name in dataset.data_vars})
        for name in dataset[variable].dims
        if name not in known
    }
    for name, size in others.items():
        if size == 1 and name not in STATISTICS:
            LOG.info("%s: the dimension %s has one entry, which is taken", redacted(path), name)
        else:
            raise InputError(
                f"{redacted(path)} has a dimension {name}, of {size} entries{_listed(dataset, name)}: expected "
                f"{', '.join(known)} and no other. "
                + (
                    "These are products, not states"
                    if name in STATISTICS
                    else f"Select one with xarray, .isel({name}=0) for instance, and write that"
                )
            )
    return dataset.isel(dict.fromkeys(others, 0))


def _listed(dataset: xarray.Dataset, name: str) -> str:
    if name not in dataset.coords:
        return ""
    values = [str(value) for value in dataset[name].values.tolist()]
    return f" ({', '.join(values[:MOST_LISTED])}{', …' if len(values) > MOST_LISTED else ''})"


def require_coordinates(dataset: xarray.Dataset, path: str, names: Sequence[str]) -> None:
    """Refuse dimensions of which nobody says where they are.

    Raises
    ------
    InputError
        If a dimension has no coordinate along it, or one that is not all there.
    """
    for name in names:
        if name not in dataset.coords:
            raise InputError(
                f"{redacted(path)}: expected values of the dimension {name}, got none: it has no coordinate"
            )
        bad = int(dataset[name].isnull().sum())
        if bad:
            raise InputError(
                f"{redacted(path)}: {bad} of {dataset.sizes[name]} values of the coordinate {name} are missing (NaN)"
            )


def times_of(dataset: xarray.Dataset, path: str, name: str = "time") -> list[datetime]:
    """A store's times, UTC without zone, to the second.

    Raises
    ------
    InputError
        If they do not decode to dates, or one stands there twice.
    """
    values = dataset[name].values
    if not np.issubdtype(values.dtype, np.datetime64):
        raise InputError(
            f"{redacted(path)}: expected {name} to decode to dates, got {values.dtype} ({dataset[name].attrs})"
        )
    require_coordinates(dataset, path, [name])
    # Times in days of 64 bits miss a full hour by some nanoseconds.
    rounded = (values.astype("datetime64[ms]") + np.timedelta64(500, "ms")).astype("datetime64[s]")
    times: list[datetime] = rounded.astype(datetime).tolist()
    if not all(isinstance(time, datetime) for time in times):
        raise InputError(
            f"{redacted(path)}: expected {name} within the years 1 to 9999, got {values.min()} … {values.max()}"
        )
    if len(set(times)) < len(times):
        twice = next(time for time in times if times.count(time) > 1)
        raise InputError(
            f"{redacted(path)}: {name} has {twice:%Y-%m-%d %H:%M} more than once: which is meant is not to be told"
        )
    return times


def levels_of(dataset: xarray.Dataset, path: str) -> list[float]:
    """Pressure levels in hPa, whole numbers where they are.

    Without units, they are taken for hPa up to 1100, and for Pa if that makes all of them pressures in the air.

    Raises
    ------
    InputError
        If they are not pressures, stand there twice, or the units are not to be told.
    """
    coordinate = dataset["level"]
    try:
        values = coordinate.values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{redacted(path)}: expected pressure levels, got {_short(coordinate.values)}") from error
    require_coordinates(dataset, path, ["level"])
    units = str(coordinate.attrs.get("units", "")).strip()
    factor = PASCALS.get(units.lower()) if units else _pascals_without_units(values)
    if factor is None:
        raise InputError(
            f"{redacted(path)}: expected pressure levels in hPa or Pa, got {_short(values)} "
            f"{units or 'without units: give the coordinate units'}"
        )
    levels_hpa = [float(f"{value:.7g}") for value in values * factor / 100]
    if not all(0 < level <= HIGHEST_HPA for level in levels_hpa):
        raise InputError(
            f"{redacted(path)}: expected pressure levels up to {HIGHEST_HPA:g} hPa, got {_short(values)} {units}; "
            "are they Pa?"
        )
    if len(set(levels_hpa)) < len(levels_hpa):
        raise InputError(f"{redacted(path)}: a pressure level stands there more than once: {_short(values)} {units}")
    return [int(level) if level.is_integer() else level for level in levels_hpa]


def _pascals_without_units(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float | None:
    if values.size == 0 or values.min() <= 0:
        return None
    if values.max() <= HIGHEST_HPA:
        return 100.0
    # Too much for hPa; a lowest level above 100 hPa is too little to be sure of Pa.
    return 1.0 if 10_000 <= values.max() <= HIGHEST_HPA * 100 else None


def _short(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> str:
    shown_values = [f"{value:g}" if isinstance(value, float) else str(value) for value in values.tolist()]
    return "/".join([*shown_values[:MOST_LISTED], *(["…"] if len(shown_values) > MOST_LISTED else [])])


def member_numbers(dataset: xarray.Dataset) -> list[int]:
    """Numbers of the members: the coordinate if it is of distinct integers, else counted from 1."""
    count = dataset.sizes["member"]
    values = dataset["member"].values if "member" in dataset.coords else np.arange(1, count + 1)
    whole = np.issubdtype(values.dtype, np.integer) and len(set(values.tolist())) == count
    return values.tolist() if whole else list(range(1, count + 1))
