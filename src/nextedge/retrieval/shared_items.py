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
    """The walk skips items with more edges than this; 0 = no limit."""


class SharedItems(Source[SharedItemsConfig]):
    """People who engage with the same items as the query (places, films, groups)."""

    name = "shared_items"
    relations = (CONNECTS,)
    reason = "shared_items"

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        return scope.snapshot.engagements.edges > 0

    def candidates(self, requests: Requests, limit: int) -> Candidates:
        snapshot, config = self.scope.snapshot, self.config
        hops = top_bipartite(
            snapshot.engagements.adjacency,
            snapshot.engaged_by.adjacency,
            requests.query,
            n=limit,
            min_common=config.min_common,
            score=config.score,
            hub_cap=config.hub_cap or None,  # a cap of 0 would skip every item
            exclude=self.scope.graph.adjacency,
        )
        return Candidates(hops.indptr, hops.candidate, {"score": getattr(hops, config.score)})

    def pair_scores(self, requests: Requests, candidates: Candidates) -> FloatArray:
        forward = self.scope.snapshot.engagements.adjacency
        backward = self.scope.snapshot.engaged_by.adjacency
        pairs = candidates.indptr, candidates.candidate
        hops = bipartite_pair_scores(forward, backward, requests.query, *pairs)
        score: FloatArray = getattr(hops, self.config.score)
        return score
