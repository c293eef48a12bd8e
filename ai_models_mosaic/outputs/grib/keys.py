"""All GRIB keys: what each kind of message carries, as plain mappings and without ecCodes.

Their order is that in which they are set: some decide which others there are. Keys are our own and not the
input's, so that messages are the same whatever the input was encoded in.

Source: WMO code tables 1.3, 4.0, 4.3, 4.7 and 4.9, and the types of MARS as ecCodes knows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeAlias

from ...errors import OptionError, OutputError
from ...geometry.grid import Region
from ...params import Field
from ..products import OPTION, Product
from .packing import METHODS, Packing

Keys: TypeAlias = Mapping[str, "int | float | str"]

EXPVER, UNTRAINED_EXPVER = "mosa", "untr"
"""Default experiment versions, of trained and of random weights; four characters, as ecCodes demands."""

MISSING = "MISSING"
"""A value that GRIB holds as missing."""

UNKNOWN_SIZE, UNKNOWN_SIZE_LARGE = 255, 65_535
"""GRIB2's missing value in templates 4.1 and 4.117, where the size of the ensemble was not said."""

LARGEST_NUMBER = 254
"""Largest member of template 4.1, whose numbers have one octet; 4.117 has two."""

TABLES_VERSION = 33
"""The first version with template 4.117."""

MEMBER, LARGE_MEMBER, DERIVED, PROBABILITY, PERCENTILE, QUANTILE = 1, 117, 2, 5, 6, 86
"""Product definition templates, at a point in time."""

ENSEMBLE_FORECAST, PROBABILITY_FORECAST, POST_PROCESSED_FORECAST = 4, 5, 13
"""Types of generating process. Bias-corrected ensemble forecast, 11, would say more than is true."""

DERIVED_FORECASTS = {"mean": ("em", 0), "spread": ("es", 4), "minimum": ("fcmin", 8), "maximum": ("fcmax", 9)}
"""MARS type and code of table 4.7."""

RESEARCH_PRODUCTS = 2
"""Code of table 1.3."""

ABOVE_LOWER_LIMIT, BELOW_UPPER_LIMIT = 3, 4
"""Codes of table 4.9; the tables do not tell > from >=."""

LARGEST_SCALED = 2**31 - 1

RESERVED = {
    **dict.fromkeys(("edition",), "the output is GRIB2: GRIB1 can lose the member number"),
    **dict.fromkeys(("number", "perturbationNumber"), "members are chosen with --member-number"),
    **dict.fromkeys(("numberOfForecastsInEnsemble", "totalNumber"), "it is set with --num-ensemble-members"),
    **dict.fromkeys(("date", "dataDate", "time", "dataTime"), "the initial time is that of the input"),
    **dict.fromkeys(("step", "stepRange", "startStep", "endStep", "forecastTime"), "steps follow from the variant"),
    **dict.fromkeys(("param", "paramId", "shortName", "level", "levelist", "levtype"), "it differs by field"),
    **dict.fromkeys(
        ("values", "codedValues", "bitmap", "bitmapPresent", "missingValue", "offsetValuesBy", "scaleValuesBy"),
        "values are the forecast's, and none is missing",
    ),
}
"""Keys of --metadata that are refused, and why."""

GUARDED = (
    *("edition", "paramId", "typeOfLevel", "level", "stepType", "dataDate", "dataTime", "step", "number"),
    *("productDefinitionTemplateNumber", "numberOfForecastsInEnsemble", "gridType", "Ni", "Nj"),
    *("latitudeOfFirstGridPoint", "longitudeOfFirstGridPoint", "latitudeOfLastGridPoint", "longitudeOfLastGridPoint"),
    *("iScansNegatively", "jScansPositively", "jPointsAreConsecutive", "alternativeRowScanning"),
    *("derivedForecast", "percentileValue", "quantileValue", "totalNumberOfQuantiles", "probabilityType"),
    *("scaleFactorOfLowerLimit", "scaledValueOfLowerLimit", "scaleFactorOfUpperLimit", "scaledValueOfUpperLimit"),
)
"""Keys that no key of --metadata may change by another name."""


