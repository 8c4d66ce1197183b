"""A store in Redis, shared by machines: quick or not at all.

No wait for the network, be it to connect or for the next bytes of an answer, is longer than
``timeout_seconds``. What was not answered in time is not asked again; only a connection that was
lost is made anew, once. After
several failures in a row a circuit breaker leaves Redis alone for some seconds, so that a slow one
does not slow every request.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from nextedge.data.locations import shown
from nextedge.errors import ConfigError, MissingDependencyError, StoreError
from nextedge.stores.breaker import CircuitBreaker
from nextedge.stores.store import Key, Store, positive

Result = TypeVar("Result")
_CLUSTER = "+cluster"
_SCANNED = 1000
"""Keys that Redis looks at in one step of a scan, or deletes by one command."""
_PATTERN = re.compile(rb"([*?\[\]\\^])")


class RedisStore(Store):
    """Values in a Redis server or cluster; Redis lets them end."""

    name = "redis"
    schemes = ("redis", "rediss", "redis+cluster", "rediss+cluster")
    shared = True

    def __init__(self, url: str, namespace: str, timeout_seconds: float = 1.0) -> None:
        super().__init__(namespace)
        try:
            import redis
        except ImportError:
            raise MissingDependencyError("redis", "redis", f"The store {shown(url)}") from None
        self.shown = shown(url)
        self.breaker = CircuitBreaker()
        self._errors = redis.exceptions
        self._cluster = _CLUSTER in url.split("://", 1)[0]
        self._url = url.replace(_CLUSTER, "", 1) if self._cluster else url
        self._settings = {
            "socket_connect_timeout": timeout_seconds,
            "socket_timeout": timeout_seconds,
            "protocol": 2,  # no exchange of versions when it connects
            "decode_responses": False,
        }
        self._connected: Any = None
        self._connecting = threading.Lock()
        try:
            redis.connection.parse_url(self._url)  # type: ignore[no-untyped-call]
        except ValueError as error:
            raise ConfigError(f"store: {self.shown}: {error}") from None

    @classmethod
    def open(cls, url: str, namespace: str, timeout_seconds: float, base: Path) -> RedisStore:
        """The server of a URL, as redis-py reads it."""
        return cls(url, namespace, timeout_seconds)

    def get_many(self, keys: Sequence[Key]) -> list[bytes | None]:
        """The values in the order of their keys: one MGET."""
        if not keys:
            return []
        full = [self._full(key) for key in keys]
        found: list[bytes | None] = self._call(lambda client: client.mget(full))
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

        self._call(put)

    def delete_many(self, keys: Sequence[Key]) -> int:
        """Delete values; returns how many there were."""
        return self._unlink([self._full(key) for key in keys])

    def delete_prefix(self, prefix: Key = b"") -> int:
        """Delete all values whose keys begin so; looks through all keys of the server."""
        return self._unlink(list(self._scan(prefix)))

    def keys(self, prefix: Key = b"") -> Iterator[bytes]:
        """The keys that begin so; looks through all keys of the server."""
        yield from map(self._bare, self._scan(prefix))

    def close(self) -> None:
        """Let go of the connections."""
        with self._connecting:
            if self._connected is not None:
                self._connected.close()
                self._connected = None

    def _scan(self, prefix: Key) -> set[bytes]:
        pattern = _PATTERN.sub(rb"\\\1", self._full(prefix)) + b"*"
        return self._call(lambda client: set(client.scan_iter(match=pattern, count=_SCANNED)))

    def _unlink(self, full: list[bytes]) -> int:
        deleted = 0
        for start in range(0, len(full), _SCANNED):
            part = full[start : start + _SCANNED]
            deleted += self._call(lambda client, part=part: int(client.unlink(*part)))  # type: ignore[misc]
        return deleted

    def _call(self, command: Callable[[Any], Result]) -> Result:
        """Run a command, if Redis may be asked now; its faults become a StoreError."""
        if not self.breaker.allows():
            raise StoreError(
                f"{self.shown}: left alone for up to {self.breaker.seconds:g} s after "
                f"{self.breaker.failures} failures in a row"
            )
        errors = self._errors
        try:
            result = command(self._client())
        except (
            errors.ConnectionError, errors.TimeoutError, errors.RedisClusterException,
            errors.ClusterError, OSError,
        ) as error:  # fmt: skip
            self.breaker.failed()
            raise StoreError(f"{self.shown}: not reached, or too slow: {error}") from None
        except errors.OutOfMemoryError:
            self.breaker.succeeded()  # it answers: what it holds can be read
            raise StoreError(f"{self.shown}: full (maxmemory)") from None
        except errors.RedisError as error:
            self.breaker.succeeded()
            reason = str(error).rpartition("caused error: ")[2]  # without the values of a pipeline
            raise StoreError(f"{self.shown}: refused: {reason}") from None
        self.breaker.succeeded()
        return result

    def _client(self) -> Any:
        with self._connecting:
            if self._connected is None:
                self._connected = self._connect()
            return self._connected

    def _connect(self) -> Any:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        retry = Retry(NoBackoff(), 1, (redis.ConnectionError,))
        kind = redis.RedisCluster if self._cluster else redis.Redis
        return kind.from_url(self._url, retry=retry, **self._settings)
