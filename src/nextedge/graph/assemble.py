"""Rows of a graph from lists of edges, in memory or straight into files.

A counting sort puts the entries of a block of rows in their rows; each row is then sorted and
repeated pairs are merged: O(n) for each pass over the edges, then O(n log degree). Edges of mapped
files take no memory; a block takes 24 bytes an entry (plus 12 an entry of the longest row). A graph
in memory is one block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nextedge.engines.base import RunBlocks
from nextedge.storage.arrays import ArrayFiles, mapped, mapped_file, plain
from nextedge.types import BoolArray, IndexArray, IntArray

BLOCK_ENTRIES = 8_000_000
"""Entries of a block of rows that goes to a file; about 200 MiB, one block a core."""
_ENTRIES = ("indices", "weight", "first", "last")


@dataclass(frozen=True, eq=False)
class EdgeList:
    """Edges in positions, in any order, repeated or not.

    Attributes:
        source, target: int32[n].
        weight: float32[n], or None for 1 each.
        first, last: int64[n], microseconds; ``last`` None is ``first``, ``first`` None is 0.
        kept: bool[n], edges that count; None for all.
        mirrored: each edge counts in both directions; first all as given, then all reversed.
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
        _count(self._ends, self.mirrored, degree)
        return degree

    @property
    def _ends(self) -> tuple[IndexArray, IndexArray, BoolArray]:
        source, target = plain(self.source, np.int32), plain(self.target, np.int32)
        return source, target, plain(self.kept, np.bool_)

    def block(self, degree: IntArray, begin: int) -> Block:
        """The rows from ``begin`` on, which have ``degree`` entries before the merge."""
        start = np.concatenate((np.zeros(1, np.int64), np.cumsum(degree)))
        indptr, entries = np.zeros(len(degree) + 1, np.int64), _empty_entries(int(start[-1]))
        weight = plain(self.weight, np.float32)
        times = plain(self.first, np.int64), plain(self.last, np.int64)
        _fill(self._ends, weight, times, self.mirrored, begin, start[:-1].copy(), entries)
        longest = int(degree.max(initial=0))
        _order_and_merge(
            start, indptr, entries, np.empty(longest, np.uint64), _empty_entries(longest)[1:]
        )
        return Block(indptr, *entries)


def _empty_entries(size: int) -> tuple[IndexArray, npt.NDArray[np.float32], IntArray, IntArray]:
    """Targets, weights, first and last times."""
    return (
        np.empty(size, np.int32),
        np.empty(size, np.float32),
        np.empty(size, np.int64),
        np.empty(size, np.int64),
    )


@dataclass(frozen=True, eq=False)
class Block:
    """Neighbouring rows: ``indptr`` int64[rows + 1] from 0, and the arrays of entries."""

    indptr: IntArray
    indices: IndexArray
    weight: npt.NDArray[np.float32]
    first: IntArray
    last: IntArray

    def shrunk(self) -> Block:
        """The block without the space that merged entries left over."""
        size = int(self.indptr[-1])
        for part in (self.indices, self.weight, self.first, self.last):
            if len(part) > size:
                part.resize(size, refcheck=False)  # in place: nothing else refers to it
        return self


def assemble(edges: EdgeList, sources: int) -> Block:
    """All rows, in memory."""
    return edges.block(edges.degrees(sources), 0).shrunk()


def assemble_into(
    directory: Path, edges: EdgeList, sources: int, run: RunBlocks, scratch: Path
) -> None:
    """All rows, as ``indptr.npy``, ``indices.npy``, … of a folder.

    Args:
        run: makes blocks of rows, here or on other machines.
        scratch: folder of the caller that all machines see, for arrays that are no files yet.
    """
    degree = edges.degrees(sources)
    # A file, as blocks of rows may run on other machines.
    np.save(scratch / "degree.npy", degree)
    function = GraphRows(FiledEdges.of(edges, scratch), scratch / "degree.npy")
    indptr = np.zeros(sources + 1, np.int64)
    row = end = 0
    with ArrayFiles(directory) as write:
        for made in run(function, _ranges(degree)):
            length = _values(made, "length")
            indptr[row + 1 : row + 1 + len(length)] = np.cumsum(length) + end
            for name in _ENTRIES:
                write(name, _values(made, name))
            row += len(length)
            end = int(indptr[row])
        write("indptr", indptr)


@dataclass(frozen=True)
class FiledEdges:
    """An ``EdgeList`` whose arrays are files, by name."""

    arrays: tuple[tuple[str, Path], ...]
    mirrored: bool

    @classmethod
    def of(cls, edges: EdgeList, folder: Path) -> FiledEdges:
        """Refer to arrays that are mapped files; write the others to ``folder``."""
        arrays = []
        for name in ("source", "target", "weight", "first", "last", "kept"):
            values = getattr(edges, name)
            if values is None:
                continue
            path = mapped_file(values)
            if path is None:
                path = folder / f"{name}.npy"
                np.save(path, values)
            arrays.append((name, path))
        return cls(tuple(arrays), edges.mirrored)

    def open(self) -> EdgeList:
        """The edges, mapped."""
        arrays = {name: mapped(path) for name, path in self.arrays}
        return EdgeList(**arrays, mirrored=self.mirrored)


