"""Similarity of two nodes of one side by their common neighbours on the other side.

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
from nextedge.graph.threads import run_lists
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
        weight: float32[N] of each source; a source of weight 0 costs nothing.
        left, right: float32[M], divisors of rows and columns.
        shrinkage: added to the divisor, so that similarities that rest on little are small.
        neighbors: most neighbours of a target; a target is never its own neighbour.
    """
    back = graph.reverse
    scales = tuple(x.astype(np.float32) for x in (weight, left, right))
    arguments = back.adjacency, graph.adjacency, scales, np.float32(shrinkage)
    most = max(1, min(neighbors, len(back)))
    return SparseRows(*run_lists(_co_engagement, len(back), most, *arguments), columns=len(back))


def query_weight(graph: Graph, exponent: float, longest: int) -> FloatArray:
    """float32[N]: degree^-exponent of each source; 0 of one with more than ``longest`` edges."""
    weight = np.maximum(graph.degree, 1).astype(np.float32) ** -exponent
    weight[graph.degree > longest] = 0.0  # its pairs of edges grow with the square
    return weight


@numba.njit(cache=True, nogil=True)
def _co_engagement(block, blocks, by_item, by_user, scales, shrinkage, lists):  # type: ignore[no-untyped-def]
    user_indptr, users = by_item
    item_indptr, items = by_user
    weight, left, right = scales
    size, target, score = lists
    total = np.zeros(len(size), np.float32)
    nonzero = np.empty(len(size), np.int32)
    for item in range(block, len(size), blocks):
        count = 0
        for entry in range(user_indptr[item], user_indptr[item + 1]):
            user = users[entry]
            if weight[user] == 0.0:
                continue
            for other_entry in range(item_indptr[user], item_indptr[user + 1]):
                other = items[other_entry]
                if total[other] == 0.0:
                    nonzero[count] = other
                    count += 1
                total[other] += weight[user]
        total[item] = 0.0  # never its own neighbour: ``keep_best`` takes positive totals
        for position in range(count):
            other = nonzero[position]
            total[other] /= left[item] * right[other] + shrinkage
        size[item] = keep_best(total, nonzero, count, target.shape[1], target[item], score[item])
        for position in range(count):
            total[nonzero[position]] = 0.0


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
