"""Ways to damage a file: of bytes, of JSON, of zip archives, of GRIB messages and of Zarr stores.

All take a generator of random numbers, so that a seed says which case it was.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Random = np.random.Generator

SIZES = (0, 1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)
"""Numbers at which counts and lengths go wrong."""

ODD = (
    None, True, False, -1, 0, 1, 2.5, 1e308, float("nan"), float("inf"), 2**31, 2**63, 2**64, 10**30, -(10**18),
    "", "0", "nan", "..", "/", "\x00", "\ud800", "é" * 50, "a" * 5000, "{date.nope}", [], {}, [[]], [None], [1, "a"],
    {"": 0}, [0] * 100,
)  # fmt: skip
"""Values that are not what anybody expects."""


def pick(random: Random, some: Sequence[Any]) -> Any:
    return some[int(random.integers(len(some)))]


# Bytes.


def bytes_changed(random: Random, data: bytes) -> bytes:
    """One to three changes of another content."""
    for _ in range(int(random.integers(1, 4))):
        data = pick(random, BYTE_CHANGES)(random, data)
    return data


def _span(random: Random, data: bytes) -> tuple[int, int]:
    """First and last of a few, or of many, bytes."""
    first = int(random.integers(len(data) + 1))
    most = pick(random, (1, 8, 64, 1024, max(1, len(data))))
    return first, min(len(data), first + int(random.integers(1, most + 1)))


def _flip(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(pick(random, (1, 1, 3, 20)) if data else 0):
        # Most formats say at the start what they are.
        end = pick(random, (64, len(data), len(data)))
        changed[int(random.integers(min(end, len(data))))] ^= 1 << int(random.integers(8))
    return bytes(changed)


def _fill(random: Random, data: bytes) -> bytes:
    first, last = _span(random, data)
    return data[:first] + pick(random, (b"\x00", b"\xff")) * (last - first) + data[last:]


def _cut(random: Random, data: bytes) -> bytes:
    return data[: pick(random, (0, 1, len(data) // 2, len(data) - 1, int(random.integers(len(data) + 1))))]


def _remove(random: Random, data: bytes) -> bytes:
    first, last = _span(random, data)
    return data[:first] + data[last:]


def _repeat(random: Random, data: bytes) -> bytes:
    first, last = _span(random, data)
    return data[:last] + data[first:]


def _swap(random: Random, data: bytes) -> bytes:
    (first, middle), (other, last) = sorted((_span(random, data), _span(random, data)))
    middle = min(middle, other)
    return data[:first] + data[other:last] + data[middle:other] + data[first:middle] + data[last:]


def _insert(random: Random, data: bytes) -> bytes:
    at, count = int(random.integers(len(data) + 1)), pick(random, (1, 4, 200))
    return data[:at] + pick(random, (bytes(count), random.bytes(count))) + data[at:]


def _append(random: Random, data: bytes) -> bytes:
    return data + pick(random, (bytes(100), random.bytes(100), data))


BYTE_CHANGES = (_flip, _flip, _fill, _cut, _remove, _repeat, _swap, _insert, _append)


# JSON.


def json_changed(random: Random, text: bytes) -> bytes:
    """Other JSON, and sometimes none at all."""
    if random.random() < 0.15:
        return pick(random, TEXTS)(random, text)
    found = json.loads(text)
    for _ in range(pick(random, (1, 1, 1, 2, 4))):
        places = list(_places(found))
        if not places:
            return json.dumps(pick(random, ODD)).encode()
        holder, key = pick(random, places)
        pick(random, VALUE_CHANGES)(random, holder, key)
    return json.dumps(found).encode()


def _places(found: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key in it."""
    inner = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    for key, value in inner:
        # One long list is no more of interest than one number.
        if not isinstance(found, list) or key < 4:
            yield found, key
            yield from _places(value)


def _odd(random: Random, holder: Any, key: Any) -> None:
    holder[key] = pick(random, ODD)


