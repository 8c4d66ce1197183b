"""Random walk with restart (personalised PageRank) by forward push.

Andersen, Chung, Lang: "Local Graph Partitioning using PageRank Vectors", FOCS 2006, §3:
push the residual of a node to its estimate and its neighbours until every residual is below
``tolerance`` × degree. Cost per query is at most 1 / (restart × tolerance) edge steps,
whatever the size of the graph.
"""

from __future__ import annotations

import numba
import numpy as np

from nextedge.graph.propagate import keep_best
from nextedge.graph.threads import Scratch, run_blocks
from nextedge.types import Candidates, FloatArray, IndexArray, IntArray


def top_walk(
    indptr: IntArray,
    indices: IndexArray,
    queries: IndexArray,
    *,
    n: int,
    exclude: tuple[IntArray, IndexArray],
    low: int = 0,
    high: int | None = None,
    restart: float = 0.15,
    tolerance: float = 1e-5,
) -> Candidates:
    """The n nodes most visited by walks that restart at each query; column ``score``.

    Args:
        indptr, indices: symmetric adjacency of N nodes (walks move to a uniform neighbour).
        queries: int32[Q] nodes; a negative one gives no candidates.
        n: most candidates per query.
        exclude: ragged int32 nodes to leave out, Q rows; the query itself is left out too.
        low, high: only nodes in [low, high) are candidates (default all).
        restart: probability of returning to the query at each step.
        tolerance: residual per degree at which pushing stops.
    """
    high = len(indptr) - 1 if high is None else high
    size = np.zeros(len(queries), np.int64)
    target = np.empty((len(queries), n), np.int32)
    score = np.empty((len(queries), n), np.float32)
    run_blocks(
        _top_walk,
        len(queries),
        indptr,
        indices,
        queries,
        *exclude,
        low,
        high,
        restart,
        tolerance,
        size,
        target,
        score,
        scratch=_room(len(indptr) - 1),
    )
    filled = np.arange(n)[None, :] < size[:, None]
    return Candidates(
        np.concatenate(([0], np.cumsum(size))), target[filled], {"score": score[filled]}
    )


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
        indptr,
        indices,
        queries,
        pair_indptr,
        pair_candidates,
        restart,
        tolerance,
        score,
        scratch=_room(len(indptr) - 1),
    )
    return score


def _room(nodes: int) -> tuple[Scratch, ...]:
    """For every node's estimate and residual, the queue, who is in it, and who was touched."""
    return (
        Scratch(nodes, np.float64),
        Scratch(nodes, np.float64),
        Scratch(nodes + 1, np.int32, zeroed=False),
        Scratch(nodes, np.bool_),
        Scratch(nodes + 1, np.int32, zeroed=False),
    )


@numba.njit(cache=True, nogil=True)
def _push(indptr, indices, query, restart, tolerance, estimate, residual, queue, queued, touched):  # type: ignore[no-untyped-def]
    """Forward push from one node; returns how many nodes were touched."""
    capacity = len(queue)
    count = 1
    touched[0] = query
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
        for place in range(indptr[node], indptr[node + 1]):
            neighbour = indices[place]
            before = residual[neighbour]
            if before == 0.0 and estimate[neighbour] == 0.0:
                touched[count] = neighbour
                count += 1
            residual[neighbour] = before + share
            if not queued[neighbour] and before + share > tolerance * (
                indptr[neighbour + 1] - indptr[neighbour]
            ):
                tail = head + waiting
                queue[tail if tail < capacity else tail - capacity] = neighbour
                queued[neighbour] = True
                waiting += 1
    return count


@numba.njit(cache=True, nogil=True)
def _settle(residual, touched, count, restart, estimate):  # type: ignore[no-untyped-def]
    """Count what was left unpushed as one stop, so that scores keep their order near zero."""
    for place in range(count):
        node = touched[place]
        estimate[node] += restart * residual[node]
        residual[node] = 0.0


@numba.njit(cache=True, nogil=True)
def _top_walk(  # type: ignore[no-untyped-def]
    block,
    blocks,
    indptr,
    indices,
    queries,
    x_indptr,
    x_indices,
    low,
    high,
    restart,
    tolerance,
    size,
    target,
    score,
    estimate,
    residual,
    queue,
    queued,
    touched,
):
    nodes, n = len(indptr) - 1, target.shape[1]
    for q in range(block, len(queries), blocks):
        query = queries[q]
        if query < 0:
            continue
        count = _push(
            indptr, indices, query, restart, tolerance, estimate, residual, queue, queued, touched
        )
        _settle(residual, touched, count, restart, estimate)
        estimate[query] = -1.0
        for place in range(x_indptr[q], x_indptr[q + 1]):
            if estimate[x_indices[place]] > 0.0:
                estimate[x_indices[place]] = -1.0
        if low > 0 or high < nodes:
            for place in range(count):
                if touched[place] < low or touched[place] >= high:
                    estimate[touched[place]] = -1.0
        size[q] = keep_best(estimate, touched, count, n, target[q], score[q])
        for place in range(count):
            estimate[touched[place]] = 0.0


@numba.njit(cache=True, nogil=True)
def _pair_walk(  # type: ignore[no-untyped-def]
    block,
    blocks,
    indptr,
    indices,
    queries,
    pair_indptr,
    pair_candidates,
    restart,
    tolerance,
    score,
    estimate,
    residual,
    queue,
    queued,
    touched,
):
    for q in range(block, len(queries), blocks):
        query = queries[q]
        if query < 0:
            continue
        count = _push(
            indptr, indices, query, restart, tolerance, estimate, residual, queue, queued, touched
        )
        _settle(residual, touched, count, restart, estimate)
        for row in range(pair_indptr[q], pair_indptr[q + 1]):
            score[row] = estimate[pair_candidates[row]]
        for place in range(count):
            estimate[touched[place]] = 0.0
