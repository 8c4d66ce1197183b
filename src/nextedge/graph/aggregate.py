"""Means over neighbours, on all cores, row by row in one order."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from nextedge.graph.csr import Graph
from nextedge.graph.threads import run_blocks
from nextedge.storage.arrays import plain
from nextedge.types import FloatArray, IndexArray, IntArray


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The adjacency of a graph without weights and times.

    Attributes:
        indptr, indices: see ``nextedge.graph.csr.Graph``; int64[N + 1] and int32[E].
    """

    indptr: IntArray
    indices: IndexArray

    @classmethod
    def of(cls, graph: Graph) -> Neighbors:
        """The neighbours in a graph; both share the arrays."""
        return cls(graph.indptr, graph.indices)

    def __len__(self) -> int:
        return len(self.indptr) - 1


def neighbor_means(
    graph: Graph | Neighbors, x: FloatArray, start: int = 0, stop: int | None = None
) -> FloatArray:
    """float32[stop - start, d]: mean of the neighbours' vectors; zeros without neighbours.

    Args:
        graph: N rows over M targets.
        x: float32[M, d].
        start, stop: rows, default all.

    Cost: one addition of d floats an edge.

    >>> from nextedge.graph.csr import build_graph
    >>> graph = build_graph(np.int32([0, 0]), np.int32([1, 2]), 2, 3)
    >>> neighbor_means(graph, np.float32([[9.0], [1.0], [3.0]])).tolist()
    [[2.0], [0.0]]
    """
    stop = len(graph) if stop is None else stop
    out = np.zeros((stop - start, x.shape[1]), np.float32)
    adjacency = plain(graph.indptr, np.int64), plain(graph.indices, np.int32)
    vectors = plain(np.ascontiguousarray(x, np.float32), np.float32)
    run_blocks(_means, len(out), adjacency, vectors, start, out)
    return out


@numba.njit(cache=True, nogil=True)
def _means(block, blocks, adjacency, x, start, out):  # type: ignore[no-untyped-def]
    indptr, indices = adjacency
    width = x.shape[1]
    for row in range(block, len(out), blocks):
        low, high = indptr[start + row], indptr[start + row + 1]
        total = out[row]
        for entry in range(low, high):
            other = x[indices[entry]]
            for axis in range(width):
                total[axis] += other[axis]
        if high > low:
            share = np.float32(1.0 / (high - low))
            for axis in range(width):
                total[axis] *= share
