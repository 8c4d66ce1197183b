"""A store in memory of the process, which evicts the least recently used value first."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nextedge.errors import StoreError
from nextedge.stores.store import Key, Store, positive


class MemoryStore(Store):
    """Values of a bounded total size, which end with the process."""

    name = "memory"
    schemes = ("memory",)
    shared = False

    def __init__(self, namespace: str, most_bytes: int = 64 << 20) -> None:
        super().__init__(namespace)
        self.most_bytes = most_bytes
        self._bytes = 0
        self._values: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def open(cls, url: str, namespace: str, timeout_seconds: float, base: Path) -> MemoryStore:
        return cls(namespace)

    def get_many(self, keys: Sequence[Key]) -> list[bytes | None]:
        with self._lock:
            return [self._get(self._full(key)) for key in keys]

    def put_many(self, values: Mapping[Key, bytes], seconds: float | None = None) -> None:
        """See ``Store.put_many``; raises StoreError for a value larger than the store."""
        limit = positive(seconds)
        ends = float("inf") if limit is None else time.monotonic() + limit
        entries = {self._full(key): bytes(value) for key, value in values.items()}
        for full, value in entries.items():
            if len(full) + len(value) > self.most_bytes:
                raise StoreError(
                    f"memory: a value of {len(value):,} bytes does not fit into {self.most_bytes:,}"
                )
        with self._lock:
            for full, value in entries.items():
                self._delete(full)
                self._values[full] = ends, value
                self._bytes += len(full) + len(value)
            while self._bytes > self.most_bytes:
                self._delete(next(iter(self._values)))

    def delete_many(self, keys: Sequence[Key]) -> int:
        with self._lock:
            return sum(self._delete(self._full(key)) for key in keys)

    def delete_prefix(self, prefix: Key = b"") -> int:
        with self._lock:
            return sum(self._delete(full) for full in self._beginning(prefix))

    def keys(self, prefix: Key = b"") -> Iterator[bytes]:
        with self._lock:
            # A list: a generator would lock the store while its caller works.
            keys = self._beginning(prefix)
        yield from map(self._bare, keys)

    def close(self) -> None:
        with self._lock:
            self._values.clear()
            self._bytes = 0

    def _get(self, full: bytes) -> bytes | None:
        entry = self._values.get(full)
        if entry is None:
            return None
        if entry[0] < time.monotonic():
            self._delete(full)
            return None
        self._values.move_to_end(full)
        return entry[1]

    def _delete(self, full: bytes) -> bool:
        """Delete a value; returns whether it was there and unexpired."""
        entry = self._values.pop(full, None)
        if entry is None:
            return False
        self._bytes -= len(full) + len(entry[1])
        return entry[0] >= time.monotonic()

    def _beginning(self, prefix: Key) -> list[bytes]:
        start, now = self._full(prefix), time.monotonic()
        return [f for f, (ends, _) in self._values.items() if ends >= now and f.startswith(start)]
