"""Requests in the language of MARS, as text: to retrieve an input, and to archive what was written."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import OutputError

IN_ORDER = ("area", "grid", "frame", "rotation", "bitmap")
"""Keys whose values have an order of their own."""

UNIQUE = ("date", "hdate", "time", "referenceDate", "type", "stream", "expver")
"""Keys of which one request can have one value only."""


@dataclass
class ArchiveRequests:
    """Gathers what was written to which file.

    Parameters
    ----------
    extra : mapping of str to str
        Keys that win over all others.
    """

    extra: Mapping[str, str]
    _fields: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _values: dict[str, dict[str, set[str]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(set)))

    def add(self, keys: Mapping[str, str], path: Path) -> None:
        """Note a message.

        Parameters
        ----------
        keys : mapping of str to str
            Its MARS keys.
        path : Path
            The file it was written to.

        Raises
        ------
        OutputError
            If one request cannot archive the file any more.
        """
        self._fields[str(path)] += 1
        values = self._values[str(path)]
        for key, value in keys.items():
            values[key].add(str(value))
            if key in UNIQUE and len(values[key]) > 1:
                raise OutputError(
                    f"--archive-requests: expected one {key} in {path}, got {' and '.join(sorted(values[key]))}; "
                    "name files by it in --path"
                )

    def text(self, *, as_json: bool) -> str:
        """One request per file, as MARS or JSON has them."""
        if not as_json:
            return "".join(request_text("archive", request) for request in self._requests())
        found = [
            {
                key: (min(value) if len(value) == 1 else sorted(value)) if isinstance(value, set) else value
                for key, value in request.items()
            }
            for request in self._requests()
        ]
        return json.dumps(found, separators=(",", ":"), sort_keys=True) + "\n" if found else ""

    def _requests(self) -> Iterator[dict[str, Any]]:
        for path, count in self._fields.items():
            yield {"expect": count, "source": f'"{path}"', **self._values[path], **self.extra}


def request_text(verb: str, request: Mapping[str, Any]) -> str:
    """A request in the language of MARS, with an empty line after it.

    Parameters
    ----------
    verb : str
        ``retrieve`` or ``archive``.
    request : mapping of str to object
        Values are single, or collections; these are sorted, except where they have an order.
    """
    lines = [verb]
    for key, value in sorted(request.items()):
        several = value if isinstance(value, Collection) and not isinstance(value, str) else [value]
        lines.append(f"{key}={'/'.join(str(one) for one in (several if key in IN_ORDER else sorted(several)))}")
    return ",\n   ".join(lines) + "\n\n"
