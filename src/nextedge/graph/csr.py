"""Compressed sparse rows: adjacency as three memory-mapped arrays, as of a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt

from nextedge.graph.assemble import EdgeList, assemble
from nextedge.storage.arrays import mapped, plain
from nextedge.types import FloatArray, IndexArray, IntArray

_PARTS = ("indptr", "indices", "weight", "first", "last")


@dataclass(frozen=True, eq=False)
class Graph:
    """Adjacency rows of N sources over M targets, neighbours ascending, one row a pair.

    Attributes:
        indptr: int64[N + 1]; row u is ``indices[indptr[u]:indptr[u + 1]]``.
        indices: int32[E], neighbours ascending in each row, no repeats.
        weight: float32[E], summed weight of the records of a pair.
        first, last: int64[E], microseconds UTC of the first and last record of a pair, or 0.
        targets: M, the number of possible neighbours.
    """

    indptr: IntArray
    indices: IndexArray
    weight: FloatArray
    first: IntArray
    last: IntArray
    targets: int

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def edges(self) -> int:
        """Number of stored entries E (a mirrored edge counts twice)."""
        return len(self.indices)

    @cached_property
    def adjacency(self) -> tuple[IntArray, IndexArray]:
        """``indptr`` and ``indices`` as kernels take them, read-only."""
        return plain(self.indptr, np.int64), plain(self.indices, np.int32)

    @cached_property
    def degree(self) -> IntArray:
        """int64[N], neighbours of each source."""
        return np.diff(self.indptr)

    @cached_property
    def target_degree(self) -> IntArray:
        """int64[M], sources of each target."""
        degree = np.zeros(self.targets, np.int64)
        _count(self.adjacency[1], degree)  # np.bincount would copy the indices as int64
        return degree

    @cached_property
    def timed(self) -> bool:
        """Whether any edge has a time."""
        return bool(self.last.any())

    def row(self, source: int) -> IndexArray:
        """Neighbours of one source, ascending."""
        return self.indices[self.indptr[source] : self.indptr[source + 1]]

    @cached_property
    def reverse(self) -> Graph:
        """The same edges seen from the targets."""
        return graph_of(self.reversed_edges(), self.targets, len(self))

    def reversed_edges(self) -> EdgeList:
        """The entries as edges from the targets."""
        source = np.repeat(np.arange(len(self), dtype=np.int32), self.degree)
        return EdgeList(self.indices, source, self.weight, self.first, self.last)

    def contains(self, row: IndexArray, target: IndexArray) -> npt.NDArray[np.bool_]:
        """bool[n]: whether each (row, target) pair is an edge; rows below 0 have none."""
        entry = _entries(self.adjacency, row, target)
        return entry >= 0

    def weights(self, row: IndexArray, target: IndexArray) -> FloatArray:
        """float32[n]: weight of each (row, target) pair, 0 where it is no edge."""
        return self._values(self.weight, row, target)

    def last_times(self, row: IndexArray, target: IndexArray) -> IntArray:
        """int64[n]: time of the last record of each (row, target) pair, 0 where it is no edge."""
        return self._values(self.last, row, target)

    def _values(self, values: npt.NDArray, row: IndexArray, target: IndexArray) -> npt.NDArray:
        entry = _entries(self.adjacency, row, target)
        found = np.zeros(len(entry), values.dtype)
        found[entry >= 0] = values[entry[entry >= 0]]
        return found

    def gather(self, rows: IndexArray) -> tuple[IntArray, IndexArray]:
        """Ragged neighbours of the given rows: (indptr int64[n + 1], indices); rows < 0 empty."""
        return _gather(self.adjacency, rows)

    def save(self, directory: Path) -> None:
        """Write the arrays as ``.npy`` files into an existing folder."""
        for part in _PARTS:
            np.save(directory / f"{part}.npy", getattr(self, part))
        # The indices do not tell M: the last targets may have no edge.
        np.save(directory / "targets.npy", np.int64(self.targets))

    @classmethod
    def load(cls, directory: Path) -> Graph:
        """Memory-map a graph that ``save`` wrote."""
        arrays = {part: mapped(directory / f"{part}.npy") for part in _PARTS}
        return cls(**arrays, targets=int(np.load(directory / "targets.npy")))


def build_graph(
    source: IndexArray,
    target: IndexArray,
    sources: int,
    targets: int,
    weight: npt.NDArray[np.floating] | None = None,
    first: IntArray | None = None,
    last: IntArray | None = None,
) -> Graph:
    """Build rows from edge lists, merging repeated pairs (weights add, times widen).

    Args:
        source, target: int32[n], positions; all within ``sources`` and ``targets``.
        weight: float[n], default 1 each.
        first, last: int64[n], microseconds; ``last`` defaults to ``first``, both to 0.

    Cost and memory: see ``nextedge.graph.assemble``.
    """
    return graph_of(EdgeList(source, target, weight, first, last), sources, targets)


def graph_of(edges: EdgeList, sources: int, targets: int) -> Graph:
    """``build_graph`` of edges that may be mirrored, or of which some do not count."""
    return Graph(**vars(assemble(edges, sources)), targets=targets)


def mirrored(
    source: IndexArray, target: IndexArray, *columns: npt.NDArray[np.generic]
) -> tuple[npt.NDArray[np.generic], ...]:
    """Both directions of each edge, with the columns repeated alongside."""
    return (
        np.concatenate((source, target)),
        np.concatenate((target, source)),
        *(np.concatenate((column, column)) for column in columns),
    )


@numba.njit(cache=True, nogil=True)
def _count(indices, degree):  # type: ignore[no-untyped-def]
    for entry in range(len(indices)):
        degree[indices[entry]] += 1


@numba.njit(cache=True, nogil=True)
def _entries(adjacency, row, target):  # type: ignore[no-untyped-def]
    """int64[n]: the entry of each (row, target) pair, -1 where it is no edge."""
    indptr, indices = adjacency
    entry = np.full(len(row), -1, np.int64)
    for pair in range(len(row)):
        if row[pair] >= 0:
            low, high = indptr[row[pair]], indptr[row[pair] + 1]
            at = low + np.searchsorted(indices[low:high], target[pair])
            if at < high and indices[at] == target[pair]:
                entry[pair] = at
    return entry


@numba.njit(cache=True, nogil=True)
def _gather(adjacency, rows):  # type: ignore[no-untyped-def]
    indptr, indices = adjacency
    ends = np.zeros(len(rows) + 1, np.int64)
    for number in range(len(rows)):
        row = rows[number]
        size = indptr[row + 1] - indptr[row] if row >= 0 else 0
        ends[number + 1] = ends[number] + size
    gathered = np.empty(ends[-1], np.int32)
    for number in range(len(rows)):
        row = rows[number]
        if row >= 0:
            gathered[ends[number] : ends[number + 1]] = indices[indptr[row] : indptr[row + 1]]
    return ends, gathered
