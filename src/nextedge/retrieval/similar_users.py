"""Items through people: what the query's most similar users, or connections, engage with."""

from __future__ import annotations

import numpy as np

from nextedge.graph.propagate import SparseRows, pair_products, top_products
from nextedge.graph.scope import Scope, graph_rows
from nextedge.graph.two_hop import top_bipartite
from nextedge.retrieval.source import Source
from nextedge.types import ENGAGES, Candidates, FloatArray, Requests


class SimilarUsers(Source):
    """Items of the users who share most rare items with the query (user-based neighbours).

    Resnick et al. 1994 with Adamic-Adar item weights over the two-hop kernel, and cosine
    normalisation by the neighbour's degree.
    """

    name = "similar_users"
    relations = (ENGAGES,)
    reason = "people_like_you"
    defaults = {"neighbours": 200, "hub_cap": 5000}

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        return scope.snapshot.engagements.edges > 0

    def _neighbours(self, requests: Requests) -> SparseRows:
        forward, backward = self.scope.snapshot.engagements, self.scope.snapshot.engaged_by
        found = top_bipartite(
            forward.adjacency,
            backward.adjacency,
            requests.query,
            n=int(self.options["neighbours"]),
            min_common=1,
            score="jaccard",
            hub_cap=int(self.options["hub_cap"]) or None,
        )
        return SparseRows(found.indptr, found.candidate, found.jaccard, len(forward))

    def _items(self) -> SparseRows:
        graph = self.scope.graph
        return SparseRows(
            graph.indptr, graph.indices, np.ones(graph.edges, np.float32), graph.targets
        )

    def candidates(self, requests: Requests, limit: int) -> Candidates:
        excluded = self.scope.excluded(requests)
        return top_products(self._neighbours(requests), self._items(), limit, excluded)

    def pair_scores(self, requests: Requests, candidates: Candidates) -> FloatArray:
        rows = self._neighbours(requests)
        return pair_products(rows, self._items(), candidates.indptr, candidates.candidate)


class ConnectionsItems(SimilarUsers):
    """Items that the query's connections engage with, each connection by 1 / ln(1 + degree)."""

    name = "connections_items"
    reason = "popular_with_connections"
    defaults = {}

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        return scope.snapshot.connections.edges > 0 and scope.snapshot.engagements.edges > 0

    def _neighbours(self, requests: Requests) -> SparseRows:
        rows = graph_rows(self.scope.snapshot.connections, requests.query)
        degree = self.scope.snapshot.engagements.degree[rows.indices]
        values = (1.0 / np.log(2.0 + degree)).astype(np.float32)
        return SparseRows(rows.indptr, rows.indices, values, rows.columns)
