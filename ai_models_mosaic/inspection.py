"""What an ensemble in GRIB files holds, in a few lines for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import eccodes

from .errors import InputError
from .outputs.grib import UNKNOWN_SIZE, UNTRAINED_EXPVER


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
    fields: Counter[tuple[int, int]] = Counter()
    seen: dict[str, set[str]] = {key: set() for key in ("start", "grid", "expver", "size", "field")}
    for handle in _messages(paths):
        number = eccodes.codes_get_long(handle, "number") if eccodes.codes_is_defined(handle, "number") else 0
        fields[number, eccodes.codes_get_long(handle, "endStep")] += 1
        start = f"{eccodes.codes_get_long(handle, 'dataDate')} {eccodes.codes_get_long(handle, 'dataTime'):04d} UTC"
        seen["start"].add(start)
        seen["grid"].add(f"{eccodes.codes_get_string(handle, 'gridType')} {_size(handle)}")
        seen["expver"].add(_text(handle, "expver"))
        seen["size"].add(_text(handle, "numberOfForecastsInEnsemble"))
        seen["field"].add(f"{_text(handle, 'shortName')} {_text(handle, 'level')}")
    members = sorted({number for number, _ in fields})
    steps = sorted({step for _, step in fields})
    counts = sorted(set(fields.values()))
    complete = str(len(seen["field"]))
    whole = len(counts) == 1 and len(fields) == len(members) * len(steps)
    lines = [
        f"{', '.join(str(path) for path in paths)}: {sum(fields.values())} GRIB messages",
        f"  start    {_join(seen['start'])}",
        f"  grid     {_join(seen['grid'])}",
        f"  members  {_numbers(members)} (of {_join(seen['size']).replace(str(UNKNOWN_SIZE), 'an unknown number')})",
        f"  steps    {_numbers(steps)} h",
        f"  fields   {complete if whole else f'INCOMPLETE: {counts}'} per member and step",
    ]
    if UNTRAINED_EXPVER in seen["expver"]:
        lines.append("  weights  UNTRAINED: random numbers, no forecast")
    return "\n".join(lines)


def _messages(paths: Iterable[Path]) -> Iterator[int]:
    for path in paths:
        try:
            with path.open("rb") as file:
                while (handle := eccodes.codes_grib_new_from_file(file, headers_only=True)) is not None:
                    yield handle
                    eccodes.codes_release(handle)
        except (OSError, eccodes.CodesInternalError) as error:
            raise InputError(f"{path} cannot be read as GRIB: {error}") from error


def _text(handle: int, key: str) -> str:
    return eccodes.codes_get_string(handle, key) if eccodes.codes_is_defined(handle, key) else "?"


def _size(handle: int) -> str:
    return f"{_text(handle, 'Ni')} × {_text(handle, 'Nj')}"


def _join(values: Iterable[str]) -> str:
    return ", ".join(sorted(values))


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(str(value) for value in values)
