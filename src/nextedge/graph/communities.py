"""Communities by modularity: Louvain's two phases over a symmetric graph, deterministic.

Blondel, Guillaume, Lambiotte, Lefebvre, "Fast unfolding of communities in large networks",
Journal of Statistical Mechanics 2008. Cost: O(entries) a sweep, few sweeps a level.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from nextedge.graph.csr import Graph
from nextedge.types import IndexArray, IntArray

Weights = npt.NDArray[np.float64]

_SWEEPS = 12
_LEVELS = 8


def communities(graph: Graph) -> tuple[IndexArray, IndexArray]:
    """Small and large communities of the nodes of a mirrored graph.

    Returns:
        ``inner`` int32[N], the communities of the first level, and ``outer`` int32[N], those
        where modularity stops rising; -1 for nodes without edges. Numbered by first member.
    """
    indptr, indices = np.asarray(graph.indptr), np.asarray(graph.indices)
    weight: Weights = np.ones(len(indices))
    loops: Weights = np.zeros(len(graph))
    alone = graph.degree == 0
    member = np.arange(len(graph), dtype=np.int32)
    inner = member
    for level in range(_LEVELS):
        moved = _numbered(_moves(indptr, indices, weight, loops, _SWEEPS))
        count = int(moved.max()) + 1 if len(moved) else 0
        if count == len(moved):
            break
        member = moved[member]
        inner = member if level == 0 else inner
        indptr, indices, weight, loops = _merged(indptr, indices, weight, loops, moved, count)
    return tuple(np.where(alone, -1, part).astype(np.int32) for part in (inner, member))  # type: ignore[return-value]


def _numbered(label: IndexArray) -> IndexArray:
    """The same groups, numbered 0, 1, … in the order of their first members."""
    _, first, group = np.unique(label, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first)).astype(np.int32)[group]


def _merged(
    indptr: IntArray, indices: IndexArray, weight: Weights, loops: Weights,
    label: IndexArray, count: int,
) -> tuple[IntArray, IndexArray, Weights, Weights]:  # fmt: skip
    """The graph whose nodes are the communities, edges within them as loops."""
    row = np.repeat(label, np.diff(indptr)).astype(np.int64)
    key, place = np.unique(row * count + label[indices], return_inverse=True)
    total = np.bincount(place, weight).astype(np.float64)
    row, column = key // count, key % count
    own = row == column
    merged_loops = np.bincount(label, loops, minlength=count).astype(np.float64)
    merged_loops[row[own]] += total[own]
    ends = np.concatenate(([0], np.cumsum(np.bincount(row[~own], minlength=count))))
    return ends, column[~own].astype(np.int32), total[~own], merged_loops


@numba.njit(cache=True, nogil=True)
def _moves(indptr, indices, weight, loops, sweeps):  # type: ignore[no-untyped-def]
    """Move each node to the neighbouring community that raises modularity most, in sweeps."""
    nodes = len(indptr) - 1
    label = np.arange(nodes).astype(np.int32)
    strength = loops.copy()
    for node in range(nodes):
        for place in range(indptr[node], indptr[node + 1]):
            strength[node] += weight[place]
    total, within = strength.copy(), np.zeros(nodes)
    everything = max(strength.sum(), 1e-12)
    touched = np.empty(nodes, np.int32)
    for _ in range(sweeps):
        moves = 0
        for node in range(nodes):
            own, count = label[node], 0
            for place in range(indptr[node], indptr[node + 1]):
                other = label[indices[place]]
                if within[other] == 0.0:
                    touched[count] = other
                    count += 1
                within[other] += weight[place]
            total[own] -= strength[node]
            best, best_gain = own, within[own] - strength[node] * total[own] / everything
            for place in range(count):
                other = touched[place]
                gain = within[other] - strength[node] * total[other] / everything
                if gain > best_gain + 1e-9 or (gain > best_gain - 1e-9 and other < best):
                    best, best_gain = other, gain
            for place in range(count):
                within[touched[place]] = 0.0
            total[best] += strength[node]
            label[node] = best
            moves += best != own
        if moves * 1000 < nodes:
            break
    return label
