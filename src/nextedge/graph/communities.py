"""Communities by modularity: the two phases of Louvain over a symmetric graph, deterministic.

Blondel, Guillaume, Lambiotte, Lefebvre, "Fast unfolding of communities in large networks",
Journal of Statistical Mechanics 2008, section 2. Cost: O(entries) a sweep, few sweeps a level.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from nextedge.graph.csr import Graph
from nextedge.storage.arrays import plain
from nextedge.types import IndexArray, IntArray

Weights = npt.NDArray[np.float64]

_SWEEPS = 12
_LEVELS = 8
_MERGED = 16_000_000
"""Entries of communities that one call merges; about 200 MiB."""


def communities(graph: Graph) -> tuple[IndexArray, IndexArray]:
    """Small and large communities of the nodes of a mirrored graph.

    Returns:
        ``inner`` int32[N], the communities of the first level, and ``outer`` int32[N], those
        at which modularity stops rising; -1 for nodes without edges. Numbered by first member.
    """
    indptr, indices = plain(graph.indptr, np.int64), plain(graph.indices, np.int32)
    weight: Weights = np.zeros(0)  # every edge counts 1, without an array of ones
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
    indptr: IntArray,
    indices: IndexArray,
    weight: Weights,
    loops: Weights,
    label: IndexArray,
    count: int,
) -> tuple[IntArray, IndexArray, Weights, Weights]:
    """The graph whose nodes are the communities, edges within them as loops."""
    # Stable: float sums depend on the order of members.
    order = np.argsort(label, kind="stable").astype(np.int32)
    start = np.concatenate(([0], np.cumsum(np.bincount(label, minlength=count))))
    entries = np.bincount(label, np.diff(indptr), minlength=count).astype(np.int64)
    merged_loops = np.bincount(label, loops, minlength=count).astype(np.float64)
    ends = np.zeros(count + 1, np.int64)
    scratch = np.zeros(count), np.empty(count, np.int32)
    parts = []
    begin = 0
    while begin < count:
        # A range of communities at a time: memory is that of the result, not of all entries.
        total = np.cumsum(entries[begin : begin + _MERGED])
        until = begin + max(1, int(np.searchsorted(total, _MERGED, side="right")))
        size = int(total[until - begin - 1])
        merged = np.empty(size, np.int32), np.empty(size)
        used = _merge_rows(
            (indptr, indices, weight),
            (label, order, start),
            (begin, until),
            scratch,
            (ends, merged_loops),
            merged,
        )
        parts.append([part[:used].copy() for part in merged])
        begin = until
    column, value = (np.concatenate(part) for part in zip(*parts, strict=True))
    return np.cumsum(ends), column, value, merged_loops


@numba.njit(cache=True, nogil=True)
def _merge_rows(graph, members, bounds, scratch, sums, merged):  # type: ignore[no-untyped-def]
    """Sum the entries of each community's members by the neighbours' communities, ascending."""
    indptr, indices, weight = graph
    label, order, start = members
    total, nonzero = scratch
    ends, loops = sums
    column, value = merged
    size = 0
    for group in range(bounds[0], bounds[1]):
        count = 0
        for member in range(start[group], start[group + 1]):
            node = order[member]
            for entry in range(indptr[node], indptr[node + 1]):
                other = label[indices[entry]]
                if total[other] == 0.0:
                    nonzero[count] = other
                    count += 1
                total[other] += weight[entry] if len(weight) else 1.0
        for other in np.sort(nonzero[:count]):
            if other == group:
                loops[group] += total[other]
            else:
                column[size], value[size] = other, total[other]
                size += 1
                ends[group + 1] += 1
            total[other] = 0.0
    return size


@numba.njit(cache=True, nogil=True)
def _moves(indptr, indices, weight, loops, sweeps):  # type: ignore[no-untyped-def]
    """Move each node to the neighbouring community that raises modularity most, in sweeps.

    Without ``weight`` every edge counts 1.
    """
    nodes = len(indptr) - 1
    label = np.arange(nodes).astype(np.int32)
    strength = loops.copy()  # ``_merged`` still reads the loops of the caller
    for node in range(nodes):
        for entry in range(indptr[node], indptr[node + 1]):
            strength[node] += weight[entry] if len(weight) else 1.0
    total, within = strength.copy(), np.zeros(nodes)
    everything = max(strength.sum(), 1e-12)  # a graph without edges must not divide by zero
    nonzero = np.empty(nodes, np.int32)
    for _ in range(sweeps):
        moves = 0
        for node in range(nodes):
            current, count = label[node], 0
            for entry in range(indptr[node], indptr[node + 1]):
                other = label[indices[entry]]
                if within[other] == 0.0:
                    nonzero[count] = other
                    count += 1
                within[other] += weight[entry] if len(weight) else 1.0
            # The node leaves its community first: gains compare communities without it.
            total[current] -= strength[node]
            best, best_gain = (
                current,
                within[current] - strength[node] * total[current] / everything,
            )
            for position in range(count):
                other = nonzero[position]
                gain = within[other] - strength[node] * total[other] / everything
                # Gains within rounding are ties, which the smaller label wins.
                if gain > best_gain + 1e-9 or (gain > best_gain - 1e-9 and other < best):
                    best, best_gain = other, gain
            for position in range(count):
                # Clearing all labels would cost O(N) a node.
                within[nonzero[position]] = 0.0
            total[best] += strength[node]
            label[node] = best
            moves += best != current
        if moves * 1000 < nodes:
            break
    return label
