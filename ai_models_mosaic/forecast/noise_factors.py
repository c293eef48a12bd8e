"""Factors on the noise by lead time, fitted on past dates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..options.factor_files import NOISE, between, checked, read_factors, refuse_others
from .rollout import MAXIMUM_NOISE_FACTOR

OPTION = "--noise-factor-file"


@dataclass(frozen=True)
class NoiseFactors:
    """What ε is multiplied with in the step that leads to a lead time.

    Parameters
    ----------
    sha256 : str
        Of the file that they are from.
    lead_hours : tuple of int
        Ascending.
    factors : tuple of float
        One for each.
    variant, weights_sha256 : str or None
        What they were fitted for, if that is known.
    """

    sha256: str
    lead_hours: tuple[int, ...]
    factors: tuple[float, ...]
    variant: str | None = None
    weights_sha256: str | None = None

    def by_step(self, step_hours: int, steps: int) -> tuple[float, ...]:
        """The factors of the steps from the first: linear between lead times, beyond the outer ones theirs.

        Parameters
        ----------
        step_hours : int
            Length of a step, h.
        steps : int
            How many.
        """
        return tuple(between(self.lead_hours, self.factors, step * step_hours) for step in range(1, steps + 1))

    def refuse_others(self, variant: str | None = None, weights: str | None = None) -> None:
        """Refuse to be used with another variant or other weights than those they were fitted for.

        Raises
        ------
        OptionError
            Says which.
        """
        refuse_others(OPTION, {"variant": self.variant, "weights_sha256": self.weights_sha256}, variant, weights)


def parse_noise_factors(text: str | Path) -> NoiseFactors:
    """The factors of a file.

    Raises
    ------
    OptionError
        If it is no such file.
    """
    found, digest = read_factors(Path(text), OPTION, NOISE)
    leads = found["lead_hours"]
    factors = checked(found.get("factors"), len(leads), (0, MAXIMUM_NOISE_FACTOR), f"{OPTION} {text}")
    return NoiseFactors(digest, tuple(leads), factors, found.get("variant"), found.get("weights_sha256"))
