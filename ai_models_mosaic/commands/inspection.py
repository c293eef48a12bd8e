"""What an ensemble in GRIB files holds, in a few lines for people."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import eccodes

from ..errors import InputError
from ..outputs.grib.keys import UNKNOWN_SIZE, UNKNOWN_SIZE_LARGE, UNTRAINED_EXPVER

PRODUCT_OF_TEMPLATE = {"2": "derived", "5": "probability", "6": "percentile", "86": "quantile"}
"""Kinds of products by their product definition template."""


def inspect_ensemble(paths: Sequence[Path]) -> str:
    """Members, steps and fields of an ensemble, and whether every member has the same.

    Parameters
    ----------
    paths : sequence of Path
        GRIB files, read as one ensemble.

    Raises
    ------
    InputError
        If a file is absent or cannot be read.
    """
    fields: dict[tuple[int, int], Counter[str]] = defaultdict(Counter)
    products: Counter[str] = Counter()
    product_steps: set[int] = set()
    seen: dict[str, set[str]] = defaultdict(set)
    for handle in _messages(paths):
        start = f"{_text(handle, 'dataDate')} {eccodes.codes_get_long(handle, 'dataTime'):04d} UTC"
        field = f"{_text(handle, 'shortName')} {_text(handle, 'level')}"
        step = eccodes.codes_get_long(handle, "endStep")
        product = PRODUCT_OF_TEMPLATE.get(_text(handle, "productDefinitionTemplateNumber"))
        if product is None:
            number = eccodes.codes_get_long(handle, "number") if eccodes.codes_is_defined(handle, "number") else 0
            fields[number, step][f"{field} {start}"] += 1
            seen["size"].add(_size(handle))
        else:
            products[f"{product} ({_text(handle, 'type')})"] += 1
            product_steps.add(step)
        seen["start"].add(start)
        seen["grid"].add(f"{_text(handle, 'gridType')} {_text(handle, 'Ni')} × {_text(handle, 'Nj')}")
        seen["expver"].add(_text(handle, "expver"))
    if not fields and not products:
        raise InputError(f"{', '.join(str(path) for path in paths)}: expected GRIB messages, got none")
    members = sorted({number for number, _ in fields})
    steps = sorted({step for _, step in fields})
    messages = sum(sum(found.values()) for found in fields.values()) + products.total()
    lines = [
        f"{', '.join(str(path) for path in paths)}: {messages} GRIB messages",
        f"  start    {_join(seen['start'])}",
        f"  grid     {_join(seen['grid'])}",
    ]
    if fields:
        lines += [
            f"  members  {_numbers(members)} (of {_join(seen['size'])})",
            f"  steps    {_numbers(steps)} h",
            f"  fields   {_completeness(fields, len(members) * len(steps))}",
        ]
    if products:
        counted = ", ".join(f"{count} × {product}" for product, count in sorted(products.items()))
        lines += [f"  products {counted}", f"  at steps {_numbers(sorted(product_steps))} h"]
    if UNTRAINED_EXPVER in seen["expver"]:
        lines.append("  weights  UNTRAINED: random numbers, no forecast")
    return "\n".join(lines)


def _completeness(fields: Mapping[tuple[int, int], Counter[str]], expected: int) -> str:
    """Fields per member and step, and whether all have the same, once each."""
    counts = sorted({sum(found.values()) for found in fields.values()})
    first = next(iter(fields.values()))
    same = len(fields) == expected and all(found == first for found in fields.values())
    if same and set(first.values()) == {1}:
        return f"{counts[0]} per member and step"
    if same:
        return f"SOME TWICE: {counts[0]} per member and step, {len(first)} of them different"
    span = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"INCOMPLETE: {span} per member and step, not the same"


def _size(handle: int) -> str:
    """Members of the ensemble that a message says to be of."""
    size = _text(handle, "numberOfForecastsInEnsemble")
    large = _text(handle, "productDefinitionTemplateNumber") == "117"
    return "an unknown number" if size == str(UNKNOWN_SIZE_LARGE if large else UNKNOWN_SIZE) else size


def _messages(paths: Iterable[Path]) -> Iterator[int]:
    for path in paths:
        try:
            with path.open("rb") as file:
                while (handle := eccodes.codes_grib_new_from_file(file, headers_only=True)) is not None:
                    try:
                        yield handle
                    finally:
                        eccodes.codes_release(handle)
        except (OSError, eccodes.CodesInternalError) as error:
            raise InputError(f"{path} cannot be read as GRIB: {error}") from error


def _text(handle: int, key: str) -> str:
    return eccodes.codes_get_string(handle, key) if eccodes.codes_is_defined(handle, key) else "?"


def _join(values: Iterable[str]) -> str:
    return ", ".join(sorted(values))


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(str(value) for value in values)
