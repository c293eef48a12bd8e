"""Arrays on disk, so that the next run need not compute them again.

A file is written under a name of its own and then renamed, so that runs at the same time do not
hurt each other; one that cannot be read, or that was damaged, is computed and written again. No
failure of the cache is one of the run.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ..arrays import AnyArray
from ..files import whole_file

LOG = logging.getLogger(__name__)

Arrays = Mapping[str, AnyArray]
"""Arrays by name."""

OFF = "off"

DIGEST = "digest"
"""Under which the digest of all others stands; no array may have this name."""


def cache_folder() -> Path | None:
    """Where arrays are kept: ``AI_MODELS_MOSAIC_CACHE`` (``off``: nowhere), else the user's cache folder."""
    asked = os.environ.get("AI_MODELS_MOSAIC_CACHE")
    if asked == OFF:
        return None
    if asked:
        return Path(asked)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "ai-models-mosaic"


def cached_arrays(
    kind: str,
    key: object,
    compute: Callable[[], Arrays],
    what: str,
    check: Callable[[Arrays], None] = lambda _: None,
) -> Arrays:
    """Arrays from the cache, or computed and put there.

    Parameters
    ----------
    kind : str
        What the names of the files begin with.
    key : object
        What the arrays depend on; its ``repr`` must tell everything.
    compute : callable
        Makes the arrays.
    what : str
        What they are, for messages.
    check : callable
        Raises ValueError where arrays that were read cannot be what was computed for this key.
    """
    folder = cache_folder()
    if folder is None:
        return compute()
    path = folder / f"{kind}-{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.npz"
    found = _read(path, what, check)
    if found is None:
        found = compute()
        _write(path, found, what)
    return found


def _read(path: Path, what: str, check: Callable[[Arrays], None]) -> Arrays | None:
    """The arrays of a file; None if there is none, or it is not as it was written."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            # Nothing is compressed in what was written, so it cannot grow when it is read.
            if sum(part.file_size for part in data.zip.infolist()) > path.stat().st_size:
                raise ValueError("its content is larger than the file")
            found = {name: data[name] for name in data.files}
        if str(found.pop(DIGEST)) != digest_of_arrays(found):
            raise ValueError("its content is not what was written")
        check(found)
    except Exception as error:  # whatever a damaged file does to its reader
        LOG.warning("Cannot use %s (%s): computing %s again", path, error, what)
        return None
    return found


def _write(path: Path, arrays: Arrays, what: str) -> None:
    """Put arrays into the cache; a folder that cannot be written to is only worth a word."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path, shared=True) as file:
            np.savez(file, **{DIGEST: np.array(digest_of_arrays(arrays))}, **arrays)
    except OSError as error:
        LOG.warning("Cannot keep %s in %s: %s", what, path.parent, error)


def digest_of_arrays(arrays: Arrays) -> str:
    """SHA-256 of names, types, shapes and contents, whatever the order, hexadecimal."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
