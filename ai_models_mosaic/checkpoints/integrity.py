"""Whether a file is the one that was fetched or pinned: digests, and records of where files came from.

Three say what a file's SHA-256 must be, the first that speaks wins: a ``SHA256SUMS`` in the assets folder, which
is the operator's; the digests pinned in the variants; and the record that a download leaves beside each file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from ..errors import CheckpointError
from ..files import parse_json, whole_file

LOG = logging.getLogger(__name__)

SUMS = "SHA256SUMS"
"""The operator's file, as ``sha256sum`` writes it, in the assets folder."""

RECORD_SUFFIX = ".json"
"""What the name of a record has beyond that of its file."""


@dataclass(frozen=True)
class Record:
    """What is known of a file that was fetched or made, kept beside it as JSON.

    Parameters
    ----------
    sha256 : str
        Its digest, hexadecimal.
    size : int
        Bytes.
    mtime_ns : int
        Time of its last change when it was hashed, ns since 1970.
    source : str
        Where it came from.
    revision : str or None
        Commit, where the source has such.
    licence : str or None
        SPDX name.
    recorded : str
        When, ISO 8601 in UTC.
    """

    sha256: str
    size: int
    mtime_ns: int
    source: str
    revision: str | None
    licence: str | None
    recorded: str

    def still_holds(self, path: Path) -> bool:
        """Whether the file has the size and the time that it had when it was hashed."""
        now = path.stat()
        return (now.st_size, now.st_mtime_ns) == (self.size, self.mtime_ns)


@dataclass(frozen=True)
class Expected:
    """The digest that a file must have, and who says so."""

    sha256: str
    said_by: str


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def digest_of_bytes(content: bytes) -> str:
    """SHA-256 of what a file holds, as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def record_path(path: Path) -> Path:
    """Where the record of a file is."""
    return path.with_name(path.name + RECORD_SUFFIX)


def read_record(path: Path) -> Record | None:
    """The record beside a file; None if there is none, or it cannot be read, which is logged."""
    try:
        return Record(**parse_json(record_path(path).read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, TypeError, ValueError) as error:
        LOG.warning("%s cannot be read as a record of %s, and is ignored: %s", record_path(path), path.name, error)
        return None


def write_record(path: Path, digest: str, source: str, revision: str | None, licence: str | None) -> None:
    """Leave a record beside a file that has just been hashed."""
    found, now = path.stat(), datetime.now(timezone.utc).isoformat(timespec="seconds")
    _save(path, Record(digest, found.st_size, found.st_mtime_ns, source, revision, licence, now))


def _save(path: Path, record: Record) -> None:
    target = record_path(path)
    with whole_file(target, shared=True) as file:
        file.write((json.dumps(asdict(record), indent=2) + "\n").encode())


def read_sums(folder: Path) -> dict[str, str]:
    """Digests by name, relative to the folder, of its ``SHA256SUMS``; empty if there is none.

    Parameters
    ----------
    folder : Path
        The assets folder.

    Raises
    ------
    CheckpointError
        If a line is not as ``sha256sum`` writes it.
    """
    path = folder / SUMS
    if not path.is_file():
        return {}
    sums = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](.+)", line)
        if not match:
            raise CheckpointError(
                f"{path}, line {number}: expected 64 hexadecimal digits, two blanks and a name, as sha256sum writes "
                f"them, got {line!r}"
            )
        sums[os.path.normpath(match[2])] = match[1].lower()
    return sums


def warn_if_unlisted(path: Path, folder: Path) -> None:
    """Log a file of the assets folder that the operator's ``SHA256SUMS`` leaves out."""
    sums, name = read_sums(folder), os.path.relpath(path, folder)
    if sums and name not in sums and not name.startswith(os.pardir):
        LOG.warning("%s does not list %s", folder / SUMS, name)


def expected_digest(path: Path, folder: Path, pinned: str | None = None) -> Expected | None:
    """The digest that a file must have; None if nobody says.

    Parameters
    ----------
    path : Path
        The file.
    folder : Path
        The assets folder.
    pinned : str or None
        Digest of the released file.

    Raises
    ------
    CheckpointError
        If ``SHA256SUMS`` cannot be read.
    """
    sums = read_sums(folder)
    name = os.path.relpath(path, folder)
    if name in sums:
        return Expected(sums[name], str(folder / SUMS))
    if pinned:
        return Expected(pinned, "the release")
    record = read_record(path)
    return Expected(record.sha256, str(record_path(path))) if record else None


def found_digest(path: Path, wanted: str, *, full: bool = False) -> str:
    """The digest of a file: from its record where size and time still hold, else by hashing it.

    Parameters
    ----------
    path : Path
        The file.
    wanted : str
        The digest that it should have.
    full : bool
        Hash in any case.
    """
    record = read_record(path)
    if record and record.sha256 == wanted and record.still_holds(path) and not full:
        return wanted
    digest = sha256(path)
    if record and record.sha256 == digest and not record.still_holds(path):
        # A copy without times. Where the folder can be written, the next start need not hash again.
        with contextlib.suppress(OSError):
            _save(path, replace(record, mtime_ns=path.stat().st_mtime_ns))
    return digest


def digest_of(path: Path) -> str:
    """SHA-256 of a file, without hashing it where its record still holds."""
    record = read_record(path)
    return found_digest(path, record.sha256) if record else sha256(path)


def check(path: Path, folder: Path, pinned: str | None = None, *, full: bool = False) -> None:
    """Refuse a file that is not what was fetched or pinned; one of which nothing is known passes.

    Parameters
    ----------
    path : Path
        The file.
    folder : Path
        The assets folder, for its ``SHA256SUMS``.
    pinned : str or None
        Digest of the released file.
    full : bool
        Hash the file even where its size and time are as recorded.

    Raises
    ------
    CheckpointError
        If the digest is another; names both.
    """
    wanted = expected_digest(path, folder, pinned)
    if wanted is None:
        LOG.info("%s: no digest is known, so it was not checked", path)
        return
    refuse_other(path, wanted, found_digest(path, wanted.sha256, full=full))


def refuse_other(path: Path, wanted: Expected | None, digest: str) -> None:
    """Refuse a file with another digest than it must have; one of which nobody says what it must be passes.

    Raises
    ------
    CheckpointError
        If the digest is another; names both.
    """
    if wanted is not None and digest != wanted.sha256:
        raise CheckpointError(
            f"{path} is not the file that it should be: expected SHA-256 {wanted.sha256} (from {wanted.said_by}), got "
            f"{digest}; fetch it again (--download-assets), or, if you changed it yourself, correct or remove "
            f"{wanted.said_by if wanted.said_by != 'the release' else 'it'}"
        )
