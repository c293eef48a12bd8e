"""What an ensemble in GRIB files holds, in a few lines for people."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import eccodes

from ..errors import InputError
from ..outputs.grib.keys import UNKNOWN_SIZE, UNKNOWN_SIZE_LARGE, UNTRAINED_EXPVER
from ..report.grib_index import placed_messages
from ..wording.numbers import counted, series

PRODUCT_OF_TEMPLATE = {"2": "derived", "5": "probability", "6": "percentile", "86": "quantile"}
"""Kinds of products by their product definition template."""

MOST_GAPS = 20
"""Lines of what is missing."""

UNTRAINED = "  weights  UNTRAINED: random numbers, no forecast"

OnProgress = Callable[[int], None]
"""Told how many bytes of all files are behind."""


@dataclass(frozen=True)
class Kind:
    """What all messages of a field have in common, and member and lead time of one of them.

    Parameters
    ----------
    field : str
        Short name and level.
    start, size, grid, expver : str
        Initial time, size of the ensemble that it says to be of, grid, experiment version.
    product : str
        Which product it is; empty for a member.
    number, lead_hours : int
        Of the message that was asked.
    """

    field: str
    start: str
    size: str
    grid: str
    expver: str
    product: str
    number: int
    lead_hours: int


@dataclass
class Found:
    """What there is in some files."""

    fields: dict[tuple[int, int], Counter[tuple[str, str]]]
    products: Counter[str]
    product_steps: set[int]
    kinds: set[Kind]

    def all(self, part: str, *, of_members: bool = False) -> str:
        """All that the messages say of one thing."""
        chosen = {getattr(kind, part) for kind in self.kinds if not (of_members and kind.product)}
        return ", ".join(sorted(chosen))


def inspect_ensemble(paths: Sequence[Path], *, long: bool = False, on_progress: OnProgress = lambda _: None) -> str:
    """Members, steps and fields of an ensemble, and whether every member has the same.

    Parameters
    ----------
    paths : sequence of Path
        GRIB files, read as one ensemble.
    long : bool
        Whether every field, and everything that is missing, is named.
    on_progress : callable
        See `OnProgress`.

    Raises
    ------
    InputError
        If a file is absent or cannot be read.
    """
    found = _look(paths, on_progress)
    listed = ", ".join(str(path) for path in paths)
    if not found.kinds:
        raise InputError(f"{listed}: expected GRIB messages, got none")
    messages = sum(counts.total() for counts in found.fields.values()) + found.products.total()
    lines = [
        f"{listed}: {messages} GRIB messages",
        f"  start    {found.all('start')}",
        f"  grid     {found.all('grid')}",
    ]
    if found.fields:
        members = sorted({number for number, _ in found.fields})
        steps = sorted({step for _, step in found.fields})
        lines += [
            f"  members  {series(members)} (of {found.all('size', of_members=True)})",
            f"  steps    {series(steps)} h",
            f"  fields   {_completeness(found.fields, len(members) * len(steps))}",
        ]
        if long:
            lines += [*field_lines(field for counts in found.fields.values() for field, _ in counts)]
            lines += _gaps(found.fields, members, steps)
    if found.products:
        shown = ", ".join(f"{count} × {product}" for product, count in sorted(found.products.items()))
        lines += [f"  products {shown}", f"  at steps {series(sorted(found.product_steps))} h"]
    if UNTRAINED_EXPVER in {kind.expver for kind in found.kinds}:
        lines.append(UNTRAINED)
    return "\n".join(lines)


def field_lines(fields: Iterable[str]) -> Iterator[str]:
    """One line per parameter, with its levels.

    Parameters
    ----------
    fields : iterable of str
        Short name and level, such as ``t 850``; in any order, and perhaps several times.
    """
    levels: dict[str, set[int]] = defaultdict(set)
    for field in dict.fromkeys(fields):
        name, _, level = field.rpartition(" ")
        levels[name].add(int(level) if level.isdigit() else 0)
    for name, numbers in levels.items():
        shown = ", ".join(str(number) for number in sorted(numbers)) if any(numbers) else ""
        yield f"    {name:<6} {shown}".rstrip()


def _look(paths: Sequence[Path], on_progress: OnProgress) -> Found:
    found = Found(defaultdict(Counter), Counter(), set(), set())
    behind = 0
    for path in paths:
        for placed in placed_messages(path, _kind):
            kind = placed.what
            found.kinds.add(kind)
            step = kind.lead_hours if placed.lead_hours is None else placed.lead_hours
            if kind.product:
                found.products[kind.product] += 1
                found.product_steps.add(step)
            else:
                number = kind.number if placed.number is None else placed.number
                found.fields[number, step][kind.field, kind.start] += 1
            on_progress(behind + placed.offset + placed.length)
        behind += path.stat().st_size
    return found


def _kind(handle: int) -> Kind:
    template = PRODUCT_OF_TEMPLATE.get(_text(handle, "productDefinitionTemplateNumber"))
    return Kind(
        field=f"{_text(handle, 'shortName')} {_text(handle, 'level')}",
        start=f"{_text(handle, 'dataDate')} {eccodes.codes_get_long(handle, 'dataTime'):04d} UTC",
        size=_size(handle),
        grid=f"{_text(handle, 'gridType')} {_text(handle, 'Ni')} × {_text(handle, 'Nj')}",
        expver=_text(handle, "expver"),
        product="" if template is None else f"{template} ({_text(handle, 'type')})",
        number=eccodes.codes_get_long(handle, "number") if eccodes.codes_is_defined(handle, "number") else 0,
        lead_hours=eccodes.codes_get_long(handle, "endStep"),
    )


def _completeness(fields: Mapping[tuple[int, int], Counter[tuple[str, str]]], expected: int) -> str:
    """Fields per member and step, and whether all have the same, once each."""
    counts = sorted({found.total() for found in fields.values()})
    first = next(iter(fields.values()))
    same = len(fields) == expected and all(found == first for found in fields.values())
    starts: dict[str, set[str]] = defaultdict(set)
    for field, start in first:
        starts[start].add(field)
    numbers = sorted({len(held) for held in starts.values()})
    if same and len({frozenset(held) for held in starts.values()}) > 1:
        span = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
        return f"INCOMPLETE: {span} per member and step, not the same at every start"
    if same and set(first.values()) == {1}:
        return f"{numbers[0]} per member and step" + (" of every start" if len(starts) > 1 else "")
    if same:
        return f"SOME TWICE: {counts[0]} per member and step, {len(first)} of them different"
    span = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"INCOMPLETE: {span} per member and step, not the same"


def _gaps(
    fields: Mapping[tuple[int, int], Counter[tuple[str, str]]], members: Sequence[int], steps: Sequence[int]
) -> list[str]:
    """What some have and others lack, a line for every member and step."""
    everything = dict.fromkeys(name for found in fields.values() for name in found)
    lines = []
    for number, step in ((number, step) for number in members for step in steps):
        lacking = [field for field, start in everything if (field, start) not in fields.get((number, step), {})]
        if lacking:
            shown = ", ".join(lacking[:4]) + (f" and {len(lacking) - 4} more" if len(lacking) > 4 else "")
            lines.append(f"    member {number}, {step} h lacks {shown}")
    more = len(lines) - MOST_GAPS
    return [*lines[:MOST_GAPS], *([f"    and {counted(more, 'more gap')}"] if more > 0 else [])]


def _size(handle: int) -> str:
    """Members of the ensemble that a message says to be of."""
    size = _text(handle, "numberOfForecastsInEnsemble")
    large = _text(handle, "productDefinitionTemplateNumber") == "117"
    return "an unknown number" if size == str(UNKNOWN_SIZE_LARGE if large else UNKNOWN_SIZE) else size


def _text(handle: int, key: str) -> str:
    return eccodes.codes_get_string(handle, key) if eccodes.codes_is_defined(handle, key) else "?"
