"""Options of ensembles whose size is not settled before they run, or that grow afterwards."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import OptionError
from ..options.declarations import may_change, not_resumed, option
from .deadline import Deadline, parse_deadline
from .tolerance import Tolerance, parse_tolerances

ENSEMBLE = "ensemble"
"""Heading of the list of options."""


@dataclass(frozen=True)
class Growth:
    """How an ensemble grows: nothing that a member is depends on it.

    Raises
    ------
    OptionError
        If two do not go together.
    """

    extend: int | None = option(
        "--extend",
        group=ENSEMBLE,
        parse=int,
        metavar="N",
        help="make a finished ensemble one of N members, in place of --num-ensemble-members; all else as in its run. "
        "With products, Zarr or NetCDF, the members that are there are computed again",
        resume=may_change("the members are those of a run of as many"),
    )
    deadline: Deadline | None = option(
        "--deadline",
        group=ENSEMBLE,
        parse=parse_deadline,
        metavar="TIME",
        help="make as many members as can be complete by then, up to --num-ensemble-members: 60s, 5m or 2h from the "
        "start of the process, or a time of day such as 06:00, UTC",
        resume=not_resumed("what is complete is added to by --extend"),
    )
    mc_error: tuple[Tolerance, ...] = option(
        "--mc-error",
        group=ENSEMBLE,
        parse=parse_tolerances,
        metavar="LIST",
        default=(),
        help="make members, up to --num-ensemble-members, until the sampling error is no larger than asked for: "
        "0.02@probability:2t<273.15, 0.1@mean:2t, and perhaps @max or @mean of the points, of an area such as "
        "@max:70/-10/35/40 (north, west, south, east)",
        resume=not_resumed("what is complete is added to by --extend"),
    )

    @property
    def is_open(self) -> bool:
        """Whether the size of the ensemble is found while it runs."""
        return self.deadline is not None or bool(self.mc_error)

    @property
    def flag(self) -> str | None:
        """The option by which the ensemble grows; None where it does not."""
        if self.extend is not None:
            return "--extend"
        return "--deadline" if self.deadline is not None else "--mc-error" if self.mc_error else None

    def __post_init__(self) -> None:
        if self.extend is not None and self.extend < 2:
            raise OptionError(f"--extend: expected at least 2 members, got {self.extend}")
        if self.extend is not None and self.is_open:
            raise OptionError("--extend says how many members there will be: leave --deadline and --mc-error out")

    def size(self, asked: int | None, members: tuple[int, ...]) -> int | None:
        """The size of the ensemble, or the most that it may be.

        Parameters
        ----------
        asked : int or None
            What ``--num-ensemble-members`` says.
        members : tuple of int
            What ``--member-number`` says.

        Raises
        ------
        OptionError
            If one of them does not go with these options.
        """
        flag = self.flag
        if flag is None:
            return asked
        if self.extend is not None and asked not in (None, self.extend):
            raise OptionError(f"--extend says how many members there will be: leave --num-ensemble-members {asked} out")
        size = asked if self.extend is None else self.extend
        if size is None:
            raise OptionError(f"{flag}: expected --num-ensemble-members with it, the most that there may be")
        if members not in ((), tuple(range(1, size + 1))):
            raise OptionError(f"{flag} makes members in their order, from 1: leave --member-number out")
        return size

    def check(self, *, resume: bool, dates: str | None, antithetic: bool, noise_factor: float) -> None:
        """Refuse what an ensemble whose size is not settled cannot have.

        Parameters
        ----------
        resume, dates, antithetic : bool, str or None, bool
            The options of these names.
        noise_factor : float
            On the noise of members; 0 without any.

        Raises
        ------
        OptionError
            Says which.
        """
        if self.is_open and (resume or dates is not None):
            raise OptionError(
                f"--deadline and --mc-error: leave {'--resume' if resume else '--dates'} out; --extend adds members to "
                "what is complete"
            )
        if self.mc_error and antithetic:
            raise OptionError("--mc-error takes members to be independent, and with --antithetic they are pairs")
        if self.mc_error and noise_factor == 0:
            raise OptionError(
                "--mc-error tells from noise how far members are apart: leave --perturbations off and --noise-factor 0 "
                "out, with which they have none"
            )
