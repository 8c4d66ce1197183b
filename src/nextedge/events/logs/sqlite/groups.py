"""Consumer groups of the local log: positions, consumers and dead letters.

They have a file of their own, so that a commit neither waits for appends nor makes other processes
look for new events.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nextedge.errors import StorageError
from nextedge.events.logs.log import DeadLetter, Delivery
from nextedge.events.logs.sqlite.erase import erase_deleted
from nextedge.storage.write_ahead import use_write_ahead

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


class LocalGroups:
    """Positions and dead letters of the groups of one tenant, in a file."""

    def __init__(self, state: Path) -> None:
        self.path = state / FILE
        self._threads = threading.local()

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            connection: sqlite3.Connection | None = getattr(self._threads, "connection", None)
            if connection is None:
                connection = sqlite3.connect(self.path, timeout=_WAIT_SECONDS, isolation_level=None)
                use_write_ahead(connection)
                connection.execute("PRAGMA synchronous = FULL")
                connection.executescript(_SCHEMA)
                self._threads.connection = connection
            yield connection
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise StorageError(f"{self.path}: groups cannot be read or written: {error}") from None

    def _rows(self, query: str, *values: object) -> list[Any]:
        if not self.path.exists():  # no group has ever read; a query makes no file
            return []
        with self._connected() as connection:
            return connection.execute(query, values).fetchall()

    def names(self) -> list[str]:
        """Names of all groups, sorted."""
        return [name for (name,) in self._rows("SELECT name FROM groups ORDER BY name")]

    def done(self, group: str) -> int:
        """Last position that a group has committed; 0 for a new group."""
        rows = self._rows("SELECT done FROM groups WHERE name = ?", group)
        return int(rows[0][0]) if rows else 0

    def slowest(self) -> tuple[str, int] | None:
        """The group that is furthest behind and its last position; None without groups."""
        rows = self._rows("SELECT name, done FROM groups ORDER BY done, name LIMIT 1")
        return rows[0] if rows else None

    def owner(self, group: str) -> tuple[str | None, int]:
        """Consumer of a group, and a number that changes with each of its heartbeats."""
        rows = self._rows("SELECT owner, beat FROM groups WHERE name = ?", group)
        return rows[0] if rows else (None, 0)

    def drop(self, group: str) -> None:
        """Delete a group."""
        with self._connected() as connection:
            connection.execute("DELETE FROM groups WHERE name = ?", (group,))

    def take(self, group: str, before: tuple[str | None, int], owner: str) -> bool:
        """Become the consumer of a group; False if the group has changed since ``before``."""
        with self._connected() as connection:
            connection.execute("INSERT OR IGNORE INTO groups (name, done) VALUES (?, 0)", (group,))
            return _changed(
                connection,
                "UPDATE groups SET owner = ?, beat = beat + 1 "
                "WHERE name = ? AND owner IS ? AND beat = ?",
                (owner, group, *before),
            )

    def keep(self, group: str, owner: str, done: int | None = None) -> bool:
        """Write a heartbeat, and a commit if given; False if the group has another consumer."""
        with self._connected() as connection:
            return _changed(
                connection,
                "UPDATE groups SET beat = beat + 1, done = coalesce(?, done) "
                "WHERE name = ? AND owner = ?",
                (done, group, owner),
            )

    def leave(self, group: str, owner: str) -> None:
        """Give a group up to the next consumer."""
        with self._connected() as connection:
            connection.execute(
                "UPDATE groups SET owner = NULL, beat = beat + 1 WHERE name = ? AND owner = ?",
                (group, owner),
            )

    def rewind(self, group: str, done: int) -> None:
        """Set a group back to a position; its consumer has to take the group again."""
        with self._connected() as connection:
            connection.execute(
                "UPDATE groups SET owner = NULL, beat = beat + 1, done = min(done, ?) "
                "WHERE name = ?",
                (done, group),
            )

    def bury(self, group: str, delivery: Delivery, reason: str) -> None:
        """Store a dead letter, one for a group and position."""
        row = (group, int(delivery.position), time.time_ns() // 1000, reason, delivery.body)
        with self._connected() as connection:
            connection.execute("INSERT OR REPLACE INTO dead_letters VALUES (?, ?, ?, ?, ?)", row)

    def dead_letters(self) -> list[DeadLetter]:
        """All dead letters, oldest first."""
        rows = self._rows(
            "SELECT group_name, position, body, reason, micros FROM dead_letters "
            "ORDER BY micros, position"
        )
        return [DeadLetter(group, str(position), *rest) for group, position, *rest in rows]

    def purge(self, rows: Sequence[tuple[int]]) -> None:
        """Erase the dead letters of events by position."""
        if not self.path.exists():
            return
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("DELETE FROM dead_letters WHERE position = ?", rows)
            connection.execute("COMMIT")
            erase_deleted(connection)

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._threads, "connection", None)
        if connection is not None:
            connection.close()
            self._threads.connection = None


def _changed(connection: sqlite3.Connection, statement: str, values: Sequence[object]) -> bool:
    return connection.execute(statement, values).rowcount == 1
