"""The local event log: SQLite in write-ahead mode, synced to disk before it acknowledges."""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nextedge.errors import LiveStateError, LogFullError, NextEdgeError, StorageError
from nextedge.events.event import Event, readable_event
from nextedge.events.logs.log import (
    BEGINNING,
    Consumer,
    DeadLetter,
    Delivery,
    Lag,
    LiveLog,
    Position,
)
from nextedge.events.logs.sqlite.consumer import LocalConsumer
from nextedge.events.logs.sqlite.erase import erase_deleted
from nextedge.events.logs.sqlite.groups import LocalGroups
from nextedge.storage.write_ahead import use_write_ahead

if TYPE_CHECKING:
    from nextedge.config import Config

FILE = "events.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    micros INTEGER NOT NULL,
    body TEXT NOT NULL,
    arrived INTEGER NOT NULL DEFAULT 0,
    relayed INTEGER NOT NULL DEFAULT 0
);
"""
_LATER_COLUMNS = ("arrived", "relayed")  # logs of the first versions lack them
_CHUNK = 5000
_ALL = 2**63
_READ_SECONDS = 1.0  # a request waits no longer for a lock of another process
_LOOK_SECONDS = 0.1  # between checks that the file was not replaced; events need no such check
_WRITE_SECONDS = 30.0
Identity = tuple[int, int]  # device and inode of the log's file
_Row = tuple[str, int, str, int]  # event id, event time, body, time of arrival


@dataclass
class _Batch:
    """Events that one thread appends, and the outcome."""

    rows: list[_Row]
    relayed: bool
    written: bool = False
    stored: int = 0
    fault: StorageError | None = None


class LocalLog(LiveLog):
    """Events of one tenant in order of arrival, in one file for threads and processes."""

    name = "local"
    schemes = ("local",)

    def __init__(self, state: Path, max_backlog: int | None = None) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self.path = state / FILE
        self.max_backlog = max_backlog  # events that may wait for a group; None = any number
        self.group_file = LocalGroups(state)
        self._batches: deque[_Batch] = deque()
        self._writer = threading.Lock()
        self._threads = threading.local()
        self._stored = 0
        self._identity: Identity | None = None
        self._opened = itertools.count()

    @classmethod
    def open(cls, url: str | None, config: Config) -> LocalLog:
        return cls(config.state_path, config.events.max_backlog)

    def _connection(self) -> sqlite3.Connection:
        cached: sqlite3.Connection | None = getattr(self._threads, "connection", None)
        if cached is not None:
            return cached
        if self._identity is not None:
            # raises if the file is lost: a new, empty one would drop every block and opt-out
            self.path.stat()
        connection = sqlite3.connect(self.path, timeout=_READ_SECONDS, isolation_level=None)
        try:
            use_write_ahead(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_SCHEMA)
            _add_columns(connection)
        except sqlite3.Error:
            connection.close()
            raise
        self._threads.connection, self._threads.number = connection, next(self._opened)
        self._identity = self._threads.identity = self._on_disk()
        self._threads.looked = time.monotonic()
        return connection

    def _on_disk(self) -> Identity:
        stat = self.path.stat()
        return stat.st_dev, stat.st_ino

    def append(self, events: Sequence[Event], *, relayed: bool = False) -> int:
        """See ``Log.append``; stores all of a batch or none."""
        if not events:
            return 0
        arrived = time.time_ns() // 1000
        rows = [
            (event.event_id, event.micros, event.model_dump_json(), arrived) for event in events
        ]
        batch = _Batch(rows, relayed)
        self._batches.append(batch)
        # the first thread here writes the batches of all waiting threads: one disk sync for all
        with self._writer:
            if not batch.written:
                self._write_together()
        if batch.fault is not None:
            raise batch.fault
        return batch.stored

    def _write_together(self) -> None:
        # threads that append meanwhile write their batches themselves, after this one
        batches = [self._batches.popleft() for _ in range(len(self._batches))]
        fault = "interrupted"
        try:
            with self._waiting(_WRITE_SECONDS) as connection:
                connection.execute("BEGIN IMMEDIATE")
                with connection:
                    for batch in batches:
                        self._write(connection, batch)
            self._stored += 1
            fault = ""
        except (sqlite3.Error, OSError, StorageError) as error:
            fault = str(error)
        finally:
            for batch in batches:
                batch.written = True
                if fault:
                    batch.fault = StorageError(f"{self.path}: events were not stored: {fault}")

    def _write(self, connection: sqlite3.Connection, batch: _Batch) -> None:
        if not batch.relayed:
            batch.fault = self._fullness(connection)
        if batch.fault is not None:
            return
        before = connection.total_changes
        connection.executemany(
            "INSERT OR IGNORE INTO events (event_id, micros, body, arrived, relayed) "
            f"VALUES (?, ?, ?, ?, {int(batch.relayed)})",
            batch.rows,
        )
        batch.stored = connection.total_changes - before

    def _fullness(self, connection: sqlite3.Connection) -> LogFullError | None:
        """The error that refuses an append, or None; the slowest group decides."""
        slowest = None if self.max_backlog is None else self.group_file.slowest()
        if self.max_backlog is None or slowest is None:
            return None
        group, done = slowest
        (last,) = connection.execute("SELECT max(position) FROM events").fetchone()
        if (last or 0) - done < self.max_backlog:
            return None
        waiting = _count_after(connection, done)  # less than the difference after a purge
        if waiting < self.max_backlog:
            return None
        return LogFullError(
            f"{waiting:,} events wait for the group {group!r}, and events.max_backlog = "
            f"{self.max_backlog:,}: try again later, or, if no consumer reads for it any more, run: "
            f"nextedge events drop-group {group}"
        )

    @contextmanager
    def _waiting(self, seconds: float) -> Iterator[sqlite3.Connection]:
        connection = self._connection()
        connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
        try:
            yield connection
        finally:
            connection.execute(f"PRAGMA busy_timeout = {int(_READ_SECONDS * 1000)}")

    @contextmanager
    def _reading(
        self, unreadable: type[NextEdgeError] = LiveStateError
    ) -> Iterator[sqlite3.Connection]:
        try:
            yield self._connection()
        except (sqlite3.Error, OSError, ValueError) as error:
            self.close()
            raise unreadable(
                f"{self.path}: what changed since the release cannot be read: {error}"
            ) from None

    def read(
        self, after: Position = BEGINNING, limit: int | None = None
    ) -> Iterator[tuple[Position, Event]]:
        """See ``Log.read``; no transaction is open while the caller handles an event."""
        position = int(after or 0)
        left = _ALL if limit is None else limit
        while left > 0:
            size = min(left, _CHUNK)
            rows = self._rows(position, size, LiveStateError)
            for position, body, _ in rows:
                event = readable_event(body)
                if event is not None:
                    left -= 1
                    yield str(position), event
            if len(rows) < size:
                return

    def _rows(
        self, after: int, limit: int, unreadable: type[NextEdgeError]
    ) -> list[tuple[int, str, int]]:
        with self._reading(unreadable) as connection:
            return connection.execute(
                "SELECT position, body, relayed FROM events WHERE position > ? "
                "ORDER BY position LIMIT ?",
                (after, limit),
            ).fetchall()

    def _deliveries(self, after: int, limit: int) -> list[Delivery]:
        return [
            Delivery.of(str(position), body.encode(), relayed=bool(relayed))
            for position, body, relayed in self._rows(after, limit, StorageError)
        ]

    def last_position(self) -> Position:
        with self._reading() as connection:
            row = connection.execute("SELECT max(position) FROM events").fetchone()
        return str(row[0]) if row[0] else BEGINNING

    def generation(self) -> tuple[Identity, int]:
        with self._reading() as connection:
            row = connection.execute("PRAGMA user_version").fetchone()
        return self._threads.identity, int(row[0])

    def changes(self, *, quick: bool = False) -> tuple[Identity, int, int, int]:
        """See ``LiveLog.changes``; ``quick`` looks less often whether the file was replaced."""
        with self._reading() as connection:
            now = time.monotonic()
            if not quick or now - self._threads.looked > _LOOK_SECONDS:
                self._threads.looked = now
                if self._on_disk() != self._threads.identity:
                    self.close()
                    connection = self._connection()
            # comparable within one connection only, so the value includes the connection's number
            row = connection.execute("PRAGMA data_version").fetchone()
        return self._threads.identity, self._threads.number, int(row[0]), self._stored

    def consumer(self, group: str) -> Consumer:
        return LocalConsumer(self.group_file, group, self._deliveries)

    def lag(self, group: str) -> Lag:
        """See ``Log.lag``; the age counts from the arrival of the oldest event."""
        done = self.group_file.done(group)
        with self._reading(StorageError) as connection:
            waiting = _count_after(connection, done)
            oldest = connection.execute(
                "SELECT iif(arrived, arrived, micros) FROM events WHERE position > ? "
                "ORDER BY position LIMIT 1",
                (done,),
            ).fetchone()
        seconds = (time.time_ns() // 1000 - oldest[0]) / 1e6 if oldest else 0.0
        return Lag(waiting, max(0.0, seconds))

    def groups(self) -> list[str]:
        return self.group_file.names()

    def rewind(self, group: str, since_micros: int) -> None:
        with self._reading(StorageError) as connection:
            (first,) = connection.execute(
                "SELECT min(position) FROM events WHERE micros >= ?", (since_micros,)
            ).fetchone()
        if first is not None:
            self.group_file.rewind(group, first - 1)

    def drop(self, group: str) -> None:
        self.group_file.drop(group)

    def dead_letters(self) -> list[DeadLetter]:
        return self.group_file.dead_letters()

    def purge(self, doomed: Sequence[Position]) -> None:
        """See ``LiveLog.purge``; raises if another process does not release the file in time."""
        rows = [(int(position),) for position in doomed]
        self.group_file.purge(rows)
        try:
            with self._waiting(_WRITE_SECONDS) as connection:
                connection.execute("BEGIN IMMEDIATE")
                with connection:
                    (generation,) = connection.execute("PRAGMA user_version").fetchone()
                    connection.executemany("DELETE FROM events WHERE position = ?", rows)
                    connection.execute(f"PRAGMA user_version = {generation + 1}")
                erase_deleted(connection)
            self._stored += 1  # a connection's own writes do not change its data version
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"{self.path}: events were not erased: {error}") from None

    def close(self) -> None:
        """Close this thread's connections."""
        self.group_file.close()
        cached = getattr(self._threads, "connection", None)
        if cached is not None:
            cached.close()
            self._threads.connection = None


def _count_after(connection: sqlite3.Connection, position: int) -> int:
    row = connection.execute("SELECT count(*) FROM events WHERE position > ?", (position,))
    return int(row.fetchone()[0])


def _add_columns(connection: sqlite3.Connection) -> None:
    columns = {row[1] for row in connection.execute("PRAGMA table_info(events)")}
    if columns.issuperset(_LATER_COLUMNS):
        return
    connection.execute("BEGIN IMMEDIATE")
    with connection:  # look again: another process may have added them meanwhile
        columns = {row[1] for row in connection.execute("PRAGMA table_info(events)")}
        for name in _LATER_COLUMNS:
            if name not in columns:
                connection.execute(
                    f"ALTER TABLE events ADD COLUMN {name} INTEGER NOT NULL DEFAULT 0"
                )
