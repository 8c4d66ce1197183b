"""The request log: the impressions of each response, with ranks, propensities and features.

Requests never wait for it: rows go through a bounded queue to one writing thread. A clean stop loses
nothing, and rows that a full queue or a failing disk loses are counted. Each row has a fingerprint
of its features, and a share of rows has the features, which ``nextedge evaluate --parity`` compares
with those of the batch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import sqlite3
import time
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nextedge.config import ServingConfig
from nextedge.data.erased_users import ErasedUsers
from nextedge.errors import StorageError
from nextedge.events.logs.sqlite.erase import erase_deleted
from nextedge.storage.write_behind import WriteBehind
from nextedge.types import MICROSECONDS_PER_DAY, FloatArray, Identifier

FILE = "requests.sqlite"
_log = logging.getLogger("nextedge")
_ID_BYTES = 16
_TIDY_SECONDS = 600.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    recommendation_id TEXT NOT NULL UNIQUE,
    micros INTEGER NOT NULL,
    release TEXT NOT NULL,
    body TEXT NOT NULL,
    features BLOB
);
CREATE TABLE IF NOT EXISTS repeated (
    of_id TEXT NOT NULL, micros INTEGER NOT NULL, recommendation_ids BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS requests_by_time ON requests (micros);
"""


@dataclass(frozen=True)
class LoggedRequest:
    """One response of the request log.

    Attributes:
        micros: microseconds UTC for which the features were computed.
        candidates: ids in order of their ranks; None for an erased user.
        scores, propensities: of each candidate.
        fingerprint: hash of the features.
        found: position in ``candidates`` of each one with features (backfill has none).
        features: float32[len(found), F], for a share of the requests.
        edges: id of the live edges that they were computed from; None for more than one set.
    """

    recommendation_id: str
    micros: int
    release: str
    surface: str
    user_id: Identifier
    k: int
    context: dict[str, str]
    candidates: list[Identifier | None]
    scores: list[float]
    propensities: list[float]
    degraded: list[str]
    fingerprint: str
    found: list[int] = field(default_factory=list)
    features: FloatArray | None = None
    edges: str | None = ""


def fingerprint(features: FloatArray) -> str:
    """16 hexadecimal digits that change with any bit of the features."""
    return hashlib.blake2b(np.ascontiguousarray(features).tobytes(), digest_size=8).hexdigest()


