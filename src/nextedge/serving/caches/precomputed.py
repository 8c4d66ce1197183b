"""Precomputed candidates: the merged candidates of a user, in a store, by release.

Retrieval is most of a request's work, and gives the same until the next release. So ``nextedge
publish`` retrieves candidates for all users ahead. A request without stored candidates retrieves
them itself, and stores them without waiting. The policy leaves out what live state hides, as for
every list. A value has about 60 kB for 1,000 candidates of nine sources, and 430 kB with 94 features;
features that events change are computed at every request.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from nextedge.config import Config
from nextedge.errors import CorruptValueError, ShardError, StoreError
from nextedge.storage.write_behind import WriteBehind
from nextedge.stores.packing import pack, unpack
from nextedge.stores.partitioned import open_stores
from nextedge.stores.store import Key, Store
from nextedge.types import ROUGH, Candidates, FloatArray

_log = logging.getLogger("nextedge")
_FILE = "candidates.sqlite"
PREFIX = "candidates"
_FEATURES = "features"
MIXED = "mixed"
"""``edges`` of candidates and features that come from two sets of live edges."""
_QUEUE_SIZE = 256
"""Values that wait for writing; more are dropped, and a later request retrieves them again."""


@dataclass(frozen=True)
class CachedCandidates:
    """The candidates of one query, and perhaps their features.

    Attributes:
        candidates: as merged, perhaps without standardised scores.
        matrix: float32[R, F] in the order of the candidates.
        edges: ``LoadedRelease.edges`` of the retrieval.
    """

    candidates: Candidates
    matrix: FloatArray | None = None
    edges: str = ""


Find = Callable[[], CachedCandidates]


class PublishedCandidates:
    """The store of precomputed candidates, one value for each release, surface and user."""

    def __init__(self, store: Store, seconds: float, an_hour: int, features: bool = False) -> None:
        """``an_hour``: values that requests may add; ``features``: store the features too."""
        self.features = features
        self.store = store
        self.seconds = seconds
        self.an_hour = an_hour
        self._hour, self._added = 0, 0
        self.failed = 0
        """Reads and writes that failed, and damaged values."""
        self._hits = self._misses = 0
        self._queue = WriteBehind("nextedge-publish", self._write, _QUEUE_SIZE, batch=1)
        self._refreshing: set[str] = set()

    @property
    def dropped(self) -> int:
        """Values that the full queue dropped."""
        return self._queue.dropped

    def get(self, name: str) -> CachedCandidates | None:
        """The candidates under the name of a list (``LoadedRelease.list_name``), or None.

        A store that fails and a damaged value give None, and are counted.
        """
        key = store_key(name)
        try:
            (value,) = self.store.get_many([key])
            cached = None if value is None else _unpacked(key, value)
            self._hits += cached is not None
            self._misses += cached is None
            return cached
        except (StoreError, CorruptValueError) as error:
            self._count(error)
            return None

    def counts(self) -> dict[str, int]:
        """The numbers of reads and writes by outcome."""
        return {
            "hits": self._hits,
            "misses": self._misses,
            "failed": self.failed,
            "dropped_writes": self.dropped,
        }

    def put(self, name: str, candidates: CachedCandidates) -> None:
        """Queue the candidates of one query for writing; never waits."""
        self._enqueue(store_key(name), candidates)

    def renew(self, lists: Sequence[tuple[str, str, Find]]) -> None:
        """Retrieve stored lists again in the background, and delete the old values.

        Args:
            lists: new name, old name and retrieval of each list; lists that are not stored stay so.
        """
        if not lists:
            return
        keys: list[Key] = [store_key(old) for _, old, _ in lists]
        try:
            values = self.store.get_many(keys)
            stored = [key for key, value in zip(keys, values, strict=True) if value is not None]
            self.store.delete_many(stored)
        except StoreError as error:
            self._count(error)
            return
        for (name, _, find), value in zip(lists, values, strict=True):
            if value is not None:
                self.refresh(name, find)

    def refresh(self, name: str, find: Find) -> None:
        """Retrieve and store the candidates of one query in the background; never waits."""
        key = store_key(name)
        # many requests may lack a list before it is stored: one retrieval is enough
        if key not in self._refreshing:
            self._refreshing.add(key)
            if not self._enqueue(key, find):
                self._refreshing.discard(key)

    def _enqueue(self, key: str, candidates: CachedCandidates | Find) -> bool:
        hour = int(time.monotonic() // 3600)
        self._hour, self._added = hour, self._added + 1 if hour == self._hour else 1
        return self._added <= self.an_hour and self._queue.put((key, candidates))

    def flush(self) -> None:
        """Write every queued value now."""
        self._queue.flush()

    def close(self) -> None:
        """Write every queued value, and close the store."""
        self._queue.close()
        self.store.close()

    def _write(self, batch: list[tuple[str, CachedCandidates | Find]]) -> None:
        for key, candidates in batch:
            try:
                value = candidates if isinstance(candidates, CachedCandidates) else candidates()
                self.store.put_many({key: packed(key, value)}, self.seconds)
            except (StoreError, ShardError) as error:
                self._count(error)
            except Exception:  # a source of a plug-in may raise anything; the thread must not end
                _log.exception("published candidates: retrieval failed")
            finally:
                self._refreshing.discard(key)

    def _count(self, error: Exception) -> None:
        # one line in the log, not one a request
        if self.failed == 0:
            _log.warning("published candidates: %s", error)
        self.failed += 1


def open_candidates(config: Config) -> Store:
    """The store of a tenant's precomputed candidates."""
    settings = config.serving
    url = settings.candidates_store or settings.store
    base = config.base.resolve()
    if url is None:
        config.state_path.mkdir(parents=True, exist_ok=True)
        url, base = f"sqlite:///{_FILE}", config.state_path
    return open_stores(
        url, config.tenant, timeout_seconds=settings.store_timeout_ms / 1e3, base=base
    )


