"""Rows of a graph out of lists of edges, in memory or straight into files.

The entries of a block of rows are placed by counting, ordered within each row, and merged
where a pair is repeated: O(n) for each pass over the edges, then O(n log degree). Edges are read
where they lie, so that those of mapped files take no memory; what is held is one block, 24
bytes an entry (plus 12 an entry of the longest row). In memory there is one block, and it is the
graph.
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
"""Entries of a block of rows that is made for a file; about 200 MiB, and there is one a core."""
_ENTRIES = ("indices", "weight", "first", "last")


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
            plain(self.source, np.int32),
            plain(self.target, np.int32),
            plain(self.kept, np.bool_),
        )

    def block(self, degree: IntArray, begin: int) -> Block:
        """The rows from ``begin`` on whose entries before the merge number ``degree``."""
        place = np.concatenate((np.zeros(1, np.int64), np.cumsum(degree)))
        entries = int(place[-1])
        block = Block(
            np.zeros(len(degree) + 1, np.int64),
            np.empty(entries, np.int32),
            np.empty(entries, np.float32),
            np.empty(entries, np.int64),
            np.empty(entries, np.int64),
        )
        _place(
            *self._ends,
            plain(self.weight, np.float32),
            plain(self.first, np.int64),
            plain(self.last, np.int64),
            self.mirrored,
            begin,
            place[:-1].copy(),
            block.indices,
            block.weight,
            block.first,
            block.last,
        )
        longest = int(degree.max(initial=0))
        _order_and_merge(
            place,
            block.indptr,
            block.indices,
            block.weight,
            block.first,
            block.last,
            np.empty(longest, np.uint64),
            np.empty(longest, np.float32),
            np.empty(longest, np.int64),
            np.empty(longest, np.int64),
        )
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


def assemble_into(
    directory: Path, edges: EdgeList, sources: int, run: RunBlocks, scratch: Path
) -> None:
    """All rows, as ``indptr.npy``, ``indices.npy``, … of a folder.

    Args:
        run: makes blocks of rows, here or on other machines.
        scratch: folder that all of them see, for what of the edges is no file yet; the caller's.
    """
    degree = edges.degrees(sources)
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
    """An ``EdgeList`` whose arrays are files; None where it has none of that name."""

    arrays: tuple[tuple[str, Path], ...]
    mirrored: bool

    @classmethod
    def of(cls, edges: EdgeList, folder: Path) -> FiledEdges:
        """Arrays that are mapped files stay where they lie; the others are written to ``folder``."""
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
    return pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), pa.array(values))


def _values(table: pa.Table, name: str) -> npt.NDArray[np.generic]:
    found: npt.NDArray[np.generic] = table[name].chunk(0).flatten().to_numpy()
    return found


def _ranges(degree: IntArray) -> Iterator[pa.Table]:
    """Ranges of rows of about ``BLOCK_ENTRIES`` entries; one of no row where there is none."""
    ends = np.cumsum(degree)
    begin = 0
    while begin < len(degree) or begin == 0:
        before = ends[begin - 1] if begin else 0
        until = int(np.searchsorted(ends, before + BLOCK_ENTRIES, side="right"))
        end = min(max(until, begin + 1), len(degree))
        yield pa.table({"begin": [begin], "end": [end]})
        if end == len(degree):
            return
        begin = end


@numba.njit(cache=True, nogil=True)
def _count(source, target, kept, mirrored, degree):  # type: ignore[no-untyped-def]
    for edge in range(len(source)):
        if len(kept) == 0 or kept[edge]:
            degree[source[edge]] += 1
            if mirrored:
                degree[target[edge]] += 1


@numba.njit(cache=True, nogil=True)
def _place(  # type: ignore[no-untyped-def]
    source,
    target,
    kept,
    weight,
    first,
    last,
    mirrored,
    begin,
    place,
    out_target,
    out_weight,
    out_first,
    out_last,
):
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
