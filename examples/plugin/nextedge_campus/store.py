"""A store: ``memory+zlib://`` has values compressed in the memory of the process."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

from nextedge.stores.memory import MemoryStore
from nextedge.stores.store import Key


class ZlibStore(MemoryStore):
    """The memory store with values compressed."""

    name = "zlib"
    schemes = ("memory+zlib",)

    def get_many(self, keys: Sequence[Key]) -> list[bytes | None]:
        values = super().get_many(keys)
        return [None if value is None else zlib.decompress(value) for value in values]

    def put_many(self, values: Mapping[Key, bytes], seconds: float | None = None) -> None:
        super().put_many({key: zlib.compress(value) for key, value in values.items()}, seconds)
