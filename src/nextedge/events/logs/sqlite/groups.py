"""Groups of consumers of the local log: how far each is, who reads for it, what it gave up.

They have a file of their own beside the log's, so that a commit neither waits for those who append
nor makes processes look for new events.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextedge.errors import StorageError
from nextedge.events.logs.log import Consumer, DeadLetter, Delivery
from nextedge.events.logs.sqlite.erase import erase_deleted

if TYPE_CHECKING:
    from nextedge.events.logs.sqlite.log import LocalLog

FILE = "groups.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS groups (
    name TEXT PRIMARY KEY,
    done INTEGER NOT NULL,
    owner TEXT,
    beat INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS dead_letters (
    group_name TEXT NOT NULL,
    position INTEGER NOT NULL,
    micros INTEGER NOT NULL,
    reason TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (group_name, position)
);
"""
_WAIT_SECONDS = 30.0
_LEASE_SECONDS = 5.0
"""A consumer that gave no sign for so long has lost its group to another that waits."""
_LOOK_SECONDS = 0.02
"""How often a consumer that has its turn looks for events."""
_TURN_SECONDS = 0.2
"""How often one that has not looks for its turn."""


class LocalGroups:
    """What groups have done, in a file of one tenant."""

    def __init__(self, state: Path) -> None:
        self.path = state / FILE
        self._threads = threading.local()

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection; each statement is stored as it ends."""
        try:
            kept: sqlite3.Connection | None = getattr(self._threads, "connection", None)
            if kept is None:
                kept = sqlite3.connect(self.path, timeout=_WAIT_SECONDS, isolation_level=None)
                kept.execute("PRAGMA journal_mode = WAL")
                kept.execute("PRAGMA synchronous = FULL")
                kept.executescript(_SCHEMA)
                self._threads.connection = kept
            yield kept
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise StorageError(f"{self.path}: groups cannot be read or kept: {error}") from None

    def _rows(self, query: str, *values: object) -> list[Any]:
        """What a query finds; nothing where no group has ever read, and so there is no file."""
        if not self.path.exists():
            return []
        with self._connected() as connection:
            return connection.execute(query, values).fetchall()

    def names(self) -> list[str]:
        """Groups that are reading or have read, by name."""
        return [name for (name,) in self._rows("SELECT name FROM groups ORDER BY name")]

    def done(self, group: str) -> int:
        """Last position that a group has done; 0 for a new one."""
        rows = self._rows("SELECT done FROM groups WHERE name = ?", group)
        return int(rows[0][0]) if rows else 0

    def furthest_behind(self) -> tuple[str, int] | None:
        """The group that has done least, and up to where; None where there is no group."""
        rows = self._rows("SELECT name, done FROM groups ORDER BY done, name LIMIT 1")
        return rows[0] if rows else None

    def owner(self, group: str) -> tuple[str | None, int]:
        """Who reads for a group, and a number that changes with every sign of theirs."""
        rows = self._rows("SELECT owner, beat FROM groups WHERE name = ?", group)
        return rows[0] if rows else (None, 0)

    def drop(self, group: str) -> None:
        """Forget a group."""
        with self._connected() as connection:
            connection.execute("DELETE FROM groups WHERE name = ?", (group,))

    def take(self, group: str, before: tuple[str | None, int], owner: str) -> bool:
        """Become the reader of a group, unless anything has changed since it was looked at."""
        with self._connected() as connection:
            connection.execute("INSERT OR IGNORE INTO groups (name, done) VALUES (?, 0)", (group,))
            return _changed(
                connection,
                "UPDATE groups SET owner = ?, beat = beat + 1 "
                "WHERE name = ? AND owner IS ? AND beat = ?",
                (owner, group, *before),
            )

    def keep(self, group: str, owner: str, done: int | None = None) -> bool:
        """Give a sign, or say what is done; False where another one reads meanwhile."""
        with self._connected() as connection:
            return _changed(
                connection,
                "UPDATE groups SET beat = beat + 1, done = coalesce(?, done) "
                "WHERE name = ? AND owner = ?",
                (done, group, owner),
            )

    def leave(self, group: str, owner: str) -> None:
        """Let another one read."""
        with self._connected() as connection:
            connection.execute(
                "UPDATE groups SET owner = NULL, beat = beat + 1 WHERE name = ? AND owner = ?",
                (group, owner),
            )

    def rewind(self, group: str, done: int) -> None:
        """Let a group go back; whoever reads for it begins anew."""
        with self._connected() as connection:
            connection.execute(
                "UPDATE groups SET owner = NULL, beat = beat + 1, done = min(done, ?) "
                "WHERE name = ?",
                (done, group),
            )

    def bury(self, group: str, delivery: Delivery, reason: str) -> None:
        """Keep a dead letter; the same one again is one."""
        row = (group, int(delivery.position), time.time_ns() // 1000, reason, delivery.body)
        with self._connected() as connection:
            connection.execute("INSERT OR REPLACE INTO dead_letters VALUES (?, ?, ?, ?, ?)", row)

    def dead_letters(self) -> list[DeadLetter]:
        """What was given up, oldest first."""
        rows = self._rows(
            "SELECT group_name, position, body, reason, micros FROM dead_letters "
            "ORDER BY micros, position"
        )
        return [DeadLetter(group, str(place), *rest) for group, place, *rest in rows]

    def purge(self, doomed: Sequence[int]) -> None:
        """Take out the dead letters of events, with every byte of theirs."""
        if not self.path.exists():
            return
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            rows = [(place,) for place in doomed]
            connection.executemany("DELETE FROM dead_letters WHERE position = ?", rows)
            connection.execute("COMMIT")
            erase_deleted(connection)

    def close(self) -> None:
        """Close this thread's connection."""
        kept = getattr(self._threads, "connection", None)
        if kept is not None:
            kept.close()
            self._threads.connection = None


