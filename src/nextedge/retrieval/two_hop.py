"""Friends of friends: candidates at distance two, by Adamic-Adar over common neighbours.

Adamic, Adar: "Friends and Neighbors on the Web", Social Networks 25(3), 2003.
"""

from __future__ import annotations

import numpy as np

from nextedge.graph.scope import Scope
from nextedge.graph.two_hop import pair_scores, top_two_hop
from nextedge.graph.wedge_join import WedgeJoin
from nextedge.retrieval.source import Source
from nextedge.types import CONNECTS, Candidates, FloatArray, Requests

FOUND = "found_"
"""Prefix of the arrays that hold what was found before: ``query`` ascending, and ``indptr``,
``candidate`` and ``score`` of their candidates, best first."""


class TwoHop(Source):
    """People who share connections with the query."""

    name = "two_hop"
    relations = (CONNECTS,)
    reason = "mutual_connections"
    defaults = {"min_common": 1, "score": "adamic_adar", "hub_cap": 0}

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        return scope.snapshot.connections.edges > 0

    def join(self, limit: int) -> WedgeJoin:
        """What it asks of a graph, as an engine joins it."""
        options = self.options
        return WedgeJoin(
            limit,
            int(options["min_common"]),
            str(options["score"]),
            int(options["hub_cap"]) or None,
        )

    def candidates(self, requests: Requests, limit: int) -> Candidates:
        if f"{FOUND}query" in self.arrays:
            return self._found(requests).head(limit)
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

    def _found(self, requests: Requests) -> Candidates:
        """What was found before for queries that are all among those."""
        query, indptr, candidate, score = (
            self.arrays[f"{FOUND}{name}"] for name in ("query", "indptr", "candidate", "score")
        )
        row = np.searchsorted(query, requests.query)
        size = indptr[row + 1] - indptr[row]
        starts = np.concatenate(([0], np.cumsum(size)))
        place = np.arange(starts[-1]) + np.repeat(indptr[row] - starts[:-1], size)
        return Candidates(starts, candidate[place], {"score": score[place]})

    def pair_scores(self, requests: Requests, candidates: Candidates) -> FloatArray:
        graph = self.scope.graph
        found = pair_scores(
            graph.indptr, graph.indices, requests.query, candidates.indptr, candidates.candidate
        )
        score: FloatArray = getattr(found, str(self.options["score"]))
        return score
