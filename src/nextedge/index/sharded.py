"""An index in shards: one index for each range of positions, merged exactly.

Every shard returns its k best, so the merged result equals one index of all vectors where each
shard is exact.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nextedge.cores import thread_count
from nextedge.errors import IndexRecallError, ReleaseError
from nextedge.index.vector_index import (
    CHECKED_QUERIES,
    IndexReport,
    VectorIndex,
    exact_search,
    recall_at,
)
from nextedge.types import BoolArray, FloatArray, IndexArray, Waiting

SearchResult = tuple[IndexArray, FloatArray]
_FILE = "shards.json"


class Searcher(Protocol):
    """An index of vectors: whole or in shards, in this process or in others."""

    def search(
        self,
        queries: FloatArray,
        k: int,
        allowed: BoolArray | None = None,
        waiting: Waiting | None = None,
    ) -> SearchResult:
        """As ``VectorIndex.search``."""


class ShardedIndex:
    """Indexes over neighbouring ranges of positions, searched side by side and merged.

    Args:
        shards: in the order of their ranges.
        start: position of the first vector.
        report: the recall of all shards together.
    """

    def __init__(
        self, shards: Sequence[VectorIndex], start: int = 0, report: IndexReport | None = None
    ) -> None:
        self.shards = shards
        self.report = report
        sizes = [shard.report.size for shard in shards]
        self._bounds = start + np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))

    @classmethod
    def build(
        cls,
        vectors: FloatArray,
        queries: FloatArray,
        shards: int,
        *,
        k: int = 500,
        target_recall: float = 0.95,
        seed: int = 0,
        **settings: Any,
    ) -> ShardedIndex:
        """Build an index for each of several equal ranges, and check their recall together.

        Args:
            settings: further ones of ``VectorIndex.build``.

        Raises:
            IndexRecallError: the recall of one shard, or of all together, is below the target.
        """
        bounds = shard_bounds(len(vectors), min(shards, len(vectors)))
        settings |= {"k": k, "target_recall": target_recall, "seed": seed}
        ranges = pairwise(bounds)
        index = cls([VectorIndex.build(vectors[a:b], queries, **settings) for a, b in ranges])
        index.check(vectors, queries, k, target_recall, seed)
        return index

    def check(
        self, vectors: FloatArray, queries: FloatArray, k: int, target_recall: float, seed: int = 0
    ) -> None:
        """Measure the recall of all shards together, over all their vectors.

        Raises:
            IndexRecallError: the recall is below the target.
        """
        size, first = len(vectors), self.shards[0].report
        probe = max(shard.report.probe for shard in self.shards)
        self.report = replace(first, size=size, k=min(k, size), probe=probe)
        if first.kind == "flat" or not len(queries):
            return
        drawn = np.random.default_rng(seed).permutation(len(queries))[:CHECKED_QUERIES]
        checked = np.ascontiguousarray(queries[drawn], np.float32)
        truth = exact_search(vectors, checked, min(k, size))
        recall = recall_at(self.search(checked, min(k, size))[0], truth)
        if recall < target_recall:
            raise IndexRecallError(
                f"index {first.kind} of {len(self.shards)} shards: recall@{k} is {recall:.4f} over "
                f"{len(checked)} queries, expected {target_recall} or more; take another kind, "
                "fewer shards, or lower target_recall"
            )
        self.report = replace(self.report, recall=recall, queries=len(checked))

    def search(
        self,
        queries: FloatArray,
        k: int,
        allowed: BoolArray | None = None,
        waiting: Waiting | None = None,
    ) -> SearchResult:
        """As ``VectorIndex.search``, over all shards.

        Positions count all vectors; ``allowed`` covers those of these shards.
        """
        start = self._bounds[0]

        def search_shard(shard: int) -> SearchResult:
            low, high = self._bounds[shard], self._bounds[shard + 1]
            part = None if allowed is None else allowed[low - start : high - start]
            position, score = self.shards[shard].search(queries, k, part)
            # A missing result stays -1: moved by ``low`` it would name a vector.
            return np.where(position >= 0, position + np.int32(low), -1).astype(np.int32), score

        threads = min(thread_count(), len(self.shards))
        together = _pool(os.getpid(), threads).map if threads > 1 else map
        results = list(together(search_shard, range(len(self.shards))))
        return merged(results, len(queries), k)

    def save(self, directory: Path) -> None:
        """Write each shard into a folder of its own, inside an existing one."""
        for number, shard in enumerate(self.shards):
            folder = directory / shard_folder(number)
            folder.mkdir()
            shard.save(folder)
        self.save_report(directory)

    def save_report(self, directory: Path) -> None:
        """Write the bounds and the recall of saved shards."""
        assert self.report is not None
        about = {"bounds": self._bounds.tolist(), "report": asdict(self.report)}
        (directory / _FILE).write_text(json.dumps(about, indent=1))

    @classmethod
    def load(
        cls, directory: Path, vectors: FloatArray, low: int = 0, high: int | None = None
    ) -> ShardedIndex:
        """Memory-map the saved shards ``low`` to ``high`` over the same vectors.

        Raises:
            ReleaseError: the files are not indexes of these vectors.
        """
        bounds = saved_bounds(directory)
        if bounds[-1] != len(vectors):
            raise ReleaseError(
                f"{directory}: shards of {bounds[-1]} vectors, expected {len(vectors)}"
            )
        high = len(bounds) - 1 if high is None else high
        return cls(_load_shards(directory, vectors, bounds, low, high), bounds[low])

    @classmethod
    def of_saved(cls, directory: Path, vectors: FloatArray, bounds: Sequence[int]) -> ShardedIndex:
        """Memory-map shards that a build saved one by one; their recall is not checked yet."""
        return cls(_load_shards(directory, vectors, bounds, 0, len(bounds) - 1))


def _load_shards(
    directory: Path, vectors: FloatArray, bounds: Sequence[int], low: int, high: int
) -> list[VectorIndex]:
    return [
        VectorIndex.load(
            directory / shard_folder(shard), vectors[bounds[shard] : bounds[shard + 1]]
        )
        for shard in range(low, high)
    ]


def merged(parts: Sequence[SearchResult], queries: int, k: int) -> SearchResult:
    """The k best results of several shards for the same queries, best first, ties by position."""
    # NumPy concatenates no empty list, as of no shard.
    none = np.zeros((queries, 0), np.int32), np.zeros((queries, 0), np.float32)
    position_QN, score_QN = (np.concatenate(side, 1) for side in zip(none, *parts, strict=True))
    order_QK = np.lexsort((position_QN, -score_QN), axis=1)[:, :k]
    return np.take_along_axis(position_QN, order_QK, 1), np.take_along_axis(score_QN, order_QK, 1)


def shard_bounds(size: int, shards: int) -> list[int]:
    """First position of each range, and the end of the last.

    >>> shard_bounds(10, 3)
    [0, 3, 6, 10]
    """
    # Not every S-th vector: a shard's vectors are a slice of their file, mapped without a copy,
    # and its part of a candidate filter is a slice too.
    return [size * shard // shards for shard in range(shards + 1)]


def is_sharded(directory: Path) -> bool:
    """Whether a folder holds an index in shards."""
    return (directory / _FILE).exists()


def saved_bounds(directory: Path) -> list[int]:
    """First position of each saved shard, and the end of the last.

    Raises:
        ReleaseError: the folder has no shards.
    """
    try:
        bounds = json.loads((directory / _FILE).read_text())["bounds"]
        if not isinstance(bounds, list) or len(bounds) < 2 or bounds != sorted(map(int, bounds)):
            raise ValueError(f"bounds {bounds}")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ReleaseError(f"{directory / _FILE}: not an index in shards: {error}") from None
    return bounds


def shard_folder(shard: int) -> str:
    """Name of a shard's folder."""
    return f"{shard:03d}"


def load_index(directory: Path, vectors: FloatArray) -> Searcher:
    """Memory-map an index, whole or in shards."""
    kind = ShardedIndex if is_sharded(directory) else VectorIndex
    return kind.load(directory, vectors)


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    # ``process`` is the key: threads do not survive a fork, so a child makes its own pool.
    return ThreadPoolExecutor(threads, thread_name_prefix="nextedge-index")
