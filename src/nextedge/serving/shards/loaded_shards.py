"""The index shards that one part loads, of every release that front processes ask for."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from nextedge.data.partition import Part
from nextedge.errors import NextEdgeError, UnknownReleaseError
from nextedge.index.sharded import (
    SearchResult,
    ShardedIndex,
    is_sharded,
    saved_bounds,
    shard_bounds,
    shard_folder,
)
from nextedge.releases.manifest import Release
from nextedge.releases.repository import Releases
from nextedge.storage.arrays import mapped
from nextedge.types import BoolArray, FloatArray

_log = logging.getLogger("nextedge")
LOADED_RELEASES = 4
"""Releases in memory: the served one, a canary, the one before, and one under promotion."""


@dataclass(frozen=True)
class ShardRange:
    """The shards ``[low, high)`` of an index that one part loads, positions ``[start, stop)``.

    The range is empty where there are fewer shards than parts.
    """

    low: int
    high: int
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of vectors."""
        return self.stop - self.start


def shards_of(bounds: list[int], part: Part) -> ShardRange:
    """The neighboring shards of a part, for an index of shards with these bounds.

    >>> shards_of([0, 10, 20, 30, 40, 50], Part(0, 2))
    ShardRange(low=0, high=2, start=0, stop=20)
    """
    # parts and shards differ in number, so that a build may change the number of shards
    low, high = shard_bounds(len(bounds) - 1, part.of)[part.index :][:2]
    return ShardRange(low, high, bounds[low], bounds[high])


ReleaseShards = Mapping[tuple[str, str], tuple[ShardRange, ShardedIndex]]
"""A part's shards of a release, by surface and source."""


def load_shards(releases: Releases, release: Release, part: Part) -> ReleaseShards:
    """Memory-map one part's shards of a release.

    Raises:
        ReleaseError: a file of them was altered.
    """
    ranges: dict[Path, ShardRange] = {}
    for surface in release.surfaces:
        for folder in sorted((release.path / "surfaces" / surface / "index").glob("*/")):
            if is_sharded(folder):
                ranges[folder] = shards_of(saved_bounds(folder), part)
    # not the vectors: they are larger than everything else here
    files = {
        str((folder / name).relative_to(release.path))
        for folder, span in ranges.items()
        for name in ("", *map(shard_folder, range(span.low, span.high)))
    }
    releases.verify(release, files)
    shards = {}
    for folder, span in ranges.items():
        home, source = folder.parent.parent, folder.name
        vectors = mapped(home / "sources" / source / "candidate.npy")
        shards[home.name, source] = span, ShardedIndex.load(folder, vectors, span.low, span.high)
    return shards


class LoadedShards:
    """One part of every release, loaded on demand; the releases asked for last stay in memory.

    A front asks for a release before it serves from it, so that a promotion leaves no gap. A release
    whose files were replaced, as by erasing a user, is loaded anew.
    """

    def __init__(self, releases: Releases, part: Part) -> None:
        self.part = part
        self._releases = releases
        self._loaded: OrderedDict[str, tuple[int, Future[ReleaseShards]]] = OrderedDict()
        self._lock = threading.Lock()
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="nextedge-load")

    def release(self, release_id: str) -> ReleaseShards:
        """A release's shards, after loading where needed.

        Raises:
            UnknownReleaseError: there is no such release here.
            ReleaseError: a file of it was altered.
        """
        return self._loading(release_id).result()

    def loads_within(self, release_id: str, seconds: float) -> bool:
        """Whether a release is loaded after at most so long; the loading continues beyond.

        Raises:
            UnknownReleaseError: there is no such release here.
            ReleaseError: a file of it was altered.
        """
        loading = self._loading(release_id)
        if not wait([loading], max(0.0, seconds)).done:
            return False
        loading.result()
        return True

    def load_served(self) -> list[str]:
        """Load the releases in use; returns the ids of those that could be loaded."""
        loaded = []
        for release_id in sorted(self._releases.in_use()):
            try:
                self.release(release_id)
                loaded.append(release_id)
            except NextEdgeError as error:
                _log.warning("release %s: %s", release_id, error)
        return loaded

    def search(
        self,
        release_id: str,
        surface: str,
        source: str,
        queries: FloatArray,
        k: int,
        allowed: BoolArray | None,
    ) -> SearchResult | None:
        """The k nearest vectors of each query in this part; positions count all candidates.

        Args:
            allowed: bool of this part's positions that may be results; None = all.

        Returns:
            None where that release has no such index in shards.

        Raises:
            UnknownReleaseError: there is no such release here.
            ValueError: queries or ``allowed`` do not fit the vectors.
        """
        loaded = self.release(release_id).get((surface, source))
        if loaded is None:
            return None
        span, index = loaded
        dimensions = index.shards[0].report.dimensions if index.shards else queries.shape[-1]
        if queries.ndim != 2 or queries.shape[1] != dimensions:
            raise ValueError(f"queries of shape {queries.shape}, expected (any, {dimensions})")
        if allowed is not None and len(allowed) != span.size:
            raise ValueError(f"a filter of {len(allowed)} candidates, expected {span.size}")
        return index.search(queries, k, allowed)

    def _loading(self, release_id: str) -> Future[ReleaseShards]:
        # a message names it: it must not lead out of the folder of releases
        if Path(release_id).name != release_id or release_id.startswith("."):
            raise UnknownReleaseError(f"no release {release_id!r}")
        version = self._releases.version(release_id)  # differs once its files were replaced
        with self._lock:
            cached = self._loaded.get(release_id)
            if cached is None or cached[0] != version:
                cached = version, self._loader.submit(self._load, release_id)
                self._loaded[release_id] = cached
            self._loaded.move_to_end(release_id)
            return cached[1]

    def _load(self, release_id: str) -> ReleaseShards:
        try:
            shards = load_shards(self._releases, self._releases.get(release_id), self.part)
        except BaseException:
            with self._lock:  # a release that fails to load must not replace one that is in use
                self._loaded.pop(release_id, None)
            raise
        with self._lock:
            while len(self._loaded) > LOADED_RELEASES:
                self._loaded.popitem(last=False)
        sizes = {" ".join(names): span.size for names, (span, _) in shards.items()}
        _log.info("release %s: part %s loaded %s", release_id, self.part, sizes)
        return shards