@dataclass(frozen=True)
class Labels:
    """What all messages of a run have in common.

    Parameters
    ----------
    initial_time : datetime
        UTC, without zone.
    ensemble_size : int or None
        ``numberOfForecastsInEnsemble``; None if it was not said.
    metadata : mapping of str to str
        Keys of the user's, which win over ours.
    expver : str
        Experiment version where the user gives none.
    packing : Packing
        How values are packed, unless a key of the user's says otherwise.
    research : bool
        Whether the forecast is no weather forecast, which ``productionStatusOfProcessedData`` then says.
    calibrated : bool
        Whether members were moved about their mean, which ``typeOfGeneratingProcess`` then says.
    """

    initial_time: datetime
    ensemble_size: int | None
    metadata: Mapping[str, str]
    expver: str = EXPVER
    packing: Packing = field(default_factory=Packing)
    research: bool = False
    calibrated: bool = False


def labels_of_weights(*, untrained: bool, bundled: bool) -> dict[str, Any]:
    """What `Labels` say of the weights: expver, and whether what they make is research.

    Parameters
    ----------
    untrained : bool
        Random numbers.
    bundled : bool
        Those of ``mini``, which learnt a toy world.
    """
    return {"expver": UNTRAINED_EXPVER if untrained else EXPVER, "research": untrained or bundled}


def level_kind(field: Field) -> str:
    """``sfc`` or ``pl``, as in the names of ecCodes' samples: messages of one kind begin as the same."""
    return "sfc" if field.level_hpa is None else "pl"


def shared_keys(region: Region, labels: Labels, kind: Keys) -> Keys:
    """The keys that messages of all fields share.

    Parameters
    ----------
    region : Region
        Geometry; evenly spaced.
    labels : Labels
        What all messages of the run have in common.
    kind : mapping
        What the messages are of: `member_keys` or `product_keys`.
    """
    return {
        "tablesVersion": TABLES_VERSION,
        **grid_keys(region),
        # It decides which keys there are, so it comes before them.
        "productDefinitionTemplateNumber": kind["productDefinitionTemplateNumber"],
        "setLocalDefinition": 1,
        "class": "ml",
        "stream": "enfo",
        "type": kind["type"],
        "expver": labels.expver,
        **({"productionStatusOfProcessedData": RESEARCH_PRODUCTS} if labels.research else {}),
        "generatingProcessIdentifier": 1,
        "dataDate": int(f"{labels.initial_time:%Y%m%d}"),
        "dataTime": int(f"{labels.initial_time:%H%M}"),
        **{key: value for key, value in kind.items() if key not in ("productDefinitionTemplateNumber", "type")},
        **({"typeOfGeneratingProcess": POST_PROCESSED_FORECAST} if labels.calibrated else {}),
    }


def grid_keys(region: Region) -> Keys:
    """The points, from north to south, each row from west to east."""
    columns, rows = region.shape
    return {
        "Ni": columns,
        "Nj": rows,
        "latitudeOfFirstGridPointInDegrees": region.latitude_deg[-1],
        "longitudeOfFirstGridPointInDegrees": region.longitude_deg[0] % 360,
        "latitudeOfLastGridPointInDegrees": region.latitude_deg[0],
        "longitudeOfLastGridPointInDegrees": region.longitude_deg[-1] % 360,
        "iDirectionIncrementInDegrees": region.grid.spacing_deg,
        "jDirectionIncrementInDegrees": 180 / (region.grid.shape[1] - 1),
    }


def needs_large(member: int, ensemble_size: int | None) -> bool:
    """Whether a member's number or the size of its ensemble is beyond template 4.1."""
    return (ensemble_size or member) > LARGEST_NUMBER


def member_keys(ensemble_size: int | None, *, large: bool) -> Keys:
    """The keys that say that a message is of a member.

    Parameters
    ----------
    ensemble_size : int or None
        None if it was not said.
    large : bool
        Whether in the template whose numbers have two octets.
    """
    unknown = UNKNOWN_SIZE_LARGE if large else UNKNOWN_SIZE
    return {
        "productDefinitionTemplateNumber": LARGE_MEMBER if large else MEMBER,
        "type": "pf",
        "typeOfGeneratingProcess": ENSEMBLE_FORECAST,
        "numberOfForecastsInEnsemble": unknown if ensemble_size is None else ensemble_size,
    }


