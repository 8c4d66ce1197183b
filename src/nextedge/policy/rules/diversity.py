"""Diversity: maximal marginal relevance over the best candidates of a list.

Carbonell, Goldstein: "The Use of MMR", SIGIR 1998. The likeness of two candidates is the cosine of
their neighbor sets, which every tenant has; very popular ones are compared on a sample of their
neighbors, the same for all. Cost: DEPTH² comparisons a query.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nextedge.config import PolicyConfig
from nextedge.graph.csr import Graph
from nextedge.policy.lists import Lists
from nextedge.policy.rule import NoConfig, Rule
from nextedge.ranking.pipeline import SCORE
from nextedge.types import Candidates, FloatArray, IndexArray, IntArray

DEPTH = 100
"""Candidates at the head of a list whose order may change."""
_NEIGHBORS = 2_000
_HASH = np.uint64(0x9E3779B97F4A7C15)


class Diversity(Rule[NoConfig]):
    """Order the head of every list so that candidates differ from those above them."""

    name = "diversity"
    order = 20

    @classmethod
    def active(cls, settings: PolicyConfig) -> bool:
        return settings.diversity > 0

    def apply(self, lists: Lists) -> Lists:
        snapshot, ranked = self.scope.snapshot, lists.ranked
        people = self.scope.relation.self_typed
        graph = snapshot.connections if people else snapshot.engaged_by
        order = np.arange(len(ranked))
        for rows in ranked.rows():
            head = order[rows][:DEPTH]
            alike = likeness(graph, ranked.candidate[head])
            chosen = diverse_order(ranked.columns[SCORE][head], alike, self.settings.diversity)
            order[rows.start : rows.start + len(head)] = head[chosen]
        columns = {name: values[order] for name, values in ranked.columns.items()}
        return replace(lists, ranked=Candidates(ranked.indptr, ranked.candidate[order], columns))


def likeness(graph: Graph, candidate: IndexArray) -> FloatArray:
    """float32[n, n]: cosine of the candidates' neighbour sets in ``graph``, 0 on the diagonal.

    >>> from nextedge.graph.csr import build_graph
    >>> graph = build_graph(np.int32([0, 0, 1, 2]), np.int32([0, 1, 0, 2]), 3, 3)
    >>> (likeness(graph, np.int32([0, 1, 2])) * 100).astype(int).tolist()[0]
    [0, 70, 0]
    """
    from scipy import sparse

    indptr, neighbors = graph.gather(candidate)
    row = np.repeat(np.arange(len(candidate)), np.diff(indptr))
    most = int(np.diff(indptr).max(initial=0))
    if most > _NEIGHBORS:  # the same share of all, by a hash of the neighbor
        share = np.uint64(int(_NEIGHBORS / most * (1 << 32)))
        sample = (neighbors.astype(np.uint64) * _HASH) >> np.uint64(32) < share
        row, neighbors = row[sample], neighbors[sample]
    size = np.bincount(row, minlength=len(candidate))
    weight = (1.0 / np.sqrt(np.maximum(size, 1)))[row].astype(np.float32)
    matrix = sparse.csr_matrix((weight, (row, neighbors)), (len(candidate), graph.targets))
    alike = (matrix @ matrix.T).toarray().astype(np.float32)
    np.fill_diagonal(alike, 0.0)
    return alike


def diverse_order(score: FloatArray, alike: FloatArray, diversity: float) -> IntArray:
    """int64[n]: an order that starts with the best and then balances score and likeness.

    ``(1 - diversity) · score / best - diversity · likeness to the most alike already taken``.

    Args:
        score: float32[n], not negative, best first.
        alike: float32[n, n] from 0 to 1.
        diversity: 0 keeps the order, towards 1 only difference counts.

    >>> alike = np.float32([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    >>> diverse_order(np.float32([1.0, 0.9, 0.5]), alike, 0.5).tolist()
    [0, 2, 1]
    """
    # All scores of a list may be 0.
    relevance = (1.0 - diversity) * score / max(float(score.max(initial=0.0)), 1e-12)
    nearest = np.zeros(len(score), np.float32)
    left = np.ones(len(score), bool)
    order = np.empty(len(score), np.int64)
    for rank in range(len(score)):
        value = np.where(left, relevance - diversity * nearest, -np.inf)
        taken = int(np.argmax(value))
        order[rank] = taken
        left[taken] = False
        np.maximum(nearest, alike[taken], out=nearest)
    return order
