"""The text of a run's record: written with a digest over all of it, and read as what somebody may have changed.

The digest tells damage, and changes by hand. Whoever makes a new one for a changed record gets past
it: so types and ranges are checked as well, and which files the record may name is checked by what
writes them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..files import parse_json

DIGEST = "sha256"
"""Under which the digest of all else stands."""

LARGEST = 2**62
"""Of sizes and counts."""

HEXADECIMAL = re.compile(r"[0-9a-f]{64}")

Check = Callable[[object], bool]


def seal(fields: Mapping[str, Any]) -> bytes:
    """The text of a record, with the digest of all that it says."""
    return json.dumps({**fields, DIGEST: _digest(fields)}).encode()


def unseal(text: bytes, formats: int) -> dict[str, Any]:
    """What a record says.

    Parameters
    ----------
    text : bytes
        As `seal` made it.
    formats : int
        The version of it that can be read.

    Raises
    ------
    ValueError
        If anything of it is not as it was written, or is of no use.
    """
    found = parse_json(text, finite=True)
    if not isinstance(found, dict):
        raise ValueError(f"expected an object, got {_short(found)}")
    if found.get("format") != formats:
        raise ValueError(
            f"expected format {formats}, got {_short(found.get('format'))}: it is of another version of this package"
        )
    digest = found.pop(DIGEST, None)
    for name, (check, expected) in FIELDS.items():
        if name not in found:
            raise ValueError(f"expected {name}, got none")
        if not check(found[name]):
            raise ValueError(f"{name}: expected {expected}, got {_short(found[name])}")
    unknown = sorted(found.keys() - FIELDS.keys())
    if unknown:
        raise ValueError(f"expected nothing else, got {_short(unknown)}")
    if digest != _digest(found):
        raise ValueError("its digest is another than that of what it says: it was damaged or changed")
    return found


def _digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and HEXADECIMAL.fullmatch(value) is not None


def _is_name(value: str) -> bool:
    # The system takes a NUL for the end of a name.
    return bool(value) and "\0" not in value


def _is_mapping_of(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(_is_name(name) and check(each) for name, each in value.items())


def _is_identity(value: object) -> bool:
    """Any object; what the run takes from it before comparing it is a number."""
    if not isinstance(value, dict):
        return False
    sections = [value, *(section for section in value.values() if isinstance(section, dict))]
    found = [section["members_per_batch"] for section in sections if "members_per_batch" in section]
    return all(each is None or (_is_count(each) and each > 0) for each in found)


def _is_state(value: object) -> bool:
    if not isinstance(value, dict) or value.keys() != {"sha256", "shape"} or not _is_digest(value["sha256"]):
        return False
    return isinstance(value["shape"], list) and all(_is_count(length) for length in value["shape"])


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


FIELDS: dict[str, tuple[Check, str]] = {
    "identity": (_is_identity, "an object with a number of members_per_batch"),
    "backend": (lambda value: isinstance(value, dict), "an object"),
    "units": (_is_count, "a whole number from 0"),
    "positions": (_or_none(_is_mapping_of(_is_count)), "an object of file names and whole numbers from 0"),
    "finished": (lambda value: isinstance(value, bool), "true or false"),
    "format": (_is_count, "a whole number from 0"),
    "tails": (_or_none(_is_mapping_of(_or_none(_is_digest))), "an object of file names and digests"),
    "states": (_is_mapping_of(_is_state), "an object of file names with digest and shape"),
}
