"""An index in parts: each over a range of the positions, searched alone, merged exactly.

A part is a range and not every S-th vector: its vectors are then a slice of the file they lie in,
mapped without a copy, a filter of candidates is cut into parts by slices, and a position is the
part's own plus the start of its range. Every part gives its k best, so what is merged equals one
index of everything where each part is exact.
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

Found = tuple[IndexArray, FloatArray]
_FILE = "shards.json"


class Searcher(Protocol):
    """What finds the nearest vectors: an index, or several, here or in other processes."""

    def search(
        self,
        queries: FloatArray,
        k: int,
        allowed: BoolArray | None = None,
        waiting: Waiting | None = None,
    ) -> Found:
        """As ``VectorIndex.search``."""


class ShardedIndex:
    """Indexes over neighbouring ranges of positions, searched side by side and merged.

    Args:
        shards: in the order of their ranges.
        start: position of the first one's first vector.
        report: what was measured of all of them together.
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
        """Cut the vectors into equal ranges, build an index of each, and check them together.

        Args:
            settings: further ones of ``VectorIndex.build``.

        Raises:
            IndexRecallError: one of them, or all together, find less than the target.
        """
        bounds = shard_bounds(len(vectors), min(shards, len(vectors)))
        found = cls(
            [
                VectorIndex.build(
                    vectors[low:high],
                    queries,
                    k=k,
                    target_recall=target_recall,
                    seed=seed,
                    **settings,
                )
                for low, high in pairwise(bounds)
            ]
        )
        found.check(vectors, queries, k, target_recall, seed)
        return found

    def check(
        self, vectors: FloatArray, queries: FloatArray, k: int, target_recall: float, seed: int = 0
    ) -> None:
        """Measure the recall of all shards together, over all their vectors; made by ``build``.

        Raises:
            IndexRecallError: it is less than the target.
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
    ) -> Found:
        """As ``VectorIndex.search``, over all shards.

        Positions count from where the first shard would stand among all vectors; ``allowed`` is of
        the vectors that are here.
        """
        start = self._bounds[0]

        def one(place: int) -> Found:
            low, high = self._bounds[place], self._bounds[place + 1]
            part = None if allowed is None else allowed[low - start : high - start]
            found, score = self.shards[place].search(queries, k, part)
            return np.where(found >= 0, found + np.int32(low), -1).astype(np.int32), score

        places = range(len(self.shards))
        threads = min(thread_count(), len(self.shards))
        together = _pool(os.getpid(), threads).map if threads > 1 else map
        return merged(list(together(one, places)), len(queries), k)

    def save(self, directory: Path) -> None:
        """Write into an existing folder, each shard into one of its own."""
        for place, shard in enumerate(self.shards):
            folder = directory / shard_folder(place)
            folder.mkdir()
            shard.save(folder)
        self.save_report(directory)

    def save_report(self, directory: Path) -> None:
        """Write what binds shards together that were saved already."""
        assert self.report is not None
        about = {"bounds": self._bounds.tolist(), "report": asdict(self.report)}
        (directory / _FILE).write_text(json.dumps(about, indent=1))

    @classmethod
    def load(
        cls, directory: Path, vectors: FloatArray, low: int = 0, high: int | None = None
    ) -> ShardedIndex:
        """Memory-map shards ``low`` to ``high`` of what ``save`` wrote over the same vectors.

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
        """Memory-map shards that were saved one by one into the folder, still to be checked."""
        return cls(_load_shards(directory, vectors, bounds, 0, len(bounds) - 1))


def _load_shards(
    directory: Path, vectors: FloatArray, bounds: Sequence[int], low: int, high: int
) -> list[VectorIndex]:
    return [
        VectorIndex.load(
            directory / shard_folder(place), vectors[bounds[place] : bounds[place + 1]]
        )
        for place in range(low, high)
    ]


def merged(parts: Sequence[Found], queries: int, k: int) -> Found:
    """The k best of what several found of the same queries, best first, ties by position."""
    position = np.concatenate([np.zeros((queries, 0), np.int32), *(each for each, _ in parts)], 1)
    score = np.concatenate([np.zeros((queries, 0), np.float32), *(each for _, each in parts)], 1)
    order = np.lexsort((position, -score), axis=1)[:, :k]
    return np.take_along_axis(position, order, 1), np.take_along_axis(score, order, 1)


def shard_bounds(size: int, shards: int) -> list[int]:
    """Where each of so many ranges begins, and the end of the last.

    >>> shard_bounds(10, 3)
    [0, 3, 6, 10]
    """
    return [size * place // shards for place in range(shards + 1)]


def is_sharded(directory: Path) -> bool:
    """Whether the index in a folder was saved in shards."""
    return (directory / _FILE).exists()


def saved_bounds(directory: Path) -> list[int]:
    """Where each shard that was saved in a folder begins, and the end of the last.

    Raises:
        ReleaseError: there are none.
    """
    try:
        bounds = json.loads((directory / _FILE).read_text())["bounds"]
        if not isinstance(bounds, list) or len(bounds) < 2 or bounds != sorted(map(int, bounds)):
            raise ValueError(f"bounds {bounds}")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ReleaseError(f"{directory / _FILE}: not an index in shards: {error}") from None
    return bounds


def shard_folder(place: int) -> str:
    """Name of a shard's folder."""
    return f"{place:03d}"


def load_index(directory: Path, vectors: FloatArray) -> Searcher:
    """Memory-map an index, whole or in shards."""
    kind = ShardedIndex if is_sharded(directory) else VectorIndex
    return kind.load(directory, vectors)


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="nextedge-index")
