"""What made the forecasts that factors are fitted to, as far as cards beside them say."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...forecast.provenance import read_beside
from ..messages import find_files
from ..zarr_stores import is_store

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """What made a forecast.

    Parameters
    ----------
    variant, weights_sha256 : str or None
        None where no card says so.
    noise : dict of str to object, or None
        What was asked of the noise, by option.
    """

    variant: str | None = None
    weights_sha256: str | None = None
    noise: dict[str, Any] | None = None

    def described(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)


NOISE_OPTIONS = ("noise_factor", "noise_factors", "perturbations", "antithetic")


def origin_of(pattern: str) -> Origin:
    """What made the forecasts that a pattern stands for.

    Raises
    ------
    InputError
        If different weights or options of the noise did, or members were moved already.
    """
    paths = [Path(pattern.rstrip("/"))] if is_store(pattern) else find_files(pattern)
    cards = [card for path in paths if (card := read_beside(path))]
    if not cards:
        LOG.warning("%s: no card says which weights made these forecasts, so the factors fit any weights", pattern)
        return Origin()
    return _agreed(pattern, [_origin(pattern, card) for card in cards])


def common_origin(origins: Mapping[float, Origin]) -> Origin:
    """What made several forecasts that differ by their noise factor alone.

    Raises
    ------
    InputError
        If something else differs, or a card says another factor.
    """
    for factor, origin in origins.items():
        said = None if origin.noise is None else origin.noise.get("noise_factor")
        if said is not None and said != factor:
            raise InputError(
                f"--forecast {factor:g}=…: expected forecasts with that noise factor, got one with {said:g}"
            )
    return _agreed("--forecast", [Origin(one.variant, one.weights_sha256) for one in origins.values()])


def _origin(pattern: str, card: Mapping[str, Any]) -> Origin:
    options = card.get("options")
    options = options if isinstance(options, Mapping) else {}
    output, weights = options.get("output"), card.get("weights")
    if isinstance(output, Mapping) and output.get("calibration") is not None:
        raise InputError(
            f"{pattern}: expected forecasts as they were made, got some of which --calibration moved members"
        )
    noise = {name: options[name] for name in NOISE_OPTIONS if name in options}
    return Origin(card.get("variant"), weights.get("sha256") if isinstance(weights, Mapping) else None, noise)


def _agreed(what: str, origins: Iterable[Origin]) -> Origin:
    first, *others = origins
    for other in others:
        for name, value in other.described().items():
            if value != first.described()[name]:
                raise InputError(
                    f"{what}: expected forecasts of one kind, got some whose {name} is {first.described()[name]} and "
                    f"some with {value}"
                )
    return first
