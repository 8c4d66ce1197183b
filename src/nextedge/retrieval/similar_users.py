"""Items through people: items of the query's most similar users, or of its connections."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from pydantic import Field

from nextedge.config import Settings
from nextedge.graph.propagate import SparseRows, pair_products, top_products
from nextedge.graph.scope import Scope, graph_rows
from nextedge.graph.two_hop import top_bipartite
from nextedge.retrieval.source import Config, NoConfig, Source
from nextedge.types import ENGAGES, Candidates, FloatArray, Requests


class NeighborItems(Source[Config]):
    """Items of a query's neighbors, each neighbor with a weight."""

    relations = (ENGAGES,)

    @abstractmethod
    def neighbors(self, requests: Requests) -> SparseRows:
        """The neighbors of each query among the users, and their weights."""

    def _items(self) -> SparseRows:
        graph = self.scope.graph
        return SparseRows(
            graph.indptr, graph.indices, np.ones(graph.edges, np.float32), graph.targets
        )

    def candidates(self, requests: Requests, limit: int) -> Candidates:
        excluded = self.scope.excluded(requests)
        return top_products(self.neighbors(requests), self._items(), limit, excluded)

    def pair_scores(self, requests: Requests, candidates: Candidates) -> FloatArray:
        rows = self.neighbors(requests)
        return pair_products(rows, self._items(), candidates.indptr, candidates.candidate)


class SimilarUsersConfig(Settings):
    """Settings of the similar-users source."""

    neighbors: int = Field(200, ge=1)
    """Users that are most similar to the query."""
    hub_cap: int = Field(5000, ge=0)
    """Items with more edges than this do not make users similar; 0 = all do."""


class SimilarUsers(NeighborItems[SimilarUsersConfig]):
    """Items of the users who share most rare items with the query (user-based neighbours).

    Resnick et al. 1994 with Adamic-Adar item weights over the two-hop kernel, and cosine
    normalisation by the neighbour's degree.
    """

    name = "similar_users"
    reason = "people_like_you"

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        return scope.snapshot.engagements.edges > 0

    def neighbors(self, requests: Requests) -> SparseRows:
        forward, backward = self.scope.snapshot.engagements, self.scope.snapshot.engaged_by
        found = top_bipartite(
            forward.adjacency,
            backward.adjacency,
            requests.query,
            n=self.config.neighbors,
            min_common=1,
            score="jaccard",
            hub_cap=self.config.hub_cap or None,
        )
        return SparseRows(found.indptr, found.candidate, found.jaccard, len(forward))


class ConnectionsItems(NeighborItems[NoConfig]):
    """Items that the query's connections engage with, each connection by 1 / ln(1 + degree)."""

    name = "connections_items"
    reason = "popular_with_connections"

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        return scope.snapshot.connections.edges > 0 and scope.snapshot.engagements.edges > 0

    def neighbors(self, requests: Requests) -> SparseRows:
        rows = graph_rows(self.scope.snapshot.connections, requests.query)
        degree = self.scope.snapshot.engagements.degree[rows.indices]
        values = (1.0 / np.log(2.0 + degree)).astype(np.float32)
        return SparseRows(rows.indptr, rows.indices, values, rows.columns)