class LocalConsumer(Consumer):
    """Reads for a group as long as it gives signs; a group has one reader at a time.

    Whether another one is silent is told by whether its number in the file changes while this one
    watches, never by a clock's time of day.
    """

    def __init__(self, log: LocalLog, group: str) -> None:
        self._log = log
        self._groups = log.group_file
        self._group = group
        self._name = uuid.uuid4().hex
        self._seen: tuple[str | None, int] | None = None
        self._since = 0.0
        """When ``_seen`` was first seen, or this one gave its last sign."""
        self._next = 0
        self._polled = False
        """Whether there is anything to commit."""

    def poll(self, limit: int = 1000, timeout_seconds: float = 1.0) -> list[Delivery]:
        until = time.monotonic() + timeout_seconds
        while True:
            has_turn = self._has_turn()
            if has_turn:
                found = self._log.deliveries(self._next, limit)
                if found:
                    self._next, self._polled = int(found[-1].position), True
                    return found
            left = until - time.monotonic()
            if left <= 0:
                return []
            time.sleep(min(left, _LOOK_SECONDS if has_turn else _TURN_SECONDS))

    def _has_turn(self) -> bool:
        now, found = time.monotonic(), self._groups.owner(self._group)
        if found[0] == self._name:
            if now - self._since < _LEASE_SECONDS / 4:
                return True
            self._since = now
            return self._groups.keep(self._group, self._name)
        if found != self._seen:
            self._seen, self._since = found, now
        silent = found[0] is None or now - self._since >= _LEASE_SECONDS
        if not silent or not self._groups.take(self._group, found, self._name):
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
        with suppress(StorageError):  # the others wait a few seconds more
            self._groups.leave(self._group, self._name)


def _changed(connection: sqlite3.Connection, statement: str, values: Sequence[object]) -> bool:
    return connection.execute(statement, values).rowcount == 1
