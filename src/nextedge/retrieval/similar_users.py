"""Items of the users most similar to the query, or of its connections."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from nextedge.config import Settings
from nextedge.graph.propagate import SparseRows
from nextedge.graph.scope import Scope, graph_rows
from nextedge.graph.two_hop import top_bipartite
from nextedge.retrieval.source import Config, NoConfig, ProductSource
from nextedge.types import ENGAGES, Requests


class NeighborItems(ProductSource[Config]):
    """Items of a query's neighbors; ``rows`` gives the neighbors and their weights."""

    relations = (ENGAGES,)

    @property
    def matrix(self) -> SparseRows:
        graph = self.scope.graph
        ones = np.ones(graph.edges, np.float32)
        return SparseRows(graph.indptr, graph.indices, ones, graph.targets)


class SimilarUsersConfig(Settings):
    """Settings of the similar-users source."""

    neighbors: int = Field(200, ge=1)
    """Most similar users of each query."""
    hub_cap: int = Field(5000, ge=0)
    """Items with more edges than this do not make users similar; 0 = no limit."""


class SimilarUsers(NeighborItems[SimilarUsersConfig]):
    """Items of the users most similar to the query (user-based neighbors, Resnick et al. 1994).

    A user's weight is the Jaccard similarity of their items and the query's.
    """

    name = "similar_users"
    reason = "people_like_you"

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        return scope.snapshot.engagements.edges > 0

    def rows(self, requests: Requests) -> SparseRows:
        forward, backward = self.scope.snapshot.engagements, self.scope.snapshot.engaged_by
        users = top_bipartite(
            forward.adjacency,
            backward.adjacency,
            requests.query,
            n=self.config.neighbors,
            min_common=1,
            score="jaccard",
            hub_cap=self.config.hub_cap or None,  # a cap of 0 would skip every item
        )
        return SparseRows(users.indptr, users.candidate, users.jaccard, len(forward))


class ConnectionsItems(NeighborItems[NoConfig]):
    """Items of the query's connections, each connection weighted by 1 / ln(2 + degree)."""

    name = "connections_items"
    reason = "popular_with_connections"

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        return scope.snapshot.connections.edges > 0 and scope.snapshot.engagements.edges > 0

    def rows(self, requests: Requests) -> SparseRows:
        rows = graph_rows(self.scope.snapshot.connections, requests.query)
        degree = self.scope.snapshot.engagements.degree[rows.indices]
        # The 2 keeps the logarithm above 0 for a connection without items.
        values = (1.0 / np.log(2.0 + degree)).astype(np.float32)
        return SparseRows(rows.indptr, rows.indices, values, rows.columns)