def _near(random: Random, holder: Any, key: Any) -> None:
    """Nearly what it was: the next number, the number as text, the text cut, the list longer."""
    value = holder[key]
    if isinstance(value, bool) or value is None:
        holder[key] = not value
    elif isinstance(value, (int, float)):
        holder[key] = pick(random, (value + 1, -value, value * 10**6, float(value), str(value), [value]))
    elif isinstance(value, str):
        holder[key] = pick(random, (value[:-1], value + "0", value.upper(), value[::-1], [value], value.encode().hex()))
    elif isinstance(value, list):
        holder[key] = pick(random, (value[:-1], value + value[-1:], value[::-1], dict(enumerate(value)), [value]))
    else:
        holder[key] = pick(random, (list(value), list(value.items()), [value], {**value, "more": 1}))


def _drop(random: Random, holder: Any, key: Any) -> None:
    del holder[key]


def _add(random: Random, holder: Any, key: Any) -> None:
    if isinstance(holder, dict):
        holder[pick(random, ("", "more", f"{key}2", "__class__"))] = pick(random, (holder[key], pick(random, ODD)))
    else:
        holder.insert(key, pick(random, ODD))


def _nest(random: Random, holder: Any, key: Any) -> None:
    for _ in range(pick(random, (2, 30, 150))):
        holder[key] = pick(random, ([holder[key]], {"a": holder[key]}))


def _exchange(random: Random, holder: Any, key: Any) -> None:
    other = pick(random, list(holder) if isinstance(holder, dict) else range(len(holder)))
    holder[key], holder[other] = holder[other], holder[key]


VALUE_CHANGES: tuple[Callable[[Random, Any, Any], None], ...] = (_odd, _odd, _odd, _near, _near, _drop, _add, _nest, _exchange)  # fmt: skip

TEXTS: tuple[Callable[[Random, bytes], bytes], ...] = (
    lambda random, text: pick(random, (b"", b"null", b"[]", b"{}", b"0", b'""', b"{", b"\xff\xfe{}", b"NaN")),
    lambda random, text: b"[" * 100_000,
    lambda random, text: b'{"a":' * 100_000,
    lambda random, text: b"1" * 10_000,
    lambda random, text: b"\xef\xbb\xbf" + text,
    lambda random, text: text.replace(b'"', b"'"),
    bytes_changed,
)


def json_file_changed(random: Random, path: Path) -> str:
    """Change one in its place; returns what was done."""
    path.write_bytes(json_changed(random, path.read_bytes()))
    return f"JSON of {path.name}"


def bytes_file_changed(random: Random, path: Path) -> str:
    """Change one in its place; returns what was done."""
    path.write_bytes(bytes_changed(random, path.read_bytes()))
    return f"bytes of {path.name}"


# Zip archives.


def zip_changed(random: Random, path: Path, of_member: Callable[[Random, bytes], bytes] = bytes_changed) -> str:
    """Change a member, which then has the right check sum; or take, give, double or compress one."""
    with zipfile.ZipFile(path) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    how = pick(random, ("changed", "changed", "changed", "removed", "twice", "renamed", "exchanged", "deflated"))
    at = int(random.integers(len(members)))
    name, data = members[at]
    if how == "changed":
        members[at] = name, of_member(random, data)
    elif how == "removed":
        del members[at]
    elif how == "twice":
        members.append((name, bytes_changed(random, data)))
    elif how == "renamed":
        members[at] = pick(random, ("x", "../" + name, name.upper(), name + "/", "data.npy")), data
    elif how == "exchanged":
        other = int(random.integers(len(members)))
        members[at], members[other] = (name, members[other][1]), (members[other][0], data)
    _zip(path, members, zipfile.ZIP_DEFLATED if how == "deflated" else zipfile.ZIP_STORED)
    if how == "deflated":
        path.write_bytes(bytes_changed(random, path.read_bytes()))
    return f"{name} of {path.name} {how}"


