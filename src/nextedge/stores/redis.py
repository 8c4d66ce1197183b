"""A store in a Redis server or cluster, shared by machines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nextedge.stores.redis_client import RedisClient
from nextedge.stores.store import Key, Store, positive

_SCANNED = 1000  # keys of one step of a scan, or of one command that deletes
_PATTERN = re.compile(rb"([*?\[\]\\^])")


class RedisStore(RedisClient, Store):
    """Values in Redis, which deletes them when they expire."""

    name = "redis"
    schemes = ("redis", "rediss", "redis+cluster", "rediss+cluster")
    shared = True

    def __init__(self, url: str, namespace: str, timeout_seconds: float = 1.0) -> None:
        Store.__init__(self, namespace)
        RedisClient.__init__(self, url, "store", timeout_seconds)

    @classmethod
    def open(cls, url: str, namespace: str, timeout_seconds: float, base: Path) -> RedisStore:
        return cls(url, namespace, timeout_seconds)

    def get_many(self, keys: Sequence[Key]) -> list[bytes | None]:
        if not keys:
            return []
        full = [self._full(key) for key in keys]
        values: list[bytes | None] = self.call(lambda client: client.mget(full))
        return values

    def put_many(self, values: Mapping[Key, bytes], seconds: float | None = None) -> None:
        """See ``Store.put_many``; one pipeline; if it fails, some values may be stored."""
        limit = positive(seconds)
        milliseconds = None if limit is None else max(1, round(limit * 1000))  # Redis refuses 0
        if not values:
            return

        def put(client: Any) -> None:
            with client.pipeline(transaction=False) as pipeline:
                for key, value in values.items():
                    pipeline.set(self._full(key), value, px=milliseconds)
                pipeline.execute()

        self.call(put)

    def delete_many(self, keys: Sequence[Key]) -> int:
        return self._unlink([self._full(key) for key in keys])

    def delete_prefix(self, prefix: Key = b"") -> int:
        """See ``Store.delete_prefix``; scans all keys of the server."""
        return self._unlink(list(self._scan(prefix)))

    def keys(self, prefix: Key = b"") -> Iterator[bytes]:
        """See ``Store.keys``; scans all keys of the server."""
        yield from map(self._bare, self._scan(prefix))

    def _scan(self, prefix: Key) -> set[bytes]:
        # A prefix is text: its pattern characters stand for themselves.
        pattern = _PATTERN.sub(rb"\\\1", self._full(prefix)) + b"*"
        # A set, as a scan may return a key twice.
        return self.call(lambda client: set(client.scan_iter(match=pattern, count=_SCANNED)))

    def _unlink(self, full: list[bytes]) -> int:
        deleted = 0
        for start in range(0, len(full), _SCANNED):
            part = full[start : start + _SCANNED]
            deleted += self.call(lambda client, part=part: int(client.unlink(*part)))  # type: ignore[misc]
        return deleted
