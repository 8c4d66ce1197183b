"""Published candidates: what the sources find for a user, kept in a store under the release.

Finding candidates is most of a request's work, and until the next release it finds the same. So
``nextedge publish`` finds them ahead for every user, and a request for whom nothing is kept finds
them itself and keeps them, without waiting for the store. What live state hides is left out
afterwards, as always. A value is about 60 kB for 1,000 candidates of nine sources.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from nextedge.config import Config
from nextedge.errors import CorruptValueError, StoreError
from nextedge.stages.merge import ROUGH, with_standard_scores
from nextedge.stores.packing import pack, unpack
from nextedge.stores.store import Store, open_store
from nextedge.types import Candidates

if TYPE_CHECKING:
    from nextedge.serving.release import LoadedRelease

_log = logging.getLogger("nextedge")
_PREFIX = "candidates"
_WAITING = 256
"""Values that may wait to be written; more are dropped, and found again by a later request."""


class PublishedCandidates:
    """Candidates of one user and surface of a release, in a store."""

    def __init__(self, store: Store, seconds: float, an_hour: int) -> None:
        """``an_hour``: values that requests may add."""
        self.store = store
        self.seconds = seconds
        self.an_hour = an_hour
        self._hour, self._added = 0, 0
        self.failed = 0
        """Reads and writes that the store refused, and values that were damaged."""
        self.dropped = 0
        self._waiting: queue.Queue[tuple[str, Candidates] | None] = queue.Queue(_WAITING)
        self._writer = threading.Thread(target=self._write, name="nextedge-publish", daemon=True)
        self._writer.start()

    def get(self, release_id: str, surface: str, position: int) -> Candidates | None:
        """What was kept, or None; a store that fails or a damaged value is as good as none."""
        try:
            (value,) = self.store.get_many([_key(release_id, surface, position)])
            return None if value is None else _unpacked(value)
        except (StoreError, CorruptValueError) as error:
            self._count(error)
            return None

    def put(self, release_id: str, surface: str, position: int, found: Candidates) -> None:
        """Keep the candidates of one query, sooner or later; never waits."""
        hour = int(time.monotonic() // 3600)
        self._hour, self._added = hour, self._added + 1 if hour == self._hour else 1
        if self._added > self.an_hour:
            return
        try:
            self._waiting.put_nowait((_key(release_id, surface, position), found))
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Write what waits, and let go of the store."""
        self._waiting.put(None)
        self._writer.join()
        self.store.close()

    def _write(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            key, found = waiting
            try:
                self.store.put_many({key: packed(found)}, self.seconds)
            except StoreError as error:
                self._count(error)

    def _count(self, error: Exception) -> None:
        if self.failed == 0:
            _log.warning("published candidates: %s", error)
        self.failed += 1


def open_candidates(config: Config) -> Store:
    """The store of a tenant's published candidates."""
    settings = config.serving
    url = settings.candidates_store or settings.store
    base = config.base.resolve()
    if url is None:
        config.state_path.mkdir(parents=True, exist_ok=True)
        url, base = "sqlite:///candidates.sqlite", config.state_path
    return open_store(
        url, config.tenant, timeout_seconds=settings.store_timeout_ms / 1e3, base=base
    )


def published_candidates(config: Config) -> PublishedCandidates:
    """What ``nextedge serve`` reads, and adds to."""
    settings = config.serving
    return PublishedCandidates(
        open_candidates(config), settings.candidates_days * 86_400, settings.candidates_kept_an_hour
    )


def publish(
    release: LoadedRelease,
    store: Store,
    find: Callable[[str, np.ndarray], Candidates],
    *,
    seconds: float,
    batch: int = 64,
) -> Iterator[tuple[str, int, int]]:
    """Keep the candidates of every user; yields (surface, users done, users) as it goes on.

    Users who have theirs are skipped, so that an interrupted run goes on where it was. Last of
    all the values of other releases go, so that nobody is without while this one is loaded.

    Args:
        find: (surface, int32[Q] positions) to their merged candidates.

    Raises:
        StoreError: the store is not reached, or is full.
    """
    users = len(release.entities.users)
    for surface in release.surfaces:
        for start in range(0, users, batch):
            positions = np.arange(start, min(start + batch, users), dtype=np.int32)
            keys = [_key(release.id, surface, int(position)) for position in positions]
            kept = store.get_many(keys)
            missing = [row for row, value in enumerate(kept) if value is None]
            if missing:
                found = find(surface, positions[missing])
                parts = _each(found)
                store.put_many(
                    {keys[row]: packed(part) for row, part in zip(missing, parts, strict=True)},
                    seconds,
                )
            yield surface, int(positions[-1]) + 1, users
    current = f"{_PREFIX}/{release.id}/".encode()
    others = {key.rsplit(b"/", 2)[0] + b"/" for key in store.keys(f"{_PREFIX}/")} - {current}
    for prefix in sorted(others):
        store.delete_prefix(prefix)


def packed(found: Candidates) -> bytes:
    """The candidates of one query as a value; what can be told from the rest is left out."""
    columns = {name: v for name, v in found.columns.items() if not name.endswith("_standard")}
    return pack({"candidate": found.candidate, **columns})


def _unpacked(value: bytes) -> Candidates:
    arrays, _ = unpack(value)
    candidate = arrays.pop("candidate", None)
    if candidate is None or ROUGH not in arrays:
        raise CorruptValueError(
            "published candidates: expected columns 'candidate' and 'rough_score'"
        )
    indptr = np.array([0, len(candidate)])
    return with_standard_scores(Candidates(indptr, candidate, arrays))


def _each(found: Candidates) -> Iterator[Candidates]:
    for rows in found.rows():
        columns: Mapping[str, np.ndarray] = {n: values[rows] for n, values in found.columns.items()}
        size = rows.stop - rows.start
        yield Candidates(np.array([0, size]), found.candidate[rows], dict(columns))


def _key(release_id: str, surface: str, position: int) -> str:
    return f"{_PREFIX}/{release_id}/{surface}/{position}"
