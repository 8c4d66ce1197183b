"""A consumer of the local log."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import suppress

from nextedge.errors import StorageError
from nextedge.events.logs.log import Consumer, Delivery
from nextedge.events.logs.sqlite.groups import LocalGroups

_LEASE_SECONDS = 5.0  # a consumer without a heartbeat for longer loses its group
_LOOK_SECONDS = 0.02  # pause of the group's consumer between two reads without events
_TURN_SECONDS = 0.2  # pause of another consumer before it tries to take the group
Read = Callable[[int, int], list[Delivery]]  # from a position and a limit


class LocalConsumer(Consumer):
    """The one consumer of a group at a time, as long as its heartbeats continue.

    A consumer takes a group over when the heartbeat number in the file has not changed for the
    lease, by its own monotonic clock. The clocks of two processes are never compared.
    """

    def __init__(self, groups: LocalGroups, group: str, read: Read) -> None:
        self._read = read
        self._groups = groups
        self._group = group
        self._name = uuid.uuid4().hex
        self._seen: tuple[str | None, int] | None = None
        self._since = 0.0  # of ``_seen``, or the time of this consumer's last heartbeat
        self._next = 0
        self._polled = False

    def poll(self, limit: int = 1000, timeout_seconds: float = 1.0) -> list[Delivery]:
        until = time.monotonic() + timeout_seconds
        while True:
            has_turn = self._has_turn()
            if has_turn:
                deliveries = self._read(self._next, limit)
                if deliveries:
                    self._next, self._polled = int(deliveries[-1].position), True
                    return deliveries
            left = until - time.monotonic()
            if left <= 0:
                return []
            time.sleep(min(left, _LOOK_SECONDS if has_turn else _TURN_SECONDS))

    def _has_turn(self) -> bool:
        now, owner = time.monotonic(), self._groups.owner(self._group)
        if owner[0] == self._name:
            if now - self._since < _LEASE_SECONDS / 4:  # a heartbeat a poll would sync too often
                return True
            self._since = now
            return self._groups.keep(self._group, self._name)
        if owner != self._seen:
            self._seen, self._since = owner, now
        silent = owner[0] is None or now - self._since >= _LEASE_SECONDS
        if not silent or not self._groups.take(self._group, owner, self._name):
            return False
        self._since, self._next, self._polled = now, self._groups.done(self._group), False
        return True

    def commit(self) -> None:
        if not self._polled:
            return
        self._polled = False
        if not self._groups.keep(self._group, self._name, self._next):
            raise StorageError(
                f"group {self._group!r}: another consumer has it, as this one did not poll for "
                f"{_LEASE_SECONDS:g} seconds, or it was rewound; the polled events come again"
            )
        self._since = time.monotonic()

    def reject(self, delivery: Delivery, reason: str) -> None:
        self._groups.bury(self._group, delivery, reason)

    def close(self) -> None:
        with suppress(StorageError):  # the lease then runs out
            self._groups.leave(self._group, self._name)
