"""Neighbour sampling for graph networks: a few neighbours of each node, never a batch's targets.

Hamilton, Ying, Leskovec: "Inductive Representation Learning on Large Graphs", NeurIPS 2017,
section 3.1. Plain Numba: nothing to compile, the same on every machine. Cost: O(fanout) a node,
whatever its degree.
"""

from __future__ import annotations

import numba
import numpy as np

from nextedge.graph.csr import Graph
from nextedge.types import IndexArray, IntArray

_NONE = np.zeros(0, np.int64)


def sample_neighbors(
    graph: Graph,
    nodes: IndexArray,
    fanout: int,
    seed: int,
    forbidden: IntArray | None = None,
    first: int = 0,
) -> tuple[IntArray, IndexArray]:
    """Up to ``fanout`` distinct neighbours of each node, uniformly.

    Args:
        graph: adjacency of N sources.
        nodes: int32[n], which have rows in the graph.
        fanout: most neighbours of a node; those with fewer give all.
        seed: of the draw; the same seed gives the same neighbours.
        forbidden: int64 keys ``source << 32 | target``, ascending: edges that must not be
            walked, because the batch is to predict them.
        first: node that the graph's first row is of, where it holds a part of the rows.

    Returns:
        Ragged (indptr int64[n + 1], neighbours int32).

    >>> from nextedge.graph.csr import build_graph
    >>> graph = build_graph(np.int32([0, 0, 1]), np.int32([1, 2, 0]), 3, 3)
    >>> sample_neighbors(graph, np.int32([0, 2]), 5, seed=0)[1].tolist()
    [1, 2]
    """
    room = np.empty(len(nodes) * max(fanout, 1), np.int32)
    indptr = _sample(
        graph.indptr,
        graph.indices,
        nodes.astype(np.int32),
        fanout,
        np.uint64(seed & 0xFFFFFFFF),
        _NONE if forbidden is None else forbidden,
        first,
        room,
    )
    return indptr, room[: indptr[-1]].copy()


def edge_keys(source: IndexArray, target: IndexArray) -> IntArray:
    """int64 ``source << 32 | target``, ascending and distinct."""
    return np.unique((source.astype(np.int64) << 32) | target.astype(np.int64))


@numba.njit(cache=True, nogil=True, inline="always")
def _next(state):  # type: ignore[no-untyped-def]
    """SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): the next state and its mix."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    mixed = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state, mixed ^ (mixed >> np.uint64(31))


@numba.njit(cache=True, nogil=True)
def _sample(indptr, indices, nodes, fanout, seed, forbidden, first, room):  # type: ignore[no-untyped-def]
    out = np.zeros(len(nodes) + 1, np.int64)
    size = 0
    for row in range(len(nodes)):
        node = np.int64(nodes[row])
        low, degree = indptr[node - first], indptr[node - first + 1] - indptr[node - first]
        # Every node has a stream of its own, so that its draw depends on nothing else.
        state = seed * np.uint64(0xD1B54A32D192ED03) + np.uint64(node)
        begin = size
        if degree <= fanout:
            for place in range(degree):
                if not _is_forbidden(forbidden, node, indices[low + place]):
                    room[size] = indices[low + place]
                    size += 1
        else:
            chosen = np.empty(fanout, np.int64)
            for count in range(fanout):  # Floyd's distinct draw (CACM 30(9), 1987)
                top = degree - fanout + count
                state, mixed = _next(state)
                draw = np.int64(mixed % np.uint64(top + 1))
                for place in range(count):
                    if chosen[place] == draw:
                        draw = top
                        break
                chosen[count] = draw
                if not _is_forbidden(forbidden, node, indices[low + draw]):
                    room[size] = indices[low + draw]
                    size += 1
        out[row + 1] = out[row] + size - begin
    return out


@numba.njit(cache=True, nogil=True)
def _is_forbidden(forbidden, source, target):  # type: ignore[no-untyped-def]
    if len(forbidden) == 0:
        return False
    key = (source << 32) | np.int64(target)
    place = np.searchsorted(forbidden, key)
    return place < len(forbidden) and forbidden[place] == key
