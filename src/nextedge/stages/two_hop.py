"""Friends of friends: candidates at distance two, by Adamic-Adar over common neighbours.

Adamic, Adar: "Friends and Neighbors on the Web", Social Networks 25(3), 2003.
"""

from __future__ import annotations

from nextedge.graph.two_hop import pair_scores, top_two_hop
from nextedge.stages.source import Scope, Source
from nextedge.types import CONNECTS, Candidates, FloatArray, Requests


class TwoHop(Source):
    """People who share connections with the query."""

    name = "two_hop"
    relations = (CONNECTS,)
    reason = "mutual_connections"
    defaults = {"min_common": 1, "score": "adamic_adar", "hub_cap": 0}

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        return scope.snapshot.connections.edges > 0

    def candidates(self, requests: Requests, limit: int) -> Candidates:
        graph, options = self.scope.graph, self.options
        found = top_two_hop(
            graph.indptr,
            graph.indices,
            requests.query,
            n=limit,
            min_common=int(options["min_common"]),
            score=str(options["score"]),
            hub_cap=int(options["hub_cap"]) or None,
        )
        return Candidates(
            found.indptr, found.candidate, {"score": getattr(found, str(options["score"]))}
        )

    def pair_scores(self, requests: Requests, candidates: Candidates) -> FloatArray:
        graph = self.scope.graph
        found = pair_scores(
            graph.indptr, graph.indices, requests.query, candidates.indptr, candidates.candidate
        )
        score: FloatArray = getattr(found, str(self.options["score"]))
        return score