def _zip(path: Path, members: Sequence[tuple[str, bytes]], method: int) -> None:
    import warnings

    made = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(made, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, data in members:
            archive.writestr(name, data)
    path.write_bytes(made.getvalue())


def npy_changed(random: Random, data: bytes) -> bytes:
    """Change an array, its header above all."""
    if random.random() < 0.3:
        return bytes_changed(random, data)
    end = data.index(b"\n") + 1
    words = (
        (b"<f4", pick(random, (b"<f8", b">f4", b"|O", b"<c8", b"<U1", b"|b1", b"<M8[s]", b"<i4"))),
        (b"<f8", pick(random, (b"<f4", b">f8", b"|O", b"<c16", b"<U2", b"|V8", b"<i8"))),
        (b"False", pick(random, (b"True", b"None", b"(((("))),
        (b"(", pick(random, (b"(0, ", b"(-1, ", b"(99999999999, ", b"(1, ", b"["))),
        (b")", pick(random, (b", 2)", b", 10**9)", b"", b", None)"))),
        (b"'descr'", b"'other'"),
    )
    old, new = pick(random, [pair for pair in words if pair[0] in data[:end]])
    header = data[10 : end - 1].rstrip().replace(old, new, 1)
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return data[:8] + len(header).to_bytes(2, "little") + header + data[end:]


# GRIB.


def messages_of(data: bytes) -> list[bytes]:
    """The messages of a file that is whole."""
    found = []
    while data:
        size = int.from_bytes(data[8:16], "big") if data[7] == 2 else int.from_bytes(data[4:7], "big")
        found.append(data[:size])
        data = data[size:]
    return found


def _sections(message: bytes) -> dict[int, int]:
    """Where each section of a whole message begins."""
    if message[7] == 1:
        grid = 8 + int.from_bytes(message[8:11], "big")
        return {1: 8, 2: grid, 4: grid + int.from_bytes(message[grid : grid + 3], "big")}
    found, at = {}, 16
    while message[at : at + 4] != b"7777":
        found[message[at + 4]] = at
        at += int.from_bytes(message[at : at + 4], "big")
    return found


WHERE_IN_EDITION_2 = (
    (0, 6, 1), (0, 7, 1), (0, 8, 8), (0, 12, 4),
    (1, 0, 4), (1, 5, 2), (1, 9, 1), (1, 12, 2), (1, 14, 1), (1, 15, 1), (1, 16, 1), (1, 19, 1), (1, 20, 1),
    (3, 0, 4), (3, 4, 1), (3, 5, 1), (3, 6, 4), (3, 10, 1), (3, 12, 2), (3, 14, 1), (3, 30, 4), (3, 34, 4),
    (3, 46, 4), (3, 50, 4), (3, 54, 1), (3, 55, 4), (3, 59, 4), (3, 63, 4), (3, 67, 4), (3, 71, 1),
    (4, 0, 4), (4, 5, 2), (4, 7, 2), (4, 9, 1), (4, 10, 1), (4, 11, 1), (4, 17, 1), (4, 18, 4), (4, 22, 1), (4, 23, 1),
    (4, 24, 4),
    (5, 0, 4), (5, 5, 4), (5, 9, 2), (5, 11, 4), (5, 15, 2), (5, 17, 2), (5, 19, 1), (5, 20, 1),
    (6, 0, 4), (6, 5, 1), (7, 0, 4), (7, 4, 1),
)  # fmt: skip
"""Section, place in it and bytes of what stands in a message of a regular grid, after WMO's tables: lengths, numbers of
templates, dates, points, angles, scan, levels, times, packing."""

WHERE_IN_EDITION_1 = (
    (0, 4, 3), (0, 7, 1),
    (1, 0, 3), (1, 3, 1), (1, 4, 1), (1, 6, 1), (1, 7, 1), (1, 8, 1), (1, 9, 1), (1, 10, 2), (1, 12, 1), (1, 13, 1),
    (1, 14, 1), (1, 15, 1), (1, 17, 1), (1, 18, 1), (1, 19, 1), (1, 20, 1), (1, 24, 1), (1, 26, 2),
    (2, 0, 3), (2, 3, 1), (2, 4, 1), (2, 5, 1), (2, 6, 2), (2, 8, 2), (2, 10, 3), (2, 13, 3), (2, 16, 1), (2, 17, 3),
    (2, 20, 3), (2, 23, 2), (2, 25, 2), (2, 27, 1),
    (4, 0, 3), (4, 3, 1), (4, 4, 2), (4, 6, 4), (4, 10, 1),
)  # fmt: skip


def grib_changed(random: Random, path: Path) -> str:
    """Change numbers in some messages, or the messages of a file, or its bytes."""
    data = path.read_bytes()
    how = pick(random, ("bytes", "order", *["numbers"] * 5))
    if how == "bytes":
        path.write_bytes(bytes_changed(random, data))
        return how
    messages = messages_of(data)
    at = int(random.integers(len(messages)))
    if how == "order":
        other, what = int(random.integers(len(messages))), pick(random, ("swapped", "twice", "gone", "cut"))
        if what == "swapped":
            messages[at], messages[other] = messages[other], messages[at]
        elif what == "twice":
            messages.insert(other, messages[at])
        else:
            messages[at] = messages[at][: int(random.integers(len(messages[at])))] if what == "cut" else b""
        path.write_bytes(b"".join(messages))
        return f"message {at} {what}"
    places = WHERE_IN_EDITION_2 if messages[at][7] == 2 else WHERE_IN_EDITION_1
    section, place, count = pick(random, places)
    changed = 0
    # SingleRank, or in all of them, which then agree with one another.
    alike = [index for index, message in enumerate(messages) if message[7] == messages[at][7]]
    for index in [at] if random.random() < 0.7 else alike:
        start = 0 if section == 0 else _sections(messages[index])[section]
        if changed == 0:
            old = int.from_bytes(messages[index][start + place : start + place + count], "big")
            changed = pick(random, (old + 1, old - 1, old ^ 1 << int(random.integers(8 * count)), *SIZES))
            changed %= 256**count
        new = changed.to_bytes(count, "big")
        messages[index] = messages[index][: start + place] + new + messages[index][start + place + count :]
    path.write_bytes(b"".join(messages))
    return f"message {at}, section {section}, byte {place + 1}: {changed}"


# Zarr.


def zarr_changed(random: Random, path: Path) -> str:
    """Change a chunk, or what a store says of itself."""
    files = sorted(found for found in path.rglob("*") if found.is_file())
    said = [found for found in files if found.name in (".zarray", ".zattrs", ".zmetadata", ".zgroup")]
    chunks = [found for found in files if found not in said]
    how = pick(
        random, ("metadata", "metadata", "metadata", "attributes", "chunk", "chunk", "gone", "exchanged", "file")
    )
    if how == "metadata":
        return json_file_changed(random, pick(random, [found for found in said if found.name == ".zmetadata"] or said))
    if how == "attributes":
        # Where nothing is consolidated, every file counts.
        (path / ".zmetadata").unlink(missing_ok=True)
        one = pick(random, [found for found in said if found.name != ".zmetadata"])
        return f"not consolidated, {one.parent.name}: {json_file_changed(random, one)}"
    one = pick(random, chunks)
    name = str(one.relative_to(path))
    if how == "chunk":
        bytes_file_changed(random, one)
    elif how == "gone":
        one.unlink()
    elif how == "exchanged":
        other = pick(random, chunks)
        kept = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(kept)
    else:
        one.unlink()
        pick(random, (one.mkdir, one.touch, lambda: one.symlink_to("nowhere"), lambda: one.symlink_to(one.name)))()
    return f"chunk {name} {how}"
