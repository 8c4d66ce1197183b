"""Similarity of two nodes of one side by the nodes that both are joined to on the other.

``similarity(i, j) = Σ_{u joined to i and j} weight_u / (left_i · right_j + shrinkage)``

One kernel for cosine, conditional probability and the normalised filters between them.
Cost: one multiply-add for every pair of edges of a node u, plus a partial sort for each row.
"""

from __future__ import annotations

import numba
import numpy as np

from nextedge.graph.csr import Graph
from nextedge.graph.propagate import SparseRows, keep_best
from nextedge.graph.scope import Scope
from nextedge.graph.threads import run_blocks
from nextedge.types import FloatArray


def co_engagement(
    graph: Graph,
    weight: FloatArray,
    left: FloatArray,
    right: FloatArray,
    *,
    shrinkage: float,
    neighbors: int,
) -> SparseRows:
    """For each target of a graph its most similar targets, best first.

    Args:
        graph: edges of N sources and M targets.
        weight: float32[N], what each source counts; one of 0 costs nothing.
        left, right: float32[M], by which a row and a column are divided.
        shrinkage: added to the divisor, so that similarities resting on little are small.
        neighbors: most kept of a row; a target is never its own neighbour.
    """
    back = graph.reverse
    size = np.zeros(len(back), np.int64)
    width = max(1, min(neighbors, len(back)))
    target = np.empty((len(back), width), np.int32)
    score = np.empty((len(back), width), np.float32)
    run_blocks(
        _co_engagement,
        len(back),
        back.indptr,
        back.indices,
        graph.indptr,
        graph.indices,
        weight.astype(np.float32),
        left.astype(np.float32),
        right.astype(np.float32),
        np.float32(shrinkage),
        size,
        target,
        score,
    )
    filled = np.arange(width)[None, :] < size[:, None]
    indptr = np.concatenate(([0], np.cumsum(size)))
    return SparseRows(indptr, target[filled], score[filled], len(back))


@numba.njit(cache=True, nogil=True)
def _co_engagement(  # type: ignore[no-untyped-def]
    block,
    blocks,
    by_indptr,
    by_indices,
    of_indptr,
    of_indices,
    weight,
    left,
    right,
    shrinkage,
    size,
    target,
    score,
):
    items = len(by_indptr) - 1
    total = np.zeros(items, np.float32)
    touched = np.empty(items, np.int32)
    for item in range(block, items, blocks):
        count = 0
        for place in range(by_indptr[item], by_indptr[item + 1]):
            user = by_indices[place]
            if weight[user] == 0.0:
                continue
            for entry in range(of_indptr[user], of_indptr[user + 1]):
                other = of_indices[entry]
                if total[other] == 0.0:
                    touched[count] = other
                    count += 1
                total[other] += weight[user]
        total[item] = 0.0
        for place in range(count):
            other = touched[place]
            total[other] /= left[item] * right[other] + shrinkage
        size[item] = keep_best(total, touched, count, target.shape[1], target[item], score[item])
        for place in range(count):
            total[touched[place]] = 0.0


def similar_items(
    scope: Scope, *, neighbors: int, shrinkage: float, user_power: float, normalise: bool
) -> SparseRows:
    """For each item its most similar items.

    ``sim(i, j) = Σ_u deg(u)^-user_power / (sqrt(n_i · n_j) + shrinkage)`` when normalised,
    where n counts the same weights; else divided by ``n_i + shrinkage`` (the share of i's
    audience that also has j).
    """
    graph = scope.snapshot.engagements
    weight = np.maximum(graph.degree, 1).astype(np.float64) ** -user_power
    by_user = np.repeat(weight, graph.degree)
    norm = np.bincount(graph.indices, by_user, minlength=graph.targets).astype(np.float32)
    left, right = (np.sqrt(norm), np.sqrt(norm)) if normalise else (norm, np.ones_like(norm))
    return co_engagement(
        graph, weight.astype(np.float32), left, right, shrinkage=shrinkage, neighbors=neighbors
    )
