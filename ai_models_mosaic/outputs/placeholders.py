"""Names in braces within the paths of the output: which there are, and what they are filled with."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from pathlib import Path
from string import Formatter

from ..errors import OutputError

NUMBER_KEYS = ("number", "perturbationNumber")
"""Those that tell members apart."""

TIME_NAMES = ("date", "time")
"""Of stores, which hold all members and steps."""

NETCDF_NAMES = (*TIME_NAMES, "number")
"""Of NetCDF files, which may hold one member each."""

GRIB_KEYS = (
    *NUMBER_KEYS,
    *("step", "stepRange", "startStep", "endStep", "stepType", "date", "time", "dataDate", "dataTime"),
    *("validityDate", "validityTime", "param", "paramId", "shortName", "cfVarName", "level", "levelist", "levtype"),
    *("typeOfLevel", "class", "type", "dataType", "stream", "expver", "experimentVersionNumber", "domain", "model"),
    *("edition", "centre", "subCentre", "productDefinitionTemplateNumber", "percentileValue"),
)
"""Of GRIB files; the user's own keys of ``--metadata`` come to these."""

PRODUCT = "product"
"""Of GRIB files of products: ``mean``, ``quantile_90``, ``probability_above_300``."""

LONGEST_FORMAT = 12
"""Of what stands after a colon, such as ``03d``: a width of a thousand million would be built in memory."""


class Word(str):
    """A word that stands where other files have a number: no format of numbers changes it."""

    __slots__ = ()

    def __format__(self, _: str) -> str:
        return str(self)


class PathTemplate:
    """A path that may hold names in braces, such as ``out-{number:03d}-{step}.grib``.

    Only the names themselves are filled, never attributes, items or conversions of them.

    Parameters
    ----------
    text : str
        As typed.
    option : str
        Where it was typed, for messages.
    names : collection of str
        Those that may be filled.

    Raises
    ------
    OutputError
        If something else stands in braces, or a brace stands alone; says which names there are.
    """

    def __init__(self, text: str, option: str, names: Collection[str]) -> None:
        self.text, self._option, self._names = text, option, names
        try:
            parts = list(Formatter().parse(text))
        except ValueError as error:
            raise self._refusal(str(error)) from error
        for _, name, form, conversion in parts:
            if name is None:
                continue
            if name not in names:
                raise self._refusal(f"{{{name}}} is none of them")
            if conversion or len(form or "") > LONGEST_FORMAT or re.search(r"[{}]|\d{4}", form or ""):
                written = f"{{{name}{f'!{conversion}' if conversion else ''}{f':{form}' if form else ''}}}"
                raise self._refusal(f"{written} has a form that is not filled in")
        self._parts = [(before, name, form or "") for before, name, form, _ in parts]

    @cached_property
    def used(self) -> tuple[str, ...]:
        """Names that stand in it."""
        return tuple(dict.fromkeys(name for _, name, _ in self._parts if name is not None))

    @property
    def tells_members_apart(self) -> bool:
        """Whether every member has a path of its own."""
        return any(name in NUMBER_KEYS for name in self.used)

    def fill(self, value_of: Callable[[str], object]) -> Path:
        """The path with all names filled.

        Parameters
        ----------
        value_of : callable
            Gives the value of a name.

        Raises
        ------
        OutputError
            If a format does not suit its value.
        """
        values = {name: value_of(name) for name in self.used}
        try:
            filled = [text if name is None else text + format(values[name], form) for text, name, form in self._parts]
        except (ValueError, TypeError) as error:
            raise self._refusal(str(error)) from error
        return Path("".join(filled))

    def pattern(self, members: Sequence[int]) -> re.Pattern[str]:
        """What matches the paths that these members may have, as `Path` writes them; other names may be anything."""
        found = ""
        for text, name, form in self._parts:
            found += re.escape(re.sub(r"/(\.?/)+", "/", text))
            if name in NUMBER_KEYS:
                found += f"(?:{'|'.join(re.escape(format(member, form)) for member in members)})"
            elif name is not None:
                found += ".*"
        return re.compile(found.removeprefix(re.escape("./")))

    def glob(self, suffix: str = "") -> list[Path]:
        """Files that are there under such names, with something after them."""
        # Names that touch are one: two stars would be a search of all folders below.
        parts = "".join(glob.escape(text) + ("" if name is None else "\0") for text, name, _ in self._parts)
        pattern = re.sub("\0+", "*", parts) + glob.escape(suffix)
        anchor = Path(self.text).anchor
        return sorted(Path(anchor).glob(pattern.removeprefix(anchor)))

    def _refusal(self, why: str) -> OutputError:
        return OutputError(
            f"{self._option} {self.text}: expected in braces some of {', '.join(self._names)}, perhaps with a format "
            f"such as :03d, and nothing else ({why})"
        )