def published_candidates(config: Config) -> PublishedCandidates:
    """The precomputed candidates that ``nextedge serve`` reads and adds to."""
    settings = config.serving
    return PublishedCandidates(
        open_candidates(config),
        settings.candidates_days * 86_400,
        settings.cached_lists_per_hour,
        settings.candidates_features,
    )


def unpublish(config: Config) -> None:
    """Delete the candidates of every release, as they may have an erased user.

    Raises:
        StoreError: the store does not answer.
    """
    local = config.serving.candidates_store is None and config.serving.store is None
    # opening the store would create the file
    if local and not (config.state_path / _FILE).exists():
        return
    with closing(open_candidates(config)) as store:
        store.delete_prefix(f"{PREFIX}/")


def packed(key: str, cached: CachedCandidates) -> bytes:
    """The candidates of one query as the value of a key."""
    candidates = cached.candidates
    arrays: dict[str, np.ndarray] = {"candidate": candidates.candidate}
    for name, values in candidates.columns.items():
        if not name.endswith("_standard"):  # ``with_standard_scores`` computes them again
            arrays[name] = values
    if cached.matrix is not None:
        arrays[_FEATURES] = cached.matrix
    return pack(arrays, {"key": key, "edges": cached.edges})


def _unpacked(key: str, value: bytes) -> CachedCandidates:
    arrays, metadata = unpack(value)
    if metadata.get("key") != key:
        raise CorruptValueError("the value belongs to another key")
    candidate, matrix = arrays.pop("candidate", None), arrays.pop(_FEATURES, None)
    if candidate is None or ROUGH not in arrays:
        raise CorruptValueError(
            "published candidates: expected columns 'candidate' and 'rough_score'"
        )
    if matrix is not None and len(matrix) != len(candidate):
        raise CorruptValueError("published candidates: expected features of every candidate")
    indptr = np.array([0, len(candidate)])
    edges = metadata.get("edges", "")
    return CachedCandidates(Candidates(indptr, candidate, arrays), matrix, edges)


def is_complete(key: str, value: bytes | None, features: bool) -> bool:
    """Whether a value has candidates, and features if these are wanted."""
    try:
        cached = None if value is None else _unpacked(key, value)
    except CorruptValueError:
        return False
    return cached is not None and (cached.matrix is not None or not features)


def split_queries(
    batch: Candidates, matrix: FloatArray | None, edges: str
) -> Iterator[CachedCandidates]:
    """The candidates of each query of a batch."""
    for rows in batch.rows():
        columns = {name: values[rows] for name, values in batch.columns.items()}
        indptr = np.array([0, rows.stop - rows.start])
        single = Candidates(indptr, batch.candidate[rows], columns)
        yield CachedCandidates(single, None if matrix is None else matrix[rows], edges)


def store_key(name: str) -> str:
    return f"{PREFIX}/{name}"
