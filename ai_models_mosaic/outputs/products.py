"""Products of an ensemble: statistics over its members, and probabilities.

They are computed in float64 from the float32 fields of all members of a step, before anything is
packed, so each is what NumPy makes of the members.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from ..arrays import BoolArray, FloatArray
from ..errors import OptionError
from ..params import Field, named
from .selection import Selection

OPTION = "--products"

STATISTICS = {"mean": "mean", "spread": "spread", "min": "minimum", "max": "maximum"}
"""Names of products without arguments, as typed and in full."""

SHARE_OF_PERCENT = 100
"""Finest quantile, in parts of a percent: GRIB counts up to 65 535."""

EXPECTED = (
    "expected mean, spread, min, max, quantile:PERCENT, percentile:PERCENT or probability:FIELD>VALUE, "
    "each but the last perhaps with @FIELDS, such as mean,quantile:10@2t/z500,probability:10ws>15"
)


@dataclass(frozen=True)
class Product:
    """One product, of some fields.

    Parameters
    ----------
    kind : str
        ``mean``, ``spread``, ``minimum``, ``maximum``, ``quantile``, ``percentile`` or ``probability``.
    percent : str
        Of a quantile or percentile, as typed.
    comparison : str
        Of a probability: ``>``, ``>=``, ``<`` or ``<=``.
    threshold : str
        Of a probability, in the field's units, as typed.
    fields : tuple of str or None
        Names of the fields; None for all that are written of the members.
    starts : int
        Of a part of the variance of a crossed ensemble: how many starts it has.
    """

    kind: str
    percent: str = ""
    comparison: str = ""
    threshold: str = ""
    fields: tuple[str, ...] | None = None
    starts: int = 0

    @property
    def name(self) -> str:
        """Name within a file: ``mean``, ``quantile_2.5``, ``probability_above_300``."""
        if self.percent:
            return f"{self.kind}_{self.percent}"
        if self.comparison:
            return f"probability_{'above' if self.above else 'below'}_{self.threshold}"
        return self.kind

    @property
    def above(self) -> bool:
        """Whether a probability is one of exceeding."""
        return self.comparison.startswith(">")

    @property
    def share(self) -> Decimal:
        """Of a quantile: 0 … 1, exact."""
        return Decimal(self.percent) / 100

    def units(self, field: Field) -> str:
        """Units of the product of a field."""
        if self.starts:
            return f"({field.units})**2" if " " in field.units else f"{field.units}**2"
        return "%" if self.comparison else field.units

    def happens(self, values: FloatArray) -> BoolArray:
        """Where a probability's event happens.

        Parameters
        ----------
        values : array (...)
            Of the field, in its units.

        Returns
        -------
        bool array (...)
        """
        threshold = float(self.threshold)
        match self.comparison:
            case ">":
                return values > threshold
            case ">=":
                return values >= threshold
            case "<":
                return values < threshold
            case _:
                return values <= threshold

    def fields_of(self, selection: Selection) -> tuple[Field, ...]:
        """The fields of which this product is made.

        Parameters
        ----------
        selection : Selection
            What is written of the members; fields that are named here need not be among them.
        """
        if self.fields is None:
            return selection.fields
        chosen: dict[Field, None] = {}
        for name in self.fields:
            found = named(name, OPTION)
            chosen.update(dict.fromkeys(found if len(found) == 1 else selection.on_levels(found)))
        return tuple(chosen)


def compute(products: Sequence[Product], members: FloatArray) -> list[FloatArray]:
    """Products of one field.

    Parameters
    ----------
    products : sequence of Product
        What is wanted.
    members : array (member, ...)
        The field of every member.

    Returns
    -------
    list of float64 array (...)
        In the order of the products. The spread is the standard deviation about the mean (divisor:
        number of members), quantiles are interpolated linearly between members, probabilities are
        the percentage of members.
    """
    values = np.asarray(members, dtype=np.float64)
    shares = sorted({float(product.share) for product in products if product.percent})
    # All at once: NumPy partitions the members once per call.
    quantiles = dict(zip(shares, np.quantile(values, shares, axis=0), strict=True)) if shares else {}
    return [quantiles[float(product.share)] if product.percent else _one(product, values) for product in products]


def _one(product: Product, values: FloatArray) -> FloatArray:
    match product.kind:
        case "mean":
            return values.mean(axis=0)
        case "spread":
            return values.std(axis=0)
        case "minimum":
            return values.min(axis=0)
        case "maximum":
            return values.max(axis=0)
    return 100.0 * product.happens(values).mean(axis=0)


def parse_products(text: str) -> tuple[Product, ...]:
    """The products of a list such as ``mean,spread,quantile:10,probability:2t>300``.

    Raises
    ------
    OptionError
        If one is unknown, malformed, of an unknown field, or given twice.
    """
    products = tuple(_parse(part.strip()) for part in text.split(","))
    repeated = [product for index, product in enumerate(products) if product in products[:index]]
    if repeated:
        raise OptionError(f"{OPTION}: expected each product once, got {repeated[0].name} twice in {text!r}")
    return products


def _parse(text: str) -> Product:
    match = re.fullmatch(r"(?:probability|prob):\s*(\w+)\s*([<>]=?)\s*(\S+)", text)
    if match:
        named(match[1], OPTION)
        return Product("probability", comparison=match[2], threshold=_number(match[3], text), fields=(match[1],))
    what, at, of = text.partition("@")
    fields = tuple(of.split("/")) if at else None
    for name in fields or ():
        named(name, OPTION)
    if what in STATISTICS or what in STATISTICS.values():
        return Product(STATISTICS.get(what, what), fields=fields)
    match = re.fullmatch(r"(quantile|percentile):(.+)", what)
    if not match:
        raise OptionError(f"{OPTION}: {EXPECTED}, got {text!r}")
    return Product(match[1], percent=_percent(match[2], text, whole=match[1] == "percentile"), fields=fields)


def _number(typed: str, text: str) -> str:
    """A threshold, in the form that names it."""
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", typed, flags=re.IGNORECASE):
        raise OptionError(f"{OPTION}: expected a number behind the comparison in {text!r}, got {typed!r}")
    number = Decimal(typed)
    return f"{number.normalize() if number else Decimal(0):f}"


def _percent(typed: str, text: str, *, whole: bool) -> str:
    """A percentage, in the form that names it."""
    number = typed.removesuffix("%")
    if not re.fullmatch(r"\d+\.?\d*|\.\d+", number) or Decimal(number) > 100:
        raise OptionError(f"{OPTION}: expected a percentage from 0 to 100 in {text!r}, got {typed!r}")
    percent = Decimal(number)
    if 0 < percent < 1 and not typed.endswith("%"):
        raise OptionError(
            f"{OPTION}: {text!r} would be {number} %: write {text.replace(typed, f'{percent * 100:f}')!r} "
            f"if the share is meant, or {text.replace(typed, f'{number}%')!r}"
        )
    if percent * SHARE_OF_PERCENT % 1:
        raise OptionError(f"{OPTION}: expected at most two decimals of a percent in {text!r}")
    if whole and percent % 1:
        raise OptionError(
            f"{OPTION}: a percentile is a whole number in GRIB, got {text!r}; quantile:{number} can be written"
        )
    return f"{percent.normalize() if percent else Decimal(0):f}"
