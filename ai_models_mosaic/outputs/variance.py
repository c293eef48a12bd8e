"""Where the variance of a crossed ensemble comes from: the starts, the model's noise, and both together.

Of member (i, j), start i of M and noise j of K, the field is y = μ + a_i + b_j + e_ij. Estimates are those of a
two-way analysis of variance without replication, from its mean squares (Searle, Casella, McCulloch: Variance
Components, 1992, section 4.3 with one value per cell): unbiased, and so below zero where there is little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import FloatArray
from .products import Product

PARTS = {
    "variance_starts": "variance between starts",
    "variance_model": "variance between draws of the model's noise",
    "variance_interaction": "variance of what start and noise make together",
}
"""Kinds of products, in words."""

ERROR = "_error"
"""Added to a kind: the standard error of its estimate."""

WORDS = {**PARTS, **{f"{kind}{ERROR}": f"standard error of the {words}" for kind, words in PARTS.items()}}


def split_products(starts: int) -> tuple[Product, ...]:
    """The products of an ensemble of so many starts; none if it is not crossed."""
    return tuple(Product(kind, starts=starts) for kind in WORDS) if starts else ()


@dataclass(frozen=True)
class _Sums:
    """What estimates are made of, for all members or for all but a start or a noise ``(left out, ...)``.

    Parameters
    ----------
    starts, noises : int
        How many there are.
    of_starts, of_noises : array
        Sums over starts of the squared sums over noises, and the other way round.
    squares, total : array
        Sums over all members of squares and values.
    """

    starts: int
    noises: int
    of_starts: FloatArray
    of_noises: FloatArray
    squares: FloatArray
    total: FloatArray

    def variances(self) -> FloatArray:
        """Estimates ``(part, ...)`` in the order of `PARTS`."""
        mean = self.total**2 / (self.starts * self.noises)
        of_starts = self.of_starts / self.noises - mean
        of_noises = self.of_noises / self.starts - mean
        rest = (self.squares - mean - of_starts - of_noises) / ((self.starts - 1) * (self.noises - 1))
        return np.stack(
            [
                (of_starts / (self.starts - 1) - rest) / self.noises,
                (of_noises / (self.noises - 1) - rest) / self.starts,
                rest,
            ]
        )


def split(members: FloatArray, starts: int) -> dict[str, FloatArray]:
    """The parts of the variance of a field, and their standard errors, by kind of product.

    Errors are those of the jackknife: of leaving out one start after the other for the variance between starts, which
    does not depend on what the draws of noise have in common, and the other way round for that between draws of noise.
    For what both make together either would do, and the larger is taken.

    Parameters
    ----------
    members : float64 array (member, ...)
        Members in the order of their numbers, as `options.crossing.Crossing` numbers them.
    starts : int
        How many there are.

    Returns
    -------
    dict of str to float64 array (...)
        In squared units of the field.
    """
    # About their mean, for what is subtracted below to be no larger than what is left.
    crossed = (members - members.mean(axis=0)).reshape(-1, starts, *members.shape[1:])
    of_start, of_noise = crossed.sum(axis=0), crossed.sum(axis=1)
    squares = crossed**2
    by_start, by_noise = squares.sum(axis=0), squares.sum(axis=1)
    noises, total = len(crossed), of_start.sum(axis=0)
    whole = _Sums(starts, noises, _squared(of_start), _squared(of_noise), by_start.sum(axis=0), total)
    without_start = _Sums(
        starts - 1,
        noises,
        whole.of_starts - of_start**2,
        whole.of_noises - 2 * np.einsum("js...,j...->s...", crossed, of_noise) + by_start,
        whole.squares - by_start,
        total - of_start,
    )
    without_noise = _Sums(
        starts,
        noises - 1,
        whole.of_starts - 2 * np.einsum("js...,s...->j...", crossed, of_start) + by_noise,
        whole.of_noises - of_noise**2,
        whole.squares - by_noise,
        total - of_noise,
    )
    by_starts, by_noises = _jackknife(without_start.variances()), _jackknife(without_noise.variances())
    errors = np.sqrt([by_starts[0], by_noises[1], np.maximum(by_starts[2], by_noises[2])])
    return dict(zip(WORDS, [*whole.variances(), *errors], strict=True))


def parts_of(
    products: Sequence[Product], values: FloatArray, members: Sequence[int], starts: int
) -> list[tuple[Product, FloatArray]]:
    """The parts of the variance that are among some products.

    Parameters
    ----------
    products : sequence of Product
        Of one field.
    values : array (member, ...)
        Of the field.
    members : sequence of int
        Their numbers, in that order.
    starts : int
        Of the crossed ensemble.

    Returns
    -------
    list of (Product, array)
        In the order of `products`.
    """
    wanted = [product for product in products if product.starts]
    if not wanted:
        return []
    parts = split(np.asarray(values, dtype=np.float64)[np.argsort(members)], starts)
    return [(product, parts[product.kind]) for product in wanted]


def _squared(sums: FloatArray) -> FloatArray:
    return (sums**2).sum(axis=0)


def _jackknife(estimates: FloatArray) -> FloatArray:
    """Variance of estimates ``(part, left out, ...)``, from one for each that was left out."""
    return (estimates.shape[1] - 1) * estimates.var(axis=1)
