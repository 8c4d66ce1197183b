"""One member of a group of consumers of the local log."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import suppress

from nextedge.errors import StorageError
from nextedge.events.logs.log import Consumer, Delivery
from nextedge.events.logs.sqlite.groups import LocalGroups

_LEASE_SECONDS = 5.0  # a consumer without a sign for so long loses its group to another that waits
_LOOK_SECONDS = 0.02  # how often a consumer that has its turn looks for events
_TURN_SECONDS = 0.2  # how often a waiting consumer looks for its turn
Read = Callable[[int, int], list[Delivery]]
"""Events after a position, at most so many."""


class LocalConsumer(Consumer):
    """Reads for a group as long as it gives signs; a group has one consumer at a time.

    Another consumer is silent where its number in the file does not change while this one watches:
    no clock's time of day is compared.
    """

    def __init__(self, groups: LocalGroups, group: str, read: Read) -> None:
        self._read = read
        self._groups = groups
        self._group = group
        self._name = uuid.uuid4().hex
        self._seen: tuple[str | None, int] | None = None
        self._since = 0.0  # when ``_seen`` was first seen, or when this consumer gave its last sign
        self._next = 0
        self._polled = False  # whether there is anything to commit

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
            if now - self._since < _LEASE_SECONDS / 4:
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
                f"group {self._group!r}: another consumer reads for it, as this one gave no sign "
                f"for {_LEASE_SECONDS:g} seconds or it was rewound; its events come again"
            )
        self._since = time.monotonic()

    def reject(self, delivery: Delivery, reason: str) -> None:
        self._groups.bury(self._group, delivery, reason)

    def close(self) -> None:
        with suppress(StorageError):  # the next consumer waits for the end of the lease instead
            self._groups.leave(self._group, self._name)
