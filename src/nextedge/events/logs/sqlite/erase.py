"""Erase deleted rows from a SQLite file."""

from __future__ import annotations

import sqlite3


def erase_deleted(connection: sqlite3.Connection) -> None:
    """Remove every byte of deleted rows, in free pages and in the write-ahead log.

    Raises:
        sqlite3.OperationalError: another process is reading; nothing is lost, try again.
    """
    connection.execute("VACUUM")  # DELETE leaves the bytes in free pages
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise sqlite3.OperationalError("another process is reading it; run it again")
