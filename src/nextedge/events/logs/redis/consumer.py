"""Groups of consumers over a Redis stream.

To Redis a group has one consumer, so that events come in order. A lease, which polling renews,
decides which process that is. Redis gives events only to the holder of the lease, in the step that
renews it, and takes a commit only from the process that took the lease last. The next holder
begins with the uncommitted events.
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
"""How long a consumer may be silent before another takes its place."""
_NAME = "nextedge"
"""Name of every group's one consumer, as Redis' own tools print it."""
_WAIT_SECONDS = 0.5
"""How long one call waits in Redis for an event."""
_TURN_SECONDS = 0.1
"""How often a waiting consumer looks for its turn."""


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
        until = time.monotonic() + timeout_seconds
        while True:
            head, holds, *rest = self._take(limit)
            if holds and rest[1]:
                return self._delivered(rest[1])
            left = until - time.monotonic()
            if left <= 0:
                return []
            if holds:
                self._stream.wait_for_event(head[3].decode(), min(left, _WAIT_SECONDS))
            else:
                time.sleep(min(left, _TURN_SECONDS))

    def _take(self, limit: int) -> Any:
        rows = [self._token, int(LEASE_SECONDS * 1000), self._group, _NAME, self._from, limit]
        answer = self._stream.write(scripts.TAKE, ("log", "stream", *self._keys()), rows)
        if answer[1]:
            self._from = answer[2].decode()
        return answer

    def _delivered(self, entries: list[Any]) -> list[Delivery]:
        deliveries = []
        for position, flat in entries:
            fields = dict(zip(flat[::2], flat[1::2], strict=True)) if flat else {}
            relayed = fields.get(b"relayed") == b"1"
            body = fields.get(b"body", b"")
            deliveries.append(Delivery.of(position.decode(), body, relayed=relayed))
        self._polled += [delivery.position for delivery in deliveries]
        return deliveries

    def commit(self) -> None:
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
        self._bury(self._group, delivery, reason)

    def close(self) -> None:
        self._polled = []
        with contextlib.suppress(StoreError):  # then the lease ends by itself
            self._stream.write(scripts.RELEASE, ("log", self._keys()[0]), [self._token])
        self._token = uuid.uuid4().hex

    def _keys(self) -> tuple[str, str]:
        return f"lease:{self._group}", "takers"
