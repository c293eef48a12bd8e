"""Options of an ensemble: its members, their noise, and what it may become."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import TypeVar

from ..errors import OptionError
from ..options.crossing import MOST_MEMBERS, Crossing, parse_crossing
from ..options.declarations import option, section, told_by
from ..options.lagging import Lagging, parse_lagging
from ..options.number_lists import parse_numbers
from ..variants import AUTO, VARIANTS
from .growth import ENSEMBLE, Growth
from .noise_factors import NoiseFactors, parse_noise_factors

NOISE = "noise"
"""Heading of the list of options."""

Kind = TypeVar("Kind", bound="EnsembleOptions")


def parse_members(text: str) -> tuple[int, ...]:
    """Member numbers of a list such as ``1,3,5-8``, in the order given; see `number_lists`.

    Raises
    ------
    OptionError
        If it is no such list, or names a member twice.
    """
    return parse_numbers(text, "--member-number", least=1)


@dataclass(frozen=True)
class EnsembleOptions:
    """Who the members are; all that a member is depends on it.

    Raises
    ------
    OptionError
        If a value makes no sense, or two do not go together.
    """

    variant: str = option(
        "--variant",
        group=ENSEMBLE,
        choices=(AUTO, *VARIANTS),
        default=AUTO,
        help="weights and time step: era5 (24 h), hres (6 h) or mini (24 h, 6°, bundled). auto takes era5 for CDS, "
        "hres for MARS and open data, and for a file what its class suggests",
        resume=told_by("variant", "what it stands for may not change"),
    )
    ensemble_size: int | None = option(
        "--num-ensemble-members",
        group=ENSEMBLE,
        parse=int,
        metavar="N",
        help="members of the ensemble, numbered 1 to N",
        shown="1, unless --member-number is given",
    )
    members: tuple[int, ...] = option(
        "--member-number",
        group=ENSEMBLE,
        parse=parse_members,
        metavar="LIST",
        default=(),
        help="run only these members, in this order, such as 1,3,5-8; each is the same as in a run of all",
        shown="all",
    )
    crossed: Crossing | None = option(
        "--crossed",
        group=ENSEMBLE,
        parse=parse_crossing,
        metavar="MxK",
        help="M starts of an ensemble with the same K draws of noise each; --zarr or --netcdf has the variance split",
    )
    lagged: Lagging | None = option(
        "--lagged",
        group=ENSEMBLE,
        parse=parse_lagging,
        metavar="HOURS",
        help="members start in turn so many hours before the run, such as 0,-6,-12,-24, and are brought to its start "
        "first; multiples of the time step, 0 among them",
    )
    seed: int = option(
        "--seed",
        group=ENSEMBLE,
        parse=int,
        default=0,
        help="seed of the members' perturbations, 0 to 2**64 - 1; the initial time is part of it",
    )
    members_per_batch: int | None = option(
        "--members-per-batch",
        group=ENSEMBLE,
        parse=int,
        metavar="N",
        help="members that go through the network together. Where the memory does not suffice, half as many from "
        "then on",
        shown="1, or as many as a graph of --engine onnx takes",
        resume=told_by("members_per_batch", "without it, the run keeps the number that it began with"),
    )
    growth: Growth = section(Growth)
    perturbations: str = option(
        "--perturbations",
        group=NOISE,
        choices=("on", "off"),
        default="on",
        help="off gives the network no noise: the members differ by where they start, if at all",
    )
    noise_factor: float = option(
        "--noise-factor",
        group=NOISE,
        parse=float,
        metavar="F",
        default=1.0,
        help="multiply the noise of the members; the weights were trained with 1",
    )
    noise_factors: NoiseFactors | None = option(
        "--noise-factor-file",
        group=NOISE,
        parse=parse_noise_factors,
        metavar="FILE",
        help="multiply the noise of the members by the factors of this file, which ai-models-mosaic calibrate fitted "
        "by lead time",
    )
    antithetic: bool = option(
        "--antithetic",
        group=NOISE,
        default=False,
        help="members in pairs: 2 has the negated noise of 1, 4 that of 3, and so on",
    )

    def __post_init__(self) -> None:
        if self.crossed:
            antithetic, growing = self.antithetic, self.growth.flag
            self.crossed.refuse(self.ensemble_size, self.members, antithetic=antithetic, growing=growing)
            object.__setattr__(self, "ensemble_size", self.crossed.size)
        if self.lagged is not None:
            growing = self.growth.flag if self.growth.is_open else None
            crossed, size = self.crossed is not None, self.ensemble_size or self.growth.extend
            self.lagged.refuse(size, self.members, crossed=crossed, antithetic=self.antithetic, growing=growing)
        object.__setattr__(self, "ensemble_size", self.growth.size(self.ensemble_size, self.members))
        if self.ensemble_size is None and not self.members:
            object.__setattr__(self, "ensemble_size", 1)
        self._settle_members()
        if self.members_per_batch is not None and self.members_per_batch < 1:
            raise OptionError(f"--members-per-batch: expected at least 1, got {self.members_per_batch}")
        if not 0 <= self.seed < 2**64:
            raise OptionError(f"--seed: expected 0 to 2**64 - 1, got {self.seed}")
        if not 0 <= self.noise_factor <= 10:
            raise OptionError(f"--noise-factor: expected 0 to 10, got {self.noise_factor:g}")

    @property
    def starts(self) -> int:
        """How many starts a crossed ensemble has; else 0."""
        return self.crossed.starts if self.crossed else 0

    def of_size(self: Kind, size: int) -> Kind:
        """The options of an ordinary run of so many members, from 1."""
        # Not made anew: with --lagged, an ensemble that is extended may have fewer members than there are starts now.
        settled = copy(self)
        for name, value in (("ensemble_size", size), ("members", tuple(range(1, size + 1))), ("growth", Growth())):
            object.__setattr__(settled, name, value)
        return settled

    def _settle_members(self) -> None:
        """Number the members, and refuse numbers that cannot be."""
        size = self.ensemble_size
        if size is not None and size < 1:
            raise OptionError(f"--num-ensemble-members: expected at least 1, got {size}")
        if size is not None and size > MOST_MEMBERS:
            raise OptionError(f"--num-ensemble-members: expected at most {MOST_MEMBERS}, got {size}")
        if not self.members:
            object.__setattr__(self, "members", tuple(range(1, (size or 1) + 1)))
        if min(self.members) < 1 or len(set(self.members)) < len(self.members):
            raise OptionError(f"--member-number: expected distinct numbers from 1, got {self.members}")
        if size is not None and max(self.members) > size:
            raise OptionError(
                f"--member-number: expected numbers from 1 to {size} (--num-ensemble-members), got {max(self.members)}"
            )