def product_keys(product: Product, members: int) -> Keys:
    """The keys that say which product a message holds, in the order in which they are to be set.

    Parameters
    ----------
    product : Product
        Which.
    members : int
        Members that it was made from; beyond 254 the template has no room, and the size is missing.

    Raises
    ------
    OptionError
        If a threshold has too many digits.
    """
    if product.kind in DERIVED_FORECASTS:
        kind, code = DERIVED_FORECASTS[product.kind]
        return {
            "productDefinitionTemplateNumber": DERIVED,
            "type": kind,
            "typeOfGeneratingProcess": ENSEMBLE_FORECAST,
            "derivedForecast": code,
            "numberOfForecastsInEnsemble": members if members <= LARGEST_NUMBER else UNKNOWN_SIZE,
        }
    if product.kind == "percentile":
        # MARS's pb wants a quantile, which this template does not have.
        return {
            "productDefinitionTemplateNumber": PERCENTILE,
            "type": "ed",
            "typeOfGeneratingProcess": ENSEMBLE_FORECAST,
            "percentileValue": int(product.percent),
        }
    if product.kind == "quantile":
        part, total = _quantile(product)
        return {
            "productDefinitionTemplateNumber": QUANTILE,
            "type": "pb",
            "typeOfGeneratingProcess": ENSEMBLE_FORECAST,
            "totalNumberOfQuantiles": total,
            "quantileValue": part,
        }
    return {
        "productDefinitionTemplateNumber": PROBABILITY,
        "type": "ep",
        "typeOfGeneratingProcess": PROBABILITY_FORECAST,
        "forecastProbabilityNumber": 1,
        "totalNumberOfForecastProbabilities": 1,
        "probabilityType": ABOVE_LOWER_LIMIT if product.above else BELOW_UPPER_LIMIT,
        **_limits(product),
    }


def _quantile(product: Product) -> tuple[int, int]:
    """``10:100``, or as many hundreds as the decimals need."""
    percent = Decimal(product.percent)
    total = 100
    while percent % 1:
        percent, total = percent * 10, total * 10
    return int(percent), total


def _limits(product: Product) -> Keys:
    number = Decimal(product.threshold)
    exponent = number.as_tuple().exponent
    factor = max(0, -exponent) if isinstance(exponent, int) else 0
    scaled = int(number.scaleb(factor))
    if abs(scaled) > LARGEST_SCALED or factor > 127:
        raise OptionError(f"{OPTION}: the threshold {product.threshold} has more digits than GRIB can hold")
    used, unused = ("Lower", "Upper") if product.above else ("Upper", "Lower")
    return {
        f"scaleFactorOf{used}Limit": factor,
        f"scaledValueOf{used}Limit": scaled,
        f"scaleFactorOf{unused}Limit": MISSING,
        f"scaledValueOf{unused}Limit": MISSING,
    }


def field_keys(field: Field) -> Keys:
    """Which field, in a message that begins as its `level_kind` does."""
    return (
        {"shortName": field.param} if field.level_hpa is None else {"shortName": field.param, "level": field.level_hpa}
    )


def packing_keys(packing: Packing, field: Field) -> Keys:
    """How a field's values are packed."""
    return {"packingType": METHODS[packing.method], "bitsPerValue": packing.bits_for(field)}


def step_keys(lead_time_hours: int, member: int | None = None) -> Mapping[str, int]:
    """What differs from one message of a field to the next; products have no member."""
    return {"step": lead_time_hours} if member is None else {"number": member, "step": lead_time_hours}


def refuse_reserved(metadata: Mapping[str, str]) -> None:
    """Raise if the user's keys hold one that would mislabel the fields.

    Raises
    ------
    OutputError
        Says which, and why.
    """
    for key in metadata:
        if key in RESERVED and not (key == "edition" and str(metadata[key]) == "2"):
            raise OutputError(f"--metadata {key}={metadata[key]} cannot be honoured: {RESERVED[key]}")
