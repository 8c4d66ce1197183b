"""Published candidates: what the sources find for a user, kept in a store under the release.

Finding candidates is most of a request's work, and until the next release it finds the same. So
``nextedge publish`` finds them ahead for every user, and a request for whom nothing is kept finds
them itself and keeps them, without waiting for the store. What live state hides is left out
afterwards, as always. A value is about 60 kB for 1,000 candidates of nine sources; with their
features 430 kB where there are 94; those that events change are computed again at every request.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
"""What ``edges`` says of candidates and features of two sets of live edges."""
_WAITING = 256
"""Values that may wait to be written; more are dropped, and found again by a later request."""


@dataclass(frozen=True)
class CachedCandidates:
    """The candidates of one query, and their features where those are kept.

    Attributes:
        candidates: as they were merged, perhaps without standardised scores.
        matrix: float32[R, F] in the order of the candidates.
        edges: which live edges they were found with, as ``LoadedRelease.edges`` says.
    """

    candidates: Candidates
    matrix: FloatArray | None = None
    edges: str = ""


Find = Callable[[], CachedCandidates]


class PublishedCandidates:
    """Candidates of one user and surface of a release, in a store."""

    def __init__(self, store: Store, seconds: float, an_hour: int, features: bool = False) -> None:
        """``an_hour``: values that requests may add; ``features``: whether these are kept too."""
        self.features = features
        self.store = store
        self.seconds = seconds
        self.an_hour = an_hour
        self._hour, self._added = 0, 0
        self.failed = 0
        """Reads and writes that the store refused, and damaged values."""
        self._hits = self._misses = 0
        self._queue = WriteBehind("nextedge-publish", self._write, _WAITING, batch=1)
        self._refreshing: set[str] = set()

    @property
    def dropped(self) -> int:
        """Values that a full queue did not take."""
        return self._queue.dropped

    def get(self, name: str) -> CachedCandidates | None:
        """What was kept under the name of a list (``LoadedRelease.list_name``), or None.

        A store that fails or a damaged value is as good as none.
        """
        key = store_key(name)
        try:
            (value,) = self.store.get_many([key])
            found = None if value is None else _unpacked(key, value)
            self._hits += found is not None
            self._misses += found is None
            return found
        except (StoreError, CorruptValueError) as error:
            self._count(error)
            return None

    def counts(self) -> dict[str, int]:
        """What became of reads and writes."""
        return {
            "hits": self._hits,
            "misses": self._misses,
            "failed": self.failed,
            "dropped_writes": self.dropped,
        }

    def put(self, name: str, found: CachedCandidates) -> None:
        """Keep the candidates of one query, sooner or later; never waits."""
        self._enqueue(store_key(name), found)

    def renew(self, lists: Sequence[tuple[str, str, Find]]) -> None:
        """Find lists anew in the background, where there is one under its former name, which goes.

        Args:
            lists: name, former name and how it is found, of each.
        """
        if not lists:
            return
        formers: list[Key] = [store_key(former) for _, former, _ in lists]
        try:
            kept = self.store.get_many(formers)
            gone = [key for key, value in zip(formers, kept, strict=True) if value is not None]
            self.store.delete_many(gone)
        except StoreError as error:
            self._count(error)
            return
        for (name, _, find), value in zip(lists, kept, strict=True):
            if value is not None:
                self.refresh(name, find)

    def refresh(self, name: str, find: Find) -> None:
        """Find the candidates of one query in the background, as there was no time; never waits."""
        key = store_key(name)
        if key not in self._refreshing:
            self._refreshing.add(key)
            if not self._enqueue(key, find):
                self._refreshing.discard(key)

    def _enqueue(self, key: str, found: CachedCandidates | Find) -> bool:
        hour = int(time.monotonic() // 3600)
        self._hour, self._added = hour, self._added + 1 if hour == self._hour else 1
        return self._added <= self.an_hour and self._queue.put((key, found))

    def flush(self) -> None:
        """Write every queued value now."""
        self._queue.flush()

    def close(self) -> None:
        """Write every queued value, and close the store."""
        self._queue.close()
        self.store.close()

    def _write(self, batch: list[tuple[str, CachedCandidates | Find]]) -> None:
        for key, found in batch:
            try:
                value = found if isinstance(found, CachedCandidates) else found()
                self.store.put_many({key: packed(key, value)}, self.seconds)
            except (StoreError, ShardError) as error:
                self._count(error)
            except Exception:  # of a source: the thread goes on with the others
                _log.exception("candidates were not found")
            finally:
                self._refreshing.discard(key)

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
        url, base = f"sqlite:///{_FILE}", config.state_path
    return open_stores(
        url, config.tenant, timeout_seconds=settings.store_timeout_ms / 1e3, base=base
    )


def published_candidates(config: Config) -> PublishedCandidates:
    """What ``nextedge serve`` reads, and adds to."""
    settings = config.serving
    return PublishedCandidates(
        open_candidates(config),
        settings.candidates_days * 86_400,
        settings.cached_lists_per_hour,
        settings.candidates_features,
    )


def unpublish(config: Config) -> None:
    """Delete the candidates of every release: their positions or features tell of people.

    Raises:
        StoreError: the store is not reached.
    """
    own_file = config.serving.candidates_store is None and config.serving.store is None
    if own_file and not (config.state_path / _FILE).exists():
        return
    store = open_candidates(config)
    try:
        store.delete_prefix(f"{PREFIX}/")
    finally:
        store.close()


def packed(key: str, found: CachedCandidates) -> bytes:
    """The candidates of one query as the value of a key; what the rest tells is left out."""
    columns = {
        name: values
        for name, values in found.candidates.columns.items()
        if not name.endswith("_standard")
    }
    features = {} if found.matrix is None else {_FEATURES: found.matrix}
    about = {"key": key, "edges": found.edges}
    return pack({"candidate": found.candidates.candidate, **columns, **features}, about)


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
    """Whether a value holds what is wanted."""
    try:
        found = None if value is None else _unpacked(key, value)
    except CorruptValueError:
        return False
    return found is not None and (found.matrix is not None or not features)


def split_queries(
    found: Candidates, matrix: FloatArray | None, edges: str
) -> Iterator[CachedCandidates]:
    for rows in found.rows():
        columns: Mapping[str, np.ndarray] = {n: values[rows] for n, values in found.columns.items()}
        size = rows.stop - rows.start
        own = Candidates(np.array([0, size]), found.candidate[rows], dict(columns))
        yield CachedCandidates(own, None if matrix is None else matrix[rows], edges)


def store_key(name: str) -> str:
    return f"{PREFIX}/{name}"
