"""Relevance traded for difference: maximal marginal relevance over the best of a list.

Carbonell, Goldstein: "The Use of MMR", SIGIR 1998. Two candidates are alike by the cosine of who
has edges with them, which every tenant has; very popular ones are compared on a sample of their
neighbours, the same for all. Cost: DEPTH² comparisons a query.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from nextedge.graph.csr import Graph
from nextedge.types import FloatArray, IndexArray, IntArray

DEPTH = 100
"""Candidates at the head of a list among whom the order may change."""
_NEIGHBORS = 2_000
_HASH = np.uint64(0x9E3779B97F4A7C15)


def likeness(graph: Graph, candidate: IndexArray) -> FloatArray:
    """float32[n, n]: cosine of the candidates' neighbour sets in ``graph``, 0 on the diagonal.

    >>> from nextedge.graph.csr import build_graph
    >>> graph = build_graph(np.int32([0, 0, 1, 2]), np.int32([0, 1, 0, 2]), 3, 3)
    >>> (likeness(graph, np.int32([0, 1, 2])) * 100).astype(int).tolist()[0]
    [0, 70, 0]
    """
    indptr, neighbors = graph.gather(candidate)
    row = np.repeat(np.arange(len(candidate)), np.diff(indptr))
    most = int(np.diff(indptr).max(initial=0))
    if most > _NEIGHBORS:  # the same share of all, by a hash of the neighbour
        share = np.uint64(int(_NEIGHBORS / most * (1 << 32)))
        kept = (neighbors.astype(np.uint64) * _HASH) >> np.uint64(32) < share
        row, neighbors = row[kept], neighbors[kept]
    size = np.bincount(row, minlength=len(candidate))
    weight = (1.0 / np.sqrt(np.maximum(size, 1)))[row].astype(np.float32)
    matrix = sparse.csr_matrix((weight, (row, neighbors)), (len(candidate), graph.targets))
    alike = (matrix @ matrix.T).toarray().astype(np.float32)
    np.fill_diagonal(alike, 0.0)
    return alike


def diverse_order(score: FloatArray, alike: FloatArray, diversity: float) -> IntArray:
    """int64[n]: an order that starts with the best and then weighs score against likeness.

    ``(1 - diversity) · score / best - diversity · likeness to the likest already taken``.

    Args:
        score: float32[n], not negative, best first.
        alike: float32[n, n] from 0 to 1.
        diversity: 0 keeps the order, towards 1 only difference counts.

    >>> alike = np.float32([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    >>> diverse_order(np.float32([1.0, 0.9, 0.5]), alike, 0.5).tolist()
    [0, 2, 1]
    """
    relevance = (1.0 - diversity) * score / max(float(score.max(initial=0.0)), 1e-12)
    nearest = np.zeros(len(score), np.float32)
    left = np.ones(len(score), bool)
    order = np.empty(len(score), np.int64)
    for place in range(len(score)):
        value = np.where(left, relevance - diversity * nearest, -np.inf)
        taken = int(np.argmax(value))
        order[place] = taken
        left[taken] = False
        np.maximum(nearest, alike[taken], out=nearest)
    return order
