"""Groups of consumers over a Redis stream.

A group has one consumer as Redis sees it, so that events come in order. Which process is that
consumer says a lease, that polling renews. Redis gives events only to the holder, in the same step
that renews the lease, and takes a commit only from whoever took the lease last. Who takes it over
begins with what the one before has not committed.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from typing import Any

from nextedge.errors import StorageError, StoreError
from nextedge.events.logs.log import Bury, Consumer, Delivery, Position
from nextedge.events.logs.redis import lua as scripts
from nextedge.events.logs.redis.stream import RedisStream

LEASE_SECONDS = 10.0
"""How long a consumer may be silent before another one goes on in its place."""
_NAME = "nextedge"
"""Of every group's one consumer, in Redis' own tools."""
_WAIT_SECONDS = 0.5
"""How long Redis is asked to wait for an event at a time."""
_TURN_SECONDS = 0.1
"""How often a consumer looks whether it is its turn."""


class RedisConsumer(Consumer):
    """One process' place in a group."""

    def __init__(self, stream: RedisStream, group: str, bury: Bury) -> None:
        self._stream = stream
        self._group = group
        self._bury = bury
        self._token = uuid.uuid4().hex
        self._from: str = "0"
        self._polled: list[Position] = []

    def poll(self, limit: int = 1000, timeout_seconds: float = 1.0) -> list[Delivery]:
        """The next events; none while another consumer holds the lease."""
        until = time.monotonic() + timeout_seconds
        while True:
            head, mine, *rest = self._take(limit)
            if mine and rest[1]:
                return self._delivered(rest[1])
            left = until - time.monotonic()
            if left <= 0:
                return []
            if mine:
                self._stream.wait_for_event(head[3].decode(), min(left, _WAIT_SECONDS))
            else:
                time.sleep(min(left, _TURN_SECONDS))

    def _take(self, limit: int) -> Any:
        rows = [self._token, int(LEASE_SECONDS * 1000), self._group, _NAME, self._from, limit]
        found = self._stream.write(scripts.TAKE, ("log", "stream", *self._keys()), rows)
        if found[1]:
            self._from = found[2].decode()
        return found

    def _delivered(self, entries: list[Any]) -> list[Delivery]:
        deliveries = []
        for position, flat in entries:
            fields = dict(zip(flat[::2], flat[1::2], strict=True)) if flat else {}
            relayed = fields.get(b"relayed") == b"1"
            body = fields.get(b"body", b"")
            deliveries.append(Delivery.of(position.decode(), body, relayed=relayed))
        self._polled += [each.position for each in deliveries]
        return deliveries

    def commit(self) -> None:
        """Acknowledge to Redis what was polled."""
        polled, self._polled = self._polled, []
        if not polled:
            return
        rows = [self._token, self._group, *polled]
        if not self._stream.write(scripts.COMMIT, ("log", "stream", self._keys()[1]), rows):
            raise StorageError(
                f"events: group {self._group!r}: another consumer went on after "
                f"{LEASE_SECONDS:g} s of silence; what was polled is delivered again"
            )

    def reject(self, delivery: Delivery, reason: str) -> None:
        """Keep an event as a dead letter."""
        self._bury(self._group, delivery, reason)

    def close(self) -> None:
        """Let the next consumer go on; it begins with what was not committed."""
        self._polled = []
        with contextlib.suppress(StoreError):  # else the lease ends by itself
            self._stream.write(scripts.RELEASE, ("log", self._keys()[0]), [self._token])
        self._token = uuid.uuid4().hex

    def _keys(self) -> tuple[str, str]:
        return f"lease:{self._group}", "takers"
