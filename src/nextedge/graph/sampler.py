"""Neighbour sampling for graph networks: a few neighbours of each node.

Hamilton, Ying, Leskovec: "Inductive Representation Learning on Large Graphs", NeurIPS 2017,
section 3.1. Cost: O(fanout) a node, whatever its degree.
"""

from __future__ import annotations

import numba
import numpy as np

from nextedge.graph.csr import Graph
from nextedge.types import IndexArray, IntArray


def sample_neighbors(
    graph: Graph, nodes: IndexArray, fanout: int, seed: int, first: int = 0
) -> tuple[IntArray, IndexArray]:
    """Up to ``fanout`` distinct neighbours of each node, uniformly.

    Args:
        graph: adjacency of N sources.
        nodes: int32[n], which have rows in the graph.
        fanout: most neighbours of a node; a node with fewer gives all.
        seed: of the draw; the same seed gives the same neighbours.
        first: node of the first row of the graph, where it stores a part of the rows.

    Returns:
        Ragged (indptr int64[n + 1], neighbours int32).

    >>> from nextedge.graph.csr import build_graph
    >>> graph = build_graph(np.int32([0, 0, 1]), np.int32([1, 2, 0]), 3, 3)
    >>> sample_neighbors(graph, np.int32([0, 2]), 5, seed=0)[1].tolist()
    [1, 2]
    """
    sampled = np.empty(len(nodes) * max(fanout, 1), np.int32)
    seed_bits = np.uint64(seed & 0xFFFFFFFF)
    indptr = _sample(graph.adjacency, nodes.astype(np.int32), fanout, seed_bits, first, sampled)
    return indptr, sampled[: indptr[-1]].copy()  # a view would keep the whole buffer


@numba.njit(cache=True, nogil=True, inline="always")
def _next(state):  # type: ignore[no-untyped-def]
    """SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): the next state and its mix."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    mixed = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state, mixed ^ (mixed >> np.uint64(31))


@numba.njit(cache=True, nogil=True)
def _sample(adjacency, nodes, fanout, seed, first, sampled):  # type: ignore[no-untyped-def]
    indptr, indices = adjacency
    ends = np.zeros(len(nodes) + 1, np.int64)
    size = 0
    for row in range(len(nodes)):
        node = np.int64(nodes[row])
        low, degree = indptr[node - first], indptr[node - first + 1] - indptr[node - first]
        # Each node has its own stream, so that its draw does not depend on the batch.
        state = seed * np.uint64(0xD1B54A32D192ED03) + np.uint64(node)
        if degree <= fanout:
            for entry in range(degree):
                sampled[size] = indices[low + entry]
                size += 1
        else:
            chosen = np.empty(fanout, np.int64)
            for count in range(fanout):  # Floyd's distinct draw (CACM 30(9), 1987)
                top = degree - fanout + count
                state, mixed = _next(state)
                draw = np.int64(mixed % np.uint64(top + 1))
                for earlier in range(count):
                    if chosen[earlier] == draw:
                        draw = top
                        break
                chosen[count] = draw
                sampled[size] = indices[low + draw]
                size += 1
        ends[row + 1] = size
    return ends
