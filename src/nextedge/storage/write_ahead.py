"""Write-ahead mode of SQLite: readers do not wait for a writer."""

from __future__ import annotations

import sqlite3
import time


def use_write_ahead(connection: sqlite3.Connection) -> None:
    """Switch a file to write-ahead mode; waits for other connections up to its ``timeout``.

    Raises:
        sqlite3.OperationalError: the file is still locked after the timeout.
    """
    (wait_ms,) = connection.execute("PRAGMA busy_timeout").fetchone()
    until = time.monotonic() + wait_ms / 1000
    # SQLite does not wait for a writer here: of processes that open a new file at once, one fails
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.005)
