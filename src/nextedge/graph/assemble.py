"""Rows of a graph out of lists of edges, in memory or straight into files.

The entries of a block of rows are placed by counting, ordered within each row, and merged
where a pair is repeated: O(n) for each pass over the edges, then O(n log degree). Edges are read
where they lie, so that those of mapped files take no memory; what is held is one block, 24
bytes an entry (plus 12 an entry of the longest row). In memory there is one block, and it is the
graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt

from nextedge.graph.threads import thread_count
from nextedge.storage import ArrayFiles, plain
from nextedge.types import BoolArray, IndexArray, IntArray

BLOCK_ENTRIES = 8_000_000
"""Entries of a block of rows that is made for a file; about 200 MiB, and there is one a thread."""


@dataclass(frozen=True, eq=False)
class EdgeList:
    """Edges in positions, in any order, repeated or not.

    Attributes:
        source, target: int32[n].
        weight: float32[n], or None for 1 each.
        first, last: int64[n], microseconds; ``last`` None is ``first``, ``first`` None is 0.
        kept: bool[n], which of them count; None for all.
        mirrored: each edge stands for both directions; first all as given, then all reversed.
    """

    source: IndexArray
    target: IndexArray
    weight: npt.NDArray[np.floating] | None = None
    first: IntArray | None = None
    last: IntArray | None = None
    kept: BoolArray | None = None
    mirrored: bool = False

    def degrees(self, sources: int) -> IntArray:
        """int64[sources]: entries of each row, before repeated pairs are merged."""
        degree = np.zeros(sources, np.int64)
        _count(*self._ends, self.mirrored, degree)
        return degree

    @property
    def _ends(self) -> tuple[IndexArray, IndexArray, BoolArray]:
        return (
            plain(self.source, np.int32), plain(self.target, np.int32),
            plain(self.kept, np.bool_),
        )  # fmt: skip

    def block(self, degree: IntArray, begin: int) -> Block:
        """The rows from ``begin`` on whose entries before the merge number ``degree``."""
        place = np.concatenate((np.zeros(1, np.int64), np.cumsum(degree)))
        entries = int(place[-1])
        block = Block(
            np.zeros(len(degree) + 1, np.int64), np.empty(entries, np.int32),
            np.empty(entries, np.float32), np.empty(entries, np.int64),
            np.empty(entries, np.int64),
        )  # fmt: skip
        _place(
            *self._ends, plain(self.weight, np.float32), plain(self.first, np.int64),
            plain(self.last, np.int64), self.mirrored, begin, place[:-1].copy(),
            block.indices, block.weight, block.first, block.last,
        )  # fmt: skip
        longest = int(degree.max(initial=0))
        _order_and_merge(
            place, block.indptr, block.indices, block.weight, block.first, block.last,
            np.empty(longest, np.uint64), np.empty(longest, np.float32),
            np.empty(longest, np.int64), np.empty(longest, np.int64),
        )  # fmt: skip
        return block


@dataclass(frozen=True, eq=False)
class Block:
    """Rows that follow each other: ``indptr`` int64[rows + 1] from 0, and the arrays of entries."""

    indptr: IntArray
    indices: IndexArray
    weight: npt.NDArray[np.float32]
    first: IntArray
    last: IntArray

    def shrunk(self) -> Block:
        """Without the room that merged entries left behind."""
        size = int(self.indptr[-1])
        for part in (self.indices, self.weight, self.first, self.last):
            if len(part) > size:
                part.resize(size, refcheck=False)  # in place: nothing else looks at them
        return self


def assemble(edges: EdgeList, sources: int) -> Block:
    """All rows, in memory."""
    return edges.block(edges.degrees(sources), 0).shrunk()


def assemble_into(directory: Path, edges: EdgeList, sources: int) -> None:
    """All rows, as ``indptr.npy``, ``indices.npy``, … of a folder; one block a thread in memory."""
    degree = edges.degrees(sources)
    indptr = np.zeros(sources + 1, np.int64)
    end = 0
    with ArrayFiles(directory) as write:
        for begin, block in _blocks(edges, degree):
            indptr[begin + 1 : begin + len(block.indptr)] = block.indptr[1:] + end
            size = int(block.indptr[-1])
            for name in ("indices", "weight", "first", "last"):
                write(name, getattr(block, name)[:size])
            end += size
        write("indptr", indptr)


def _blocks(edges: EdgeList, degree: IntArray) -> Iterator[tuple[int, Block]]:
    """(first row, block), in order, on all threads."""
    ends = np.cumsum(degree)
    bounds = [0] if len(degree) else [0, 0]
    while bounds[-1] < len(degree):
        before = ends[bounds[-1] - 1] if bounds[-1] else 0
        until = int(np.searchsorted(ends, before + BLOCK_ENTRIES, side="right"))
        bounds.append(max(until, bounds[-1] + 1))
    ranges = list(pairwise(bounds))
    threads = thread_count()
    with ThreadPoolExecutor(threads, thread_name_prefix="nextedge-graph") as pool:
        for place in range(0, len(ranges), threads):  # so many at once, and no more in memory
            part = ranges[place : place + threads]
            made = pool.map(lambda rows: edges.block(degree[slice(*rows)], rows[0]), part)
            for rows, block in zip(part, made, strict=True):
                yield rows[0], block


@numba.njit(cache=True, nogil=True)
def _count(source, target, kept, mirrored, degree):  # type: ignore[no-untyped-def]
    for edge in range(len(source)):
        if len(kept) == 0 or kept[edge]:
            degree[source[edge]] += 1
            if mirrored:
                degree[target[edge]] += 1


@numba.njit(cache=True, nogil=True)
def _place(  # type: ignore[no-untyped-def]
    source, target, kept, weight, first, last, mirrored, begin, place,
    out_target, out_weight, out_first, out_last,
):  # fmt: skip
    rows = len(place)
    for side in range(2 if mirrored else 1):
        for edge in range(len(source)):
            row = (target[edge] if side else source[edge]) - begin
            if row < 0 or row >= rows or (len(kept) and not kept[edge]):
                continue
            at = place[row]
            place[row] = at + 1
            out_target[at] = source[edge] if side else target[edge]
            out_weight[at] = weight[edge] if len(weight) else 1.0
            out_first[at] = first[edge] if len(first) else 0
            out_last[at] = last[edge] if len(last) else out_first[at]


@numba.njit(cache=True, nogil=True)
def _order_and_merge(  # type: ignore[no-untyped-def]
    place, indptr, target, weight, first, last, key, weights, firsts, lasts
):
    """Order each row by its targets, equal ones as they came; then make one entry of those.

    Entries move towards the front, never past one that is still to be read.
    """
    size = 0
    for row in range(len(place) - 1):
        low, high = place[row], place[row + 1]
        count = high - low
        for entry in range(count):
            key[entry] = np.uint64(target[low + entry]) << np.uint64(32) | np.uint64(entry)
        _sort(key[:count])
        for entry in range(count):
            weights[entry] = weight[low + entry]
            firsts[entry] = first[low + entry]
            lasts[entry] = last[low + entry]
        begin = size
        for entry in range(count):
            other = np.int32(key[entry] >> np.uint64(32))
            own = key[entry] & np.uint64(0xFFFFFFFF)
            if size > begin and target[size - 1] == other:
                weight[size - 1] += weights[own]
                first[size - 1] = min(first[size - 1], firsts[own])
                last[size - 1] = max(last[size - 1], lasts[own])
            else:
                target[size] = other
                weight[size] = weights[own]
                first[size] = firsts[own]
                last[size] = lasts[own]
                size += 1
        indptr[row + 1] = size


@numba.njit(cache=True, nogil=True)
def _sort(key):  # type: ignore[no-untyped-def]
    if len(key) > 24:
        key.sort()
        return
    for place in range(1, len(key)):
        moved, hole = key[place], place
        while hole > 0 and key[hole - 1] > moved:
            key[hole] = key[hole - 1]
            hole -= 1
        key[hole] = moved
