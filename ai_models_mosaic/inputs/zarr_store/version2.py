"""A store as zarr 2 wants it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

from zarr.storage import Store

from .reading import StoreReader

AT_ONCE = 8
"""Chunks that are fetched over a network at the same time."""


class Zarr2Store(Store):  # type: ignore[misc]
    """Reads through a `StoreReader`; nothing can be written.

    Parameters
    ----------
    reader : StoreReader
        Raises for chunks that are not there but have to be.
    """

    _readable, _writeable, _erasable, _listable = True, False, False, True

    def __init__(self, reader: StoreReader) -> None:
        self._reader = reader

    def __getitem__(self, key: str) -> bytes:
        data = self._reader.get(key)
        if data is None:
            raise KeyError(key)
        return data

    def getitems(self, keys: Sequence[str], *, contexts: Mapping[str, object]) -> dict[str, bytes]:
        """Those of several chunks that are there."""
        if self._reader.place.is_near or len(keys) == 1:
            found = [self._reader.get(key) for key in keys]
        else:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                found = list(pool.map(self._reader.get, keys))
        return {key: data for key, data in zip(keys, found, strict=True) if data is not None}

    def __contains__(self, key: object) -> bool:
        return self._reader.place.read(str(key)) is not None

    def listdir(self, path: str = "") -> list[str]:
        """Names in a folder."""
        return self._reader.place.names(path)

    def __iter__(self) -> Iterator[str]:
        return iter(self.listdir())

    def __len__(self) -> int:
        return len(self.listdir())

    def __setitem__(self, key: str, value: object) -> NoReturn:
        raise PermissionError(f"{key}: opened for reading")

    def __delitem__(self, key: str) -> NoReturn:
        raise PermissionError(f"{key}: opened for reading")
