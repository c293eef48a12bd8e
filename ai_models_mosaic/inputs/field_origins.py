"""Who made a field, and for when: what tells the fields of one state from those of another."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from .field_kinds import integer, text

SECONDS_PER_UNIT = {
    1: {0: 60, 1: 3600, 2: 86400, 10: 3 * 3600, 11: 6 * 3600, 12: 12 * 3600, 13: 900, 14: 1800, 254: 1},
    2: {0: 60, 1: 3600, 2: 86400, 10: 3 * 3600, 11: 6 * 3600, 12: 12 * 3600, 13: 1},
}
"""Units of lead times by edition, code tables 4 of GRIB1 and 4.4 of GRIB2; others are months and more."""

SIGNS = {0: "unperturbed", 1: "unperturbed, low resolution", 2: "perturbed negatively", 3: "perturbed positively"}
"""By typeOfEnsembleForecast, code table 4.6."""

MISSING = 255

DATE_KEYS = ("year", "month", "day", "hour", "minute", "second")
"""Of the reference time of GRIB2."""

ANALYSES = ("an", "ia", "oi", "3v", "4v")
"""MARS types."""

ENSEMBLES = ("cf", "pf")
"""MARS types."""

STEP_0_TYPES = ("an", "fc")
"""Types of MARS that are the same model's state at step 0."""


@dataclass(frozen=True)
class Origin:
    """Who made a field; fields of two origins are never one state.

    Parameters
    ----------
    centre, stream, expver, type : str
        As ecCodes names them; empty if a message does not say.
    mars_class : str
        ECMWF's class.
    sign : str
        How a member was perturbed.
    is_ensemble : bool
        Whether it is a control or a member by its own account.
    """

    centre: str = ""
    mars_class: str = ""
    stream: str = ""
    expver: str = ""
    type: str = ""
    sign: str = ""
    is_ensemble: bool = False

    @property
    def distance(self) -> int:
        """How far from an analysis, by the labels: 0 for one, 1 for what may be one, 2 for a control or a member."""
        return 2 if self.is_ensemble else int(self.type not in ANALYSES)

    @property
    def line(self) -> tuple[str, str, str, str]:
        """What the states of one history have in common; their stream and type may change from time to time."""
        return self.centre, self.mars_class, self.expver, self.sign

    def __str__(self) -> str:
        labels = {
            "centre": self.centre,
            "class": self.mars_class,
            "stream": self.stream,
            "expver": self.expver,
            "type": self.type,
        }
        said = [f"{name} {value}" for name, value in labels.items() if value]
        return ", ".join([*said, self.sign] if self.sign else said) or "an unnamed source"


UNLABELLED = Origin()


@dataclass(frozen=True)
class Times:
    """When a field is valid.

    Parameters
    ----------
    valid_time : datetime
        UTC, without zone.
    lead_time_s : int
        Valid time less base time, s.
    """

    valid_time: datetime
    lead_time_s: int


def origin_of(handle: int) -> Origin:
    """Who made a message, by ecCodes' handle of it."""
    return Origin(
        centre=text(handle, "centre"),
        mars_class=text(handle, "class"),
        stream=text(handle, "marsStream"),
        expver=text(handle, "expver"),
        type=text(handle, "marsType"),
        sign=_sign(handle),
        is_ensemble=_is_ensemble(handle),
    )


def process_of(handle: int) -> tuple[int | None, ...]:
    """What more tells models of one origin apart; where none is complete, they may stand in for each other."""
    keys = ("subCentre", "generatingProcessIdentifier", "typeOfGeneratingProcess", "typeOfProcessedData")
    return tuple(integer(handle, key) for key in keys)


def number_of(handle: int) -> int:
    """The ensemble member; 0 for a control, which some centres number like the first member, and for what is none."""
    if text(handle, "dataType") == "cf":
        return 0
    number = integer(handle, "number")
    if number is None and integer(handle, "productIdentifier") is not None and integer(handle, "type") in (2, 3):
        # NCEP's ensembles of old.
        number = integer(handle, "identificationNumber")
    return number or 0


def times_of(handle: int) -> Times | None:
    """When a message is valid, to the second; None if it does not say so.

    ecCodes' own keys are for whole minutes, and fail where a message's step makes no sense.
    """
    edition = integer(handle, "edition") or 0
    step = integer(handle, "forecastTime") if edition == 2 else _grib1_step(handle)
    unit = SECONDS_PER_UNIT.get(edition, {}).get(integer(handle, "indicatorOfUnitOfTimeRange") or 0)
    if step is None or (unit is None and step):
        return None
    try:
        lead_time = timedelta(seconds=step * (unit or 0))
        return Times(_base_time(handle, edition) + lead_time, int(lead_time.total_seconds()))
    except (ValueError, OverflowError):
        return None


def _base_time(handle: int, edition: int) -> datetime:
    """The reference time; a ValueError if it is none."""
    if edition == 2:
        year, month, day, hour, minute, second = (integer(handle, key) or 0 for key in DATE_KEYS)
        return datetime(year, month, day, hour, minute, second)
    date, clock = integer(handle, "dataDate") or 0, integer(handle, "dataTime") or 0
    return datetime.strptime(f"{date:08d}{clock:04d}", "%Y%m%d%H%M")


def _grib1_step(handle: int) -> int | None:
    first, second = integer(handle, "P1"), integer(handle, "P2")
    if integer(handle, "timeRangeIndicator") == 10 and first is not None and second is not None:
        return first * 256 + second
    return first


def _is_ensemble(handle: int) -> bool:
    """GRIB1 numbers analyses too, as 0."""
    numbered = integer(handle, "edition") == 2 and integer(handle, "perturbationNumber") is not None
    return numbered or text(handle, "dataType") in ENSEMBLES or integer(handle, "productIdentifier") is not None


def _sign(handle: int) -> str:
    kind = integer(handle, "typeOfEnsembleForecast")
    if kind is None and integer(handle, "productIdentifier") is not None:
        # NCEP's ensembles of old, whose codes 2 and 3 are those of GRIB2.
        kind = integer(handle, "type")
    return "" if kind in (None, MISSING) else SIGNS.get(kind or 0, f"ensemble type {kind}")
