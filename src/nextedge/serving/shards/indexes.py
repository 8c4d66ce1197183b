"""The shards of a part of every index, of the releases that fronts ask for."""

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
    Neighbors,
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
KEPT_RELEASES = 4
"""Releases that stay open: served, on trial, served before, and one that is being promoted."""


@dataclass(frozen=True)
class LoadedShards:
    """What one process holds of an index: its shards ``[low, high)``, positions ``[start, stop)``.

    Nothing where there are fewer shards than processes.
    """

    low: int
    high: int
    start: int
    stop: int


def held(bounds: list[int], part: Part) -> LoadedShards:
    """What a part holds of an index in shards with these bounds: neighbouring ones.

    Processes and shards need not be as many, so that a build may change the number of shards.

    >>> held([0, 10, 20, 30, 40, 50], Part(0, 2))
    Held(low=0, high=2, start=0, stop=20)
    """
    low, high = shard_bounds(len(bounds) - 1, part.of)[part.place :][:2]
    return LoadedShards(low, high, bounds[low], bounds[high])


class ReleaseShards:
    """The shards of one release that one part holds, memory-mapped, by surface and source."""

    def __init__(self, releases: Releases, release: Release, part: Part) -> None:
        self.indexes: dict[tuple[str, str], tuple[LoadedShards, ShardedIndex]] = {}
        found: dict[tuple[str, str], tuple[LoadedShards, Path]] = {}
        folders = []
        for surface in release.surfaces:
            home = Path("surfaces") / surface
            for folder in sorted((release.path / home / "index").glob("*/")):
                if not is_sharded(folder):
                    continue
                own = held(saved_bounds(folder), part)
                found[surface, folder.name] = own, home
                mine = home / "index" / folder.name
                folders += [mine, *(mine / shard_folder(at) for at in range(own.low, own.high))]
        # the vectors are not read for this: they are larger than all that is here
        releases.verify(release, {str(each) for each in folders})
        for (surface, source), (own, home) in found.items():
            vectors = mapped(release.path / home / "sources" / source / "candidate.npy")
            folder = release.path / home / "index" / source
            index = ShardedIndex.load(folder, vectors, own.low, own.high)
            self.indexes[surface, source] = own, index

    @property
    def vectors(self) -> Mapping[str, int]:
        """Vectors held, by surface and source."""
        return {
            f"{surface} {source}": own.stop - own.start
            for (surface, source), (own, _) in self.indexes.items()
        }


class PartIndexes:
    """A part of every release, opened as fronts ask; the latest asked for stay open.

    A front asks for a release before it answers from it, so that both move over without a gap. One
    whose files were replaced, as by erasing somebody, is opened anew.
    """

    def __init__(self, releases: Releases, part: Part) -> None:
        self.part = part
        self._releases = releases
        self._open: OrderedDict[str, tuple[int, ReleaseShards]] = OrderedDict()
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="nextedge-load")
        self._loading: dict[str, Future[ReleaseShards]] = {}

    def release(self, release_id: str) -> ReleaseShards:
        """A release's shards, loaded if they are not yet.

        Raises:
            UnknownReleaseError: there is no such release here.
            ReleaseError: a file of it was altered.
        """
        version = self._version(release_id)
        if (found := self._kept(release_id, version)) is not None:
            return found
        with self._opening:
            if (found := self._kept(release_id, version)) is not None:
                return found
            found = ReleaseShards(self._releases, self._releases.get(release_id), self.part)
            with self._lock:
                self._open[release_id] = version, found
                while len(self._open) > KEPT_RELEASES:
                    self._open.popitem(last=False)
        _log.info("release %s: part %s holds %s", release_id, self.part, dict(found.vectors))
        return found

    def opened(self, release_id: str, seconds: float) -> bool:
        """Whether a release is loaded, perhaps after so long; it goes on being loaded if it is not.

        Raises:
            UnknownReleaseError: there is no such release here.
            ReleaseError: a file of it was altered.
        """
        if self._kept(release_id, self._version(release_id)) is not None:
            return True
        with self._lock:
            loading = self._loading.get(release_id)
            if loading is None:
                loading = self._loader.submit(self.release, release_id)
                self._loading[release_id] = loading
        if not wait([loading], max(0.0, seconds)).done:
            return False
        with self._lock:
            self._loading.pop(release_id, None)
        loading.result()
        return True

    def open_served(self) -> list[str]:
        """Open the releases that answer somebody now; returns the ids of those that could be."""
        opened = []
        for release_id in sorted(self._releases.in_use()):
            try:
                self.release(release_id)
                opened.append(release_id)
            except NextEdgeError as error:
                _log.warning("release %s: %s", release_id, error)
        return opened

    def search(
        self,
        release_id: str,
        surface: str,
        source: str,
        queries: FloatArray,
        k: int,
        allowed: BoolArray | None,
    ) -> Neighbors | None:
        """The k best of each query among the vectors held; positions are of all candidates.

        Args:
            allowed: bool of the positions held, which may be found; None = all.

        Returns:
            None where that release has no such index in shards.

        Raises:
            UnknownReleaseError: there is no such release here.
            ValueError: queries or ``allowed`` are of another shape than the vectors.
        """
        found = self.release(release_id).indexes.get((surface, source))
        if found is None:
            return None
        own, index = found
        size = own.stop - own.start
        dimensions = index.shards[0].report.dimensions if index.shards else queries.shape[-1]
        if queries.ndim != 2 or queries.shape[1] != dimensions:
            raise ValueError(f"queries of shape {queries.shape}, expected (any, {dimensions})")
        if allowed is not None and len(allowed) != size:
            raise ValueError(f"a filter of {len(allowed)} candidates, expected {size}")
        return index.search(queries, k, allowed)

    def _kept(self, release_id: str, version: int) -> ReleaseShards | None:
        with self._lock:
            found = self._open.get(release_id)
            if found is None or found[0] != version:
                return None
            self._open.move_to_end(release_id)
            return found[1]

    def _version(self, release_id: str) -> int:
        """Differs once the files of a release were replaced.

        Raises:
            UnknownReleaseError: no release can have that name.
        """
        if Path(release_id).name != release_id or release_id.startswith("."):
            raise UnknownReleaseError(f"no release {release_id!r}")
        return self._releases.version(release_id)
