"""A store in Redis, shared by machines (see ``redis_client`` for how it is asked)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nextedge.stores.redis_client import RedisClient
from nextedge.stores.store import Key, Store, positive

_SCANNED = 1000
"""Keys that Redis looks at in one step of a scan, or deletes by one command."""
_PATTERN = re.compile(rb"([*?\[\]\\^])")


class RedisStore(RedisClient, Store):
    """Values in a Redis server or cluster; Redis lets them end."""

    name = "redis"
    schemes = ("redis", "rediss", "redis+cluster", "rediss+cluster")
    shared = True

    def __init__(self, url: str, namespace: str, timeout_seconds: float = 1.0) -> None:
        Store.__init__(self, namespace)
        RedisClient.__init__(self, url, "store", timeout_seconds)

    @classmethod
    def open(cls, url: str, namespace: str, timeout_seconds: float, base: Path) -> RedisStore:
        """The server of a URL, as redis-py reads it."""
        return cls(url, namespace, timeout_seconds)

    def get_many(self, keys: Sequence[Key]) -> list[bytes | None]:
        """The values in the order of their keys: one MGET."""
        if not keys:
            return []
        full = [self._full(key) for key in keys]
        found: list[bytes | None] = self.call(lambda client: client.mget(full))
        return found

    def put_many(self, values: Mapping[Key, bytes], seconds: float | None = None) -> None:
        """Keep values, in one pipeline; where it fails, some may be kept."""
        limit = positive(seconds)
        milliseconds = None if limit is None else max(1, round(limit * 1000))
        if not values:
            return

        def put(client: Any) -> None:
            with client.pipeline(transaction=False) as pipeline:
                for key, value in values.items():
                    pipeline.set(self._full(key), value, px=milliseconds)
                pipeline.execute()

        self.call(put)

    def delete_many(self, keys: Sequence[Key]) -> int:
        """Delete values; returns how many there were."""
        return self._unlink([self._full(key) for key in keys])

    def delete_prefix(self, prefix: Key = b"") -> int:
        """Delete all values whose keys begin so; looks through all keys of the server."""
        return self._unlink(list(self._scan(prefix)))

    def keys(self, prefix: Key = b"") -> Iterator[bytes]:
        """The keys that begin so; looks through all keys of the server."""
        yield from map(self._bare, self._scan(prefix))

    def _scan(self, prefix: Key) -> set[bytes]:
        pattern = _PATTERN.sub(rb"\\\1", self._full(prefix)) + b"*"
        return self.call(lambda client: set(client.scan_iter(match=pattern, count=_SCANNED)))

    def _unlink(self, full: list[bytes]) -> int:
        deleted = 0
        for start in range(0, len(full), _SCANNED):
            part = full[start : start + _SCANNED]
            deleted += self.call(lambda client, part=part: int(client.unlink(*part)))  # type: ignore[misc]
        return deleted
