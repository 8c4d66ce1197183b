"""The request log: every recommendation, with positions, propensities and feature fingerprints.

Requests never wait for it: rows go through a bounded queue to one writing thread. ``lost`` counts
the rows that a full queue or a refusing disk loses. The log stores a fingerprint of the features of
every request, and the features of a share of them, so that ``nextedge evaluate --parity`` can compare
them with features computed offline.
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
from nextedge.storage.write_ahead import use_write_ahead
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
    """One response.

    Attributes:
        micros: time of the features, in microseconds UTC.
        candidates: ids in order of positions; None for an erased user.
        scores, propensities: of each candidate.
        fingerprint: hash of the features.
        found: positions of the candidates with features; those of the backfill have none.
        features: float32[len(found), F], for a share of the requests.
        edges: live edges behind the response; None if candidates and features have different ones.
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
    """A hash of all bits of the features, as 16 hexadecimal digits."""
    return hashlib.blake2b(np.ascontiguousarray(features).tobytes(), digest_size=8).hexdigest()


class RequestLog:
    """Requests of one tenant in order; a separate thread writes them."""

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
        """Whether to store the features of the next request: true for a random share."""
        return self._random.random() < self.settings.log_features_share

    def append(self, request: LoggedRequest) -> None:
        """Queue a request; never waits and never raises."""
        self._queue.put(request)

    def repeat(self, recommendation_id: str, of_id: str) -> None:
        """Queue the repeat of a response under a new id; never waits and never raises."""
        self._queue.put((recommendation_id, of_id))

    @property
    def lost(self) -> int:
        """Number of requests lost by a full queue or a refusing disk."""
        return self._queue.dropped + self._failed

    def repeats(self) -> dict[str, str]:
        """Id of the first response by id of each repeat."""
        if not self.path.exists():
            return {}
        with _Transaction(self.path) as connection:
            rows = connection.execute("SELECT of_id, recommendation_ids FROM repeated").fetchall()
        return {rid: of_id for of_id, blob in rows for rid in _ids_of(blob)}

    def answers(self, ids: Iterable[str]) -> list[tuple[str, int, LoggedRequest]]:
        """Known ids among the given ones, each with its time (µs) and response.

        A repeat has its own id and time, and the response that it repeats.
        """
        wanted = set(ids)
        if not wanted or not self.path.exists():
            return []
        with _Transaction(self.path) as connection:
            connection.execute("CREATE TEMP TABLE wanted (id TEXT PRIMARY KEY)")
            repeated: list[tuple[str, int, str]] = []
            for of_id, micros, blob in connection.execute("SELECT * FROM repeated"):
                repeated += [(rid, micros, of_id) for rid in _ids_of(blob) if rid in wanted]
            named = wanted | {of_id for _, _, of_id in repeated}
            connection.executemany("INSERT INTO wanted VALUES (?)", ((rid,) for rid in named))
            bodies = connection.execute(
                "SELECT body FROM requests JOIN wanted ON recommendation_id = id"
            ).fetchall()
        rows = [_decoded(json.loads(body), None) for (body,) in bodies]
        first = {row.recommendation_id: row for row in rows}
        direct = [(rid, first[rid].micros, rid) for rid in wanted & first.keys()]
        return [(rid, at, first[of]) for rid, at, of in direct + repeated if of in first]

    def close(self) -> None:
        """Write every queued request and stop the thread."""
        self._queue.close()

    def read(self, *, features: bool = False) -> Iterator[LoggedRequest]:
        """Logged requests in order; with ``features`` only those with features."""
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
        """A request without erased users; None if its own user is erased."""
        if not len(self.forgotten):
            return request
        if request.user_id in self.forgotten:
            return None
        if request.surface not in self.people:
            return request
        gone = set(self.forgotten.among(request.candidates))
        if not gone:
            return request
        # positions stay; the features go, as rows of erased users are among them
        left = [None if candidate in gone else candidate for candidate in request.candidates]
        return replace(request, candidates=left, found=[], features=None)

    def forget(self) -> int:
        """Erase every byte of erased users from the file; returns the number of changed rows.

        Raises:
            StorageError: the disk refuses, or another process does not release the file in time.
        """
        if not self.path.exists():
            return 0
        changed = 0
        try:
            with _Transaction(self.path) as connection:
                rows = connection.execute("SELECT position, body, features FROM requests")
                for position, body, blob in rows.fetchall():
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
    # one row for all repeats of a response in a batch: a row each costs as much as the response
    ids: defaultdict[str, list[str]] = defaultdict(list)
    for recommendation_id, of_id in repeats:
        ids[of_id].append(recommendation_id)
    now = int(time.time() * 1e6)
    return [(of_id, now, bytes.fromhex("".join(rids))) for of_id, rids in ids.items()]


def _ids_of(blob: bytes) -> Iterator[str]:
    return (blob[at : at + _ID_BYTES].hex() for at in range(0, len(blob), _ID_BYTES))


class _Transaction:
    """A connection for one transaction, closed after it."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, timeout=30)
        use_write_ahead(self.connection)
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