@dataclass(frozen=True)
class GraphRows:
    """The block function: a range of rows in, their lengths and entries out, each as one list.

    Attributes:
        degree: file of int64[N], entries of each row before the merge.
    """

    edges: FiledEdges
    degree: Path
    one_core: ClassVar[bool] = True

    def __call__(self, block: pa.Table) -> pa.Table:
        begin, end = block["begin"][0].as_py(), block["end"][0].as_py()
        made = self.edges.open().block(mapped(self.degree)[begin:end], begin)
        size = int(made.indptr[-1])
        lists = {"length": np.diff(made.indptr)}
        lists |= {name: getattr(made, name)[:size] for name in _ENTRIES}
        return pa.table({name: _one_list(values) for name, values in lists.items()})


def _one_list(values: npt.NDArray[np.generic]) -> pa.Array:
    # Columns of a table have one length, these arrays do not: each is one list.
    return pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), pa.array(values))


def _values(table: pa.Table, name: str) -> npt.NDArray[np.generic]:
    values: npt.NDArray[np.generic] = table[name].chunk(0).flatten().to_numpy()
    return values


def _ranges(degree: IntArray) -> Iterator[pa.Table]:
    """Ranges of rows of about ``BLOCK_ENTRIES`` entries."""
    ends = np.cumsum(degree)
    begin = 0
    # An empty range, too: files of a graph without rows take their types from its block.
    while begin < len(degree) or begin == 0:
        before = ends[begin - 1] if begin else 0
        until = int(np.searchsorted(ends, before + BLOCK_ENTRIES, side="right"))
        end = min(max(until, begin + 1), len(degree))  # a longer row is a block by itself
        yield pa.table({"begin": [begin], "end": [end]})
        if end == len(degree):
            return
        begin = end


@numba.njit(cache=True, nogil=True)
def _count(ends, mirrored, degree):  # type: ignore[no-untyped-def]
    source, target, kept = ends
    for edge in range(len(source)):
        if len(kept) == 0 or kept[edge]:
            degree[source[edge]] += 1
            if mirrored:
                degree[target[edge]] += 1


@numba.njit(cache=True, nogil=True)
def _fill(ends, weight, times, mirrored, begin, start, entries):  # type: ignore[no-untyped-def]
    """Write each edge into its row; ``start`` moves to the end of each row."""
    source, target, kept = ends
    first, last = times
    out_target, out_weight, out_first, out_last = entries
    rows = len(start)
    # The order of ``csr.mirrored``: equal order gives equal sums of float32 weights.
    for side in range(2 if mirrored else 1):
        for edge in range(len(source)):
            row = (target[edge] if side else source[edge]) - begin
            if row < 0 or row >= rows or (len(kept) and not kept[edge]):
                continue
            entry = start[row]
            start[row] = entry + 1
            out_target[entry] = source[edge] if side else target[edge]
            out_weight[entry] = weight[edge] if len(weight) else 1.0
            out_first[entry] = first[edge] if len(first) else 0
            out_last[entry] = last[edge] if len(last) else out_first[entry]


@numba.njit(cache=True, nogil=True)
def _order_and_merge(start, indptr, entries, key, row_values):  # type: ignore[no-untyped-def]
    """Sort each row by target, equal ones in their order; then merge those into one entry."""
    target, weight, first, last = entries
    weights, firsts, lasts = row_values
    size = 0
    for row in range(len(start) - 1):
        low, high = start[row], start[row + 1]
        count = high - low
        for entry in range(count):
            # The entry's number keeps repeated pairs in their order: float sums depend on it.
            key[entry] = np.uint64(target[low + entry]) << np.uint64(32) | np.uint64(entry)
        sort_keys(key[:count])
        # The merge overwrites the row in another order than it reads it: copy the row first.
        for entry in range(count):
            weights[entry] = weight[low + entry]
            firsts[entry] = first[low + entry]
            lasts[entry] = last[low + entry]
        # Entries move towards the front, never past one that is still to be read.
        begin = size
        for rank in range(count):
            other = np.int32(key[rank] >> np.uint64(32))
            entry = key[rank] & np.uint64(0xFFFFFFFF)
            if size > begin and target[size - 1] == other:
                weight[size - 1] += weights[entry]
                first[size - 1] = min(first[size - 1], firsts[entry])
                last[size - 1] = max(last[size - 1], lasts[entry])
            else:
                target[size] = other
                weight[size] = weights[entry]
                first[size] = firsts[entry]
                last[size] = lasts[entry]
                size += 1
        indptr[row + 1] = size


@numba.njit(cache=True, nogil=True)
def sort_keys(key):  # type: ignore[no-untyped-def]
    """Sort uint64 keys in place."""
    if len(key) > 24:  # most rows are short, where insertion is faster
        key.sort()
        return
    for rank in range(1, len(key)):
        moved, hole = key[rank], rank
        while hole > 0 and key[hole - 1] > moved:
            key[hole] = key[hole - 1]
            hole -= 1
        key[hole] = moved
