"""Which dates factors are fitted to, and which they are tried on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ...errors import InputError

LEAST_DATES = 4


def split(dates: Sequence[datetime], block: int) -> tuple[list[datetime], list[datetime]]:
    """Every other block of dates for the fit, and those between for the trial.

    Parameters
    ----------
    dates : sequence of datetime
        Initial dates, ascending.
    block : int
        Dates in a block.

    Raises
    ------
    InputError
        If one of the two would have fewer than two dates.
    """
    fit = [date for index, date in enumerate(dates) if index // block % 2 == 0]
    trial = [date for index, date in enumerate(dates) if index // block % 2 == 1]
    if min(len(fit), len(trial)) < LEAST_DATES // 2:
        raise InputError(
            f"expected forecasts of at least {LEAST_DATES} initial dates with truth, in blocks of {block} that leave "
            f"two or more for the fit and two or more to try it on; got {len(fit)} and {len(trial)}"
        )
    return fit, trial
