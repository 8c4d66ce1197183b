"""The local event log: SQLite in write-ahead mode, on disk before it is acknowledged."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from nextedge.errors import StorageError
from nextedge.events.event import Event

FILE = "events.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    micros INTEGER NOT NULL,
    body TEXT NOT NULL
);
"""


class LocalLog:
    """Events of one tenant in order of arrival; safe for several threads and processes."""

    def __init__(self, state: Path) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self.path = state / FILE
        self._threads = threading.local()
        self._stored = 0
        with self._connection() as connection:
            connection.executescript(_SCHEMA)

    def _connection(self) -> sqlite3.Connection:
        kept: sqlite3.Connection | None = getattr(self._threads, "connection", None)
        if kept is None:
            kept = sqlite3.connect(self.path, timeout=30)
            kept.execute("PRAGMA journal_mode = WAL")
            kept.execute("PRAGMA synchronous = FULL")
            self._threads.connection = kept
        return kept

    def append(self, events: Sequence[Event]) -> int:
        """Store events durably; returns how many were new (an event id counts once).

        Raises:
            StorageError: the disk refuses; nothing of the batch is stored.
        """
        rows = [(event.event_id, event.micros, event.model_dump_json()) for event in events]
        try:
            with self._connection() as connection:
                before = connection.total_changes
                connection.executemany(
                    "INSERT OR IGNORE INTO events (event_id, micros, body) VALUES (?, ?, ?)", rows
                )
                stored = connection.total_changes - before
            self._stored += 1
            return stored
        except sqlite3.OperationalError as error:
            raise StorageError(f"{self.path}: events were not stored: {error}") from None

    def read(self, after: int = 0) -> Iterator[tuple[int, Event]]:
        """Events after a position, in order, with their positions."""
        rows = self._connection().execute(
            "SELECT position, body FROM events WHERE position > ? ORDER BY position", (after,)
        )
        for position, body in rows.fetchall():
            yield position, Event.model_validate(json.loads(body))

    def last_position(self) -> int:
        """Position of the latest event, 0 when there is none."""
        row = self._connection().execute("SELECT max(position) FROM events").fetchone()
        return int(row[0] or 0)

    @classmethod
    def position(cls, state: Path) -> int:
        """Position of the latest event of a state folder, without making one."""
        return cls(state).last_position() if (state / FILE).exists() else 0

    def changes(self) -> tuple[int, int]:
        """Differs whenever anyone, in this process or another, has stored events since."""
        row = self._connection().execute("PRAGMA data_version").fetchone()
        return int(row[0]), self._stored

    def close(self) -> None:
        """Close this thread's connection."""
        kept = getattr(self._threads, "connection", None)
        if kept is not None:
            kept.close()
            self._threads.connection = None
