"""A store as zarr 3 wants it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, NoReturn

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest

from .reading import StoreReader


class Zarr3Store(Store):  # type: ignore[misc]
    """Reads through a `StoreReader`; nothing can be written.

    Parameters
    ----------
    reader : StoreReader
        Raises for chunks that are not there but have to be.
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, reader: StoreReader) -> None:
        super().__init__(read_only=True)
        self._reader = reader

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Zarr3Store) and other._reader is self._reader

    __hash__ = None  # type: ignore[assignment]

    def with_read_only(self, read_only: bool = False) -> Zarr3Store:
        """The same: it is for reading only."""
        return self

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """A chunk, a part of one, or metadata."""
        data = await asyncio.to_thread(self._reader.get, key, *_ends(byte_range))
        return None if data is None else prototype.buffer.from_bytes(data)

    async def get_partial_values(self, prototype: Any, key_ranges: Iterable[tuple[str, Any]]) -> list[Any]:
        """Parts of chunks."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether a key is there."""
        return await asyncio.to_thread(self._reader.place.read, key) is not None

    async def list(self) -> AsyncIterator[str]:
        """Names at the top."""
        async for name in self.list_dir(""):
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Keys of a folder."""
        async for name in self.list_dir(prefix):
            yield f"{prefix.rstrip('/')}/{name}"

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names in a folder."""
        for name in await asyncio.to_thread(self._reader.place.names, prefix):
            yield name

    async def set(self, key: str, value: object) -> NoReturn:
        """Refused."""
        raise PermissionError(f"{key}: opened for reading")

    async def delete(self, key: str) -> NoReturn:
        """Refused."""
        raise PermissionError(f"{key}: opened for reading")


def _ends(part: object) -> tuple[int | None, int | None]:
    """First byte, negative from the end, and the one after the last, of a part that zarr asks for."""
    if isinstance(part, RangeByteRequest):
        return part.start, part.end
    if isinstance(part, OffsetByteRequest):
        return part.offset, None
    if isinstance(part, SuffixByteRequest):
        return -part.suffix, None
    return None, None
