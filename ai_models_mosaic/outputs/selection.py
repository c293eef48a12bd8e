"""Which part of the forecast is written: parameters, levels, lead times, area."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from ..channels import LEVELS_HPA
from ..errors import OptionError
from ..geometry.grid import LatLonGrid, Region
from ..options.declarations import option
from ..options.number_lists import parse_numbers
from ..params import CHANNEL_FIELDS, Field, named

PARAMS, LEVELS, STEPS, AREA = "--output-params", "--output-levels", "--output-steps", "--output-area"

GROUP = "output"
"""Heading of the options of the output."""


def parse_names(text: str, option: str) -> tuple[str, ...]:
    """Names separated by commas or, as in MARS, slashes.

    Raises
    ------
    OptionError
        If one is empty or given twice.
    """
    names = tuple(name.strip() for name in re.split("[,/]", text))
    if not all(names) or len(set(names)) < len(names):
        raise OptionError(f"{option}: expected different names separated by commas, got {text!r}")
    return names


def parse_area(text: str) -> tuple[float, float, float, float]:
    """North/west/south/east in degrees, as in MARS.

    Raises
    ------
    OptionError
        If these are not four numbers.
    """
    try:
        north, west, south, east = (float(bound) for bound in re.split("[,/]", text))
    except ValueError:
        raise OptionError(f"{AREA}: expected N/W/S/E in degrees, such as 75/-15/30/45, got {text!r}") from None
    if not all(-720 <= bound <= 720 for bound in (north, west, south, east)):
        raise OptionError(f"{AREA}: expected N/W/S/E in degrees, such as 75/-15/30/45, got {text!r}")
    return north, west, south, east


@dataclass(frozen=True)
class Selection:
    """What is written of every member; None stands for everything.

    Raises
    ------
    OptionError
        If there is no such parameter or level, nothing is left, or the area is none.
    """

    params: tuple[str, ...] | None = option(
        PARAMS,
        group=GROUP,
        parse=partial(parse_names, option=PARAMS),
        metavar="LIST",
        help="write only these, such as 2t,msl,z500 or all levels of z; ECMWF's or WeatherBench's names",
        shown="all",
    )
    levels: tuple[int, ...] | None = option(
        LEVELS,
        group=GROUP,
        parse=partial(parse_numbers, option=LEVELS),
        metavar="LIST",
        help="write only these pressure levels, hPa, such as 500,850",
        shown="all",
    )
    steps: tuple[int, ...] | None = option(
        STEPS,
        group=GROUP,
        parse=partial(parse_numbers, option=STEPS),
        metavar="LIST",
        help="write only these lead times, hours, such as 24,48 or 24/to/240/by/24",
        shown="all, 0 included",
    )
    area: tuple[float, float, float, float] | None = option(
        AREA,
        group=GROUP,
        parse=parse_area,
        metavar="N/W/S/E",
        help="write only the points in this area, degrees, such as 75/-15/30/45; give a negative first number "
        "as --output-area=-10/110/-45/155",
        shown="the globe",
    )

    def __post_init__(self) -> None:
        unknown = [level for level in self.levels or () if level not in LEVELS_HPA]
        if unknown:
            known = ", ".join(str(level) for level in LEVELS_HPA)
            raise OptionError(f"{LEVELS}: expected some of {known} hPa, got {unknown[0]}")
        for name in self.params or ():
            named(name, PARAMS, CHANNEL_FIELDS)
        if not self.fields:
            raise OptionError(f"{LEVELS}: none of the fields of {PARAMS} is on these levels; nothing would be written")
        if self.area is not None:
            north, _, south, _ = self.area
            if not -90 <= south <= north <= 90:
                raise OptionError(
                    f"{AREA}: expected N/W/S/E in degrees with 90 >= N >= S >= -90, got "
                    + "/".join(f"{bound:g}" for bound in self.area)
                )

    @property
    def fields(self) -> tuple[Field, ...]:
        """The channels that are written, in the order of the state."""
        if self.params is None:
            return self.on_levels(CHANNEL_FIELDS)
        chosen: set[Field] = set()
        for name in self.params:
            found = named(name, PARAMS, CHANNEL_FIELDS)
            chosen.update(found if len(found) == 1 else self.on_levels(found))
        return tuple(field for field in CHANNEL_FIELDS if field in chosen)

    def on_levels(self, fields: Sequence[Field]) -> tuple[Field, ...]:
        """Those of some fields that are on the chosen levels, or on none."""
        return tuple(field for field in fields if self.levels is None or field.level_hpa in (None, *self.levels))

    def lead_times(self, step_hours: int, steps: int) -> tuple[int, ...]:
        """The lead times that are written, hours, ascending.

        Parameters
        ----------
        step_hours : int
            Length of a step, h.
        steps : int
            Steps of the forecast.

        Raises
        ------
        OptionError
            If one is not a step of the forecast.
        """
        made = range(0, steps * step_hours + 1, step_hours)
        if self.steps is None:
            return tuple(made)
        absent = [hours for hours in self.steps if hours not in made]
        if absent:
            raise OptionError(
                f"{STEPS}: the forecast has lead times 0 to {made[-1]} h, every {step_hours} h; it has no {absent[0]}"
            )
        return tuple(sorted(self.steps))

    def region(self, grid: LatLonGrid) -> Region:
        """The part of a grid that is written.

        Raises
        ------
        OptionError
            If no point of the grid lies in the area.
        """
        if self.area is None:
            return Region.whole(grid)
        try:
            return Region.within(grid, *self.area)
        except ValueError as error:
            raise OptionError(f"{AREA}: {error}; choose a larger one") from error
