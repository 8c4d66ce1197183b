"""People who engage with the same items, each shared item weighted by its rarity."""

from __future__ import annotations

from pydantic import Field

from nextedge.config import Settings
from nextedge.graph.scope import Scope
from nextedge.graph.two_hop import Score, bipartite_pair_scores, top_bipartite
from nextedge.retrieval.source import Source
from nextedge.types import CONNECTS, Candidates, FloatArray, Requests


class SharedItemsConfig(Settings):
    """Settings of the shared-items source."""

    min_common: int = Field(1, ge=0)
    """Fewest common items of a candidate."""
    score: Score = "resource_allocation"
    """Neighborhood score that orders the candidates."""
    hub_cap: int = Field(5000, ge=0)
    """Items with more edges than this are not walked through; 0 = all are."""


class SharedItems(Source[SharedItemsConfig]):
    """People through the items that both engage with (the same places, films, groups)."""

    name = "shared_items"
    relations = (CONNECTS,)
    reason = "shared_items"

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        return scope.snapshot.engagements.edges > 0

    def candidates(self, requests: Requests, limit: int) -> Candidates:
        forward, backward = self.scope.snapshot.engagements, self.scope.snapshot.engaged_by
        connections, config = self.scope.graph, self.config
        found = top_bipartite(
            forward.adjacency,
            backward.adjacency,
            requests.query,
            n=limit,
            min_common=config.min_common,
            score=config.score,
            hub_cap=config.hub_cap or None,
            exclude=connections.adjacency,
        )
        return Candidates(found.indptr, found.candidate, {"score": getattr(found, config.score)})

    def pair_scores(self, requests: Requests, candidates: Candidates) -> FloatArray:
        forward, backward = self.scope.snapshot.engagements, self.scope.snapshot.engaged_by
        found = bipartite_pair_scores(
            forward.adjacency,
            backward.adjacency,
            requests.query,
            candidates.indptr,
            candidates.candidate,
        )
        score: FloatArray = getattr(found, self.config.score)
        return score
