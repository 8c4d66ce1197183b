"""The local event log: SQLite in write-ahead mode, on disk before it is acknowledged."""

from __future__ import annotations

import itertools
import math
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nextedge.errors import LiveStateError, StorageError
from nextedge.events.event import Event, stored_event
from nextedge.events.log import BEGINNING, Consumer, DeadLetter, Lag, LiveLog, Position

if TYPE_CHECKING:
    from nextedge.config import Config

FILE = "events.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    micros INTEGER NOT NULL,
    body TEXT NOT NULL
);
"""
_READ_SECONDS = 1.0
"""How long a request waits for a log that somebody has locked."""
_LOOK_SECONDS = 0.1
"""How often a process looks whether the file is still the one it reads; events are seen at once."""
_CHUNK = 500
"""Events that are read at once."""
_WRITE_SECONDS = 30.0
Identity = tuple[int, int]
"""Device and number of the log's file."""


class LocalLog(LiveLog):
    """Events of one tenant in order of arrival; safe for several threads and processes.

    Whoever reads raises ``LiveStateError`` where the file is locked, broken or gone.
    """

    name = "local"
    schemes = ("local",)

    def __init__(self, state: Path) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self.path = state / FILE
        self._threads = threading.local()
        self._stored = 0
        self._identity: Identity | None = None
        self._opened = itertools.count()

    @classmethod
    def open(cls, url: str | None, config: Config) -> LocalLog:
        return cls(config.state_path)

    def _connection(self) -> sqlite3.Connection:
        kept: sqlite3.Connection | None = getattr(self._threads, "connection", None)
        if kept is not None:
            return kept
        if self._identity is not None:
            self.path.stat()  # a log that is gone is not made anew: its blocks would be gone too
        connection = sqlite3.connect(self.path, timeout=_READ_SECONDS)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_SCHEMA)
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

    def append(self, events: Sequence[Event]) -> int:
        """Store events durably; returns how many were new (an event id counts once).

        Raises:
            StorageError: the disk refuses; nothing of the batch is stored.
        """
        rows = [(event.event_id, event.micros, event.model_dump_json()) for event in events]
        try:
            with self._waiting(_WRITE_SECONDS) as connection, connection:
                before = connection.total_changes
                connection.executemany(
                    "INSERT OR IGNORE INTO events (event_id, micros, body) VALUES (?, ?, ?)", rows
                )
                stored = connection.total_changes - before
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"{self.path}: events were not stored: {error}") from None
        self._stored += 1
        return stored

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
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._connection()
        except (sqlite3.Error, OSError, ValueError) as error:
            self.close()
            raise LiveStateError(
                f"{self.path}: what changed since the release cannot be read: {error}"
            ) from None

    def read(
        self, after: Position = BEGINNING, limit: int | None = None
    ) -> Iterator[tuple[Position, Event]]:
        """Events after a position, in order, with their positions."""
        place, left = int(after or 0), math.inf if limit is None else limit
        while left > 0:
            with self._reading() as connection:
                rows = connection.execute(
                    "SELECT position, body FROM events WHERE position > ? ORDER BY position LIMIT ?",
                    (place, min(_CHUNK, left)),
                ).fetchall()
            for place, body in rows:
                yield str(place), stored_event(body)
            if len(rows) < _CHUNK:
                return
            left -= len(rows)

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
        raise NotImplementedError(group)

    def lag(self, group: str) -> Lag:
        raise NotImplementedError(group)

    def groups(self) -> list[str]:
        return []

    def rewind(self, group: str, since_micros: int) -> None:
        raise NotImplementedError(group)

    def dead_letters(self) -> list[DeadLetter]:
        return []

    def purge(self, doomed: Sequence[Position]) -> None:
        """Take events out by position, with every byte of theirs.

        Raises:
            StorageError: the disk refuses, or another process did not let go of the file in time.
        """
        try:
            with self._waiting(_WRITE_SECONDS) as connection:
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
        """Close this thread's connection."""
        kept = getattr(self._threads, "connection", None)
        if kept is not None:
            kept.close()
            self._threads.connection = None


def erase_deleted(connection: sqlite3.Connection) -> None:
    """Leave no byte of deleted rows: neither in free pages nor in the write-ahead log.

    Raises:
        sqlite3.OperationalError: another process is reading; nothing is lost, try again.
    """
    connection.execute("VACUUM")
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise sqlite3.OperationalError("another process is reading it; run it again")
