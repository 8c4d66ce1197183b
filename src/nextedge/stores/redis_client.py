"""Call Redis with bounded waits, behind a circuit breaker.

No wait to connect or for the next bytes of an answer is longer than ``timeout_seconds``. The client
repeats no command that timed out; it reconnects a lost connection once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from nextedge.errors import ConfigError, MissingDependencyError, StoreError
from nextedge.storage.locations import public_url
from nextedge.stores.breaker import CircuitBreaker

Result = TypeVar("Result")
_CLUSTER = "+cluster"


class RedisClient:
    """A Redis server or cluster; safe for threads.

    Args:
        setting: name of the setting of the URL, for errors.
    """

    def __init__(self, url: str, setting: str, timeout_seconds: float) -> None:
        _refuse_open_password(url, setting)
        self.public_url = public_url(url)
        try:
            import redis
        except ImportError:
            raise MissingDependencyError(
                "redis", "redis", f"{setting} = {self.public_url}"
            ) from None
        self.breaker = CircuitBreaker()  # a slow Redis must not slow every request
        self._errors = redis.exceptions
        self._cluster = _CLUSTER in url.split("://", 1)[0]
        self._url = url.replace(_CLUSTER, "", 1) if self._cluster else url
        self._settings = {
            "socket_connect_timeout": timeout_seconds,
            "socket_timeout": timeout_seconds,
            "protocol": 2,  # saves the exchange of versions at each connect
            "decode_responses": False,
        }
        self._connected: Any = None
        self._connecting = threading.Lock()
        try:
            redis.connection.parse_url(self._url)  # type: ignore[no-untyped-call]
        except ValueError as error:
            raise ConfigError(f"{setting}: {self.public_url}: {error}") from None

    def close(self) -> None:
        """Close the connections; a later call connects again."""
        with self._connecting:
            if self._connected is not None:
                self._connected.close()
                self._connected = None

    def call(self, command: Callable[[Any], Result]) -> Result:
        """Run a command, if the circuit breaker allows; its errors become a StoreError."""
        if not self.breaker.allows():
            raise StoreError(
                f"{self.public_url}: left alone for up to {self.breaker.seconds:g} s after "
                f"{self.breaker.failures} failures in a row"
            )
        errors = self._errors
        try:
            result = command(self._client())
        except (
            errors.ConnectionError,
            errors.TimeoutError,
            errors.RedisClusterException,
            errors.ClusterError,
            OSError,
        ) as error:
            self.breaker.failed()
            raise StoreError(f"{self.public_url}: not reached, or too slow: {error}") from None
        except errors.OutOfMemoryError:
            self.breaker.succeeded()  # Redis answers, and its values are readable
            raise StoreError(f"{self.public_url}: full (maxmemory)") from None
        except errors.RedisError as error:
            self.breaker.succeeded()
            # without the values of a pipeline
            reason = str(error).rpartition("caused error: ")[2]
            raise StoreError(f"{self.public_url}: refused: {reason}") from None
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

        # Lost connections alone: repeating a command that timed out would double the wait.
        retry = Retry(NoBackoff(), 1, (redis.ConnectionError,))
        kind = redis.RedisCluster if self._cluster else redis.Redis
        return kind.from_url(self._url, retry=retry, **self._settings)


def _refuse_open_password(url: str, setting: str) -> None:
    """Raise ConfigError for a password that is not URL-encoded."""
    # such a password ends the login early; messages would then print the rest of it
    try:
        parts = urlsplit(url)
        open_login = "@" in parts.path or "@" in parts.fragment
    except ValueError:
        open_login = True
    if open_login:
        raise ConfigError(
            f"{setting}: the URL cannot be read: expected redis://user:password@host:6379/0, with "
            "/ ? # @ and % of the password as %2F %3F %23 %40 and %25"
        )
