"""Options, each declared once: a field of a frozen dataclass, from which everything else about it follows.

The parser of the command line, its help, the table of docs/options.md, the keyword in Python and the identity of a run
under ``--resume`` are all made here from the fields.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from numbers import Number
from pathlib import PurePath
from typing import Any, TypeVar

from ..errors import MosaicError, OptionError

Kind = TypeVar("Kind")

DECLARED, SECTION = "option", "section"
"""Under these names a field's metadata hold its declaration, or the class of the options below it."""


@dataclass(frozen=True)
class Resume:
    """What an option means when an unfinished run is resumed.

    Parameters
    ----------
    compared : bool
        The option itself must be the same.
    told_by : str or None
        What is compared in its place, by its name in the identity of a run.
    why : str
        Why it is not compared itself.
    refused : bool
        The two do not go together.
    """

    compared: bool
    told_by: str | None = None
    why: str = ""
    refused: bool = False

    def __str__(self) -> str:
        if self.refused:
            return f"refused: {self.why}"
        if self.compared:
            return "may not change"
        return f"compared as {self.told_by}: {self.why}" if self.told_by else f"may change: {self.why}"


MAY_NOT_CHANGE = Resume(compared=True)


def may_change(why: str) -> Resume:
    """An option that no byte of the output depends on."""
    return Resume(compared=False, why=why)


def not_resumed(why: str) -> Resume:
    """An option whose runs are not resumed."""
    return Resume(compared=False, why=why, refused=True)


def told_by(name: str, why: str) -> Resume:
    """An option in whose place something else is compared, such as what it stands for."""
    return Resume(compared=False, told_by=name, why=why)


@dataclass(frozen=True)
class Declaration:
    """All that there is to say of an option, but for its type and default, which are its field's.

    Parameters
    ----------
    flag : str
        As typed.
    help : str
        What it does, without the default.
    group : str
        Heading under which it is listed.
    default : object
        That of the field.
    shown : str or None
        The default in words; None to show it as it is, where it is something.
    metavar : str or None
        What its value is called.
    choices : tuple of str
        All values that there are, where these are few.
    parse : callable
        Makes the value of what was typed.
    resume : Resume
        What it means under ``--resume``.
    """

    flag: str
    help: str
    group: str
    default: Any
    shown: str | None
    metavar: str | None
    choices: tuple[str, ...]
    parse: Callable[[str], Any]
    resume: Resume

    @property
    def is_switch(self) -> bool:
        """Whether it stands without a value, and turns its default round."""
        return isinstance(self.default, bool)

    @property
    def keyword(self) -> str:
        """Its name in Python: ``members_per_batch``."""
        return self.flag.lstrip("-").replace("-", "_")

    @property
    def text(self) -> str:
        """Help with the default."""
        shown = self.shown
        if shown is None and not self.is_switch and self.default not in (None, ()):
            shown = str(self.default)
        return f"{self.help} (default: {shown})" if shown else self.help

    @property
    def usage(self) -> str:
        """As in a list of options."""
        value = f"{{{','.join(self.choices)}}}" if self.choices else self.metavar or self.flag.lstrip("-").upper()
        return self.flag if self.is_switch else f"{self.flag} {value}"


def option(
    flag: str,
    *,
    help: str,
    group: str,
    default: Any = None,
    shown: str | None = None,
    metavar: str | None = None,
    choices: Sequence[str] = (),
    parse: Callable[[str], Any] = str,
    resume: Resume = MAY_NOT_CHANGE,
) -> Any:
    """A field that is an option; arguments as of `Declaration`."""
    made = Declaration(flag, help, group, default, shown, metavar, tuple(choices), parse, resume)
    return field(default=default, metadata={DECLARED: made})


def section(kind: type) -> Any:
    """A field that holds further options."""
    return field(default_factory=kind, metadata={SECTION: kind})


def declared(kind: type, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Declaration]]:
    """Every option of a class and of its sections, with the names of the fields that lead to it."""
    for one in fields(kind):
        if DECLARED in one.metadata:
            yield (*path, one.name), one.metadata[DECLARED]
        elif SECTION in one.metadata:
            yield from declared(one.metadata[SECTION], (*path, one.name))


def add_arguments(parser: argparse.ArgumentParser, kind: type) -> None:
    """Give a parser every option of a class, in groups; what is not typed leaves no trace in its result."""
    groups: dict[str, Any] = {}
    for path, one in declared(kind):
        if one.group not in groups:
            groups[one.group] = parser.add_argument_group(one.group)
        keywords: dict[str, Any] = {"dest": ".".join(path), "default": argparse.SUPPRESS}
        if one.is_switch:
            keywords |= {"action": "store_const", "const": not one.default}
        else:
            keywords |= {"type": one.parse, "metavar": one.metavar, "choices": one.choices or None}
            if one.metavar is None and not one.choices:
                keywords["metavar"] = one.flag.lstrip("-").upper()
        groups[one.group].add_argument(one.flag, help=one.text.replace("%", "%%"), **keywords)


