"""People who engage with the same items, each shared item weighted by its rarity."""

from __future__ import annotations

from nextedge.graph.scope import Scope
from nextedge.graph.two_hop import bipartite_pair_scores, top_bipartite
from nextedge.retrieval.source import Source
from nextedge.types import CONNECTS, Candidates, FloatArray, Requests


class SharedItems(Source):
    """People through the items that both engage with (the same places, films, groups)."""

    name = "shared_items"
    relations = (CONNECTS,)
    reason = "shared_items"
    defaults = {"min_common": 1, "score": "resource_allocation", "hub_cap": 5000}

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        return scope.snapshot.engagements.edges > 0

    def candidates(self, requests: Requests, limit: int) -> Candidates:
        forward, backward = self.scope.snapshot.engagements, self.scope.snapshot.engaged_by
        connections, options = self.scope.graph, self.options
        found = top_bipartite(
            forward.adjacency,
            backward.adjacency,
            requests.query,
            n=limit,
            min_common=int(options["min_common"]),
            score=str(options["score"]),
            hub_cap=int(options["hub_cap"]) or None,
            exclude=connections.adjacency,
        )
        return Candidates(
            found.indptr, found.candidate, {"score": getattr(found, str(options["score"]))}
        )

    def pair_scores(self, requests: Requests, candidates: Candidates) -> FloatArray:
        forward, backward = self.scope.snapshot.engagements, self.scope.snapshot.engaged_by
        found = bipartite_pair_scores(
            forward.adjacency,
            backward.adjacency,
            requests.query,
            candidates.indptr,
            candidates.candidate,
        )
        score: FloatArray = getattr(found, str(self.options["score"]))
        return score
