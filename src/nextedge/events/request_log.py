"""The request log: what was shown to whom, at which place, with which chance and features.

Requests never wait for it: rows go through a bounded queue to one writing thread. A stop that
closes the log loses nothing; what a full queue or a refusing disk loses is counted. Fingerprints
of the features are kept for every request and the features themselves for a share, so that they
can be compared with what is computed offline (``nextedge evaluate --parity``).
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
    """One answer, as it was given.

    Attributes:
        micros: microseconds UTC for which the features were computed.
        candidates: ids in order of their places, None where one was forgotten since.
        scores, propensities: of each candidate.
        fingerprint: hash of the features of the candidates that a source found.
        found: place of each candidate that has features (backfill has none).
        features: float32[len(found), F], for the share of requests that keeps them.
        edges: which live edges they follow from; None where that is not one set of them.
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
    """16 hexadecimal digits that differ where any bit of the features does."""
    return hashlib.blake2b(np.ascontiguousarray(features).tobytes(), digest_size=8).hexdigest()


class RequestLog:
    """Requests of one tenant, written by a thread of their own; read back in order."""

    def __init__(
        self, state: Path, settings: ServingConfig, people: Container[str] = ("people",)
    ) -> None:
        """``people``: names of the surfaces whose candidates are users."""
        state.mkdir(parents=True, exist_ok=True)
        self.people = people
        self.forgotten = ErasedUsers(state)
        self.path = state / FILE
        self.settings = settings
        self._failed = 0
        self._tidied = -_TIDY_SECONDS
        self._queue: WriteBehind[LoggedRequest | tuple[str, str]]
        self._queue = WriteBehind("request-log", self._write, settings.log_queue)
        self._random = random.Random()

    def keeps_features(self) -> bool:
        """Whether the next request's features are kept: a random share."""
        return self._random.random() < self.settings.log_features_share

    def append(self, request: LoggedRequest) -> None:
        """Queue a request to be written; never waits, never raises."""
        self._queue.put(request)

    def repeat(self, recommendation_id: str, of_id: str) -> None:
        """Queue that an answer was sent again, under an id of its own."""
        self._queue.put((recommendation_id, of_id))

    @property
    def lost(self) -> int:
        """Requests that were not logged: the queue was full, or the disk refused."""
        return self._queue.dropped + self._failed

    def repeats(self) -> dict[str, str]:
        """Answers that were sent again: their ids and those of the answers they repeat."""
        if not self.path.exists():
            return {}
        with _Transaction(self.path) as connection:
            rows = connection.execute("SELECT of_id, recommendation_ids FROM repeated").fetchall()
        size = _ID_BYTES
        return {
            ids[start : start + size].hex(): of_id
            for of_id, ids in rows
            for start in range(0, len(ids), size)
        }

    def answers(self, ids: Iterable[str]) -> list[tuple[str, int, LoggedRequest]]:
        """Of these recommendation ids those that were given out: when (µs), and with what answer.

        One that was sent again under an id of its own is found under that id, at its own time.
        """
        wanted = set(ids)
        if not wanted or not self.path.exists():
            return []
        with _Transaction(self.path) as connection:
            connection.execute("CREATE TEMP TABLE wanted (id TEXT PRIMARY KEY)")
            repeated: list[tuple[str, int, str]] = []
            for of_id, micros, blob in connection.execute("SELECT * FROM repeated"):
                places = range(0, len(blob), _ID_BYTES)
                own = (blob[place : place + _ID_BYTES].hex() for place in places)
                repeated += [(each, micros, of_id) for each in own if each in wanted]
            named = wanted | {of_id for _, _, of_id in repeated}
            connection.executemany("INSERT INTO wanted VALUES (?)", ((each,) for each in named))
            found = connection.execute(
                "SELECT body FROM requests JOIN wanted ON recommendation_id = id"
            ).fetchall()
        rows = [_decoded(json.loads(body), None) for (body,) in found]
        given = {row.recommendation_id: row for row in rows}
        first = [(each, given[each].micros, each) for each in wanted & given.keys()]
        return [(own, at, given[of]) for own, at, of in first + repeated if of in given]

    def close(self) -> None:
        """Write every queued request and stop the thread."""
        self._queue.close()

    def read(self, *, features: bool = False) -> Iterator[LoggedRequest]:
        """Logged requests in order; with ``features`` only those that kept theirs."""
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
        """A request without the forgotten: None where one asked, an empty place where one is shown."""
        if not len(self.forgotten):
            return request
        if request.user_id in self.forgotten:
            return None
        if request.surface not in self.people:
            return request
        gone = set(self.forgotten.among(request.candidates))
        if not gone:
            return request
        left = [None if each in gone else each for each in request.candidates]
        return replace(request, candidates=left, found=[], features=None)

    def forget(self) -> int:
        """Take the forgotten out of what was written, every byte; returns the rows that changed.

        Raises:
            StorageError: the disk refuses, or another process did not let go of the file in time.
        """
        if not self.path.exists():
            return 0
        changed = 0
        try:
            with _Transaction(self.path) as connection:
                found = connection.execute("SELECT position, body, features FROM requests")
                for position, body, blob in found.fetchall():
                    request = _decoded(json.loads(body), blob)
                    left = self._redacted(request)
                    if left is request:
                        continue
                    changed += 1
                    if left is not None:
                        _, _, _, text, _ = _encoded(left)
                        connection.execute(
                            "UPDATE requests SET body = ?, features = NULL WHERE position = ?",
                            (text, position),
                        )
                        continue
                    connection.execute("DELETE FROM requests WHERE position = ?", (position,))
                    connection.execute(
                        "DELETE FROM repeated WHERE of_id = ?", (request.recommendation_id,)
                    )
            connection = sqlite3.connect(self.path, timeout=30)
            try:
                erase_deleted(connection)
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise StorageError(f"{self.path}: requests were not erased: {error}") from None
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


def _grouped(repeats: Sequence[tuple[str, str]]) -> list[tuple[str, int, bytes]]:
    """One row for all answers of a batch that repeat the same: a row each would cost as much as
    sending it.
    """
    ids: defaultdict[str, list[str]] = defaultdict(list)
    for recommendation_id, of_id in repeats:
        ids[of_id].append(recommendation_id)
    now = int(time.time() * 1e6)
    return [(of_id, now, bytes.fromhex("".join(each))) for of_id, each in ids.items()]


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
