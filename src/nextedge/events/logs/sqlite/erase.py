"""Rows that are deleted from SQLite stay in the file until something erases them."""

from __future__ import annotations

import sqlite3


def erase_deleted(connection: sqlite3.Connection) -> None:
    """Leave no byte of deleted rows: neither in free pages nor in the write-ahead log.

    Raises:
        sqlite3.OperationalError: another process is reading; nothing is lost, try again.
    """
    connection.execute("VACUUM")
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise sqlite3.OperationalError("another process is reading it; run it again")
