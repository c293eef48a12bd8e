"""What made the forecasts that factors are fitted to, as far as cards beside them say."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
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


NOISE_OPTIONS = {"noise_factor": 1.0, "noise_factors": None, "perturbations": "on", "antithetic": False}
"""Options of the noise, and what a card means that is of before there was one of them."""

OTHER_ENSEMBLES = ("lagged", "crossed")
"""Options of ensembles whose members are no draws from one start that differ by noise alone."""


def origin_of(pattern: str) -> Origin:
    """What made the forecasts that a pattern stands for.

    Raises
    ------
    InputError
        If different weights or options of the noise did, members were moved already, or they differ by more than
        noise.
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
        If something else differs, or a card says another factor, factors by lead time, or no noise.
    """
    for factor, origin in origins.items():
        if origin.noise is not None:
            _refuse_other_noise(factor, origin.noise)
    return replace(_agreed("--forecast", map(_without_factor, origins.values())), noise=None)


def _refuse_other_noise(factor: float, noise: Mapping[str, Any]) -> None:
    """Refuse forecasts whose noise had not one factor throughout, that of the option."""
    what, said = f"--forecast {factor:g}=…: expected forecasts with that noise factor", noise["noise_factor"]
    if noise["perturbations"] != "on":
        raise InputError(f"{what}, got some of --perturbations {noise['perturbations']}, which have no noise")
    if noise["noise_factors"] is not None:
        raise InputError(
            f"{what} at all lead times, got some of --noise-factor-file: factors are fitted to forecasts without it"
        )
    if said != factor:
        raise InputError(f"{what}, got one with {said}")


def _without_factor(origin: Origin) -> Origin:
    noise = origin.noise
    return origin if noise is None else replace(origin, noise={**noise, "noise_factor": None})


def _origin(pattern: str, card: Mapping[str, Any]) -> Origin:
    options, weights = card.get("options"), card.get("weights")
    sha256 = weights.get("sha256") if isinstance(weights, Mapping) else None
    if not isinstance(options, Mapping):
        return Origin(card.get("variant"), sha256)
    output = options.get("output")
    if isinstance(output, Mapping) and output.get("calibration") is not None:
        raise InputError(
            f"{pattern}: expected forecasts as they were made, got some of which --calibration moved members"
        )
    for name in OTHER_ENSEMBLES:
        if options.get(name) is not None:
            raise InputError(
                f"{pattern}: expected members of one start that differ by noise alone, as factors are for, got some of "
                f"--{name}; fit to forecasts without it"
            )
    return Origin(
        card.get("variant"), sha256, {name: options.get(name, usual) for name, usual in NOISE_OPTIONS.items()}
    )


def _agreed(what: str, origins: Iterable[Origin]) -> Origin:
    first, *others = origins
    for other in others:
        for name, value in _named(other).items():
            if value != _named(first)[name]:
                raise InputError(
                    f"{what}: expected forecasts of one kind, got some whose {name} is {_named(first)[name]} and "
                    f"some with {value}"
                )
    return first


def _named(origin: Origin) -> dict[str, Any]:
    """What must be the same, by its name; each option of the noise by its own, where any is known."""
    named = origin.described()
    noise = named.pop("noise")
    return {**named, **{name: noise and noise[name] for name in NOISE_OPTIONS}}
