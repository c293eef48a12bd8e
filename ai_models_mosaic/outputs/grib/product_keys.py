"""GRIB keys of products.

Source: WMO code tables 4.0, 4.7 and 4.9, and the types of MARS as ecCodes knows them.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from ...errors import OptionError
from ..products import OPTION, Product
from .templates import LARGEST_NUMBER, UNKNOWN_SIZE

DERIVED, PERCENTILE, PROBABILITY, QUANTILE = 2, 6, 5, 86
"""Product definition templates, at a point in time."""

ENSEMBLE_FORECAST, PROBABILITY_FORECAST = 4, 5
"""Types of generating process."""

DERIVED_FORECASTS = {"mean": ("em", 0), "spread": ("es", 4), "minimum": ("fcmin", 8), "maximum": ("fcmax", 9)}
"""MARS type and code of table 4.7."""

ABOVE_LOWER_LIMIT, BELOW_UPPER_LIMIT = 3, 4
"""Codes of table 4.9; the tables do not tell > from >=."""

LARGEST_SCALED = 2**31 - 1


def product_keys(product: Product, members: int) -> dict[str, Any]:
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


def _limits(product: Product) -> dict[str, Any]:
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
        f"scaleFactorOf{unused}Limit": "MISSING",
        f"scaledValueOf{unused}Limit": "MISSING",
    }
