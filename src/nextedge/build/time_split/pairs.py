"""The distinct pairs of a relation, out of the graph of all its records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numba
import numpy as np

from nextedge.graph.csr import Graph
from nextedge.graph.threads import run_blocks
from nextedge.types import BoolArray, IndexArray, IntArray, Relation


class Ends(Protocol):
    """Records in positions."""

    @property
    def source(self) -> IndexArray:
        """int32[n]: one end of each record."""

    @property
    def target(self) -> IndexArray:
        """int32[n]: the other end."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Distinct pairs P of a relation, by their smaller end first where it is symmetric.

    Attributes:
        source, target: int32[P], ascending.
        first: int64[P], microseconds of the pair's first record.
        indptr: int64[N + 1], the first pair of each source.
        symmetric: whether a pair is an edge in both directions.
    """

    source: IndexArray
    target: IndexArray
    first: IntArray
    indptr: IntArray
    symmetric: bool

    @classmethod
    def of(cls, graph: Graph, relation: Relation) -> Pairs:
        """The pairs of a graph, which has both directions where the relation is symmetric."""
        if not relation.symmetric:
            source = np.repeat(np.arange(len(graph), dtype=np.int32), graph.degree)
            return cls(source, graph.indices, graph.first, np.asarray(graph.indptr), False)
        indptr = np.zeros_like(graph.indptr)
        _count_upper(graph.indptr, graph.indices, indptr)
        source, target = (np.empty(indptr[-1], np.int32) for _ in range(2))
        first = np.empty(indptr[-1], np.int64)
        _take_upper(graph.indptr, graph.indices, graph.first, source, target, first)
        return cls(source, target, first, indptr, True)

    def __len__(self) -> int:
        return len(self.source)

    def numbers(self, records: Ends) -> IntArray:
        """int64[n]: the pair of each record."""
        number = np.empty(len(records.source), np.int64)
        run_blocks(_numbers, len(number), *self._look_up(records), number)
        return number

    def marked(self, records: Ends, mask: BoolArray) -> BoolArray:
        """bool[n]: whether the pair of each record is marked in ``mask`` (bool[P])."""
        is_marked = np.empty(len(records.source), np.bool_)
        run_blocks(_marked, len(is_marked), *self._look_up(records), mask, is_marked)
        return is_marked

    def _look_up(self, records: Ends) -> tuple[object, ...]:
        return self.indptr, self.target, records.source, records.target, self.symmetric


@numba.njit(cache=True, nogil=True)
def _count_upper(indptr, indices, upper):  # type: ignore[no-untyped-def]
    for row in range(len(indptr) - 1):
        count = 0
        for entry in range(indptr[row], indptr[row + 1]):
            count += indices[entry] >= row
        upper[row + 1] = upper[row] + count


@numba.njit(cache=True, nogil=True)
def _take_upper(indptr, indices, first, out_source, out_target, out_first):  # type: ignore[no-untyped-def]
    size = 0
    for row in range(len(indptr) - 1):
        for entry in range(indptr[row], indptr[row + 1]):
            # Of the two directions of an edge one is the pair.
            if indices[entry] >= row:
                out_source[size], out_target[size] = row, indices[entry]
                out_first[size] = first[entry]
                size += 1


@numba.njit(cache=True, nogil=True, inline="always")
def _number(indptr, target, left, right, symmetric):  # type: ignore[no-untyped-def]
    if symmetric and right < left:  # a pair has its smaller end first
        left, right = right, left
    low = indptr[left]
    return low + np.searchsorted(target[low : indptr[left + 1]], right)


@numba.njit(cache=True, nogil=True)
def _numbers(block, blocks, indptr, target, source, other, symmetric, number):  # type: ignore[no-untyped-def]
    size = len(source)
    for record in range(size * block // blocks, size * (block + 1) // blocks):
        number[record] = _number(indptr, target, source[record], other[record], symmetric)


@numba.njit(cache=True, nogil=True)
def _marked(block, blocks, indptr, target, source, other, symmetric, mask, found):  # type: ignore[no-untyped-def]
    size = len(source)
    for record in range(size * block // blocks, size * (block + 1) // blocks):
        number = _number(indptr, target, source[record], other[record], symmetric)
        found[record] = mask[number]
