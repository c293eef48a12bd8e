"""The folder of a store while it is written: one run's own, locked, and never somebody else's.

All that it needs beside the store stands within it, under `OWN`: the lock, and the older store of
its name in the moment when both change places. So no name that a user may have given is ever
removed, and whatever instant a run dies at, the older store or the new one can be found.
"""

from __future__ import annotations

import shutil
import stat
from contextlib import suppress
from io import FileIO
from pathlib import Path

from ...errors import OutputError
from ...files import MOST_ATTEMPTS, TakenError, claim_lock, is_named, named_errors, partial_of, place_of, refuse_planted
from ...files import sync as sync_names
from .format2 import GROUP

OWN = ".ai-models-mosaic"
"""Folder within a store that is not complete; what has none was not made by a run."""

LOCK = "lock"
REPLACED = "replaced"


class StoreFolder:
    """A folder that bears the suffix ``.partial`` until `finish`.

    Parameters
    ----------
    path : Path
        Its name when it is complete; what a symbolic link of that name leads to is written in its place.

    Raises
    ------
    OutputError
        If the link may not be followed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with named_errors(path):
            self.final, self.partial = place_of(path), partial_of(path)
        self._lock: FileIO | None = None

    def begin(self) -> None:
        """Make the folder; what an earlier run left goes.

        Raises
        ------
        OutputError
            If another run has it, something else is there, or it cannot be made.
        """
        with named_errors(self.path):
            for _ in range(MOST_ATTEMPTS):
                self._discard()
                # Another may make or remove it at this very moment.
                with suppress(FileExistsError):
                    self.partial.mkdir()
                with suppress(FileExistsError, FileNotFoundError):
                    (self.partial / OWN).mkdir()
                    self._lock = claim_lock(self.partial / OWN / LOCK)
                    return
            raise TakenError

    def go_on(self) -> None:
        """Take the folder of an unfinished run, which must be there.

        Raises
        ------
        OutputError
            If another run has it, or something else is there.
        """
        with named_errors(self.path):
            self._refuse_strange()
            self._lock = claim_lock(self.partial / OWN / LOCK)
            self._put_back()

    def check(self) -> None:
        """Refuse to write to what is not this run's any more.

        Raises
        ------
        OutputError
            If the folder was removed, or exchanged for another.
        """
        # zarr would make the folders again and leave out what is lost.
        if self._lock is None or not is_named(self.partial / OWN / LOCK, self._lock):
            raise OutputError(f"cannot write {self.path}: its partial store was removed while it was being written")

    def finish(self) -> None:
        """Give the folder its name; an older store of that name goes.

        Raises
        ------
        OutputError
            If something else has the name, or it cannot be renamed.
        """
        self.check()
        with named_errors(self.path):
            if self.final.exists():
                if not (self.final / GROUP).exists():
                    raise OSError(0, "there is something of this name that is no Zarr store; it is left alone")
                self.final.rename(self.partial / OWN / REPLACED)
            self.partial.rename(self.final)
            sync_names(self.final.parent)
        self.release()
        self.tidy()

    def tidy(self) -> None:
        """Remove from the complete store what a death left of the moment when it got its name."""
        shutil.rmtree(self.final / OWN, ignore_errors=True)

    def remove(self) -> None:
        """Remove the folder, which nobody must take for a store when a death leaves a part of it.

        Raises
        ------
        OutputError
            If it cannot be removed.
        """
        self.check()
        self.release()
        self.discard()

    def discard(self) -> None:
        """Remove what an earlier run left, if anything.

        Raises
        ------
        OutputError
            If another run has it, or something else is there.
        """
        with named_errors(self.path):
            self._discard()

    def release(self) -> None:
        """Give up the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _discard(self) -> None:
        if not self.partial.exists() and not self.partial.is_symlink():
            return
        with suppress(FileNotFoundError):
            self._refuse_strange(may_be_empty=True)
            if (self.partial / OWN).exists():
                with claim_lock(self.partial / OWN / LOCK):
                    self._put_back()
                    (self.partial / GROUP).unlink(missing_ok=True)
                    for path in self.partial.iterdir():
                        if path.name != OWN:
                            _remove(path)
                    shutil.rmtree(self.partial / OWN, ignore_errors=True)
        # Network file systems keep the lock until it is closed. What is not empty by now is another run's.
        for path in (self.partial / OWN, self.partial):
            with suppress(OSError):
                path.rmdir()

    def _refuse_strange(self, *, may_be_empty: bool = False) -> None:
        """Refuse a folder that no run made: what is in it is somebody's."""
        mode = self.partial.lstat().st_mode
        if not stat.S_ISDIR(mode):
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "no folder"
            raise OSError(0, f"{self.partial} is {kind}; expected nothing there, or what a run left. Remove it")
        refuse_planted(self.partial)
        is_own = (self.partial / OWN).is_dir() and not (self.partial / OWN).is_symlink()
        if not is_own and not (may_be_empty and not any(self.partial.iterdir())):
            raise OSError(0, f"{self.partial} is not what a run left; expected nothing there. Move it, or remove it")

    def _put_back(self) -> None:
        """Give an older store its name back, if a death came between its removal and the new one's name."""
        replaced = self.partial / OWN / REPLACED
        if replaced.exists() and not self.final.exists():
            replaced.rename(self.final)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
