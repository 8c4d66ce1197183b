"""Consumer groups over a Redis stream.

In Redis a group has one consumer, so that events arrive in order. A lease, which polling renews,
decides which process it is. A script renews the lease and reads events in one step, so only the
holder reads. Redis accepts a commit only from the process that took the lease last. The next holder
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

LEASE_SECONDS = 10.0  # a consumer that does not poll for longer loses its group to another one
_NAME = "nextedge"  # every group's one consumer, as Redis' own tools print it
_WAIT_SECONDS = 0.5  # one call waits no longer, as the client's timeout would end it
_TURN_SECONDS = 0.1  # pause before the next attempt to take the lease


class RedisConsumer(Consumer):
    """One process as a member of a group."""

    def __init__(self, stream: RedisStream, group: str, bury: Bury) -> None:
        self._stream = stream
        self._group = group
        self._bury = bury
        self._token = uuid.uuid4().hex
        self._from = "0"  # the entries that an earlier holder did not commit come first
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
                f"{LEASE_SECONDS:g} s of silence; the polled events are delivered again"
            )

    def reject(self, delivery: Delivery, reason: str) -> None:
        self._bury(self._group, delivery, reason)

    def close(self) -> None:
        self._polled = []
        with contextlib.suppress(StoreError):  # the lease then runs out
            self._stream.write(scripts.RELEASE, ("log", self._keys()[0]), [self._token])
        self._token = uuid.uuid4().hex  # a later poll is a new member

    def _keys(self) -> tuple[str, str]:
        return f"lease:{self._group}", "takers"
