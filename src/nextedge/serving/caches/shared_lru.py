"""A two-level cache of ranked lists: the process's own, and a store that processes share.

A request reads the store once, if its process has no list, and never waits for a write. A store that
fails, is late or has a damaged value counts as a miss.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any
from urllib.parse import quote

import numpy as np

from nextedge.config import Config
from nextedge.errors import CorruptValueError, StoreError
from nextedge.ranking.pipeline import SCORE
from nextedge.serving.caches.lru import Cache
from nextedge.serving.caches.ranked_list import RankedList
from nextedge.storage.write_behind import WriteBehind
from nextedge.stores.packing import Array, pack, unpack
from nextedge.stores.store import Key, Store, open_store
from nextedge.types import Candidates

_log = logging.getLogger("nextedge")
_BATCH = 100
_QUEUE_SIZE = 1000
_COLUMN = "column:"

_READS, _WRITES = ("hits", "misses", "failed_reads", "corrupt"), ("written", "failed_writes")
COUNTED = (*_READS, *_WRITES, "dropped_writes")


class TwoLevelCache(Cache[RankedList]):
    """A ``Cache`` of ranked lists with a store behind it.

    Keys are ``(release, surface, user, …)``: a new release never reads the lists of an old one.
    Neither level gives a list older than ``seconds``.

    Args:
        size: lists of this process; 0 reads the store each time.
        seconds: lifetime of a list.
        waiting: lists that wait for writing; more are dropped and counted.
    """

    def __init__(self, size: int, seconds: float, store: Store, waiting: int = _QUEUE_SIZE) -> None:
        super().__init__(size, seconds)
        self.store = store
        self._queue = WriteBehind("ranked-store", self._write, waiting, _BATCH)
        self._counts: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._closed = False
        self._failing: set[str] = set()

    def get(self, key: Hashable) -> RankedList | None:
        """The list of a key from this process, or from the store, or None."""
        cached = super().get(key)
        return self._fetch(key) if cached is None and not self._closed else cached

    def put(self, key: Hashable, value: RankedList, seconds: float | None = None) -> None:
        """Cache a list here and queue it for the store; never waits, never raises."""
        super().put(key, value, seconds)
        if not self._closed:
            # the time of computing, not of writing: the lifetime counts from it
            self._queue.put((key, _now(), value))

    def counts(self) -> Mapping[str, int]:
        """Reads and writes of the store by their outcome, by the names in ``COUNTED``."""
        with self._counting:
            counts = {name: self._counts[name] for name in COUNTED}
        return {**counts, "dropped_writes": self._queue.dropped}

    def flush(self) -> None:
        """Write every queued list."""
        self._queue.flush()

    def close(self) -> None:
        """Write every queued list and close the store; the lists of this process stay."""
        self._closed = True
        self._queue.close()
        self.store.close()

    def _fetch(self, key: Hashable) -> RankedList | None:
        try:
            packed = self.store.get_many([store_key(key)])[0]
        except StoreError as error:
            self._count("failed_reads")
            self._warn_once("read", error)
            return None
        self._failing.discard("read")
        if packed is None:
            self._count("misses")
            return None
        try:
            ranked, made = unpack_ranked(key, packed)
        except CorruptValueError as error:
            self._count("corrupt")
            _log.warning("ranked lists: the store has a damaged value: %s", error)
            return None
        # another machine's clock may be ahead: a list must not live longer for it
        left = self.seconds - max(0.0, (_now() - made) / 1e6)
        if left <= 0:
            self._count("misses")
            return None
        self._count("hits")
        super().put(key, ranked, left)
        return ranked

    def _write(self, batch: list[tuple[Hashable, int, RankedList]]) -> None:
        try:
            values: dict[Key, bytes] = {
                store_key(key): pack_ranked(key, made, ranked) for key, made, ranked in batch
            }
            self.store.put_many(values, self.seconds)
            self._count("written", len(batch))
            self._failing.discard("written")
        except (StoreError, TypeError, ValueError) as error:
            self._count("failed_writes", len(batch))
            self._warn_once("written", error)

    def _count(self, name: str, number: int = 1) -> None:
        with self._counting:
            self._counts[name] += number

    def _warn_once(self, what: str, error: Exception) -> None:
        # one line an outage, not one a request
        if what not in self._failing:
            self._failing.add(what)
            _log.warning("ranked lists are not %s in the store for now: %s", what, error)


def ranked_cache(config: Config) -> Cache[RankedList]:
    """The cache of ranked lists that ``[serving]`` configures.

    Raises:
        ConfigError: ``store`` is no URL of a store.
        MissingDependencyError: the store needs a package that is not installed.
    """
    settings = config.serving
    if settings.store is None:
        return Cache(settings.cache_entries, settings.cache_seconds)
    timeout = settings.store_timeout_ms / 1000
    store = open_store(
        settings.store, config.tenant, timeout_seconds=timeout, base=config.base.resolve()
    )
    return TwoLevelCache(settings.cache_entries, settings.cache_seconds, store)


def store_key(key: Hashable) -> str:
    """The key in the store: ``ranked/user/release/surface/digest of the rest``."""
    parts: Any = key
    release, surface, user, *rest = parts
    # filters may be long: the digest bounds the key
    digest = hashlib.blake2b(_text(rest).encode(), digest_size=16).hexdigest()
    return f"ranked/{_quoted(user)}/{_quoted(release)}/{_quoted(surface)}/{digest}"


def pack_ranked(key: Hashable, made_micros: int, ranked: RankedList) -> bytes:
    """A ranked list and its key as bytes."""
    candidates = ranked.candidates
    columns = {_COLUMN + name: values for name, values in candidates.columns.items()}
    return pack(
        {"indptr": candidates.indptr, "candidate": candidates.candidate, **columns},
        {"key": _text(key), "made": made_micros, "degraded": list(ranked.degraded)},
    )


def unpack_ranked(key: Hashable, packed: bytes) -> tuple[RankedList, int]:
    """A ranked list, with read-only arrays, and its time in microseconds.

    Raises:
        CorruptValueError: the value is damaged, of another key, or no ranked list.
    """
    arrays, metadata = unpack(packed)
    if metadata.get("key") != _text(key):
        raise CorruptValueError("the value belongs to another key")
    try:
        made, degraded = int(metadata["made"]), tuple(map(str, metadata["degraded"]))
        columns = {
            name.removeprefix(_COLUMN): values
            for name, values in arrays.items()
            if name.startswith(_COLUMN)
        }
        candidates = Candidates(arrays["indptr"], arrays["candidate"], columns)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptValueError(f"the value is no ranked list: {error!r}") from None
    if not _fits(candidates):
        raise CorruptValueError("the value is no ranked list: its arrays do not fit each other")
    return RankedList(candidates, None, degraded), made


def _fits(ranked: Candidates) -> bool:
    """Whether the arrays are a list of one query."""
    rows: tuple[int, ...] = (len(ranked.candidate),) if ranked.candidate.ndim else ()
    arrays: list[Array] = [ranked.candidate, *ranked.columns.values()]
    return (
        ranked.candidate.dtype == np.int32
        and ranked.indptr.dtype == np.int64
        and ranked.indptr.tolist() == [0, *rows]
        and SCORE in ranked.columns
        and all(values.shape == rows for values in arrays)
    )


def _quoted(part: str) -> str:
    return quote(part, safe="", errors="surrogatepass")


def _text(key: Any) -> str:
    return json.dumps(key, default=str)


def _now() -> int:
    return int(time.time() * 1e6)
