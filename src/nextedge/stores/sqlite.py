"""A store in an SQLite file, shared by the processes of one machine; it survives restarts."""

from __future__ import annotations

import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from nextedge.errors import ConfigError, StoreError
from nextedge.storage.write_ahead import use_write_ahead
from nextedge.stores.store import Key, Store, positive

_AT_ONCE = 10_000  # keys of one statement; SQLite allows 32,766
_PURGE_SECONDS = 60.0
_PAGE_BYTES = 32768
_MAPPED_BYTES = 1 << 40
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, value BLOB NOT NULL, ends REAL);
CREATE INDEX IF NOT EXISTS entries_by_end ON entries (ends) WHERE ends IS NOT NULL;
"""
_PUT = """
INSERT INTO entries (key, value, ends) VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, ends = excluded.ends
"""
_LIVE = "(ends IS NULL OR ends > ?)"


class _Connection(sqlite3.Connection):
    """A connection that allows weak references, so that it closes with its thread."""


class SQLiteStore(Store):
    """One file in write-ahead mode, one connection a thread; a batch is one transaction."""

    name = "sqlite"
    schemes = ("sqlite",)
    shared = True

    def __init__(self, path: Path, namespace: str, timeout_seconds: float = 1.0) -> None:
        super().__init__(namespace)
        self.path = path
        self.timeout_seconds = timeout_seconds
        self._threads = threading.local()
        self._connections: weakref.WeakSet[_Connection] = weakref.WeakSet()
        self._opening = threading.Lock()
        self._purged = time.monotonic()

    @classmethod
    def open(cls, url: str, namespace: str, timeout_seconds: float, base: Path) -> SQLiteStore:
        parts = urlsplit(url)
        if parts.netloc or len(parts.path) < 2:
            raise ConfigError(f"store: {url}: expected sqlite:///path or sqlite:////absolute/path")
        return cls(base / unquote(parts.path[1:]), namespace, timeout_seconds)

    def get_many(self, keys: Sequence[Key]) -> list[bytes | None]:
        full = [self._full(key) for key in keys]
        values: dict[bytes, bytes] = {}
        with self._transaction() as connection:
            for part in _parts(full):
                marks = ", ".join("?" * len(part))
                values |= dict(
                    connection.execute(
                        f"SELECT key, value FROM entries WHERE key IN ({marks}) AND {_LIVE}",
                        (*part, time.time()),
                    )
                )
        return [values.get(key) for key in full]

    def put_many(self, values: Mapping[Key, bytes], seconds: float | None = None) -> None:
        """See ``Store.put_many``; stores all of a batch or none."""
        limit = positive(seconds)
        ends = None if limit is None else time.time() + limit
        rows = [(self._full(key), value, ends) for key, value in values.items()]
        with self._transaction("BEGIN IMMEDIATE") as connection:
            connection.executemany(_PUT, rows)
        if time.monotonic() - self._purged > _PURGE_SECONDS:
            self.purge()

    def delete_many(self, keys: Sequence[Key]) -> int:
        deleted = 0
        with self._transaction("BEGIN IMMEDIATE") as connection:
            for part in _parts(list(dict.fromkeys(self._full(key) for key in keys))):
                marks = ", ".join("?" * len(part))
                deleted += connection.execute(
                    f"DELETE FROM entries WHERE key IN ({marks}) AND {_LIVE}", (*part, time.time())
                ).rowcount
        return deleted

    def delete_prefix(self, prefix: Key = b"") -> int:
        with self._transaction("BEGIN IMMEDIATE") as connection:
            within = _range(self._full(prefix))
            deleted = connection.execute(
                f"DELETE FROM entries WHERE key >= ? AND key < ? AND {_LIVE}",
                (*within, time.time()),
            ).rowcount
            # Expired values are deleted, too, but not counted.
            connection.execute("DELETE FROM entries WHERE key >= ? AND key < ?", within)
        return deleted

    def keys(self, prefix: Key = b"") -> Iterator[bytes]:
        with self._transaction() as connection:
            rows = connection.execute(
                f"SELECT key FROM entries WHERE key >= ? AND key < ? AND {_LIVE}",
                (*_range(self._full(prefix)), time.time()),
            ).fetchall()
        yield from (self._bare(full) for (full,) in rows)

    def purge(self) -> int:
        """Delete expired values of all namespaces; ``put_many`` calls it once a minute."""
        self._purged = time.monotonic()
        with self._transaction("BEGIN IMMEDIATE") as connection:
            return connection.execute(
                "DELETE FROM entries WHERE ends <= ?", (time.time(),)
            ).rowcount

    def close(self) -> None:
        with self._opening:
            self._threads = threading.local()
            for connection in list(self._connections):
                connection.close()
            self._connections.clear()

    @contextmanager
    def _transaction(self, begin: str = "BEGIN") -> Iterator[sqlite3.Connection]:
        """This thread's connection in a transaction; errors of SQLite become a StoreError."""
        try:
            connection = self._connection()
            connection.execute(begin)
            with connection:
                yield connection
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}") from None

    def _connection(self) -> sqlite3.Connection:
        connection: _Connection | None = getattr(self._threads, "connection", None)
        if connection is None:
            # close() may run in another thread
            connection = sqlite3.connect(
                self.path,
                timeout=self.timeout_seconds,
                isolation_level=None,
                check_same_thread=False,
                factory=_Connection,
            )
            with self._opening:
                # values have hundreds of kB: large mapped pages are read without a copy
                connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
                connection.execute(f"PRAGMA mmap_size = {_MAPPED_BYTES}")
                use_write_ahead(connection)
                # A crash may lose the last values, which can be computed again.
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.executescript(_SCHEMA)
                self._connections.add(connection)
            self._threads.connection = connection
        return connection


def _parts(keys: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(keys), _AT_ONCE):
        yield keys[start : start + _AT_ONCE]


def _range(prefix: bytes) -> tuple[bytes, bytes]:
    """The first key with a prefix, and the first key after all of them."""
    # never empty: every full key begins with "ne:"
    body = prefix.rstrip(b"\xff")
    return prefix, body[:-1] + bytes([body[-1] + 1])