def built(kind: type[Kind], typed: Mapping[str, Any], path: tuple[str, ...] = ()) -> Kind:
    """The options of what a parser with `add_arguments` found."""
    values = {}
    for one in fields(kind):  # type: ignore[arg-type]
        here = (*path, one.name)
        if SECTION in one.metadata:
            values[one.name] = built(one.metadata[SECTION], typed, here)
        elif ".".join(here) in typed:
            values[one.name] = typed[".".join(here)]
    return kind(**values)


def keywords_of(kind: type) -> frozenset[str]:
    """Names in Python of all options of a class."""
    return frozenset(one.keyword for _, one in declared(kind))


def from_keywords(kind: type[Kind], given: Mapping[str, Any]) -> Kind:
    """The options that keywords of Python name, which are those of the command line with underscores.

    Parameters
    ----------
    kind : type
        A class of options.
    given : mapping of str to object
        Values, or texts and paths as they are typed; lists for what is typed with commas, True for a switch, None for
        what is not given.

    Raises
    ------
    OptionError
        If there is no such option, or a value makes no sense.
    """
    known = {one.keyword: (".".join(path), one) for path, one in declared(kind)}
    refuse_other_keywords(given, known)
    values = {known[keyword]: value for keyword, value in given.items() if value is not None}
    return built(kind, {path: _of_python(one, value) for (path, one), value in values.items()})


def refuse_other_keywords(given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse keywords that are not among those that are known.

    Raises
    ------
    OptionError
        Says which there are.
    """
    names = sorted(known)
    for keyword in given:
        if keyword not in names:
            raise OptionError(f"expected keywords of {', '.join(names)}, got {keyword}")


def _of_python(one: Declaration, value: Any) -> Any:
    """The value of an option, of what stands for it in Python."""
    if one.is_switch:
        # NumPy's, too, by either of its names.
        if type(value).__name__ not in ("bool", "bool_"):
            raise OptionError(f"{one.flag}: expected True or False, got {value!r}")
        return one.default is not bool(value)
    if isinstance(value, list | tuple | range):
        value = ",".join(map(str, value))
    if isinstance(value, str | PurePath | Number):
        try:
            value = one.parse(str(value))
        except ValueError:
            raise OptionError(f"{one.flag}: expected {_wanted_by(one)}, got {value!r}") from None
    if one.choices and value not in one.choices:
        raise OptionError(f"{one.flag}: expected one of {', '.join(one.choices)}, got {value!r}")
    return value


def _wanted_by(one: Declaration) -> str:
    """The values of an option, in words."""
    return "a whole number" if one.parse is int else "a number" if one.parse is float else str(one.metavar)


@contextmanager
def errors_in_python(kind: type, **others: str) -> Iterator[None]:
    """Name keywords in place of flags in the errors of what runs here.

    Parameters
    ----------
    kind : type
        A class of options.
    **others : str
        Keywords whose name in Python is another: the keyword made of the flag, and that name.
    """
    names = {one.flag: others.get(one.keyword, one.keyword) for _, one in declared(kind)}
    names |= {f"--{keyword.replace('_', '-')}": name for keyword, name in others.items()}
    try:
        yield
    except MosaicError as error:
        said = re.sub(r"--[a-z]+(?:-[a-z]+)*", lambda flag: names.get(flag[0], flag[0]), str(error))
        error.args = (said, *error.args[1:])
        raise


def compared(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """What may not change under ``--resume``, by the options' flags, which are all different.

    Parameters
    ----------
    kind : type
        A class of options.
    values : mapping of str to object
        Its values, sections within sections, as `dataclasses.asdict` or JSON gives them. What is not there was no
        option yet, and counts as its default, which changes nothing.

    Raises
    ------
    KeyError, TypeError
        If one is not there whose default JSON does not know, or something else stands for a section.
    """
    return {one.flag: _value_of(path, one, values) for path, one in declared(kind) if one.resume.compared}


def _value_of(path: Sequence[str], one: Declaration, values: Mapping[str, Any]) -> Any:
    value: Any = values
    for name in path:
        if name not in value and (one.default in (None, ()) or isinstance(one.default, (bool, int, float, str))):
            return one.default
        value = value[name]
    return value


def table(kind: type) -> str:
    """The options of a class as a table in Markdown."""
    rows = ["| option | | with `--resume` |", "|---|---|---|"]
    for _, one in declared(kind):
        rows.append(f"| `{one.usage}` | {_cell(one.text)} | {_cell(str(one.resume))} |")
    return "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    for special in "|*_<>":
        text = text.replace(special, f"\\{special}")
    return text
