"""A look at the losses of a run while it is made: whether they go up for good."""

from __future__ import annotations

import logging

from .recipe import Phase, Recipe

LOG = logging.getLogger(__name__)

WINDOW = 100
"""Updates whose losses are averaged: of a batch of eight, single losses differ by a third."""

RISE = 1.15
"""Over the lowest mean of the phase; a mean of so many differs from the next by some per cent."""


class Divergence:
    """Warns when the mean loss of a window of updates is well above the lowest one of the same phase.

    The learning rate falls over a phase, so that the loss should, too. Once it has risen far, what the rest of the
    phase mends is less than it has lost.

    Parameters
    ----------
    recipe : Recipe
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._phase: Phase | None = None
        self._losses: list[float] = []
        self._lowest = float("inf")

    def tell(self, number: int, loss: float) -> None:
        """Of an update, by its number from 0; in order."""
        phase, _ = self._recipe.phase_of(number)
        if phase is not self._phase:
            # What is scored is another.
            self._phase, self._losses, self._lowest = phase, [], float("inf")
        self._losses.append(loss)
        if len(self._losses) < WINDOW:
            return
        mean, self._losses = sum(self._losses) / WINDOW, []
        if mean > RISE * self._lowest:
            LOG.warning(
                "the mean loss of updates %d to %d is %.4g, which was %.4g before in this phase: it diverges; a lower "
                "learning_rate (%g now) or a shorter phase may help",
                number + 1 - WINDOW,
                number,
                mean,
                self._lowest,
                phase.learning_rate,
            )
        self._lowest = min(self._lowest, mean)
