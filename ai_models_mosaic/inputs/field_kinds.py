"""What kind of field a GRIB message holds: a state of the atmosphere, or something made of several.

A mean, a probability or an accumulation carries the same parameter, level and time as a state. What tells them apart
stands in keys that are plain numbers of the message, so that they can be read of any message, whatever else is wrong
with it.

Source: WMO code tables 4.0, 4.3, 4.7, 1.4 of GRIB2 and 5 of GRIB1; types and streams of MARS as ecCodes knows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import eccodes

INSTANTANEOUS_TEMPLATES = (0, 1, 60, 117)
"""Product definition templates of analyses, forecasts and members (also of re-forecasts and of large ensembles)."""

DERIVED_TEMPLATES = (2, 3, 4, 12, 13, 14, 107)

DERIVED_FORECASTS: Mapping[int, str] = MappingProxyType(
    {
        0: "the ensemble mean",
        1: "the weighted ensemble mean",
        2: "the standard deviation about a cluster's mean",
        3: "the normalised standard deviation about a cluster's mean",
        4: "the ensemble spread",
        5: "the large anomaly index",
        6: "the mean of a cluster",
        7: "the interquartile range",
        8: "the ensemble minimum",
        9: "the ensemble maximum",
    }
)

TEMPLATES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "a probability": (5, 9, 112),
        "a percentile": (6, 10),
        "a quantile": (86, 87),
        "an analysis or forecast error": (7,),
        "a statistic over an area": (15,),
        "a radar product": (20,),
        "satellite data": (30, 31, 32, 33, 34, 35),
        "a constituent or aerosol": (*range(40, 50), 57, 58, 67, 68, *range(76, 86)),
        "a categorical forecast": (51, 91),
        "part of a field": (53, 54, 55, 56, 59, 62, 63, 113, 114, 115, 116),
        "a post-processed field": (70, 71, 72, 73),
        "a field at a local time": (88, *range(92, 99)),
        "waves": tuple(range(99, 105)),
        "an anomaly": (105, 106),
        "an optical product": (108, 109, 110, 111),
        "text": (254,),
        "a cross-section": (1000, 1001, 1002, 1100, 1101),
    }
)
"""Products that are no states by their template, but for those over a time interval and of an ensemble as a whole."""

INTERVAL_TEMPLATES = (8, 11, 61, 118)

STATISTICS: Mapping[int, str] = MappingProxyType(
    {
        0: "an average over time",
        1: "an accumulation",
        2: "a maximum over time",
        3: "a minimum over time",
        4: "a difference in time",
        5: "a root mean square over time",
        6: "a standard deviation over time",
        7: "a covariance over time",
        8: "a difference in time",
        9: "a ratio over time",
        10: "a standardised anomaly",
        11: "a summation",
    }
)
"""By typeOfStatisticalProcessing, code table 4.10."""

GENERATING_PROCESSES: Mapping[int, str] = MappingProxyType(
    {
        5: "a probability",
        6: "a forecast error",
        7: "an analysis error",
        8: "an observation",
        9: "a climatology",
        10: "a probability-weighted forecast",
        16: "a physical retrieval",
        17: "a regression analysis",
        18: "a difference between two forecasts",
        20: "an analysis increment",
        21: "an initialisation increment",
    }
)
"""What is no state by typeOfGeneratingProcess, code table 4.3."""

PROCESSED_DATA: Mapping[int, str] = MappingProxyType({6: "satellite data", 7: "a radar product", 8: "a probability"})
"""What is no state by typeOfProcessedData, code table 1.4."""

INSTANTANEOUS_TIME_RANGES = (0, 1, 10)
"""GRIB1's timeRangeIndicator of fields at a point in time."""

TIME_RANGES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "a field over a range of time": (2,),
        "an average over time": (3, 6, 7, 113, 115, 117, 123, 128, 130, 133, 138, 140),
        "an accumulation": (4, 114, 116, 124, 134, 139),
        "a difference in time": (5,),
        "a climatology": (51,),
        "a variance over time": (118, 129, 131, 132, 136, 137),
        "a standard deviation over time": (119, 125, 135),
    }
)

STATE_TYPES = ("0", "fg", "an", "ia", "oi", "3v", "4v", "fc", "cf", "pf", "si", "s3", "bf", "pa", "if")
"""MARS types of analyses, first guesses, forecasts and members; 0 says nothing."""

TYPES: Mapping[str, str] = MappingProxyType(
    {
        "em": "the ensemble mean",
        "es": "the ensemble spread",
        "emdn": "the ensemble median",
        "wem": "the weighted ensemble mean",
        "wes": "the weighted ensemble spread",
        "ses": "the scaled ensemble spread",
        "taem": "a time average of the ensemble mean",
        "taes": "a time average of the ensemble spread",
        "est": "a statistic of the ensemble",
        "fcmean": "a forecast mean",
        "fcmax": "a forecast maximum",
        "fcmin": "a forecast minimum",
        "fcstdev": "a forecast standard deviation",
        "hcmean": "a hindcast climate mean",
        "fa": "an accumulation",
        "fp": "a probability",
        "ep": "a probability",
        "pd": "a probability distribution",
        "ed": "an empirical distribution",
        "pb": "a quantile",
        "cd": "a climate distribution",
        "cl": "a climatology",
        "cm": "the mean of a cluster",
        "cs": "the standard deviation of a cluster",
        "ef": "an error of the first guess",
        "ea": "an analysis error",
        "me": "a model error",
        "eme": "a model error",
        "4i": "an analysis increment",
        "efi": "an extreme forecast index",
        "efic": "an extreme forecast index",
        "sot": "a shift of tails",
    }
)
"""Names of what is no state by its MARS type; any other type is called by itself."""