class RequestLog:
    """The request log of one tenant; a background thread writes it."""

    def __init__(
        self, state: Path, settings: ServingConfig, people: Container[str] = ("people",)
    ) -> None:
        """``people``: names of the surfaces whose candidates are users."""
        state.mkdir(parents=True, exist_ok=True)
        self.people = people
        self._erased = ErasedUsers(state)
        self.path = state / FILE
        self.settings = settings
        self._failed = 0
        self._tidied = -_TIDY_SECONDS
        self._queue: WriteBehind[LoggedRequest | tuple[str, str]]
        self._queue = WriteBehind("request-log", self._write, settings.log_queue)
        self._random = random.Random()

    def keeps_features(self) -> bool:
        """Whether to log the features of the next request: true for a random share."""
        return self._random.random() < self.settings.log_features_share

    def append(self, request: LoggedRequest) -> None:
        """Queue a request for writing; never waits, never raises."""
        self._queue.put(request)

    def repeat(self, recommendation_id: str, of_id: str) -> None:
        """Queue a cached response that was sent again, under a new id."""
        self._queue.put((recommendation_id, of_id))

    @property
    def lost(self) -> int:
        """Requests that were not logged: the queue was full, or the disk failed."""
        return self._queue.dropped + self._failed

    def repeats(self) -> dict[str, str]:
        """The ids of cached responses, with the ids of the responses that they repeat."""
        if not self.path.exists():
            return {}
        with _Transaction(self.path) as connection:
            rows = connection.execute("SELECT of_id, recommendation_ids FROM repeated").fetchall()
        return {repeat_id: of_id for of_id, blob in rows for repeat_id in _ids_of(blob)}

    def answers(self, ids: Iterable[str]) -> list[tuple[str, int, LoggedRequest]]:
        """The logged responses of some recommendation ids: id, time (µs) and response.

        A cached response has its own id and time, and the response that it repeats.
        """
        wanted = set(ids)
        if not wanted or not self.path.exists():
            return []
        with _Transaction(self.path) as connection:
            connection.execute("CREATE TEMP TABLE wanted (id TEXT PRIMARY KEY)")
            repeated = [
                (repeat_id, micros, of_id)
                for of_id, micros, blob in connection.execute("SELECT * FROM repeated")
                for repeat_id in _ids_of(blob)
                if repeat_id in wanted
            ]
            named = wanted | {of_id for _, _, of_id in repeated}
            connection.executemany("INSERT INTO wanted VALUES (?)", ((name,) for name in named))
            bodies = connection.execute(
                "SELECT body FROM requests JOIN wanted ON recommendation_id = id"
            ).fetchall()
        rows = [_decoded(json.loads(body), None) for (body,) in bodies]
        by_id = {row.recommendation_id: row for row in rows}
        first = [(name, by_id[name].micros, name) for name in wanted & by_id.keys()]
        return [(name, at, by_id[of]) for name, at, of in first + repeated if of in by_id]

    def close(self) -> None:
        """Write every queued request and stop the thread."""
        self._queue.close()

    def read(self, *, features: bool = False) -> Iterator[LoggedRequest]:
        """Logged requests in order; with ``features`` only those with logged features."""
        if not self.path.exists():
            return
        where = "WHERE features IS NOT NULL" if features else ""
        with _Transaction(self.path) as connection:
            rows = connection.execute(
                f"SELECT body, features FROM requests {where} ORDER BY position"
            )
            for body, blob in rows:
                yield _decoded(json.loads(body), blob)

    def _redacted(self, request: LoggedRequest) -> LoggedRequest | None:
        """A request without erased users: None for one of theirs, None in place of a candidate."""
        if not len(self._erased):
            return request
        if request.user_id in self._erased:
            return None
        if request.surface not in self.people:
            return request
        gone = set(self._erased.among(request.candidates))
        if not gone:
            return request
        left = [None if candidate in gone else candidate for candidate in request.candidates]
        return replace(request, candidates=left, found=[], features=None)

    def forget(self) -> int:
        """Erase erased users from the file; returns the number of rows that changed.

        Raises:
            StorageError: the file cannot be written, or another process locks it for too long.
        """
        if not self.path.exists():
            return 0
        changed = 0
        try:
            with _Transaction(self.path) as connection:
                rows = connection.execute("SELECT position, body, features FROM requests")
                for position, body, blob in rows.fetchall():
                    request = _decoded(json.loads(body), blob)
                    redacted = self._redacted(request)
                    if redacted is request:
                        continue
                    changed += 1
                    if redacted is None:
                        delete = "DELETE FROM requests WHERE position = ?"
                        connection.execute(delete, (position,))
                        delete = "DELETE FROM repeated WHERE of_id = ?"
                        connection.execute(delete, (request.recommendation_id,))
                    else:
                        text = _encoded(redacted)[3]
                        update = "UPDATE requests SET body = ?, features = NULL WHERE position = ?"
                        connection.execute(update, (text, position))
            with closing(sqlite3.connect(self.path, timeout=30)) as connection:
                erase_deleted(connection)
        except sqlite3.Error as error:
            raise StorageError(f"{self.path}: cannot erase requests: {error}") from None
        return changed

    def _write(self, batch: list[LoggedRequest | tuple[str, str]]) -> None:
        logged = (self._redacted(row) for row in batch if isinstance(row, LoggedRequest))
        rows = [_encoded(row) for row in logged if row is not None]
        repeats = _grouped([row for row in batch if isinstance(row, tuple)])
        try:
            with _Transaction(self.path) as connection:
                connection.executescript(_SCHEMA)
                connection.executemany(
                    "INSERT OR IGNORE INTO requests "
                    "(recommendation_id, micros, release, body, features) VALUES (?, ?, ?, ?, ?)",
                    rows,
                )
                connection.executemany("INSERT INTO repeated VALUES (?, ?, ?)", repeats)
                if time.monotonic() - self._tidied > _TIDY_SECONDS:
                    self._tidied = time.monotonic()
                    oldest = time.time() * 1e6 - self.settings.log_days * MICROSECONDS_PER_DAY
                    for table in ("requests", "repeated"):
                        connection.execute(f"DELETE FROM {table} WHERE micros < ?", (int(oldest),))
        except sqlite3.Error as error:
            self._failed += len(batch)
            _log.warning("%s: %d requests were not logged: %s", self.path, len(batch), error)


def _ids_of(blob: bytes) -> Iterator[str]:
    """The recommendation ids of a row of repeats."""
    return (blob[at : at + _ID_BYTES].hex() for at in range(0, len(blob), _ID_BYTES))


def _grouped(repeats: Sequence[tuple[str, str]]) -> list[tuple[str, int, bytes]]:
    """Rows of ``repeated``: response, time, and the ids of its repeats in the batch."""
    # a row a repeat would cost as much as sending it
    ids: defaultdict[str, list[str]] = defaultdict(list)
    for recommendation_id, of_id in repeats:
        ids[of_id].append(recommendation_id)
    now = int(time.time() * 1e6)
    return [(of_id, now, bytes.fromhex("".join(names))) for of_id, names in ids.items()]


class _Transaction:
    """A connection for one transaction, closed after it."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, timeout=30)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = NORMAL")

    def __enter__(self) -> sqlite3.Connection:
        return self.connection

    def __exit__(self, kind: Any, *_: object) -> None:
        self.connection.commit() if kind is None else self.connection.rollback()
        self.connection.close()


def _encoded(request: LoggedRequest) -> tuple[str, int, str, str, bytes | None]:
    body = asdict(request)
    features = body.pop("features")
    blob = None if features is None else np.ascontiguousarray(features, np.float32).tobytes()
    return request.recommendation_id, request.micros, request.release, json.dumps(body), blob


def _decoded(body: dict[str, Any], blob: bytes | None) -> LoggedRequest:
    features = None
    if blob is not None:
        rows: Sequence[int] = body["found"]
        features = np.frombuffer(blob, np.float32).reshape(len(rows), -1)
    return LoggedRequest(**body, features=features)
