"""The local event log: SQLite in write-ahead mode, on disk before it is acknowledged."""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nextedge.errors import EventError, LiveStateError, LogFullError, NextEdgeError, StorageError
from nextedge.events.event import Event, stored_event
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
_LATER_COLUMNS = ("arrived", "relayed")
"""Which the first logs did not have."""
_CHUNK = 5000
"""Rows that are read at once."""
_ALL = 2**63
_READ_SECONDS = 1.0
"""How long a request waits for a log that somebody has locked."""
_LOOK_SECONDS = 0.1
"""How often a process looks whether the file is still the one it reads; events are seen at once."""
_WRITE_SECONDS = 30.0
Identity = tuple[int, int]
"""Device and number of the log's file."""
_Row = tuple[str, int, str, int]
"""Event id, event time, body, time of arrival."""


@dataclass
class _Batch:
    """What one thread appends, and what became of it."""

    rows: list[_Row]
    relayed: bool
    written: bool = False
    stored: int = 0
    fault: StorageError | None = None


class LocalLog(LiveLog):
    """Events of one tenant in order of arrival; safe for several threads and processes.

    Whoever reads raises ``LiveStateError`` where the file is locked, broken or gone.
    """

    name = "local"
    schemes = ("local",)

    def __init__(self, state: Path, max_backlog: int | None = None) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self.path = state / FILE
        self.max_backlog = max_backlog
        """Events that may wait for a group before more are refused; None = any number."""
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
        kept: sqlite3.Connection | None = getattr(self._threads, "connection", None)
        if kept is not None:
            return kept
        if self._identity is not None:
            self.path.stat()  # a log that is gone is not made anew: its blocks would be gone too
        connection = sqlite3.connect(self.path, timeout=_READ_SECONDS, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
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
        found = self.path.stat()
        return found.st_dev, found.st_ino

    def append(self, events: Sequence[Event], *, relayed: bool = False) -> int:
        """Store events durably; returns how many were new (an event id counts once).

        Threads that append at the same time are written together, by one of them: the disk is
        asked once for all.

        Raises:
            LogFullError: too many wait for a group; nothing of the batch is stored.
            StorageError: the disk refuses; nothing of the batch is stored.
        """
        if not events:
            return 0
        arrived = time.time_ns() // 1000
        rows = [(each.event_id, each.micros, each.model_dump_json(), arrived) for each in events]
        batch = _Batch(rows, relayed)
        self._batches.append(batch)
        with self._writer:
            if not batch.written:
                self._write_together()
        if batch.fault is not None:
            raise batch.fault
        return batch.stored

    def _write_together(self) -> None:
        """Write every batch that waits; each is told what became of it."""
        batches: list[_Batch] = []
        with suppress(IndexError):
            while True:
                batches.append(self._batches.popleft())
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
        """What refuses more events: too many wait for the group that is furthest behind."""
        behind = None if self.max_backlog is None else self.group_file.furthest_behind()
        if self.max_backlog is None or behind is None:
            return None
        group, done = behind
        (last,) = connection.execute("SELECT max(position) FROM events").fetchone()
        if (last or 0) - done < self.max_backlog:
            return None
        waiting = _count_after(connection, done)  # fewer, where events have been taken out
        if waiting < self.max_backlog:
            return None
        return LogFullError(
            f"{waiting:,} events wait for the group {group!r}, and no more than "
            f"events.max_backlog = {self.max_backlog:,} may; try again when it has them, or, if "
            f"nobody reads for it any more, run: nextedge events drop-group {group}"
        )

    @contextmanager
    def _waiting(self, seconds: float) -> Iterator[sqlite3.Connection]:
        """This thread's connection, more patient than usual with others' locks."""
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
        """Events after a position, in order, with their positions.

        Nothing is held open while the caller is busy with an event.
        """
        place = int(after or 0)
        left = _ALL if limit is None else limit
        while left > 0:
            asked = min(left, _CHUNK)
            rows = self._rows(place, asked, LiveStateError)
            for place, body, _ in rows:
                event = _readable(body)
                if event is not None:
                    left -= 1
                    yield str(place), event
            if len(rows) < asked:
                return

    def _rows(
        self, after: int, limit: int, unreadable: type[NextEdgeError]
    ) -> list[tuple[int, str, int]]:
        """Position, body and whether it was relayed, of events after a position."""
        with self._reading(unreadable) as connection:
            return connection.execute(
                "SELECT position, body, relayed FROM events WHERE position > ? "
                "ORDER BY position LIMIT ?",
                (after, limit),
            ).fetchall()

    def _deliveries(self, after: int, limit: int) -> list[Delivery]:
        """Events after a position as consumers get them.

        Raises:
            StorageError: the log cannot be read.
        """
        return [
            Delivery.of(str(place), body.encode(), relayed=bool(relayed))
            for place, body, relayed in self._rows(after, limit, StorageError)
        ]

    def last_position(self) -> Position:
        """Position of the latest event; empty when there is none."""
        with self._reading() as connection:
            row = connection.execute("SELECT max(position) FROM events").fetchone()
        return str(row[0]) if row[0] else BEGINNING

    def generation(self) -> tuple[Identity, int]:
        """Differs when events that were read have been taken out since, or the file replaced."""
        with self._reading() as connection:
            row = connection.execute("PRAGMA user_version").fetchone()
        return self._threads.identity, int(row[0])

    def changes(self, *, quick: bool = False) -> tuple[Identity, int, int, int]:
        """Differs whenever anyone, in this process or another, has stored events since.

        SQLite's data version means nothing beyond its connection, so the connection's number is in it.

        Args:
            quick: look only every tenth of a second whether the file itself was replaced or is gone.
        """
        with self._reading() as connection:
            now = time.monotonic()
            if not quick or now - self._threads.looked > _LOOK_SECONDS:
                self._threads.looked = now
                if self._on_disk() != self._threads.identity:
                    self.close()
                    connection = self._connection()
            row = connection.execute("PRAGMA data_version").fetchone()
        return self._threads.identity, self._threads.number, int(row[0]), self._stored

    def consumer(self, group: str) -> Consumer:
        """A new member of a group; a new group begins at the first event."""
        return LocalConsumer(self.group_file, group, self._deliveries)

    def lag(self, group: str) -> Lag:
        """How far a group is behind; the age is that since an event arrived."""
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
        """Names of the groups that are reading, or have read."""
        return self.group_file.names()

    def rewind(self, group: str, since_micros: int) -> None:
        """Let a group have all events again that are not older (event time) than so."""
        with self._reading(StorageError) as connection:
            (first,) = connection.execute(
                "SELECT min(position) FROM events WHERE micros >= ?", (since_micros,)
            ).fetchone()
        if first is not None:
            self.group_file.rewind(group, first - 1)

    def drop(self, group: str) -> None:
        """Forget how far a group is; its dead letters stay."""
        self.group_file.drop(group)

    def dead_letters(self) -> list[DeadLetter]:
        """What groups gave up, oldest first."""
        return self.group_file.dead_letters()

    def purge(self, doomed: Sequence[Position]) -> None:
        """Take events out by position, with every byte of theirs.

        Raises:
            StorageError: the disk refuses, or another process did not let go of the file in time.
        """
        self.group_file.purge([int(each) for each in doomed])
        try:
            with self._waiting(_WRITE_SECONDS) as connection:
                connection.execute("BEGIN IMMEDIATE")
                with connection:
                    (generation,) = connection.execute("PRAGMA user_version").fetchone()
                    connection.executemany(
                        "DELETE FROM events WHERE position = ?", [(int(each),) for each in doomed]
                    )
                    connection.execute(f"PRAGMA user_version = {generation + 1}")
                erase_deleted(connection)
            self._stored += 1  # what this connection does is no change of its data version
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"{self.path}: events were not erased: {error}") from None

    def close(self) -> None:
        """Close this thread's connections."""
        self.group_file.close()
        kept = getattr(self._threads, "connection", None)
        if kept is not None:
            kept.close()
            self._threads.connection = None


def _readable(body: str) -> Event | None:
    try:
        return stored_event(body)
    except EventError:
        return None


def _count_after(connection: sqlite3.Connection, position: int) -> int:
    row = connection.execute("SELECT count(*) FROM events WHERE position > ?", (position,))
    return int(row.fetchone()[0])


def _add_columns(connection: sqlite3.Connection) -> None:
    """Give a log of an earlier version what it lacks."""
    found = {row[1] for row in connection.execute("PRAGMA table_info(events)")}
    if found.issuperset(_LATER_COLUMNS):
        return
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        found = {row[1] for row in connection.execute("PRAGMA table_info(events)")}
        for name in _LATER_COLUMNS:
            if name not in found:
                connection.execute(
                    f"ALTER TABLE events ADD COLUMN {name} INTEGER NOT NULL DEFAULT 0"
                )