STATISTICAL_STREAMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "a monthly mean": (
            *("mnth", "moda", "mdfa", "monr", "wamo", "wamd", "edmm", "edmo", "ewmm", "ewmo", "clmn", "esmm", "ehmm"),
            *("sfmm", "swmm", "msmm", "mswm", "mofm", "wmfm", "mnfm", "mfhm", "mfwm", "mhwm", "mmam", "mmwm"),
        ),
        "a monthly variance": ("mnvr", "msdc", "msda"),
        "a daily mean": ("dame",),
        "a seasonal mean": ("seme", "secy"),
        "an anomaly": ("mnfa", "mfaw", "mfam", "mawm", "smma", "mmsa"),
        "a climatology": ("dacl", "dacw"),
        "a statistic of forecasts": ("efhs", "wehs", "eehs", "wees", "sttd", "stte", "fsob", "fsow"),
    }
)
"""MARS streams of what was made of several states."""


@dataclass(frozen=True)
class FieldKind:
    """What a message holds.

    Parameters
    ----------
    name : str
        With its article, such as ``the ensemble mean``.
    evidence : str
        The key that says so, such as ``template 2``.
    is_state : bool
        Whether it is an instantaneous field of an analysis, a control, a member or a deterministic forecast.
    """

    name: str
    evidence: str
    is_state: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.evidence})"


def kind_of(handle: int) -> FieldKind:
    """What kind of field a message holds, whatever is wrong with the rest of it.

    Parameters
    ----------
    handle : int
        ecCodes' handle of a message of either edition; its headers are enough.
    """
    edition = integer(handle, "edition")
    if edition == 1:
        found = _by_time_range(handle) or _by_ncep_ensemble(handle)
        evidence = f"time range {integer(handle, 'timeRangeIndicator')}"
    elif edition == 2:
        found = _by_template(handle) or _by_process(handle)
        evidence = f"template {integer(handle, 'productDefinitionTemplateNumber')}"
    else:
        return FieldKind("a message that cannot be read", f"edition {edition}")
    return found or _by_mars_labels(handle) or FieldKind("an instantaneous field", evidence, is_state=True)


def integer(handle: int, key: str) -> int | None:
    """A key's number; None if the message has no such key, or it cannot be read."""
    try:
        return int(eccodes.codes_get_long(handle, key))
    except eccodes.CodesInternalError:
        return None


def text(handle: int, key: str) -> str:
    """A key's text; empty if the message has no such key, or it cannot be read."""
    try:
        return str(eccodes.codes_get_string(handle, key))
    except (eccodes.CodesInternalError, UnicodeDecodeError):
        return ""


def _by_template(handle: int) -> FieldKind | None:
    template = integer(handle, "productDefinitionTemplateNumber")
    if template in INSTANTANEOUS_TEMPLATES:
        return None
    name = _name(TEMPLATES, template)
    if template in DERIVED_TEMPLATES:
        name = DERIVED_FORECASTS.get(integer(handle, "derivedForecast") or 0, "a product of the ensemble")
    elif template in INTERVAL_TEMPLATES:
        name = STATISTICS.get(_statistic(handle), "a statistic over time")
    return FieldKind(name or "a product of another kind", f"template {template}")


def _statistic(handle: int) -> int:
    """The statistic over time; of several nested ones the first, which is the outermost."""
    try:
        return int(eccodes.codes_get_array(handle, "typeOfStatisticalProcessing")[0])
    except (eccodes.CodesInternalError, IndexError):
        return -1


def _by_process(handle: int) -> FieldKind | None:
    for key, names in (("typeOfGeneratingProcess", GENERATING_PROCESSES), ("typeOfProcessedData", PROCESSED_DATA)):
        number = integer(handle, key)
        if number is not None and number in names:
            return FieldKind(names[number], f"{key} {number}")
    return None


def _by_time_range(handle: int) -> FieldKind | None:
    indicator = integer(handle, "timeRangeIndicator")
    if indicator in INSTANTANEOUS_TIME_RANGES:
        return None
    return FieldKind(_name(TIME_RANGES, indicator) or "a statistic over time", f"time range {indicator}")


def _by_ncep_ensemble(handle: int) -> FieldKind | None:
    """NCEP's extension of section 1 for ensembles: types 1 to 3 are control and members, product 1 a full field."""
    kind, product = integer(handle, "type"), integer(handle, "productIdentifier")
    if product is None or (kind in (1, 2, 3) and product == 1):
        return None
    return FieldKind("a product of the ensemble", f"type {kind}, product {product} of NCEP's ensembles")


def _by_mars_labels(handle: int) -> FieldKind | None:
    stream, kind = text(handle, "marsStream"), text(handle, "marsType")
    name = _name(STATISTICAL_STREAMS, stream)
    if name:
        return FieldKind(name, f"stream {stream}")
    if kind and kind not in STATE_TYPES:
        return FieldKind(TYPES.get(kind, "a field of another kind"), f"type {kind}")
    return None


def _name(table: Mapping[str, tuple[object, ...]], code: object) -> str:
    """The name that a table gives a code; empty if it has none."""
    return next((name for name, codes in table.items() if code in codes), "")
