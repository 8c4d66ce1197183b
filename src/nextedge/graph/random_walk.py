"""Random walk with restart (personalised PageRank) by forward push.

Andersen, Chung, Lang: "Local Graph Partitioning using PageRank Vectors", FOCS 2006, section 3:
push the residual of a node to its estimate and its neighbours until every residual is below
``tolerance`` × degree. Cost per query is at most 1 / (restart × tolerance) edge steps,
whatever the size of the graph.
"""

from __future__ import annotations

import numba
import numpy as np

from nextedge.graph.propagate import Ragged, keep_best
from nextedge.graph.threads import Scratch, run_blocks, run_lists
from nextedge.storage.arrays import plain
from nextedge.types import Candidates, FloatArray, IndexArray, IntArray


def top_walk(
    indptr: IntArray,
    indices: IndexArray,
    queries: IndexArray,
    *,
    n: int,
    exclude: Ragged,
    low: int = 0,
    high: int | None = None,
    restart: float = 0.15,
    tolerance: float = 1e-5,
) -> Candidates:
    """The n nodes that walks restarting at a query visit most; column ``score``.

    Args:
        indptr, indices: symmetric adjacency of N nodes (walks move to a uniform neighbour).
        queries: int32[Q] nodes; a negative one gives no candidates.
        n: most candidates per query.
        exclude: int32 nodes to leave out, Q rows; the query itself is left out too.
        low, high: only nodes in [low, high) are candidates (default all).
        restart: probability of returning to the query at each step.
        tolerance: residual per degree at which pushing stops.
    """
    nodes = len(indptr) - 1
    ends, target, score = run_lists(
        _top_walk,
        len(queries),
        n,
        (plain(indptr, np.int64), plain(indices, np.int32)),
        queries,
        exclude,
        (low, nodes if high is None else high),
        (restart, tolerance),
        scratch=_walk_scratch(nodes),
    )
    return Candidates(ends, target, {"score": score})


def pair_walk(
    indptr: IntArray,
    indices: IndexArray,
    queries: IndexArray,
    pair_indptr: IntArray,
    pair_candidates: IndexArray,
    *,
    restart: float = 0.15,
    tolerance: float = 1e-5,
) -> FloatArray:
    """float32[R]: the walk's score of each given (query, candidate) pair."""
    score = np.zeros(len(pair_candidates), np.float32)
    run_blocks(
        _pair_walk,
        len(queries),
        (plain(indptr, np.int64), plain(indices, np.int32)),
        queries,
        (pair_indptr, pair_candidates),
        (restart, tolerance),
        score,
        scratch=_walk_scratch(len(indptr) - 1),
    )
    return score


def _walk_scratch(nodes: int) -> tuple[Scratch, ...]:
    """Estimate and residual of every node, the queue, its members, and the nodes visited."""
    return (
        Scratch(nodes, np.float64),
        Scratch(nodes, np.float64),
        Scratch(nodes + 1, np.int32, zeroed=False),
        Scratch(nodes, np.bool_),
        Scratch(nodes + 1, np.int32, zeroed=False),
    )


@numba.njit(cache=True, nogil=True)
def _push(adjacency, query, settings, estimate, residual, queue, queued, visited):  # type: ignore[no-untyped-def]
    """Forward push from one node; returns how many nodes ``visited`` lists."""
    indptr, indices = adjacency
    restart, tolerance = settings
    # A ring is enough, as a node is in the queue once at most.
    capacity = len(queue)
    count = 1
    visited[0] = query
    residual[query] = 1.0
    queue[0] = query
    queued[query] = True
    head, waiting = 0, 1
    while waiting > 0:
        node = queue[head]
        head = head + 1 if head + 1 < capacity else 0
        waiting -= 1
        queued[node] = False
        mass = residual[node]
        residual[node] = 0.0
        estimate[node] += restart * mass
        degree = indptr[node + 1] - indptr[node]
        if degree == 0:
            continue
        share = (1.0 - restart) * mass / degree
        for entry in range(indptr[node], indptr[node + 1]):
            neighbor = indices[entry]
            before = residual[neighbor]
            if before == 0.0 and estimate[neighbor] == 0.0:
                visited[count] = neighbor
                count += 1
            residual[neighbor] = before + share
            if not queued[neighbor] and before + share > tolerance * (
                indptr[neighbor + 1] - indptr[neighbor]
            ):
                tail = head + waiting
                queue[tail if tail < capacity else tail - capacity] = neighbor
                queued[neighbor] = True
                waiting += 1
    # The residual counts as one stop, so that scores keep their order near zero.
    for position in range(count):
        node = visited[position]
        estimate[node] += restart * residual[node]
        residual[node] = 0.0
    return count


@numba.njit(cache=True, nogil=True)
def _top_walk(  # type: ignore[no-untyped-def]
    block, blocks, adjacency, queries, exclude, bounds, settings, lists, estimate, *scratch
):
    visited = scratch[3]
    x_indptr, x_indices = exclude
    low, high = bounds
    size, target, score = lists
    for q in range(block, len(queries), blocks):
        query = queries[q]
        if query < 0:
            continue
        count = _push(adjacency, query, settings, estimate, *scratch)
        # ``keep_best`` takes positive estimates alone.
        estimate[query] = -1.0
        for entry in range(x_indptr[q], x_indptr[q + 1]):
            if estimate[x_indices[entry]] > 0.0:
                estimate[x_indices[entry]] = -1.0
        if low > 0 or high < len(adjacency[0]) - 1:
            for position in range(count):
                if visited[position] < low or visited[position] >= high:
                    estimate[visited[position]] = -1.0
        size[q] = keep_best(estimate, visited, count, target.shape[1], target[q], score[q])
        for position in range(count):
            # The next query of this thread expects scratch of zeros.
            estimate[visited[position]] = 0.0


@numba.njit(cache=True, nogil=True)
def _pair_walk(block, blocks, adjacency, queries, pairs, settings, score, estimate, *scratch):  # type: ignore[no-untyped-def]
    visited = scratch[3]
    indptr, candidate = pairs
    for q in range(block, len(queries), blocks):
        query = queries[q]
        if query < 0:
            continue
        count = _push(adjacency, query, settings, estimate, *scratch)
        for row in range(indptr[q], indptr[q + 1]):
            score[row] = estimate[candidate[row]]
        for position in range(count):
            estimate[visited[position]] = 0.0
